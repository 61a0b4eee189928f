"""``hdrcli merge``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrcli.cli import display, options
from hdrcli.cli.merge_options import takes_merge_options

if TYPE_CHECKING:
    from hdrcli.pipeline import MergeOptions


@takes_merge_options
def command(
    files: options.Files = None,
    *,
    output: Annotated[
        list[Path],
        typer.Option(
            "--output",
            "-o",
            help="File to write; the kind is that of its suffix: .exr .hdr .tif hold light, "
            ".jpg .png a tone-mapped picture. Repeat for more.",
            show_default=False,
        ),
    ],
    files_from: options.FilesFrom = None,
    merge_options: "MergeOptions",
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Merge a bracket of photographs into one HDR image.

    [dim]hdrcli merge IMG_1.jpg IMG_2.jpg IMG_3.jpg -o out.exr[/]
    """
    from hdrcli.pipeline import merge_files

    display.talk(verbose=verbose, quiet=quiet)
    paths = options.expand(files or (), files_from)
    with display.progress(quiet=quiet) as progress:
        outcome = merge_files(paths, output, merge_options, progress)
    display.facts(outcome.as_dict())
    if json:
        display.as_json(outcome.as_dict())
    else:
        display.paths(outcome.outputs, quiet=quiet)
