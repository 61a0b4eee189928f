"""The ladder of exposures: given > sidecar > EXIF > the pixels; and what contradicts them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hdrcli.bracket import pixels, sidecar
from hdrcli.bracket.exif_exposure import exposures_of
from hdrcli.bracket.pixels import PixelExposures
from hdrcli.errors import BracketError
from hdrcli.frames import Frame
from hdrcli.response.samples import Samples

log = logging.getLogger("hdrcli")

Doubles = NDArray[np.float64]
Mode = Literal["auto", "exif", "estimate"]

CONSTANT_EV = 0.05  # exposures this near are meant to be one
DIFFERENT_EV = 0.5  # frames this far apart are obviously not of one exposure
SURE = 0.3  # confidence from which the pixels' word is taken
DISAGREE_EV = 0.3
EXPLAINED_EV = 0.03  # systematic error of frames whose claimed curve is true
WIDEST_EV = 40.0  # stops; more is a slip of the pen
SAME_EV = 0.1  # a bracket narrower than this gains no range


@dataclass
class ExposureReport:
    """How the exposures were found. Lists are in the order of the bracket, darkest first.

    ``evs`` are stops above the reference, + is brighter; ``exif_evs`` and ``pixel_evs`` are
    on the same scale, so that they can stand beside them. ``confidence`` is the pixels' own,
    0 to 1.
    """

    source: str
    names: list[str] = field(default_factory=list)
    exposures: list[float] = field(default_factory=list)
    evs: list[float] = field(default_factory=list)
    exif_evs: list[float | None] = field(default_factory=list)
    pixel_evs: list[float | None] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        """Say it now, and keep it for the report."""
        log.warning("%s", message)
        self.warnings.append(message)


@dataclass(frozen=True)
class Given:
    """What the user said outright: one value per frame, or nothing."""

    evs: tuple[float, ...] | None = None
    times: tuple[float, ...] | None = None


@dataclass(eq=False)
class Known:
    """What each source says of the frames."""

    frames: Sequence[Frame]
    exif: list[float | None]
    samples: Samples
    seen: PixelExposures

    def look_closer(self) -> PixelExposures:
        """Find the exposures from the pixels alone, whatever the files say."""
        self.seen = pixels.estimate(self.samples, pixels.prior_of(self.frames))
        return self.seen

    @property
    def exif_evs(self) -> Doubles | None:
        """Stops by EXIF, mean 0; None unless every frame has an exposure."""
        values = [value for value in self.exif if value is not None]
        return _centred(values) if len(values) == len(self.exif) else None


def find(
    frames: Sequence[Frame], samples: Samples, given: Given, mode: Mode = "auto"
) -> tuple[list[float], Known, ExposureReport]:
    """Exposure of each frame, in the order given, what the sources say, and the report.

    Raises BracketError where nothing says what the exposures are.
    """
    report = ExposureReport("")
    prior = pixels.prior_of(frames)
    known = Known(frames, _of_files(frames), samples, pixels.rough(samples, prior))
    exposures = (
        _as_given(known, given, report)
        or (None if mode != "auto" else _by_sidecar(known, report))
        or (None if mode == "estimate" else _by_exif(known, report, mode))
        or (None if mode == "exif" else _by_pixels(known, report))
    )
    if not exposures:
        raise BracketError(
            f"the exposures of {_names(frames)} are not recorded in EXIF",
            hint="--ev -2,0,2 in the order of the files, or --exposures estimate",
        )
    _cross_check(known, exposures, report)
    _warn_of_strangers(known, report)
    if np.ptp(np.log2(exposures)) < SAME_EV:
        report.warn("all frames have one exposure: no dynamic range is gained, only less noise")
    return exposures, known, report


def _of_files(frames: Sequence[Frame]) -> list[float | None]:
    """By EXIF, or what a linear file says outright."""
    found = exposures_of([(frame.name, frame.metadata) for frame in frames])
    return [f.exposure if value is None else value for f, value in zip(frames, found, strict=True)]


def _as_given(known: Known, given: Given, report: ExposureReport) -> list[float] | None:
    if given.evs is not None:
        report.source = "--ev"
        if not all(abs(ev) <= WIDEST_EV for ev in given.evs):
            raise BracketError(f"--ev: stops are between -{WIDEST_EV:g} and {WIDEST_EV:g}")
        return _anchored([2.0**ev for ev in given.evs], known)
    if given.times is not None:
        report.source = "--exposure-times"
        bad = [time for time in given.times if not 0 < time < np.inf]
        if bad:
            raise BracketError(f"--exposure-times: {bad[0]:g} s is not a time")
        return [time * _per_second(f) for time, f in zip(given.times, known.frames, strict=True)]
    return None


def _per_second(frame: Frame) -> float:
    """ISO / 100 / N² of a frame, 1 where it is not known."""
    iso, aperture = frame.metadata.iso or 100.0, frame.metadata.f_number or 1.0
    return iso / 100 / aperture**2


def _by_sidecar(known: Known, report: ExposureReport) -> list[float] | None:
    paths = [frame.path for frame in known.frames if frame.path is not None]
    if len(paths) != len(known.frames):
        return None
    for found in sidecar.find(paths):
        if isinstance(found, sidecar.Misfit):
            report.warn(f"{found.path.name} is not used: {found.why}")
            continue
        best = min(found.readings, key=lambda r: _distance(_centred(r), known.seen.evs))
        report.source = found.path.name
        return _anchored(best, known)
    return None


def _by_exif(known: Known, report: ExposureReport, mode: Mode) -> list[float] | None:
    evs = known.exif_evs
    if evs is None:
        missing = [f.name for f, e in zip(known.frames, known.exif, strict=True) if e is None]
        if len(missing) < len(known.frames):
            report.warn(f"no exposure is recorded in {', '.join(missing)}")
        return None
    firm = known.seen.evs[known.seen.confidence >= SURE]
    apart = float(np.ptp(firm)) if len(firm) else 0.0
    if mode == "auto" and np.ptp(evs) < CONSTANT_EV and apart > DIFFERENT_EV:
        report.warn(
            "EXIF gives every frame one exposure, but the pixels are "
            f"{apart:.1f} EV apart: EXIF is not believed"
        )
        return None
    report.source = "EXIF"
    return [value for value in known.exif if value is not None]


def _by_pixels(known: Known, report: ExposureReport) -> list[float]:
    """The pixels' estimate; a step they do not show is taken as long as those they do."""
    seen = known.look_closer()
    if seen.sure >= SURE:
        report.source = "pixels"
        evs = seen.evs
    elif seen.measured >= 2:
        evs = seen.evenly()
        report.source = "pixels and even spacing"
        weak = [f.name for f, c in zip(known.frames, seen.confidence, strict=True) if c < SURE]
        report.warn(f"{', '.join(weak)}: too little is seen twice; even steps are assumed")
    else:
        raise BracketError(
            f"the exposures of {_names(known.frames)} are not recorded, and the pixels do not "
            f"show them (confidence {seen.sure:.2f})",
            hint="--ev -2,0,2 gives the stops in the order of the files; + is brighter",
        )
    shown = ", ".join(f"{ev:+.2f}" for ev in evs - evs[np.argsort(evs)[len(evs) // 2]])
    report.warn(f"exposures estimated: {shown} EV (confidence {seen.sure:.2f})")
    return _anchored(list(np.exp2(evs)), known)


def _anchored(relative: Sequence[float], known: Known) -> list[float]:
    """Relative exposures scaled to the absolute level EXIF gives, where it gives one."""
    exif = [value for value in known.exif if value is not None]
    if len(exif) != len(relative) or np.ptp(np.log2(exif)) < CONSTANT_EV:
        return [float(value) for value in relative]
    factor = np.exp2(np.median(np.log2(exif) - np.log2(relative)))
    return [float(value * factor) for value in relative]


def _cross_check(known: Known, exposures: Sequence[float], report: ExposureReport) -> None:
    """Warn of every frame whose exposure the pixels contradict, whatever the camera's curve."""
    if report.source.startswith("pixels"):
        return
    evs = _centred(exposures)
    off = _contradictions(known, evs)
    middle = evs - np.median(evs)
    for i, frame in enumerate(known.frames):
        if abs(off[i]) > DISAGREE_EV and known.seen.confidence[i] >= SURE:
            report.warn(
                f"{frame.name}: {report.source} says {middle[i]:+.2f} EV, "
                f"the pixels {middle[i] + off[i]:+.2f} EV"
            )


def _warn_of_strangers(known: Known, report: ExposureReport) -> None:
    names = [known.frames[i].name for i in known.seen.strangers]
    if len(names) == len(known.frames):
        report.warn("the photographs do not seem to show one scene")
    elif names:
        report.warn(
            f"{', '.join(names)} shows something else than the other photographs: "
            "does it belong to them?"
        )


def _contradictions(known: Known, evs: Doubles) -> Doubles:
    """EV by which the pixels depart from ``evs``, (F,); what they say is kept in ``known``.

    A claimed curve that explains the frames settles it; else any curve a camera may have is
    tried to make sense of ``evs``, and only then the pixels speak for themselves.
    """
    if known.seen.misfit > EXPLAINED_EV:
        beside = pixels.beside(known.samples, evs, pixels.prior_of(known.frames))
        known.seen = beside or known.look_closer()
    departure = known.seen.evs - evs
    return np.asarray(departure - np.median(departure))


def _centred(exposures: Sequence[float]) -> Doubles:
    evs = np.log2(np.asarray(exposures, np.float64))
    return np.asarray(evs - evs.mean())


def _distance(a: Doubles, b: Doubles) -> float:
    return float(np.abs(a - b).max())


def _names(frames: Sequence[Frame]) -> str:
    return ", ".join(frame.name for frame in frames)
