"""Which exposure each frame has: the pattern followed through the clip.

A camera or an editor may drop a frame or double one, and from there on every frame would be
taken for another exposure. The mean code of each frame is compared with what its exposure last
looked like; where another exposure fits far better the pattern is set anew, and said so by
frame number. At a cut nothing fits: the order of bright and dark in the next frames decides.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hdrcli.video.clip import Timed
from hdrcli.video.exposures import Pattern

CLOSER = 0.35  # another exposure fits if it is so much nearer than the expected one
CUT = 0.5  # of the distance between exposures: a mean code this far from all is a new scene
DOUBLED = 0.3  # of the usual difference of two frames of one exposure: two nearer ones are one
STRIDE = 8  # every so many pixels are looked at


@dataclass(frozen=True)
class Break:
    """Where the pattern was broken. ``frame`` counts from 0."""

    frame: int
    what: str  # "doubled", "dropped", "cut"
    frames: int = 1  # how many were dropped

    def __str__(self) -> str:
        """In words."""
        if self.what == "doubled":
            return f"frame {self.frame} is a double of the one before"
        if self.what == "cut":
            return f"a cut before frame {self.frame}: the pattern starts anew"
        plural = "frame is" if self.frames == 1 else "frames are"
        return f"before frame {self.frame} {self.frames} {plural} missing"


@dataclass
class _Memory:
    """What the frames so far looked like."""

    levels: list[float]  # mean code of each place
    looks: dict[int, np.ndarray] = field(default_factory=dict)  # the last frame of each place
    last: int | None = None  # its place
    usual: float = 0.0  # difference of two frames of one place, a period apart

    def doubles(self, look: np.ndarray) -> bool:
        """Whether a frame is the one before once more."""
        if self.last is None:
            return False
        return _unlike(look, self.looks[self.last]) <= DOUBLED * self.usual

    def keep(self, key: int, level: float, look: np.ndarray, *, broken: bool) -> None:
        """Remember a frame."""
        if key in self.looks and not broken:
            self.usual += 0.3 * (_unlike(look, self.looks[key]) - self.usual)
        self.levels[key] += 0.5 * (level - self.levels[key])
        self.looks[key], self.last = look, key


def _unlike(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


@dataclass
class Phase:
    """Follows the pattern. ``breaks`` are those met so far."""

    pattern: Pattern
    breaks: list[Break] = field(default_factory=list)

    def follow(self, frames: Iterable[Timed]) -> Iterator[Timed]:
        """The frames with the keys of their exposures. Holds back two periods of frames."""
        period = self.pattern.period
        memory = _Memory(list(self.pattern.levels))
        expected, scene = self.pattern.first % period, 0
        for timed, look, coming in _with_coming(frames, 2 * period):
            level = float(look.mean())
            key, what = self._judge(level, memory, expected, look)
            if what == "cut":
                key = best_shift([level, *coming], self.pattern.evs, expected)
                scene += 1
                memory = _Memory(relevelled(memory.levels, [level, *coming], key))
            # nothing is missing before the first frame
            if timed.index and what and (what, key) != ("cut", expected):
                missing = (key - expected) % period if what == "dropped" else 1
                self.breaks.append(Break(timed.index, what, missing))
            memory.keep(key, level, look, broken=bool(what))
            yield replace(timed, key=key, scene=scene)
            expected = (key + 1) % period

    def _judge(
        self, level: float, memory: _Memory, expected: int, look: np.ndarray
    ) -> tuple[int, str]:
        """The key of a frame by its mean code, and what broke, if anything did."""
        away = np.abs(np.asarray(memory.levels) - level)
        apart = _apart(memory.levels)
        nearest = int(np.argmin(away))
        if away[nearest] > CUT * apart:
            return expected, "cut"
        if away[expected] <= CLOSER * apart or away[nearest] > CLOSER * away[expected]:
            return expected, ""
        return nearest, "doubled" if memory.doubles(look) else "dropped"


def _apart(levels: Sequence[float]) -> float:
    """The least distance between two different exposures' mean codes."""
    ordered = np.sort(np.asarray(levels))
    steps = np.diff(ordered)
    return float(steps[steps > 0.25 * steps.max()].min()) if steps.max() > 0 else 1.0


def _with_coming(
    frames: Iterable[Timed], count: int
) -> Iterator[tuple[Timed, np.ndarray, list[float]]]:
    """Each frame, every STRIDE-th pixel of it, and the mean codes of the next ``count``."""
    held: deque[tuple[Timed, np.ndarray]] = deque()
    for timed in frames:
        held.append((timed, glimpse(timed)))
        if len(held) > count:
            first, look = held.popleft()
            yield first, look, [float(other.mean()) for _, other in held]
    while held:
        first, look = held.popleft()
        yield first, look, [float(other.mean()) for _, other in held]


def glimpse(timed: Timed) -> np.ndarray:
    """Every STRIDE-th pixel, codes of 1."""
    frame = timed.frame
    top = np.float32(1 / (frame.levels - 1) if frame.levels else 1)
    return np.asarray(frame.codes[::STRIDE, ::STRIDE] * top, np.float32)


def best_shift(levels: Sequence[float], evs: Sequence[float], expected: int) -> int:
    """The place in the pattern of the first of these frames, by the order of bright and dark."""
    period = len(evs)
    seen = np.asarray(levels)[: 2 * period]
    if len(seen) < 2 or np.ptp(seen) == 0:
        return expected
    scores = []
    for key in range(period):
        known = np.array([evs[(key + i) % period] for i in range(len(seen))])
        spread = known.std() * seen.std()
        scores.append(float(((known - known.mean()) * (seen - seen.mean())).mean() / spread))
    best = int(np.argmax(scores))
    return best if scores[best] > scores[expected] + 0.05 else expected


def relevelled(levels: Sequence[float], seen: Sequence[float], key: int) -> list[float]:
    """Mean codes of the exposures in a new scene."""
    period = len(levels)
    fresh = list(levels)
    for i, level in reversed(list(enumerate(seen[:period]))):
        fresh[(key + i) % period] = level
    return fresh
