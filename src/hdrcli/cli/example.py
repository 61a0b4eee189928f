"""``hdrcli example``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hdrcli.cli import display, options

MOST_PHOTOGRAPHS = 15


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; made if absent.")],
    *,
    frames: Annotated[
        int | None,
        typer.Option(
            min=2, max=1000, show_default=False, help="How many photographs (3), or of a clip (24)."
        ),
    ] = None,
    ev_step: Annotated[
        float, typer.Option(min=0.3, max=6.0, help="Stops from one photograph to the next.")
    ] = 3.0,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            show_default=False,
            help="Pixels of a photograph (960x640), or of a clip (640x360).",
        ),
    ] = None,
    video: Annotated[
        bool, typer.Option("--video", help="A clip of alternating exposures instead.")
    ] = False,
    exposures: Annotated[
        int, typer.Option(min=2, max=3, help="Exposures that a clip alternates between.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another noise and hand.")] = 0,
    static: Annotated[
        bool, typer.Option("--static", help="Nothing moves, and the camera stands on a tripod.")
    ] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a rendered bracket to try hdrcli with: photographs, and the true light.

    A room with a glass door on a sunny evening, 20 stops from the sun to the shadows, with
    people who walk, a hand that shakes, and noise. The photographs are JPEG with EXIF;
    truth.exr is what the merge should find.

    With --video: clip.mp4, and the true light of each frame in the folder truth.

    [dim]hdrcli example demo && hdrcli merge demo/IMG_*.jpg -o demo/merged.exr[/]
    """
    display.talk(quiet=quiet)
    pixels = options.parse_size(size or ("640x360" if video else "960x640"))
    with display.progress(quiet=quiet) as progress:
        if video:
            report = _clip(
                folder, progress, frames=frames or 24, exposures=exposures, ev_step=ev_step,
                size=pixels, seed=seed, static=static, overwrite=overwrite,
            )  # fmt: skip
        else:
            if (frames or 0) > MOST_PHOTOGRAPHS:
                raise typer.BadParameter(f"at most {MOST_PHOTOGRAPHS}", param_hint="--frames")
            report = _bracket(
                folder, progress, frames=frames or 3, ev_step=ev_step,
                size=pixels, seed=seed, static=static, overwrite=overwrite,
            )  # fmt: skip
    if json:
        display.as_json(report)
    else:
        display.paths(report["outputs"], quiet=quiet)


def _bracket(
    folder: Path,
    progress: display.Progress | None,
    *,
    overwrite: bool,
    **said: Any,  # noqa: ANN401
) -> dict[str, Any]:
    from hdrcli.example import Example, write_example

    example = Example(**said)
    written = write_example(folder, example, overwrite=overwrite, progress=progress)
    shots = [{"ev": shot.ev, "seconds": shot.shutter} for shot in example.shots()]
    return {"outputs": written, "shots": shots}


def _clip(
    folder: Path,
    progress: display.Progress | None,
    *,
    overwrite: bool,
    **said: Any,  # noqa: ANN401
) -> dict[str, Any]:
    from hdrcli.video.example import ClipExample, write_clip

    example = ClipExample(**said)
    written = write_clip(folder, example, overwrite=overwrite, progress=progress)
    return {"outputs": written, "evs": list(example.evs()), "fps": float(example.rate)}
