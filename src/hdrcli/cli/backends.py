"""``hdrcli backends``."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from hdrcli.cli import display, options

if TYPE_CHECKING:
    from hdrcli.backends import BackendSpec


def command(*, json: options.Json = False) -> None:
    """List the ways to merge, with what each takes and makes."""
    from hdrcli.backends import BACKENDS

    if json:
        display.as_json([asdict(spec) for spec in BACKENDS.values()])
        return
    display.table(
        ("backend", "frames", "makes", "what it does"),
        ((spec.name, _frames(spec), spec.produces, spec.summary) for spec in BACKENDS.values()),
    )


def _frames(spec: "BackendSpec") -> str:
    """``2 or more``, ``3``, ``2 to 7``."""
    least, most = spec.frames
    if most is None:
        return f"{least} or more"
    return str(least) if most == least else f"{least} to {most}"
