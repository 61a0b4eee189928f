"""``hdrcli align``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hdrcli.cli import display, options
from hdrcli.errors import InputError

if TYPE_CHECKING:
    from hdrcli.frames import Bracket, Frame


def command(
    files: options.Files = None,
    *,
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder to write; made if absent."),
    ],
    files_from: options.FilesFrom = None,
    kind: Annotated[
        Literal["png", "jpg"],
        typer.Option("--format", help="Kind of file; linear light is always written as .exr."),
    ] = "png",
    evs: options.Evs = None,
    exposure_times: options.ExposureTimes = None,
    exposures: options.Exposures = "auto",
    reference: options.Reference = "auto",
    align: options.Align = "auto",
    crop: Annotated[
        bool,
        typer.Option(
            "--crop/--no-crop",
            rich_help_panel=options.MOTION,
            help="Keep only what every frame shows.",
        ),
    ] = True,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Write the frames of a bracket, brought to lie on each other, for other tools.

    Each keeps its exposure and its EXIF; NAME becomes NAME_aligned.

    [dim]hdrcli align IMG_*.jpg -o aligned[/]
    """
    from hdrcli.align import align_bracket
    from hdrcli.bracket import read_bracket

    display.talk(verbose=verbose, quiet=quiet)
    resolved = read_bracket(
        options.expand(files or (), files_from),
        evs=evs,
        exposure_times=exposure_times,
        exposures=exposures,
        reference=reference,
        threads=threads,
    )
    targets = _targets(resolved.bracket, folder, kind, overwrite=overwrite)
    bracket, report = align_bracket(resolved.bracket, align)
    for line in report.warnings:
        display.warn(line)
    for found in report.frames:
        display.note(str(found))
    _write(bracket, targets, crop=crop, overwrite=overwrite)
    if json:
        display.as_json({"outputs": targets} | report.as_dict())
    else:
        display.paths(targets, quiet=quiet)


def _targets(bracket: "Bracket", folder: Path, kind: str, *, overwrite: bool) -> list[Path]:
    """Where each frame goes, checked before the work."""
    from hdrcli.formats import check_output
    from hdrcli.formats.save import make_folder

    make_folder(folder)
    targets = []
    for frame in bracket.frames:
        suffix = kind if frame.levels else "exr"
        targets.append(folder / f"{Path(frame.name).stem}_aligned.{suffix}")
        check_output(targets[-1], overwrite=overwrite)
    if len(set(targets)) < len(targets):
        raise InputError(
            "some files have the same name in different folders",
            hint="copy them into one folder under different names",
        )
    return targets


def _write(bracket: "Bracket", targets: list[Path], *, crop: bool, overwrite: bool) -> None:
    from hdrcli.align import crop_to_overlap, warp_frame

    rows, cols = crop_to_overlap(bracket) if crop else (slice(None), slice(None))
    for frame, target in zip(bracket.frames, targets, strict=True):
        _write_frame(warp_frame(frame), rows, cols, target, overwrite=overwrite)


def _write_frame(
    frame: "Frame", rows: slice, cols: slice, target: Path, *, overwrite: bool
) -> None:
    """Codes as they are where their curve is sRGB; else the same light in sRGB's."""
    import numpy as np

    from hdrcli import formats
    from hdrcli.color import srgb_encode
    from hdrcli.frames import SRGB, Radiance

    if not frame.levels:
        light = np.ascontiguousarray(frame.linear(rows, cols))
        exposure = frame.exposure or 1.0
        formats.write(target, Radiance(light, frame.primaries, exposure), overwrite=overwrite)
        return
    if frame.response is SRGB:
        codes = np.ascontiguousarray(frame.codes[rows, cols])
    else:
        codes = formats.quantised(srgb_encode(frame.linear(rows, cols)), frame.levels - 1)
    if target.suffix == ".jpg" and codes.dtype != np.uint8:
        codes = formats.quantised(codes.astype(np.float32) / np.float32(65535), 255)
    formats.write_display_codes(
        target,
        codes,
        overwrite=overwrite,
        options=formats.WriteOptions(
            jpeg_quality=98, png_bits=frame.bits if frame.bits == 8 else 16
        ),
        primaries=frame.primaries,
        exif=frame.metadata.exif,
    )
