"""Windows: each frame with the frames before and after it that have the other exposures."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hdrcli.video.clip import Timed


@dataclass(frozen=True, eq=False)
class Window:
    """A frame, and per other exposure the nearest frame before and after it (either may lack)."""

    now: Timed
    others: tuple[tuple[Timed | None, Timed | None], ...]
    alike: tuple[Timed | None, Timed | None] = (None, None)  # of its own exposure
    scene: tuple[Timed, ...] = ()  # all frames at hand of the same scene, in order of time

    @property
    def frames(self) -> tuple[Timed, ...]:
        """All frames in order of time."""
        found = [one for pair in self.others for one in pair if one is not None]
        return tuple(sorted([self.now, *found], key=lambda timed: timed.index))

    def around(self, reach: int, period: int) -> tuple[Timed, ...]:
        """The frames up to ``reach`` before and after, in order of time.

        Where the one that the pattern wants is missing, at an end or after a break, the nearest
        of the same place in the pattern stands in for it, or the present frame.
        """
        found = []
        for offset in range(-reach, reach + 1):
            key, index = (self.now.key + offset) % period, self.now.index + offset
            fitting = [timed for timed in self.scene if timed.key == key] or [self.now]
            found.append(min(fitting, key=lambda timed: abs(timed.index - index)))
        return tuple(found)


def windows(frames: Iterable[Timed], period: int, same: dict[int, int]) -> Iterator[Window]:
    """One window per frame, in order. ``same`` maps a key to the number of its exposure.

    With two exposures a window has three frames, with three five; fewer at the ends of the clip
    and at cuts, which are not looked across.
    """
    reach = 2 * period  # a dropped frame widens a window
    held: deque[Timed] = deque()
    at = 0  # of the current frame in ``held``
    for timed in frames:
        held.append(timed)
        while len(held) - at > reach:
            yield _window(held, at, same)
            at += 1
            if at > reach:
                held.popleft()
                at -= 1
    while at < len(held):
        yield _window(held, at, same)
        at += 1


def _window(held: "deque[Timed]", at: int, same: dict[int, int]) -> Window:
    now = held[at]
    scene = [timed for timed in held if timed.scene == now.scene]
    pairs = {
        exposure: _around([t for t in scene if same[t.key] == exposure], now.index)
        for exposure in sorted(set(same.values()))
    }
    own = pairs.pop(same[now.key])
    return Window(now, tuple(pairs.values()), own, tuple(scene))


def _around(alike: list[Timed], index: int) -> tuple[Timed | None, Timed | None]:
    """The last before a frame, and the first after it."""
    before = [timed for timed in alike if timed.index < index]
    after = [timed for timed in alike if timed.index > index]
    return before[-1] if before else None, after[0] if after else None
