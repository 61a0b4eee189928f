"""Exposures written beside the pictures by hand or by another tool.

| file | form |
|---|---|
| ev.txt, exposures.txt | lines of numbers in file order: 1/x seconds or seconds, stops, or both; |
| | or "name number" per picture |
| *.hdrgen | "path 1/t N ISO 0" per picture (pfstools, hdrgen) |
| image_list.txt, list.txt | "name exposure # comment" per picture, settings as KEY=VALUE |

A number may mean several things; every reading that makes sense is offered, and the pixels choose.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".exr", ".hdr", ".avif", ".heic")
)
MAX_BYTES = 1 << 20
LEAST = 1e-12  # 40 stops below one second
LISTED = ("image_list.txt", "list.txt")
NUMBERED = ("ev.txt", "exposures.txt")

Table = list[tuple[str, float]]  # file name, exposure


@dataclass(frozen=True)
class Sidecar:
    """One file's exposures for the given pictures: every reading of it, likeliest first.

    A reading holds one exposure per picture, doubling for each stop; only ratios matter.
    """

    path: Path
    readings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Misfit:
    """A sidecar that does not speak of the given pictures, and why."""

    path: Path
    why: str


def find(pictures: Sequence[Path]) -> list[Sidecar | Misfit]:
    """Every sidecar in the pictures' folder, in the order of their kind.

    Pictures from several folders have none.
    """
    pictures = [picture.absolute() for picture in pictures]
    folders = {picture.parent for picture in pictures}
    if len(folders) != 1:
        return []
    folder = folders.pop()
    present = [(path, parse) for path, parse in _candidates(folder) if path.is_file()]
    return [_read(path, parse, pictures) for path, parse in present]


Parser = Callable[[str, Sequence[Path]], "tuple[tuple[float, ...], ...]"]


def _candidates(folder: Path) -> list[tuple[Path, Parser]]:
    lists = [(folder / name, parse_list) for name in LISTED]
    numbers = [(folder / name, parse_numbers) for name in NUMBERED]
    hdrgen = [(path, parse_hdrgen) for path in sorted(folder.glob("*.hdrgen"))]
    return [*numbers, *hdrgen, *lists]


def _read(path: Path, parse: Parser, pictures: Sequence[Path]) -> Sidecar | Misfit:
    try:
        if path.stat().st_size > MAX_BYTES:
            return Misfit(path, "it is too large")
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        return Sidecar(path, _possible(parse(text, pictures)))
    except (ZeroDivisionError, OverflowError):
        return Misfit(path, "its numbers are no exposures")
    except OSError as error:
        return Misfit(path, error.strerror or "it cannot be read")
    except ValueError as error:
        return Misfit(path, str(error))


def _possible(readings: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """The readings whose exposures a camera could have made."""
    kept = tuple(r for r in readings if min(r) > LEAST and max(r) < 1 / LEAST)
    if not kept:
        raise ValueError("its numbers are no exposures")
    return kept


def number(word: str) -> float:
    """A number or a fraction: "0.5", "1/60", "+2". ValueError for anything else."""
    over, _, under = word.partition("/")
    try:
        value = float(over) / float(under) if under and float(under) else float(word)
    except ValueError:
        raise ValueError(f"{word} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{word} is not a number")
    return value


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts 2.tif before 10.tif."""
    words = re.split(r"(\d+)", name.lower())
    return [(0, int(w), "") if w.isdecimal() else (1, 0, w) for w in words]


def parse_numbers(text: str, pictures: Sequence[Path]) -> tuple[tuple[float, ...], ...]:
    """One exposure per picture of the folder, or of those given, in the order of their names.

    Or lines of a name, which may have spaces, and its exposure.
    """
    lines = [line.split("#")[0].replace(",", " ").replace(";", " ") for line in text.splitlines()]
    pairs = [line.rsplit(maxsplit=1) for line in lines if line.strip()]
    if pairs and all(len(pair) == 2 and Path(pair[0]).suffix.lower() in SUFFIXES for pair in pairs):
        table = [(name.strip(), number(value)) for name, value in pairs]
        return tuple(map(tuple, _meanings(_named(table, pictures))))
    rows = [[number(word) for word in line.split()] for line in lines if line.strip()]
    if not rows:
        raise ValueError("it is empty")
    if all(len(row) == 1 for row in rows):
        rows = [[row[0] for row in rows]]
    readings = [reading for row in rows for reading in _meanings(row)]
    if len(rows) > 1:  # two lines of one set tell the same in two units: keep what they share
        shared = [r for r in readings if sum(_alike(r, other) for other in readings) > 1]
        readings = shared or readings
    return tuple(_pick(reading, pictures) for reading in readings)


def _meanings(row: Sequence[float]) -> list[list[float]]:
    """Exposures that a row of numbers may stand for."""
    stops = [2.0**value for value in row] if max(map(abs, row)) <= 40 else []
    found = [stops] if stops else []
    if min(row) > 0:
        inverse = [1 / value for value in row]
        found = [inverse, list(row), *found] if max(row) > 2 else [list(row), inverse, *found]
    if not found:
        raise ValueError("its numbers are neither seconds nor stops")
    return found


def _alike(a: Sequence[float], b: Sequence[float]) -> bool:
    if len(a) != len(b):
        return False
    steps = [math.log2(x / y) for x, y in zip(a, b, strict=True)]
    return max(steps) - min(steps) < 0.2


def _pick(values: Sequence[float], pictures: Sequence[Path]) -> tuple[float, ...]:
    """The values of the given pictures, from values in the order of the folder's names."""
    folder = [p.name for p in pictures[0].parent.iterdir() if p.suffix.lower() in SUFFIXES]
    given = [picture.name for picture in pictures]
    for names in (sorted(folder, key=natural), sorted(given, key=natural)):
        if len(names) == len(values) and set(given) <= set(names):
            return tuple(values[names.index(name)] for name in given)
    raise ValueError(
        f"it has {len(values)} values; {len(given)} pictures are given, "
        f"{len(folder)} are in the folder"
    )


def parse_list(text: str, pictures: Sequence[Path]) -> tuple[tuple[float, ...], ...]:
    """Lines of a name, which may have spaces, and its exposure, or its inverse."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    rows = [line.rsplit(maxsplit=1) for line in lines if line and not re.match(r"\w+\s*=", line)]
    table = [(row[0], number(row[1])) for row in rows if len(row) == 2]
    values = _positive(_named(table, pictures))
    return values, tuple(1 / value for value in values)


def parse_hdrgen(text: str, pictures: Sequence[Path]) -> tuple[tuple[float, ...], ...]:
    """Lines of "path 1/t N ISO 0"."""
    table = []
    for line in text.splitlines():
        words = line.split("#")[0].rsplit(maxsplit=4)
        if len(words) == 5:
            inverse, aperture, iso = (number(word) for word in words[1:4])
            table.append((words[0], (iso or 100) / 100 / inverse / (aperture or 1) ** 2))
    return (_positive(_named(table, pictures)),)


def _named(table: Table, pictures: Sequence[Path]) -> tuple[float, ...]:
    """The exposure of each picture by its name."""
    known = {Path(name.replace("\\", "/")).name.lower(): value for name, value in table}
    missing = [picture.name for picture in pictures if picture.name.lower() not in known]
    if missing:
        raise ValueError(f"it does not name {', '.join(missing)}")
    return tuple(known[picture.name.lower()] for picture in pictures)


def _positive(values: tuple[float, ...]) -> tuple[float, ...]:
    if min(values) <= 0:
        raise ValueError("an exposure is above 0")
    return values
