"""``hdrcli info`` of a video: what its file says, and which exposures it alternates between."""

from pathlib import Path
from typing import Any

from hdrcli.cli import display
from hdrcli.errors import BracketError

SUFFIXES = frozenset(
    (".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi", ".mxf", ".mts", ".m2ts", ".ts", ".mpg")
)


def is_video(paths: list[Path]) -> bool:
    """Whether one video was named, rather than photographs."""
    return len(paths) == 1 and paths[0].suffix.lower() in SUFFIXES


def command(path: Path, *, json: bool) -> None:
    """Show a video's facts, one per line."""
    report = facts(path)
    if json:
        display.as_json(report)
        return
    display.table(
        ("what", "value"),
        ((name.replace("_", " "), _text(value)) for name, value in report.items()),
    )


def facts(path: Path) -> dict[str, Any]:
    """What is known of a video; ``alternates`` is False where no exposures were found."""
    from hdrcli.video import VideoOptions, open_clip
    from hdrcli.video.run import surveyed

    clip = open_clip(path)
    height, width = clip.size
    known = {
        "file": str(path),
        "size": [width, height],
        "fps": round(float(clip.rate), 4),
        "frames": clip.count,
        "bits": clip.bits,
        **{k: v for k, v in clip.tags.items() if k not in ("kind", "start_pts")},
        "audio": clip.has_audio,
    }
    try:
        _, pattern, _ = surveyed(clip, VideoOptions())
    except BracketError as err:
        return {**known, "alternates": False, "why_not": str(err)}
    return {
        **known,
        "alternates": True,
        "period": pattern.period,
        "evs": [round(ev, 2) for ev in pattern.evs],
        "first": pattern.first,
        "exposure_source": pattern.source,
        "response": pattern.response.name,
        "response_why": pattern.why,
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
