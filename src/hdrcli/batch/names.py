"""Names of outputs from a template: ``{first}-{last}_hdr``."""

import re
import string
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from hdrcli.batch.shots import Shot
from hdrcli.errors import InputError

DEFAULT = "{first}-{last}_hdr"
FIELDS = {
    "first": "name of the first photograph, without its suffix",
    "last": "that of the last; only its number where the names differ in nothing else",
    "index": "number of the set, 1, 2, ...; {index:03d} writes 001",
    "date": "day of the first photograph, 2025-06-21",
    "time": "its time, 194000",
    "parent": "name of the folder",
    "camera": "model of the camera",
    "count": "how many photographs the set has",
}
UNKNOWN = "unknown"


def check(template: str) -> None:
    """Raise InputError for a template that names what does not exist, before any work."""
    name(template, [], 1)


def name(template: str, shots: Sequence[Shot], index: int) -> str:
    """A relative path without a suffix, with / for folders. No shots: sample values."""
    try:
        used = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
        strange = [field for field in used if field not in FIELDS]
        if strange:
            raise InputError(
                f"--name {template}: there is no {{{strange[0]}}}",
                hint="known are " + " ".join(f"{{{field}}}" for field in FIELDS),
            )
        text = template.format_map(values(shots, index))
    except ValueError as err:
        raise InputError(f"--name {template}: {err}", hint=f"such as {DEFAULT}") from err
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InputError(
            f"--name {template}: {text or 'nothing'} is not a name inside the output folder",
            hint=f"such as {DEFAULT} or {{date}}/{{first}}",
        )
    return str(path)


def values(shots: Sequence[Shot], index: int) -> dict[str, Any]:
    """What each field stands for."""
    if not shots:
        return dict.fromkeys(FIELDS, "x") | {"index": index, "count": 0}
    first, last = shots[0], shots[-1]
    day, _, time = (first.metadata.taken or "").partition(" ")
    return {
        "first": first.path.stem,
        "last": last_of(first, last),
        "index": index,
        "date": plain(day.replace(":", "-")),
        "time": plain(time.replace(":", "")),
        "parent": plain(first.path.absolute().parent.name),
        "camera": plain(first.metadata.model or ""),
        "count": len(shots),
    }


def last_of(first: Shot, last: Shot) -> str:
    """``0003`` of IMG_0003 behind IMG_0001, the whole stem behind another name."""
    stem = last.path.stem
    if first.prefix == last.prefix and last.number is not None and stem != last.prefix:
        return stem[len(last.prefix) :]
    return stem


def plain(text: str) -> str:
    """Text that any file system takes as a name."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("._") or UNKNOWN
