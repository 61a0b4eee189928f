"""Options that more than one command takes, and how their text is read."""

import codecs
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

EXPOSURE, MOTION, MERGE, TONE, OUTPUT, COMPUTE, TALK = (
    "Exposure",
    "Alignment and motion",
    "Merging",
    "Tone mapping",
    "Output",
    "Computing",
    "Talking",
)


# ---- how text becomes values ----------------------------------------------------------------


class Numbers(tuple[float, ...]):
    """A list of numbers. Typer must not take it for a tuple of options."""

    __slots__ = ()


def parse_evs(text: str) -> Numbers:
    """``-2,0,+2``: stops, + is the brighter photograph."""
    try:
        return Numbers(_finite(Fraction(item.strip())) for item in text.split(","))
    except (ValueError, ZeroDivisionError) as err:
        raise typer.BadParameter(f"{text!r} is not a list of stops such as -2,0,+2") from err


def parse_times(text: str) -> Numbers:
    """``1/60,1/15,0.25``: seconds, all above zero."""
    try:
        times = Numbers(_finite(Fraction(item.strip().rstrip('s"'))) for item in text.split(","))
    except (ValueError, ZeroDivisionError) as err:
        raise typer.BadParameter(
            f"{text!r} is not a list of seconds such as 1/60,1/15,0.25"
        ) from err
    if min(times) <= 0:
        raise typer.BadParameter("an exposure time is longer than zero")
    return times


class Parameter(NamedTuple):
    """One ``--tmo-param``."""

    name: str
    value: float


def parse_parameter(text: str) -> Parameter:
    """``key=0.18``."""
    key, equals, value = text.partition("=")
    try:
        return Parameter(key.strip(), _finite(Fraction(value.strip())))
    except (ValueError, ZeroDivisionError) as err:
        reason = "the value is not a number" if equals else "there is no ="
        raise typer.BadParameter(f"{text!r} is not NAME=NUMBER: {reason}") from err


def parse_size(text: str) -> tuple[int, int]:
    """``1200x800``: width and height in pixels, each from 64 to 16384."""
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text.strip())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(64 <= side <= 16384 for side in size):
        raise typer.BadParameter(
            f"{text!r} is not a size from 64x64 to 16384x16384", param_hint="--size"
        )
    return size


def _finite(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError as err:
        raise ValueError(f"{number} is too large") from err


def known(table: Callable[[], Sequence[str]]) -> Callable[[str], str]:
    """A callback that accepts the names of a table, which is imported only when one is given."""

    def check(name: str) -> str:
        if name != "auto" and name not in table():
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(table())}")
        return name

    return check


def _backends() -> list[str]:
    from hdrcli.backends import BACKENDS

    return list(BACKENDS)


def _operators() -> list[str]:
    from hdrcli.tonemap import OPERATORS

    return list(OPERATORS)


def listing(show: Callable[[], None], what: str, panel: str | None = None) -> Any:  # noqa: ANN401
    """``--list``: print a table and end, before anything else is asked for."""

    def end(asked: bool) -> None:  # noqa: FBT001  as Typer calls it
        if asked:
            show()
            raise typer.Exit

    return typer.Option("--list", callback=end, is_eager=True, rich_help_panel=panel, help=what)


# ---- file lists ------------------------------------------------------------------------------


def expand(files: Sequence[str], files_from: str | None = None) -> list[Path]:
    """The files that were meant: ``@list.txt`` and ``-`` (stdin) stand for the names they hold.

    Lists are separated by NUL where there is one, else by line. ``./@name`` is a file of that
    name.
    """
    lists = [] if files_from is None else [files_from if files_from == "-" else f"@{files_from}"]
    found = [Path(name) for item in [*files, *lists] for name in _names(item)]
    if not found:
        raise typer.BadParameter("no files given", param_hint="FILES")
    return found


def _names(item: str) -> Iterator[str]:
    if item != "-" and not item.startswith("@"):
        yield item
        return
    data = sys.stdin.buffer.read() if item == "-" else _list_bytes(Path(item[1:]))
    data = data.removeprefix(codecs.BOM_UTF8)  # of Windows' editors
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    yield from (name.decode(errors="surrogateescape") for name in names if name.strip())


def _list_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise typer.BadParameter(f"{path}: {err.strerror}", param_hint="FILES") from err


# ---- options ---------------------------------------------------------------------------------


Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILES…",
        help="Photographs of one scene. @list.txt and - (stdin) stand for lists of names.",
        show_default=False,
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        "--files-from",
        metavar="LIST",
        help="Read names from a file, or - for stdin; by line or NUL.",
    ),
]
Evs = Annotated[
    Numbers | None,
    typer.Option(
        "--ev",
        rich_help_panel=EXPOSURE,
        metavar="LIST",
        parser=parse_evs,
        help="Stops of each file in the order given, such as -2,0,+2; + is brighter.",
    ),
]
ExposureTimes = Annotated[
    Numbers | None,
    typer.Option(
        "--exposure-times",
        rich_help_panel=EXPOSURE,
        metavar="LIST",
        parser=parse_times,
        help="Seconds of each file in the order given, such as 1/60,1/15,0.25.",
    ),
]
Exposures = Annotated[
    Literal["auto", "exif", "estimate"],
    typer.Option(
        "--exposures",
        rich_help_panel=EXPOSURE,
        help="Where exposures come from: sidecar, EXIF, then pixels; or one of these alone.",
    ),
]
Reference = Annotated[
    str,
    typer.Option(
        "--reference",
        rich_help_panel=MOTION,
        metavar="auto|N|FILE",
        help="Frame whose moment and viewpoint the result shows; 1 is the darkest.",
    ),
]
Align = Annotated[
    Literal["auto", "none", "mtb", "homography"],
    typer.Option(
        "--align", rich_help_panel=MOTION, help="How frames are brought to the reference."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=OUTPUT, help="Replace existing files.")
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        rich_help_panel=MERGE,
        help="How to merge; see hdrcli backends.",
        callback=known(_backends),
        autocompletion=_backends,
    ),
]
Tmo = Annotated[
    str,
    typer.Option(
        "--tmo",
        rich_help_panel=TONE,
        help="Tone mapping operator; see hdrcli tonemap --list.",
        callback=known(_operators),
        autocompletion=_operators,
    ),
]
TmoParam = Annotated[
    list[Parameter] | None,
    typer.Option(
        "--tmo-param",
        rich_help_panel=TONE,
        metavar="NAME=NUMBER",
        help="A parameter of the operator; repeat for more.",
        parser=parse_parameter,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", rich_help_panel=COMPUTE, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps."
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"],
    typer.Option(
        "--precision", rich_help_panel=COMPUTE, help="Networks: number format of the computation."
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        "--tile",
        rich_help_panel=COMPUTE,
        min=0,
        metavar="PIXELS",
        help="Networks: side of a tile; 0 is the whole picture, not given fits the memory.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", rich_help_panel=COMPUTE, min=1, help="Threads; all cores if not given."
    ),
]
Json = Annotated[bool, typer.Option("--json", rich_help_panel=TALK, help="Print JSON on stdout.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        rich_help_panel=TALK,
        help="Say more; -vv says all.",
        count=True,
        metavar="",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=TALK, help="Only errors.")]
