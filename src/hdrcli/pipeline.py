"""The whole program on one page: files, bracket, aligned bracket, motion, radiance, files."""

import importlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hdrcli import backends, color, formats, maps, motion, tonemap
from hdrcli.align import AlignReport, align_bracket, belonging, crop_to_overlap
from hdrcli.backends import BACKENDS, choice
from hdrcli.backends.registry import Progress, Settings, silent
from hdrcli.bracket import ExposureReport, ResolvedBracket, read_bracket
from hdrcli.errors import InputError
from hdrcli.formats import WriteOptions
from hdrcli.formats.save import check_folder, together
from hdrcli.frames import Bracket, Codes, DisplayImage, Frame, Radiance
from hdrcli.motion import Motion
from hdrcli.provenance import attributes_of
from hdrcli.response import ResponseFit, apply_response

log = logging.getLogger("hdrcli")

HALF_RANGE = 32768.0  # radiance up to here is safe in half floats, which end at 65504
Window = tuple[slice, slice]
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
    denoise: bool = True  # after flowmerge: noise that would be seen
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
    bracket: Bracket  # aligned; what shows another scene is not in it
    motion: Motion  # as it was used
    backend: str
    why: str
    exposures: ExposureReport
    response: ResponseFit
    alignment: AlignReport  # of all frames
    window: Window | None = None  # rows and columns of the bracket that the image is cropped to

    @property
    def framed(self) -> list[Frame]:
        """The frames as they lie, cut like the image."""
        if self.window is None:
            return list(self.bracket.frames)
        cut = self.window
        return [replace(f, codes=f.codes[cut], valid=None, warp=None) for f in self.bracket.frames]


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
    with clock.stage("read"), ThreadPoolExecutor(1, thread_name_prefix="import") as pool:
        pool.submit(import_ahead)
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


def import_ahead() -> None:
    """Import what a merge will need, while the photographs are decoded and cores are idle."""
    for name in ("cv2", "llvmlite.binding", "numpy.ma", "OpenEXR"):
        with suppress(ImportError):  # whoever needs it says so
            importlib.import_module(name)


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
        bracket = belonging(bracket, alignment)
        window = common(bracket) if chosen.crop else None
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
        options={"weight": chosen.weight, "denoise": chosen.denoise},
        progress=clock.progress,
    )
    with clock.stage("merge"):
        backend = backends.load_backend(name, settings)
        image = backend.merge(bracket, moved)
        image = anchored(image if window is None else cropped(image, window), chosen)
    moved = getattr(backend, "corrected", None) or moved
    moved = replace(moved, views=())  # they are large, and nothing needs them any more
    return Merged(image, bracket, moved, name, why, resolved.report, response, alignment, window)


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
    taken = {os.path.realpath(path): "one of the photographs" for path in paths}
    for path in targets:
        real = os.path.realpath(path)
        if real in taken:
            raise InputError(f"{path} is {taken[real]}", hint="choose another name")
        taken[real] = "to be written twice"
        formats.check_output(path, overwrite=options.overwrite)
        _check_kind(path, options.backend)
    if options.debug_dir is not None:
        check_folder(options.debug_dir)
    return targets


def _check_kind(path: Path, backend: str) -> None:
    """Whether what a backend makes can stand in this file; the backend ``auto`` makes light."""
    on_screen = backend in BACKENDS and BACKENDS[backend].produces == "display"
    if on_screen and not formats.for_output(path).display:
        raise InputError(
            f"{path}: {backend} makes a picture for the screen, not radiance",
            hint="write .jpg, .png or .tif, or choose another --backend",
        )


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


def common(bracket: Bracket) -> Window | None:
    """Rows and columns that every frame shows; None where that is all of them."""
    rows, cols = crop_to_overlap(bracket)
    if rows.stop <= rows.start:
        raise InputError("the aligned photographs have no part in common", hint="use --no-crop")
    height, width = bracket.size
    return None if (rows, cols) == (slice(0, height), slice(0, width)) else (rows, cols)


def cropped(image: Radiance | DisplayImage, window: Window) -> Radiance | DisplayImage:
    """A part of the image: cut when it is finished, so that no frame is resampled twice."""
    return replace(image, pixels=np.ascontiguousarray(image.pixels[window]))


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
    """Write every output; the tone-mapped ones from one and the same rendering.

    Light is written while the picture is rendered, and files are encoded side by side: encoders
    leave the cores idle now and then. Where one cannot be written, none stays.
    """
    linear = isinstance(merged.image, Radiance)
    light = [p for p in targets if linear and formats.for_output(p).linear]
    screen = [p for p in targets if p not in light]
    store = WriteOptions(
        exr_type=options.exr_type, exr_compression=options.compression, threads=options.threads or 0
    )
    with together(targets), ThreadPoolExecutor(2, thread_name_prefix="write") as pool:
        pending = [pool.submit(light_writer(merged, light, options, store))] if light else []
        if screen:
            write = partial(_write_screen, merged, rendered(merged.image, options), options, store)
            pending += [pool.submit(write, path) for path in screen]
        for job in pending:
            job.result()
    written = list(targets)
    if options.debug_dir is not None:
        written += maps.write_debug(options.debug_dir, merged.bracket, merged.motion, merged.window)
    return written


