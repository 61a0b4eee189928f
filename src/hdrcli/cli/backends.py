"""``hdrcli backends``."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from hdrcli.cli import display, options

if TYPE_CHECKING:
    from hdrcli.backends import BackendSpec
    from hdrcli.backends.measured import Measured

HEADINGS = ("backend", "frames", "makes", "licence", ">dB", ">s", ">GB", "what it does")
LEGEND = (
    "dB: mean PSNR-mu / PSNR-L on our validation brackets of three frames. s: seconds of one core "
    "for 12 megapixels of three frames. GB: peak memory at {sizes} megapixels."
)


def command(*, json: options.Json = False) -> None:
    """List the ways to merge, with what each takes and makes, how good and how fast it is."""
    from hdrcli.backends import BACKENDS
    from hdrcli.backends.measured import Measured, measurements

    known = measurements()
    if json:
        display.as_json(
            [
                {**asdict(spec), "measured": asdict(known[spec.name]) if spec.name in known else {}}
                for spec in BACKENDS.values()
            ]
        )
        return
    display.table(
        HEADINGS, (_row(spec, known.get(spec.name, Measured())) for spec in BACKENDS.values())
    )
    sizes = sorted({f"{one.megapixels:g}" for one in known.values() if one.megapixels}, key=float)
    if sizes:
        display.note(LEGEND.format(sizes=" or ".join(sizes)))


def _row(spec: "BackendSpec", measured: "Measured") -> tuple[str, ...]:
    score = measured.scores.get("3 frames")
    return (
        spec.name,
        _frames(spec),
        spec.produces,
        spec.licence,
        "-" if score is None else f"{score[0]:.1f} / {score[1]:.1f}",
        "-" if measured.seconds_per_12_mp is None else f"{measured.seconds_per_12_mp:.1f}",
        "-" if measured.memory_gb is None else f"{measured.memory_gb:.1f}",
        spec.summary,
    )


def _frames(spec: "BackendSpec") -> str:
    """``2 or more``, ``3``, ``2 to 7``."""
    least, most = spec.frames
    if most is None:
        return f"{least} or more"
    return str(least) if most == least else f"{least} to {most}"
