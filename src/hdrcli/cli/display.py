"""What the terminal shows. Data goes to stdout; warnings, errors and progress to stderr.

Colour appears on a terminal only, and not under NO_COLOR; both are Rich's own rules.
"""

import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from hdrcli.errors import SetupError

Progress = Callable[[str, float], None]  # the stage, and how much of it is done, in [0, 1]

READER_GONE = 141  # 128 + SIGPIPE, as other programs end in `hdrcli … | head`
_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
_WORDS = {logging.WARNING: ("warning", "yellow"), logging.ERROR: ("error", "red")}


def start() -> None:
    """Show the library's warnings on stderr, once each, until ``talk`` says otherwise."""
    _stand_in()
    _take_any_name()
    logger = logging.getLogger("hdrcli")
    logger.handlers = [h for h in logger.handlers if not isinstance(h, _Handler)] + [_Handler()]
    talk()


def _stand_in() -> None:
    """Open what is closed of stdin, stdout and stderr, as cron and services may have it.

    Python has None for them, and the first files that are opened would get their numbers.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  until the end


def _take_any_name() -> None:
    """Let stdout take names that are no text, byte for byte, and signs that it does not have."""
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        utf8 = stdout.encoding.lower().replace("-", "") == "utf8"
        stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def talk(*, verbose: int = 0, quiet: bool = False) -> None:
    """Choose how much is said: errors, and warnings, and notes, and details."""
    level = -1 if quiet else min(verbose, 2)
    logging.getLogger("hdrcli").setLevel(_LEVELS[level])


class _Handler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.said:
            self.said.add(text)
            word, colour = _WORDS.get(record.levelno, ("note", "cyan"))
            _say(word, colour, text)


def error(message: str, hint: str | None) -> None:
    """One line for what went wrong, one for the cure."""
    _say("error", "red", message)
    if hint is not None:
        _say("hint", "cyan", hint)


def warn(text: str) -> None:
    """A line on stderr that -q takes away."""
    logging.getLogger("hdrcli").warning("%s", text)


def note(text: str) -> None:
    """A line on stderr for who asked for more with -v."""
    logging.getLogger("hdrcli").info("%s", text)


def facts(outcome: Mapping[str, Any]) -> None:
    """What was done, a line per fact, on stderr for who asked for more with -v."""
    for key, value in outcome.items():
        if key not in ("outputs", "warnings") and value is not None:
            note(f"{key.replace('_', ' ')}: {short(value)}")


def short(value: object) -> str:
    """A value as a person reads it: four digits, lists with commas."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {short(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(short, value))
    return str(value)


def _say(word: str, colour: str, text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    # Text, not markup: photographs are called img[1].jpg
    stderr.print(Text.assemble((word, colour), ": ", text))


def out(text: str) -> None:
    """A line of data on stdout."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise typer.Exit(reader_gone()) from None
    except OSError as err:  # a full disk
        _drop_stdout()
        raise SetupError(f"stdout cannot be written to ({err.strerror})") from err


def reader_gone() -> int:
    """Keep Python from complaining about the closed pipe at its end. Returns the exit code."""
    _drop_stdout()
    return READER_GONE


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def paths(written: Iterable[Path], *, quiet: bool = False) -> None:
    """The files that were made, one per line."""
    if not quiet:
        for path in written:
            out(str(path))


def as_json(value: object) -> None:
    """One JSON document; what JSON does not know (paths, NumPy numbers) becomes plain."""
    out(_json(value, indent=2))


def as_json_line(value: object) -> None:
    """One JSON document on one line, for a stream of them."""
    out(_json(value, indent=None))


def _json(value: object, indent: int | None) -> str:
    """The letters themselves; escapes where stdout does not have them, or a name is no text."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, default=_plain)
    return text


def _plain(value: object) -> object:
    to_list = getattr(value, "tolist", None)
    return str(value) if to_list is None else to_list()


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns on stdout, never cut or folded.

    A heading that starts with ``>`` is set to the right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    page = io.StringIO()
    console = Console(file=page, force_terminal=sys.stdout.isatty(), highlight=False, width=10_000)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        right = heading.startswith(">")
        grid.add_column(heading.removeprefix(">"), justify="right" if right else "left")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)
    out("\n".join(line.rstrip() for line in page.getvalue().rstrip("\n").split("\n")))


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress | None]:
    """A bar on stderr, or None where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda stage, done: bars.update(task, description=stage, completed=done)
