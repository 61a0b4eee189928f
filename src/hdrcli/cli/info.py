"""``hdrcli info``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdrcli.cli import display, info_video, options
from hdrcli.errors import BracketError

if TYPE_CHECKING:
    from hdrcli.bracket import ResolvedBracket
    from hdrcli.frames import Frame

HEADINGS = (
    "file",
    ">time",
    ">ISO",
    ">f/",
    ">EV",
    ">EXIF",
    ">pixels",
    ">taken",
    ">size",
    ">bits",
    ">clipped",
)


def command(
    files: options.Files = None,
    *,
    files_from: options.FilesFrom = None,
    evs: options.Evs = None,
    exposure_times: options.ExposureTimes = None,
    exposures: options.Exposures = "auto",
    reference: options.Reference = "auto",
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Show what photographs say of their exposure, and what their pixels say of it.

    EV are stops above the reference, which is marked *; + is the brighter photograph. Beside
    the EV that a merge would use stand those of EXIF and of the pixels.

    Of a video: colour tags, frame rate, and the exposures that it alternates between.

    [dim]hdrcli info IMG_*.jpg[/]
    """
    from hdrcli import formats
    from hdrcli.bracket import read_bracket

    display.talk(verbose=verbose, quiet=quiet)
    paths = options.expand(files or (), files_from)
    if info_video.is_video(paths):
        info_video.command(paths[0], json=json)
        return
    try:
        resolved = read_bracket(
            paths,
            evs=evs,
            exposure_times=exposure_times,
            exposures=exposures,
            reference=reference,
        )
    except BracketError as err:
        if evs is not None or exposure_times is not None:
            raise
        if len(paths) > 1:
            display.warn(f"not one bracket: {err}")
        report = {"frames": [facts(frame) for frame in formats.read_all(paths)]}
    else:
        report = bracket_facts(resolved)
    if json:
        display.as_json(report)
    else:
        display.table(HEADINGS, (_row(frame) for frame in report["frames"]))


def bracket_facts(resolved: "ResolvedBracket") -> dict[str, Any]:
    """What is known of a bracket, as plain data: frames darkest first."""
    said = resolved.report
    frames = []
    for i, frame in enumerate(resolved.bracket.frames):
        frames.append(
            facts(frame)
            | {
                "reference": i == resolved.bracket.reference,
                "exposure": frame.exposure,
                "ev": said.evs[i],
                "exif_ev": said.exif_evs[i],
                "pixel_ev": said.pixel_evs[i],
                "confidence": said.confidence[i],
            }
        )
    return {"source": said.source, "warnings": said.warnings, "frames": frames}


def facts(frame: "Frame") -> dict[str, Any]:
    """What is known of one photograph by itself."""
    meta = frame.metadata
    height, width = frame.size
    return {
        "file": frame.name,
        "exposure_time": meta.exposure_time,
        "iso": meta.iso,
        "f_number": meta.f_number,
        "bias": meta.bias,
        "taken": meta.taken,
        "subsecond": meta.subsecond,
        "make": meta.make,
        "model": meta.model,
        "lens": meta.lens,
        "focal_length": meta.focal_length,
        "width": width,
        "height": height,
        "bits": frame.bits,
        "response": frame.response.name,
        "primaries": frame.primaries.name,
        "clipped_percent": clipped_percent(frame),
    }


def clipped_percent(frame: "Frame") -> float | None:
    """Percent of pixels with a channel that merging takes for clipped. None for linear light.

    Not the largest code alone: cameras clip at one a little lower, and JPEG spreads it.
    """
    from hdrcli.strips import largest

    if not frame.levels:
        return None
    return float((largest(frame.codes) >= frame.clip * (frame.levels - 1)).mean() * 100)


def _row(frame: dict[str, Any]) -> tuple[str, ...]:
    clipped = frame["clipped_percent"]
    return (
        Path(frame["file"]).name + ("*" if frame.get("reference") else ""),
        _seconds(frame["exposure_time"]),
        _number(frame["iso"]),
        _number(frame["f_number"]),
        _stops(frame.get("ev")),
        _stops(frame.get("exif_ev")),
        _stops(frame.get("pixel_ev")),
        (frame["taken"] or "-").partition(" ")[2] or "-",
        f"{frame['width']}x{frame['height']}",
        str(frame["bits"]),
        "-" if clipped is None else f"{clipped:.1f} %",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _stops(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _seconds(value: float | None) -> str:
    """As photographers say it: 1/250, 0.4, 15."""
    if value is None:
        return "-"
    if value < 0.3:
        return f"1/{1 / value:.0f}" if value < 0.1 else f"1/{1 / value:.2g}"
    return f"{value:.3g}"
