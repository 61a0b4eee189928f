"""The whole program on one page: files, bracket, aligned bracket, motion, radiance, files."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hdrcli import backends, color, formats, maps, motion, tonemap
from hdrcli.align import AlignReport, align_bracket, crop_to_overlap
from hdrcli.backends import BACKENDS, choice
from hdrcli.backends.registry import Progress, Settings, silent
from hdrcli.bracket import ExposureReport, ResolvedBracket, read_bracket
from hdrcli.errors import InputError
from hdrcli.formats import WriteOptions
from hdrcli.frames import Bracket, DisplayImage, Frame, Radiance
from hdrcli.motion import Motion
from hdrcli.provenance import attributes_of
from hdrcli.response import ResponseFit, apply_response

log = logging.getLogger("hdrcli")

HALF_RANGE = 32768.0  # radiance up to here is safe in half floats, which end at 65504
LOST = 0.005  # fraction of pixels that clip in every frame from which it is worth a warning


@dataclass(frozen=True)
class MergeOptions:
    """Everything a merge can be told. The defaults are what a photographer wants."""

    evs: tuple[float, ...] | None = None
    exposure_times: tuple[float, ...] | None = None
    exposures: str = "auto"
    reference: str = "auto"
    align: str = "auto"
    deghost: str = "medium"
    backend: str = "auto"
    response: str = "auto"
    weight: str = "noise"
    crop: bool = False
    anchor: str = "reference"
    tmo: str = tonemap.DEFAULT
    tmo_params: Mapping[str, float] = field(default_factory=dict)
    preview: bool = True
    preview_size: int | None = None
    debug_dir: Path | None = None
    overwrite: bool = False
    exr_type: str = "auto"
    compression: str = "zip"
    layers: bool = False
    primaries: str = "source"
    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    tta: bool = False
    threads: int | None = None


@dataclass(frozen=True, eq=False)
class Merged:
    """A merge, and everything that led to it."""

    image: Radiance | DisplayImage
    bracket: Bracket  # aligned
    motion: Motion
    backend: str
    why: str
    exposures: ExposureReport
    response: ResponseFit
    alignment: AlignReport


@dataclass(frozen=True)
class Outcome:
    """What a merge of files did."""

    outputs: list[Path]
    backend: str
    why: str
    facts: dict[str, Any]
    warnings: list[str]
    seconds: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return {
            "outputs": [str(path) for path in self.outputs],
            "backend": self.backend,
            "why": self.why,
            **self.facts,
            "warnings": self.warnings,
            "seconds": {stage: round(spent, 3) for stage, spent in self.seconds.items()},
        }


class Clock:
    """Times the stages, and tells the progress of each as it begins."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one stage."""
        self.progress(name, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.progress(name, 1.0)


def merge_files(
    paths: Sequence[Path],
    outputs: Sequence[Path],
    options: MergeOptions | None = None,
    progress: Progress | None = None,
    look: Callable[["Merged"], None] | None = None,
) -> Outcome:
    """Merge the photographs in ``paths`` and write each of ``outputs``, the kind by its suffix.

    ``look`` is called with the merge before it is written, for whoever wants to show it.

    Raises InputError for files or options that cannot be used, SetupError for what the machine
    lacks; what can fail early fails before the first photograph is read.
    """
    chosen = options or MergeOptions()
    clock = Clock(progress or silent)
    targets = plan_outputs(paths, outputs, chosen)
    check_options(chosen)
    with clock.stage("read"):
        resolved = read_bracket(
            paths,
            evs=chosen.evs,
            exposure_times=chosen.exposure_times,
            exposures=chosen.exposures,  # type: ignore[arg-type]
            reference=chosen.reference,
            threads=chosen.threads,
        )
    merged = merge(resolved, chosen, clock, half=stores_half(targets, chosen, resolved.bracket))
    if look is not None:
        with clock.stage("look"):
            look(merged)
    with clock.stage("write"):
        written = write_outputs(merged, targets, chosen)
    return Outcome(
        written, merged.backend, merged.why, facts_of(merged), warnings_of(merged), clock.seconds
    )


def merge(
    resolved: ResolvedBracket,
    options: MergeOptions | None = None,
    clock: Clock | None = None,
    *,
    half: bool = False,
) -> Merged:
    """Merge a bracket that has been read. ``half`` makes float16 radiance, to save memory."""
    chosen, clock = options or MergeOptions(), clock or Clock(silent)
    with clock.stage("response"):
        bracket, response = apply_response(
            resolved.bracket, chosen.response, samples=resolved.samples
        )
    with clock.stage("align"):
        bracket, alignment = align_bracket(bracket, chosen.align)  # type: ignore[arg-type]
        if chosen.crop:
            bracket = cropped(bracket)
    with clock.stage("motion"):
        keep = chosen.backend in choice.WANT_VIEWS
        moved = motion.analyse(bracket, chosen.deghost, keep_views=keep)
    name, why = choice.choose(chosen.backend, bracket, moved)
    settings = Settings(
        threads=chosen.threads,
        half=half,
        device=chosen.device,
        precision=chosen.precision,
        tile=chosen.tile,
        ensemble=chosen.tta,
        options={"weight": chosen.weight},
        progress=clock.progress,
    )
    with clock.stage("merge"):
        image = backends.load_backend(name, settings).merge(bracket, moved)
        image = anchored(image, chosen)
    return Merged(image, bracket, moved, name, why, resolved.report, response, alignment)


def check_options(options: MergeOptions) -> None:
    """Everything about the options that can be known to be wrong before the work."""
    tonemap.settled(tonemap.operator_of(options.tmo), options.tmo_params)
    WriteOptions(exr_type=options.exr_type, exr_compression=options.compression)
    for option, value, known in (
        ("--backend", options.backend, ["auto", *BACKENDS]),
        ("--deghost", options.deghost, list(motion.STRENGTHS)),
        ("--weight", options.weight, list(backends.WEIGHT_NAMES)),
        ("--primaries", options.primaries, ["source", *color.PRIMARIES]),
        ("--anchor", options.anchor, ["reference", "absolute"]),
    ):
        if value not in known:
            raise InputError(f"{option} {value}: not known", hint=f"one of {', '.join(known)}")
    backends.check_backend(options.backend, options.device)


def plan_outputs(
    paths: Sequence[Path], outputs: Sequence[Path], options: MergeOptions
) -> list[Path]:
    """The files to write, a preview among them where one is wanted; none is an input."""
    targets = list(outputs)
    kinds = [formats.for_output(path) for path in targets]
    hdr = [path for path, kind in zip(targets, kinds, strict=True) if kind.linear]
    if options.preview and hdr and all(kind.linear for kind in kinds):
        targets.append(hdr[0].with_name(f"{hdr[0].stem}_preview.jpg"))
    inputs = {path.resolve() for path in paths}
    for path in targets:
        if path.resolve() in inputs:
            raise InputError(f"{path} is one of the photographs", hint="choose another name")
        formats.check_output(path, overwrite=options.overwrite)
    return targets


def stores_half(targets: Sequence[Path], options: MergeOptions, bracket: Bracket) -> bool:
    """Whether half floats are all that any output will store, so that merging may use them."""
    brightest = 1 / float(bracket.ratios.min())
    return (
        options.exr_type in ("auto", "half")
        and options.anchor == "reference"
        and options.primaries == "source"
        and brightest < HALF_RANGE
        and all(frame.levels for frame in bracket.frames)
        and {p.suffix.lower() for p in targets if formats.for_output(p).linear} <= {".exr"}
    )


def cropped(bracket: Bracket) -> Bracket:
    """Only what every frame shows, resampled where a frame has a homography."""
    rows, cols = crop_to_overlap(bracket)
    if rows.stop <= rows.start:
        raise InputError("the aligned photographs have no part in common", hint="use --no-crop")
    return bracket.with_frames(_cut(frame, rows, cols) for frame in bracket.frames)


def _cut(frame: Frame, rows: slice, cols: slice) -> Frame:
    """A window of the reference. A frame with a homography keeps all its pixels."""
    if frame.warp is None:
        valid = None if frame.valid is None else frame.valid[rows, cols]
        return replace(frame, codes=frame.codes[rows, cols], valid=valid)
    placed = maps.aligned(frame, rows)
    valid = None if placed.valid is None else placed.valid[:, cols]
    return replace(placed, codes=placed.codes[:, cols], valid=valid)


def anchored(image: Radiance | DisplayImage, options: MergeOptions) -> Radiance | DisplayImage:
    """The scale and the primaries that were asked for."""
    if isinstance(image, DisplayImage):
        return image
    if options.anchor == "absolute":
        image = image.absolute()
    if options.primaries == "source":
        return image
    target = color.PRIMARIES[options.primaries]
    pixels = color.convert(image.pixels, image.primaries, target)
    return replace(image, pixels=pixels, primaries=target)


def write_outputs(merged: Merged, targets: Sequence[Path], options: MergeOptions) -> list[Path]:
    """Write every output; the tone-mapped ones from one and the same rendering."""
    store = WriteOptions(
        exr_type=options.exr_type, exr_compression=options.compression, threads=options.threads or 0
    )
    exif = merged.bracket.ref.metadata.exif
    shown: Any = None
    written = []
    for path in targets:
        kind = formats.for_output(path)
        if kind.linear and isinstance(merged.image, Radiance):
            layers = maps.layers(merged.bracket, merged.motion) if options.layers else None
            formats.write(
                path,
                merged.image,
                overwrite=options.overwrite,
                options=store,
                attributes=attributes_of(merged.image, merged.bracket, facts_of(merged)),
                layers=layers,
            )
        elif kind.display:
            shown = rendered(merged.image, options) if shown is None else shown
            formats.write_display_codes(
                path, shown, overwrite=options.overwrite, options=store, exif=exif
            )
        else:
            raise InputError(
                f"{path}: {merged.backend} makes a picture for the screen, not radiance",
                hint="write .jpg, .png or .tif, or choose another --backend",
            )
        written.append(path)
    if options.debug_dir is not None:
        written += maps.write_debug(options.debug_dir, merged.bracket, merged.motion)
    return written


def rendered(image: Radiance | DisplayImage, options: MergeOptions) -> Any:  # noqa: ANN401
    """Eight-bit sRGB codes of the picture, (h, w, 3), reduced to the preview size if one is set."""
    if isinstance(image, DisplayImage):
        codes = np.rint(np.clip(image.pixels, 0, 1) * 255).astype(np.uint8)
    else:
        plan = tonemap.analyse(image, options.tmo, options.tmo_params, threads=options.threads)
        codes = tonemap.tonemap_codes(image, plan, options.threads)
    return maps.reduced(codes, options.preview_size)


def facts_of(merged: Merged) -> dict[str, Any]:
    """What was found and done, as plain data: for JSON, metadata and -v."""
    bracket, image = merged.bracket, merged.image
    report = merged.exposures
    facts: dict[str, Any] = {
        "frames": [frame.name for frame in bracket.frames],
        "evs": [round(float(ev), 3) for ev in bracket.evs],
        "pixel_evs": [None if ev is None else round(ev, 3) for ev in report.pixel_evs],
        "exposure_source": report.source,
        "reference": bracket.ref.name,
        "response": merged.response.response.name,
        "response_why": merged.response.why,
        "alignment": [str(frame) for frame in merged.alignment.frames],
        "moved_percent": round(100 * merged.motion.moved, 2),
        "size": [bracket.size[1], bracket.size[0]],
    }
    if isinstance(image, Radiance):
        facts["clipped_percent"] = round(100 * image.clipped, 3)
        facts["white_exposure"] = image.exposure
        facts["primaries"] = image.primaries.name
        facts |= image.info
    return facts


def warnings_of(merged: Merged) -> list[str]:
    """Everything a user should hear; what has not been said before is logged here."""
    said = list(merged.exposures.warnings)
    fresh = list(merged.alignment.warnings)
    image = merged.image
    if isinstance(image, Radiance) and image.clipped > LOST:
        shortest = merged.bracket.frames[0].name
        fresh.append(
            f"{100 * image.clipped:.1f} % of the picture clips even in {shortest}: "
            "its light is a lower bound there"
        )
    for message in fresh:
        log.warning("%s", message)
    return said + fresh
