"""The options of a merge, written once for every command that merges.

``_prototype`` is the table: its parameters are the fields of ``pipeline.MergeOptions``, with
the same names and defaults (a test compares them) and the words of the command line.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hdrcli.cli import options
from hdrcli.cli import settings as saved_settings
from hdrcli.cli.options import COMPUTE, EXPOSURE, MERGE, MOTION, OUTPUT, TONE

if TYPE_CHECKING:
    from hdrcli.pipeline import MergeOptions


def _prototype(
    *,
    evs: options.Evs = None,
    exposure_times: options.ExposureTimes = None,
    exposures: options.Exposures = "auto",
    response: Annotated[
        str,
        typer.Option(
            "--response",
            rich_help_panel=EXPOSURE,
            metavar="NAME|FILE",
            help="Camera curve: auto, srgb, linear, gamma2.2, a file, or recovered from the "
            "bracket by spline, debevec, robertson, mitsunaga.",
        ),
    ] = "auto",
    reference: options.Reference = "auto",
    align: options.Align = "auto",
    deghost: Annotated[
        Literal["none", "low", "medium", "high"],
        typer.Option(
            "--deghost", rich_help_panel=MOTION, help="How firmly what moved is taken out."
        ),
    ] = "medium",
    crop: Annotated[
        bool,
        typer.Option(
            "--crop/--no-crop", rich_help_panel=MOTION, help="Keep only what every frame shows."
        ),
    ] = False,
    backend: options.Backend = "auto",
    weight: Annotated[
        str,
        typer.Option(
            "--weight",
            rich_help_panel=MERGE,
            help="Trust in a code: noise (camera noise model), or hat, gaussian, plateau, flat.",
        ),
    ] = "noise",
    denoise: Annotated[
        bool,
        typer.Option(
            "--denoise/--no-denoise",
            rich_help_panel=MERGE,
            help="flowmerge: take out noise of more than 2 % of the light.",
        ),
    ] = True,
    anchor: Annotated[
        Literal["reference", "absolute"],
        typer.Option(
            "--anchor",
            rich_help_panel=MERGE,
            help="What 1.0 is: white of the reference, or one scale for all brackets.",
        ),
    ] = "reference",
    tmo: options.Tmo = "photo",
    tmo_params: options.TmoParam = None,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview/--no-preview",
            rich_help_panel=TONE,
            help="Write a tone-mapped JPEG beside the HDR file.",
        ),
    ] = True,
    preview_size: Annotated[
        int | None,
        typer.Option(
            "--preview-size",
            rich_help_panel=TONE,
            min=16,
            metavar="PIXELS",
            help="Longer side of the preview; full size if not given.",
        ),
    ] = None,
    exr_type: Annotated[
        Literal["auto", "half", "float"],
        typer.Option(
            "--exr-type",
            rich_help_panel=OUTPUT,
            help="Sample type of .exr; auto is half unless the range needs float.",
        ),
    ] = "auto",
    compression: Annotated[
        Literal["none", "rle", "zips", "zip", "piz", "pxr24", "dwaa", "dwab"],
        typer.Option("--compression", rich_help_panel=OUTPUT, help="Compression of .exr."),
    ] = "zip",
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            rich_help_panel=OUTPUT,
            help="Add ghost and clip masks as layers of the .exr.",
        ),
    ] = False,
    primaries: Annotated[
        str,
        typer.Option(
            "--primaries",
            rich_help_panel=OUTPUT,
            help="Output colours: source, rec709, p3, rec2020, adobe, prophoto, aces, acescg.",
        ),
    ] = "source",
    debug_dir: Annotated[
        Path | None,
        typer.Option(
            "--debug-dir",
            rich_help_panel=OUTPUT,
            help="Write aligned frames, weights, ghost and clip masks there.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    tile: options.Tile = None,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            rich_help_panel=COMPUTE,
            help="Networks: average over flips; slower, a bit better.",
        ),
    ] = False,
    threads: options.Threads = None,
) -> None: ...


MERGE_PARAMETERS = inspect.signature(_prototype).parameters


def _settings(
    *,
    preset: saved_settings.Preset = None,
    save_preset: saved_settings.SavePreset = None,
) -> None: ...


SETTINGS = inspect.signature(_settings).parameters


def takes_merge_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a merge to a command, which receives them as ``merge_options``."""
    own = inspect.signature(command).parameters

    @wraps(command)
    def run(ctx: typer.Context, **given: Any) -> None:  # noqa: ANN401  Typer's values
        given.pop("preset")  # its callback has used it
        name = given.pop("save_preset")
        if name is not None:
            saved_settings.save(ctx, name)
        chosen = {name: given.pop(name) for name in MERGE_PARAMETERS}
        command(**given, merge_options=_options(chosen))

    kept = [p for name, p in own.items() if name != "merge_options"]
    first = [p for p in kept if p.name not in ("json", "verbose", "quiet")]
    talk = [p for p in kept if p not in first]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_ONLY, annotation=typer.Context)
    context = context.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [context, *first, *MERGE_PARAMETERS.values(), *SETTINGS.values(), *talk]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _options(chosen: dict[str, Any]) -> "MergeOptions":
    from hdrcli.pipeline import MergeOptions

    chosen["tmo_params"] = dict(chosen["tmo_params"] or ())
    return MergeOptions(**chosen)
