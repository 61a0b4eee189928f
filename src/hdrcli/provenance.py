"""What an HDR file says of its origin: EXR attributes, and the description of a TIFF."""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

from hdrcli.frames import Bracket, Radiance

STANDARD = {  # OpenEXR's standard optional attributes, from the metadata of the reference
    "expTime": "exposure_time",
    "aperture": "f_number",
    "isoSpeed": "iso",
    "capDate": "taken",
    "cameraMake": "make",
    "cameraModel": "model",
    "cameraSerialNumber": "serial",
    "lensModel": "lens",
}

# What stands for the command line where another program's is in sys.argv: in a batch's workers,
# whose files must not depend on where and how often the batch was started.
command_line: ContextVar[Sequence[str] | None] = ContextVar("command_line", default=None)


def attributes_of(image: Radiance, bracket: Bracket, facts: Mapping[str, Any]) -> dict[str, object]:
    """Attributes for a merged file: how the reference was taken, and what hdrcli did.

    ``hdrcli:scale`` is the exposure whose white is 1.0: divide by it for the absolute scale.
    """
    metadata = bracket.ref.metadata
    standard = {
        name: value
        for name, field in STANDARD.items()
        if (value := getattr(metadata, field)) is not None
    }
    offset = offset_seconds(metadata.utc_offset)
    if offset is not None:
        standard["utcOffset"] = offset
    own = {
        "adoptedNeutral": image.primaries.white,
        "hdrcli:version": version("hdrcli"),
        "hdrcli:command": _command(facts["frames"]),
        "hdrcli:backend": facts["backend"],
        "hdrcli:model_sha256": facts.get("model_sha256"),
        "hdrcli:scale": float(image.exposure),
        "hdrcli:sources": json.dumps(facts["frames"]),
        "hdrcli:evs": json.dumps(facts["evs"]),
        "hdrcli:exposure_source": facts["exposure_source"],
        "hdrcli:reference": facts["reference"],
        "hdrcli:response": facts["response"],
        "hdrcli:clipped_percent": float(facts.get("clipped_percent", 0.0)),
        "hdrcli:facts": json.dumps(dict(facts), default=str),
    }
    return {**standard, **{name: value for name, value in own.items() if value is not None}}


def offset_seconds(offset: str | None) -> float | None:
    """What is added to a local time to make it UTC, in seconds, of "+02:00"; None if unknown."""
    found = re.fullmatch(r"([+-])(\d\d):(\d\d)", offset or "")
    if found is None:
        return None
    east = 60.0 * (60 * int(found[2]) + int(found[3]))
    return east if found[1] == "-" else -east


def _command(sources: Sequence[str]) -> str:
    """The command line without the photographs, whose order must not change the file."""
    words = command_line.get()
    typed = sys.argv[1:] if words is None else words
    return shlex.join(["hdrcli", *(word for word in typed if word not in sources)])
