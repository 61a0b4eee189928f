"""Exposure from metadata: seconds x ISO / 100 / f-number squared, for one file and a set."""

import logging
import math
from collections import Counter
from collections.abc import Sequence

from hdrcli.frames import Metadata

log = logging.getLogger("hdrcli")

LONGEST = 3600.0  # seconds; more than an hour is a damaged tag
ISO_RANGE = (1.0, 1e7)
APERTURE_RANGE = (0.1, 1000.0)  # 0 is written for lenses without contacts


def exposure_of(metadata: Metadata) -> float | None:
    """Exposure of one file, or None where its time is missing or nonsense.

    A missing or impossible ISO counts as 100, a missing or impossible aperture as f/1: within a
    set of files that all miss it, only the constant factor is lost.
    """
    return _exposure(metadata, _iso(metadata) or 100.0, _aperture(metadata) or 1.0)


def exposures_of(files: Sequence[tuple[str, Metadata]]) -> list[float | None]:
    """Exposure of each file of one set, (name, metadata) each.

    Where some files lack aperture or ISO they are given what the others have; that, and every
    time that cannot be true, is warned of.
    """
    isos = _filled("ISO", [(name, _iso(m)) for name, m in files], 100.0)
    apertures = _filled("aperture", [(name, _aperture(m)) for name, m in files], 1.0)
    for name, metadata in files:
        time = metadata.exposure_time
        if time is not None and not _possible(time):
            log.warning("%s: an exposure time of %g s cannot be true; ignored", name, time)
    return [
        _exposure(metadata, iso, aperture)
        for (_, metadata), iso, aperture in zip(files, isos, apertures, strict=True)
    ]


def _exposure(metadata: Metadata, iso: float, aperture: float) -> float | None:
    time = metadata.exposure_time
    if time is None or not _possible(time):
        return None
    return time * iso / 100 / aperture**2


def _possible(time: float) -> bool:
    return math.isfinite(time) and 0 < time <= LONGEST


def _iso(metadata: Metadata) -> float | None:
    return _within(metadata.iso, ISO_RANGE)


def _aperture(metadata: Metadata) -> float | None:
    return _within(metadata.f_number, APERTURE_RANGE)


def _within(value: float | None, limits: tuple[float, float]) -> float | None:
    return value if value is not None and limits[0] <= value <= limits[1] else None


def _filled(what: str, values: Sequence[tuple[str, float | None]], default: float) -> list[float]:
    """The values, the missing ones replaced by the commonest of those that are known."""
    known = [value for _, value in values if value is not None]
    missing = [name for name, value in values if value is None]
    if known and missing:
        usual = Counter(known).most_common(1)[0][0]
        log.warning(
            "%s: no %s recorded; taken as %g, as in the other frames",
            ", ".join(missing),
            what,
            usual,
        )
        default = usual
    return [default if value is None else value for _, value in values]
