"""``hdrcli tonemap``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from hdrcli.cli import display, options
from hdrcli.cli.options import TONE


def _list() -> None:
    """Print every operator with its parameters."""
    from hdrcli.tonemap import OPERATORS, described

    display.out("\n\n".join(described(operator) for operator in OPERATORS.values()))


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An .exr, .hdr or .tif, or one photograph.")
    ],
    *,
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", help="Picture to write: .jpg .png .tif. Repeat for more."),
    ],
    tmo: options.Tmo = "photo",
    tmo_params: options.TmoParam = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            min=16,
            metavar="PIXELS",
            rich_help_panel=TONE,
            help="Longer side of the picture; as it is if not given.",
        ),
    ] = None,
    listed: Annotated[
        bool, options.listing(_list, "List the operators and their parameters.", TONE)
    ] = False,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Make a picture for a screen of an HDR image.

    [dim]hdrcli tonemap merged.exr -o picture.jpg --tmo-param exposure=0.5[/]
    """
    from hdrcli import formats
    from hdrcli.errors import InputError
    from hdrcli.frames import Radiance
    from hdrcli.tonemap import operator_of, settled, tonemap

    display.talk(verbose=verbose, quiet=quiet)
    params = dict(tmo_params or ())
    settled(operator_of(tmo), params)
    for path in output:
        formats.check_output(path, overwrite=overwrite)
        if os.path.realpath(path) == os.path.realpath(file):
            raise InputError(f"{path} is the image itself", hint="choose another name")
    frame = formats.read(file)
    shown = tonemap(Radiance(frame.linear(), frame.primaries), tmo, params, size, threads=threads)
    for path in output:
        formats.write(path, shown, overwrite=overwrite, exif=frame.metadata.exif)
    display.facts(shown.info)
    if json:
        display.as_json({"outputs": output} | shown.info)
    else:
        display.paths(output, quiet=quiet)
