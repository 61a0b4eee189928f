"""Photographs into a Bracket: exposures found and cross-checked, the reference chosen."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hdrcli import formats
from hdrcli.bracket import exposures as ladder
from hdrcli.bracket import reference as references
from hdrcli.bracket.exif_exposure import exposure_of
from hdrcli.bracket.exposures import ExposureReport, Given, Known, Mode
from hdrcli.bracket.pixels import estimate, prior_of
from hdrcli.errors import BracketError
from hdrcli.frames import Bracket, Frame
from hdrcli.response.samples import Samples, Sampling, take

__all__ = [
    "ExposureReport",
    "ResolvedBracket",
    "choose_reference",
    "estimate_exposures",
    "exposure_of",
    "read_bracket",
    "resolve",
]

log = logging.getLogger("hdrcli")

ALONE = "one photograph can be tone mapped: hdrcli tonemap FILE"


@dataclass(frozen=True, eq=False)
class ResolvedBracket:
    """A bracket whose exposures are known, how they were found, and what was sampled of it."""

    bracket: Bracket
    report: ExposureReport
    samples: Samples  # in the order of the bracket; response.apply_response takes them


def read_bracket(
    paths: Iterable[Path | str],
    *,
    evs: Sequence[float] | None = None,
    exposure_times: Sequence[float] | None = None,
    exposures: Mode = "auto",
    reference: str | int = "auto",
    threads: int | None = None,
) -> ResolvedBracket:
    """Read photographs of one scene and find out how they were exposed.

    ``evs`` (stops, + is brighter) or ``exposure_times`` (seconds) are in the order of
    ``paths`` and win over everything the files say. Raises InputError or BracketError.
    """
    listed = [Path(path) for path in paths]
    given = _checked(listed, evs, exposure_times)
    kept = _without_twins(listed)
    frames, sampling = formats.read_with([listed[i] for i in kept], Sampling, threads)
    given = _only(given, kept)
    return _resolved(
        frames, sampling.samples, given=given, exposures=exposures, reference=reference
    )


def resolve(
    frames: Sequence[Frame],
    *,
    given: Given | None = None,
    exposures: Mode = "auto",
    reference: str | int = "auto",
) -> ResolvedBracket:
    """Make a Bracket of frames in any order. See ``read_bracket``."""
    sample = partial(take, frames)
    return _resolved(frames, sample, given=given, exposures=exposures, reference=reference)


def _resolved(
    frames: Sequence[Frame],
    sample: Callable[[], Samples],
    *,
    given: Given | None,
    exposures: Mode,
    reference: str | int,
) -> ResolvedBracket:
    _must_fit(frames)
    samples = sample()
    found, known, report = ladder.find(frames, samples, given or Given(), exposures)
    white = samples.white
    exposed = [
        replace(f, exposure=e, white=white if f.levels else 1.0)
        for f, e in zip(frames, found, strict=True)
    ]
    ordered = Bracket.of(exposed)
    order = [next(i for i, e in enumerate(exposed) if e is f) for f in ordered.frames]
    samples = samples.of(order)
    strangers = [order.index(i) for i in known.seen.strangers]
    index = references.choose(ordered.frames, reference, samples, strangers)
    bracket = replace(ordered, reference=index)
    _warn_of_differences(frames, report)
    return ResolvedBracket(bracket, _reported(report, bracket, known, order), samples)


def estimate_exposures(frames: Sequence[Frame]) -> tuple[list[float], float]:
    """Stops of each frame above their mean, from the pixels alone, and the confidence 0 to 1."""
    seen = estimate(take(frames), prior_of(frames))
    return [float(ev) for ev in seen.evs], seen.sure


def choose_reference(bracket: Bracket, want: str | int = "auto") -> Bracket:
    """The same bracket with the reference asked for: "auto", a number from 1, or a name."""
    return replace(bracket, reference=references.choose(bracket.frames, want))


def _checked(
    paths: Sequence[Path], evs: Sequence[float] | None, times: Sequence[float] | None
) -> Given:
    if evs is not None and times is not None:
        raise BracketError("--ev and --exposure-times say the same: give one of them")
    for option, values in (("--ev", evs), ("--exposure-times", times)):
        if values is not None and len(values) != len(paths):
            raise BracketError(
                f"{option} has {len(values)} values for {len(paths)} files",
                hint=f"{option} takes one value per file, in the order of the files",
            )
    return Given(tuple(evs) if evs is not None else None, tuple(times) if times else None)


def _only(given: Given, kept: Sequence[int]) -> Given:
    def pick(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if values is None else tuple(values[i] for i in kept)

    return Given(pick(given.evs), pick(given.times))


def _without_twins(paths: Sequence[Path]) -> list[int]:
    """Indices of the files without those that are the same file, or the same bytes, again."""
    sizes = [path.stat().st_size if _is_file(path) else -1 for path in paths]
    seen: dict[object, Path] = {}
    kept = []
    for i, path in enumerate(paths):
        keys = _identity(path, alone=sizes.count(sizes[i]) == 1)
        twin = next((seen[key] for key in keys if key in seen), None)
        if twin is None:
            kept.append(i)
            seen.update(dict.fromkeys(keys, path))
        else:
            log.warning("%s is the same photograph as %s; it is left out", path, twin)
    return kept


def _identity(path: Path, *, alone: bool) -> list[object]:
    """What tells a file from others: its inode; its hash unless its size already does."""
    if not _is_file(path):
        return []
    status = path.stat()
    inode: list[object] = [(status.st_dev, status.st_ino)]
    if alone:
        return inode
    with path.open("rb") as file:
        return [*inode, hashlib.file_digest(file, "sha256").digest()]


def _is_file(path: Path) -> bool:
    """Whether a file can be there; a name may be longer than any disk takes."""
    try:
        return path.is_file()
    except OSError:
        return False


def _must_fit(frames: Sequence[Frame]) -> None:
    if len(frames) < 2:
        raise BracketError("a bracket needs at least two different photographs", hint=ALONE)
    if len({frame.size for frame in frames}) > 1:
        sizes = ", ".join(f"{f.name} {f.size[1]}x{f.size[0]}" for f in frames)
        raise BracketError(
            f"the photographs differ in size: {sizes}",
            hint="give the files of one bracket, all as the camera wrote them",
        )


def _warn_of_differences(frames: Sequence[Frame], report: ExposureReport) -> None:
    """Cameras, focal lengths and apertures that change within one bracket."""
    for what, consequence, values in (
        ("camera", "", {f.metadata.model for f in frames}),
        ("aperture", ": depth of field differs", {f.metadata.f_number for f in frames}),
        ("focal length", ": alignment may fail", {f.metadata.focal_length for f in frames}),
    ):
        known = sorted(str(value) for value in values if value)
        if len(known) > 1:
            report.warn(f"the photographs differ in {what} ({', '.join(known)}){consequence}")


def _reported(
    report: ExposureReport, bracket: Bracket, known: Known, order: Sequence[int]
) -> ExposureReport:
    """The report in the bracket's order, stops counted from the reference."""
    ref = order[bracket.reference]
    base = known.exif[ref]
    report.names = [frame.name for frame in bracket.frames]
    report.exposures = bracket.exposures.tolist()
    report.evs = bracket.evs.tolist()
    report.exif_evs = [
        float(np.log2(value / base)) if value and base else None
        for value in (known.exif[i] for i in order)
    ]
    seen = known.seen
    report.pixel_evs = [float(seen.evs[i] - seen.evs[ref]) for i in order]
    report.confidence = [float(seen.confidence[i]) for i in order]
    return report