def light_writer(
    merged: Merged, paths: Sequence[Path], options: MergeOptions, store: WriteOptions
) -> Callable[[], None]:
    """Writes the radiance to each of ``paths``, from any thread.

    What the files say of their making is settled now: it depends on the context of this thread.
    """
    image = merged.image
    assert isinstance(image, Radiance)
    attributes = attributes_of(image, merged.bracket, facts_of(merged))
    layers = None
    if options.layers:
        layers = maps.layers(merged.bracket, merged.motion, merged.window)

    def write() -> None:
        for path in paths:
            formats.write(
                path,
                image,
                overwrite=options.overwrite,
                options=store,
                attributes=attributes,
                layers=layers,
            )

    return write


def _write_screen(
    merged: Merged, codes: Codes, options: MergeOptions, store: WriteOptions, path: Path
) -> None:
    shown = merged.image.primaries if isinstance(merged.image, DisplayImage) else color.REC709
    formats.write_display_codes(
        path,
        codes,
        overwrite=options.overwrite,
        options=store,
        primaries=shown,
        exif=merged.bracket.ref.metadata.exif,
        merged=True,
    )


def tone_plan(image: Radiance, options: MergeOptions) -> tonemap.Plan:
    """How the picture is tone mapped; worked out once for each, as more than one may show it."""
    key = options.tmo, tuple(sorted(options.tmo_params.items()))
    known = _PLANS.setdefault(image, {})
    if key not in known:
        known[key] = tonemap.analyse(
            image, options.tmo, options.tmo_params, threads=options.threads
        )
    return known[key]


_PLANS: WeakKeyDictionary[Radiance, dict[object, tonemap.Plan]] = WeakKeyDictionary()


def rendered(image: Radiance | DisplayImage, options: MergeOptions) -> Codes:
    """Eight-bit sRGB codes of the picture, (h, w, 3), reduced to the preview size if one is set."""
    if isinstance(image, DisplayImage):
        codes = formats.quantised(image.pixels, 255)
    else:
        plan = tone_plan(image, options)
        codes = tonemap.tonemap_codes(image, plan, options.threads)
    return maps.reduced(codes, options.preview_size)


def facts_of(merged: Merged) -> dict[str, Any]:
    """What was found and done, as plain data: for JSON, metadata and -v."""
    bracket, image = merged.bracket, merged.image
    report = merged.exposures
    strangers = [frame.name for frame in merged.alignment.frames if not frame.same_scene]
    facts: dict[str, Any] = {
        "frames": [frame.name for frame in bracket.frames],
        "evs": [round(float(ev), 3) for ev in bracket.evs],
        "pixel_evs": [
            None if ev is None else round(ev, 3)
            for name, ev in zip(report.names, report.pixel_evs, strict=True)
            if name not in strangers
        ],
        "exposure_source": report.source,
        "reference": bracket.ref.name,
        "response": merged.response.response.name,
        "response_why": merged.response.why,
        "alignment": [str(frame) for frame in merged.alignment.frames],
        "moved_percent": round(100 * merged.motion.moved, 2),
        "size": [image.pixels.shape[1], image.pixels.shape[0]],
        "backend": merged.backend,
    }
    if strangers:
        facts["left_out"] = strangers
    if isinstance(image, Radiance):
        facts["clipped_percent"] = round(100 * image.clipped, 3)
        facts["white_exposure"] = image.exposure
        facts["primaries"] = image.primaries.name
        facts |= image.info
    return facts


def warnings_of(merged: Merged) -> list[str]:
    """Everything a user should hear; what has not been said before is logged here."""
    said = list(merged.exposures.warnings)
    fresh = [
        f"{found.name} is left out: {found.note}"
        if not found.same_scene
        else f"{found.name} was not aligned: {found.note}"
        for found in merged.alignment.frames
        if found.method == "failed"
    ]
    fresh += [
        f"{frame.name} is no photograph but a picture that hdrcli made of a bracket"
        for frame in merged.bracket.frames
        if frame.metadata.merged
    ]
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
