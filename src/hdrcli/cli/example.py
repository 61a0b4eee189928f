"""``hdrcli example``."""

from pathlib import Path
from typing import Annotated

import typer

from hdrcli.cli import display, options


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; made if absent.")],
    *,
    frames: Annotated[int, typer.Option(min=2, max=15, help="How many photographs.")] = 3,
    ev_step: Annotated[
        float, typer.Option(min=0.3, max=6.0, help="Stops from one photograph to the next.")
    ] = 3.0,
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels of a photograph.")
    ] = "960x640",
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

    [dim]hdrcli example demo && hdrcli merge demo/IMG_*.jpg -o demo/merged.exr[/]
    """
    from hdrcli.example import Example, write_example

    display.talk(quiet=quiet)
    example = Example(frames, ev_step, options.parse_size(size), seed, static)
    with display.progress(quiet=quiet) as progress:
        written = write_example(folder, example, overwrite=overwrite, progress=progress)
    if json:
        shots = [{"ev": shot.ev, "seconds": shot.shutter} for shot in example.shots()]
        display.as_json({"outputs": written, "shots": shots})
    else:
        display.paths(written, quiet=quiet)
