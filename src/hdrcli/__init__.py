"""Merge exposure brackets into HDR images and video.

    from pathlib import Path
    import hdrcli

    bracket = hdrcli.read_bracket(["a.jpg", "b.jpg", "c.jpg"])
    merged = hdrcli.merge(bracket)
    hdrcli.write(Path("out.exr"), merged.image)

The names below are imported when they are first used, so that ``import hdrcli`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hdrcli.bracket import read_bracket
    from hdrcli.errors import HdrcliError
    from hdrcli.formats import read, write
    from hdrcli.frames import Bracket, DisplayImage, Frame, Radiance
    from hdrcli.pipeline import MergeOptions, merge, merge_files

__version__ = "0.1.0"

_HOMES = {
    "Bracket": "hdrcli.frames",
    "DisplayImage": "hdrcli.frames",
    "Frame": "hdrcli.frames",
    "HdrcliError": "hdrcli.errors",
    "MergeOptions": "hdrcli.pipeline",
    "Radiance": "hdrcli.frames",
    "merge": "hdrcli.pipeline",
    "merge_files": "hdrcli.pipeline",
    "read": "hdrcli.formats",
    "read_bracket": "hdrcli.bracket",
    "write": "hdrcli.formats",
}

__all__ = [
    "Bracket",
    "DisplayImage",
    "Frame",
    "HdrcliError",
    "MergeOptions",
    "Radiance",
    "__version__",
    "merge",
    "merge_files",
    "read",
    "read_bracket",
    "write",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hdrcli' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
