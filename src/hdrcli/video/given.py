"""Exposures that were said: by the user, or by a file beside the clip. The pixels check them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hdrcli import formats
from hdrcli.bracket.exif_exposure import exposure_of
from hdrcli.bracket.sidecar import MAX_BYTES, number
from hdrcli.errors import BracketError, InputError
from hdrcli.frames import Response
from hdrcli.video import exposures
from hdrcli.video.clip import Clip
from hdrcli.video.exposures import Cycle, Pattern
from hdrcli.video.probe import Probe

log = logging.getLogger("hdrcli")

NEAR_EV = 0.35  # measured ratios this near to the given ones refine them
WRONG_EV = 0.5  # from here on they contradict
SIDECARS = ("exposures.txt", "Exposures.txt", "ev.txt")
MOST = 8  # exposures of a pattern
LOOKED_AT = 12  # pictures whose EXIF is read
SAME_EV = 0.05  # difference of two exposures that are one


@dataclass(frozen=True)
class Given:
    """What the user said. ``evs`` in stops (+ is brighter) or ``seconds``, of one period;
    ``pattern`` says which of them frame 0, 1, … has. ``auto`` finds what is not said."""

    evs: tuple[float, ...] | None = None
    seconds: tuple[float, ...] | None = None
    pattern: tuple[int, ...] | None = None

    def values(self) -> tuple[float, ...] | None:
        """Exposures in the order of the frames; None where the pixels decide."""
        said = self.seconds or (None if self.evs is None else tuple(2.0**ev for ev in self.evs))
        if said is None:
            return None
        if self.pattern is None:
            return said
        if any(not 0 <= i < len(said) for i in self.pattern):
            raise InputError(
                f"--pattern {','.join(map(str, self.pattern))}: there are {len(said)} exposures, "
                f"numbered 0 to {len(said) - 1}"
            )
        return tuple(said[i] for i in self.pattern)


def pattern_of(
    clip: Clip, probes: Sequence[Probe], claimed: Response, given: Given, *, fixed: bool
) -> Pattern:
    """The clip's pattern. BracketError where nothing is said and nothing is found.

    ``fixed`` means that the response was given, and is not to be doubted.
    """
    values, source = given.values(), "given"
    if values is None:
        values, source = beside(clip), "sidecar"
    if values is None:
        values, source = recorded(clip), "EXIF"
        if values is not None:
            found = said(values, source, probes, claimed, fixed=fixed)
            if not _contradicted(found):
                return found
            values = None
    if values is None:
        found = exposures.detect(probes, claimed)
        if fixed:
            found = _with_curve(found, probes, claimed)
        if given.pattern is not None and len(given.pattern) != found.period:
            raise BracketError(
                f"--pattern has {len(given.pattern)} places, the pixels show "
                f"{found.period} exposures",
                hint="say the exposures too, with --ev",
            )
        return found
    return said(values, source, probes, claimed, fixed=fixed)


def _with_curve(found: Pattern, probes: Sequence[Probe], curve: Response) -> Pattern:
    """The pattern as a given curve measures it."""
    cycle = exposures.find_cycle([probe.level for probe in probes])
    blocks = exposures.matched_blocks(exposures.neighbours(probes, cycle), found.white)
    evs = exposures.measured_evs(blocks, curve, cycle.period)
    assert evs is not None
    return exposures.placed(
        cycle,
        2.0**evs,
        curve,
        "pixels",
        evs=evs,
        blocks=found.blocks,
        why="as asked",
        white=found.white,
    )


def said(
    values: tuple[float, ...],
    source: str,
    probes: Sequence[Probe],
    claimed: Response,
    *,
    fixed: bool,
) -> Pattern:
    """The pattern of given exposures: the pixels tell the phase, and refine what is near."""
    period = len(values)
    if not 2 <= period <= MOST:
        raise InputError(f"{period} exposures: a pattern has 2 to {MOST}")
    if np.ptp(np.log2(values)) < exposures.LEAST_EV:
        raise BracketError("the exposures given are all the same")
    cycle = exposures.find_cycle([probe.level for probe in probes], period)
    ordered = in_phase(values, cycle)
    pairs = exposures.neighbours(probes, cycle)
    white = exposures.white_of(pairs)
    blocks = exposures.matched_blocks(pairs, white)
    curve, why = (claimed, "as asked") if fixed else exposures.choose_curve(blocks, claimed)
    measured = exposures.measured_evs(blocks, curve, period)
    count = sum(len(b.dark) for b in blocks)
    pattern = exposures.placed(
        cycle, np.array(ordered), curve, source, evs=measured, blocks=count, why=why, white=white
    )
    return _refined(pattern)


def in_phase(values: tuple[float, ...], cycle: Cycle) -> tuple[float, ...]:
    """The exposures in the order of the cycle, as said from frame 0 on, unless the pixels show
    another phase plainly."""
    period = len(values)
    as_said = tuple(values[(cycle.first + i) % period] for i in range(period))
    levels = np.asarray(cycle.levels)
    if np.ptp(levels) < exposures.SEEN:
        return as_said
    turns = [as_said[i:] + as_said[:i] for i in range(period)]
    fits = [float(np.corrcoef(np.log2(turn), levels)[0, 1]) for turn in turns]
    best = int(np.argmax(fits))
    if fits[best] > fits[0] + 0.2:
        log.warning(
            "the pixels show the exposures %d frame%s earlier than they were given; "
            "the pixels are followed",
            best,
            "s" * (best != 1),
        )
        return turns[best]
    return as_said


def _refined(pattern: Pattern) -> Pattern:
    """Given exposures, set to what the pixels measure where that is near: nominal shutter
    speeds are a few percent off, and the difference would flicker."""
    if pattern.measured is None:
        return pattern
    nominal = np.log2(np.array(pattern.exposures) / pattern.exposures[pattern.anchor])
    off = np.abs(nominal - np.array(pattern.measured))
    if off.max() > WRONG_EV:
        log.warning(
            "the pixels say %s EV where %s EV was given",
            ", ".join(f"{ev:+.2f}" for ev in pattern.measured),
            ", ".join(f"{ev:+.2f}" for ev in nominal),
        )
    if off.max() > NEAR_EV:
        return pattern
    base = pattern.exposures[pattern.anchor]
    return replace(pattern, exposures=tuple(base * 2.0**ev for ev in pattern.measured))


def _contradicted(pattern: Pattern) -> bool:
    """Whether the pixels say something else than the exposures."""
    if pattern.measured is None:
        return False
    nominal = np.log2(np.array(pattern.exposures) / pattern.exposures[pattern.anchor])
    return bool(np.abs(nominal - np.array(pattern.measured)).max() > WRONG_EV)


def recorded(clip: Clip) -> tuple[float, ...] | None:
    """The exposures of one period, as the EXIF of a folder of pictures has them; None where it
    lacks them, or where they do not repeat."""
    found = []
    for path in clip.files[:LOOKED_AT]:
        exposure = exposure_of(formats.read(path).metadata)
        if exposure is None:
            return None
        found.append(exposure)
    stops = np.log2(np.array(found))
    for period in range(2, min(MOST, len(stops) - 1) + 1):
        repeats = np.abs(stops[period:] - stops[:-period]).max() < SAME_EV
        if repeats and np.ptp(stops[:period]) >= exposures.LEAST_EV:
            return tuple(found[:period])
    return None


def beside(clip: Clip) -> tuple[float, ...] | None:
    """Exposures from a file: CLIP.exposures.txt, or, in a folder of pictures, one of SIDECARS.

    It holds one period: stops, where a number is not above zero or has no fraction bar and
    they are not all seconds, else seconds.
    """
    folder = clip.files[0].parent if clip.files else clip.path.parent
    names = SIDECARS if clip.files else ()
    for path in (
        clip.path.with_name(clip.path.name + ".exposures.txt"),
        *(folder / n for n in names),
    ):
        if path.is_file() and path.stat().st_size < MAX_BYTES:
            return read_exposures(path)
    return None


def read_exposures(path: Path) -> tuple[float, ...]:
    """The exposures of one period. Numbers with a bar (1/60) are seconds, others stops."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    words = " ".join(line.split("#")[0] for line in lines).replace(",", " ").split()
    try:
        values = [number(word) for word in words]
    except ValueError as err:
        raise InputError(
            f"{path}: {err}", hint="stops such as 0 3, or seconds such as 1/60"
        ) from err
    if not 2 <= len(values) <= MOST:
        raise InputError(f"{path}: {len(values)} numbers; one period has 2 to {MOST}")
    if any("/" in word for word in words):
        if min(values) <= 0:
            raise InputError(f"{path}: an exposure is longer than zero")
        return tuple(values)
    return tuple(2.0**value for value in values)
