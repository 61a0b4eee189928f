"""What an HDR file says of its origin: EXR attributes, and the description of a TIFF."""

import json
import sys
from collections.abc import Mapping, Sequence
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
    own = {
        "hdrcli:version": version("hdrcli"),
        "hdrcli:command": _command(facts["frames"]),
        "hdrcli:scale": float(image.exposure),
        "hdrcli:sources": json.dumps(facts["frames"]),
        "hdrcli:evs": json.dumps(facts["evs"]),
        "hdrcli:exposure_source": facts["exposure_source"],
        "hdrcli:reference": facts["reference"],
        "hdrcli:response": facts["response"],
        "hdrcli:clipped_percent": float(facts.get("clipped_percent", 0.0)),
        "hdrcli:facts": json.dumps(dict(facts), default=str),
    }
    return {**standard, **own}


def _command(sources: Sequence[str]) -> str:
    """The command line without the photographs, whose order must not change the file."""
    return " ".join(["hdrcli", *(word for word in sys.argv[1:] if word not in sources)])
