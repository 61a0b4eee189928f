"""A card of photographs cut into brackets.

Photographs are sorted into streams (one camera, one folder, one size), each stream is brought
into the order in which it was taken, and then cut where the cut costs least: dynamic
programming over all ways to cut it, with a price for every bracket by what speaks against it.

| speaks for one bracket | speaks against |
|---|---|
| every exposure once, in even steps | the same exposure again, uneven steps |
| darkest, brightest or metered frame first | any other order |
| the camera says it bracketed; bias follows exposure | it says it did not; bias does not |
| the next shutter opens soon after the last closed | a pause longer than the others |
| other brackets of this camera have the same steps | |

The pause runs from the end of one exposure to the start of the next. Whether a camera stamps
the start or the end, and whether it takes a dark frame after long exposures, is found out first.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median_low
from typing import Literal

from hdrcli.batch.shots import Shot
from hdrcli.bracket.sidecar import natural

How = Literal["auto", "time", "folder"]

PAUSE = 30.0  # seconds: a longer one ends every bracket that EXIF alone finds
LONG = 1.0  # seconds: from here on a camera may take a dark frame
LONGEST = 24  # photographs in a bracket
SAME = 0.17  # stops: exposures this near are meant to be one
LEAST = 0.45  # stops from the darkest to the brightest, at least
OUT_OF_ORDER = 0.1  # fraction of steps back in time from which file numbers mean nothing
WRAP = 9000  # a camera's numbers start again behind 9999

# The price of one thing that speaks against a bracket, in units of one photograph left single.
SINGLE = 1.4
BRACKET = 2.0
PAIR = 0.6  # only two photographs
TWICE = 1.0  # an exposure again
THRICE = 1.5  # and again
BURST = 1.6, 0.1  # one exposure all along: at first, and per photograph
UNEVEN = 1.1  # a step unlike the others
UNORDERED = 1.2
JUMP = 1.6  # per doubling of a pause over the bracket's usual one
SLOW = 0.6  # per doubling of a pause over two seconds; less where there are more steps
STILL = 0.6  # of a few photographs, none has another bias
METERED = 2.5  # the camera did not bracket, and nothing says that a hand did
CLOSE = 0.9  # the next photograph follows at once, and yet is cut off
AT_ONCE = 2.0  # seconds
CHANGED = 1.5  # aperture or bracketing changes inside
KNOWN = -0.5  # the camera's usual pattern
TOLD = -0.5  # the camera says so


@dataclass(frozen=True)
class Rules:
    """How to group. ``brackets`` fixes the number of photographs in a set."""

    how: How = "auto"
    brackets: int | None = None
    pause: float = PAUSE


@dataclass(frozen=True)
class Group:
    """Photographs of one scene in the order they were taken, and why they belong together."""

    shots: tuple[Shot, ...]
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grouping:
    """All of a card: the sets, and what belongs to none."""

    sets: tuple[Group, ...]
    singles: tuple[Shot, ...]


def group(shots: Sequence[Shot], rules: Rules | None = None) -> Grouping:
    """Cut photographs into sets of one scene each. The order they are given in changes nothing."""
    chosen = rules or Rules()
    sets: list[Group] = []
    singles: list[Shot] = []
    for stream in streams(shots):
        found = _cut(stream, chosen)
        sets += [part for part in found if len(part.shots) > 1]
        singles += [part.shots[0] for part in found if len(part.shots) == 1]
    return Grouping(tuple(sorted(sets, key=_place)), tuple(sorted(singles, key=lambda s: _name(s))))


def _place(found: Group) -> tuple[object, ...]:
    first = found.shots[0]
    when = math.inf if first.start is None else first.start
    return natural(str(first.root)), natural(str(first.stream)), when, natural(first.path.name)


def _name(shot: Shot) -> list[tuple[int, int, str]]:
    return natural(str(shot.path))


# ---- streams and their order -----------------------------------------------------------------


def streams(shots: Sequence[Shot]) -> list[list[Shot]]:
    """Photographs by folder, camera and kind of file, each in the order of taking."""
    found: dict[object, list[Shot]] = {}
    for shot in sorted(shots, key=_name):
        key = (str(shot.root), str(shot.stream), shot.camera, shot.path.suffix.lower())
        found.setdefault(key, []).append(shot)
    return [ordered(stream) for stream in found.values()]


def ordered(stream: Sequence[Shot]) -> list[Shot]:
    """The order of taking: by number where time agrees with the numbers, else by time.

    Numbers survive a clock that was set in between; times survive a new name. Without either
    the names decide.
    """
    named = sorted(stream, key=lambda s: natural(str(s.path)))
    if any(shot.start is None for shot in stream):
        return named
    timed = sorted(named, key=lambda s: s.start or 0.0)
    if any(shot.number is None for shot in stream) or len({s.prefix for s in stream}) > 1:
        return timed
    numbered = _unwrapped(named)
    # a clock is set once or twice on a card; more steps back are names that mean nothing
    allowed = max(OUT_OF_ORDER * (len(stream) - 1), 1.0 if len(stream) > 12 else 0.0)
    return numbered if len(_backward(numbered)) <= allowed else timed


def _unwrapped(named: Sequence[Shot]) -> list[Shot]:
    """By number, with 0001 behind 9999 where the widest gap says that the numbers wrapped."""
    numbers = [shot.number or 0 for shot in named]
    steps = [(b - a, i + 1) for i, (a, b) in enumerate(pairwise(numbers))]
    widest, at = max(steps, default=(0, 0))
    turned = [*named[at:], *named[:at]]
    wrapped = widest >= WRAP and len(_backward(turned)) <= len(_backward(named))
    return turned if wrapped else list(named)


def _backward(stream: Sequence[Shot]) -> list[Shot]:
    """Photographs before which the clock ran backward, beyond what whole seconds hide."""
    return [b for a, b in pairwise(stream) if (b.start or 0.0) < (a.start or 0.0) - _coarse(a, b)]


# ---- evidence --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clock:
    """How a camera stamps: the end of the exposure or its start, and dark frames after it."""

    ends: bool = False
    dark: bool = False

    def pause(self, a: Shot, b: Shot) -> float | None:
        """Seconds from the end of ``a`` to the start of ``b``; None without times.

        None also where the clock runs backward: it was set. Never negative.
        """
        if a.start is None or b.start is None:
            return None
        between = b.start - a.start
        exposed = (a.metadata.exposure_time or 0.0, b.metadata.exposure_time or 0.0)
        if between < -1.0 - (max(exposed) if self.ends else 0.0):
            return None
        left = between - exposed[self.ends] - _coarse(a, b)
        dark = exposed[0] if self.dark and exposed[0] >= LONG else 0.0
        return max(0.0, left - dark)


def _coarse(a: Shot, b: Shot) -> float:
    """Seconds that may be lost to stamps in whole seconds."""
    return 0.0 if a.metadata.subsecond or b.metadata.subsecond else 1.0


def clock_of(stream: Sequence[Shot]) -> Clock:
    """What a camera's own photographs say of how it stamps them.

    The end is stamped if taking the stamps for starts would open the shutter before it closed,
    and taking them for ends would not. Dark frames are taken if nearly every long exposure is
    followed by a pause as long.
    """
    early = [0, 0]
    for a, b in pairwise(stream):
        if a.start is None or b.start is None or b.start < a.start:
            continue
        for ends, shot in enumerate((a, b)):
            exposed = shot.metadata.exposure_time or 0.0
            early[ends] += b.start - a.start - exposed < -1.05 - 0.05 * exposed
    ends = early[0] > early[1]
    plain = Clock(ends)
    long = [
        (p, a.metadata.exposure_time or 0.0)
        for a, b in pairwise(stream)
        if (a.metadata.exposure_time or 0.0) >= LONG and (p := plain.pause(a, b)) is not None
    ]
    after = sum(p >= 0.85 * exposed - 1 and p > 0.5 * exposed for p, exposed in long)
    return Clock(ends, dark=bool(long) and after >= 0.75 * len(long))


def fits(a: Shot, b: Shot, gap: float | None, longest: float) -> bool:
    """Whether two photographs, one after the other, could be of one bracket at all."""
    if a.size is not None and b.size is not None and a.size != b.size:
        return False
    known = a.start is not None and b.start is not None
    if known and (gap is None or gap > longest):
        return False
    lengths = [s.metadata.focal_length for s in (a, b) if s.metadata.focal_length]
    return len(lengths) < 2 or abs(math.log2(lengths[0] / lengths[1])) < 0.05


@dataclass
class Card:
    """What is known of a whole stream while it is cut."""

    shots: Sequence[Shot]
    rules: Rules
    stops: list[float | None]  # log2 of the exposure
    pauses: list[float | None]  # to the next photograph
    joined: list[bool]  # whether the next one could belong to it
    usual: Counter[tuple[int, ...]] = field(default_factory=Counter)

    @classmethod
    def of(cls, shots: Sequence[Shot], rules: Rules) -> "Card":
        """Everything that the prices need, worked out once."""
        stops = [None if s.exposure is None else math.log2(s.exposure) for s in shots]
        pairs = list(pairwise(shots))
        clock = clock_of(shots)
        pauses = [clock.pause(a, b) for a, b in pairs]
        joined = [fits(a, b, p, rules.pause) for (a, b), p in zip(pairs, pauses, strict=True)]
        return cls(shots, rules, stops, pauses, joined)

    def levels(self, start: int, stop: int) -> list[float] | None:
        """Different exposures of a part, ascending, in stops; None where one is not known."""
        found: list[float] = []
        for value in sorted(self.stops[start:stop], key=lambda v: -math.inf if v is None else v):
            if value is None:
                return None
            if not found or value - found[-1] > SAME:
                found.append(value)
        return found

    def pattern(self, start: int, stop: int) -> tuple[int, ...]:
        """Stops above the first photograph in thirds, as they came, each exposure once."""
        base, seen = self.stops[start], dict[int, None]()
        for value in self.stops[start:stop]:
            if value is not None and base is not None:
                seen[round(3 * (value - base))] = None
        return tuple(seen)


def price(card: Card, start: int, stop: int) -> float:
    """What it costs to take a part for one bracket; inf where it cannot be one."""
    levels = card.levels(start, stop)
    count = stop - start
    if levels is not None and len(levels) == 1:
        return BURST[0] + BURST[1] * count + _pauses(card, start, stop)
    if levels is None or levels[-1] - levels[0] < LEAST:
        return math.inf
    cost = BRACKET + (PAIR if len(levels) == 2 else 0.0)
    cost += TWICE * (count - len(levels)) + THRICE * _thrice(card, start, stop)
    cost += UNEVEN * _uneven(levels) * (1 + _usual_pause(card, start, stop) / 3)
    cost += _order(card, start, stop) + _pauses(card, start, stop) + _camera(card, start, stop)
    return cost + (KNOWN if card.usual[card.pattern(start, stop)] > 1 else 0.0)


def _thrice(card: Card, start: int, stop: int) -> int:
    """How many exposures too many there are of those that came twice already."""
    thirds = Counter(round(3 * value) for value in card.stops[start:stop] if value is not None)
    return sum(max(0, count - 2) for count in thirds.values())


def _uneven(levels: Sequence[float]) -> float:
    """How many steps are unlike the middle one; half where it is double: a frame is missing."""
    steps = [b - a for a, b in pairwise(levels)]
    middle = sorted(steps)[(len(steps) - 1) // 2]
    return sum(
        0.0 if abs(step - middle) < 0.2 + 0.22 * middle
        else 0.5 if abs(step - 2 * middle) < 0.35
        else 1.0
        for step in steps
    )  # fmt: skip


def _order(card: Card, start: int, stop: int) -> float:
    """Nothing for darkest, brightest or metered first; each turn too many costs."""
    values: list[float] = []
    for value in card.stops[start:stop]:
        if value is not None and not any(abs(value - other) <= SAME for other in values):
            values.append(value)
    moves = [b - a for a, b in pairwise(values)]
    turns = sum((a > 0) != (b > 0) for a, b in pairwise(moves))
    if turns == 0 or _metered_first(values):
        return 0.0
    inner = min(values) < values[0] < max(values)
    # 0 -4 -2 +2 +4: the metered one, then from one end to the other
    return 0.15 if inner and turns == 1 else UNORDERED * turns


def _metered_first(values: Sequence[float]) -> bool:
    """0 -1 +1 -2 +2: each further from the first than the one before, on alternate sides."""
    away = [value - values[0] for value in values[1:]]
    widening = all(abs(b) > abs(a) - SAME for a, b in pairwise(away))
    alternate = all((a > 0) != (b > 0) for a, b in list(pairwise(away))[::2])
    return widening and alternate


def _pauses(card: Card, start: int, stop: int) -> float:
    known = [p for p in card.pauses[start : stop - 1] if p is not None]
    if not known:
        return 0.0
    usual = _usual_pause(card, start, stop)
    jumps = sum(max(0.0, math.log2((p + 0.3) / (usual + 0.3)) - 0.7) for p in known)
    return JUMP * jumps + SLOW * math.log2(1 + usual / 2) * min(1.0, 3 / len(known))


def _usual_pause(card: Card, start: int, stop: int) -> float:
    known = [p for p in card.pauses[start : stop - 1] if p is not None]
    return max(median_low(known), 0.3) if known else 0.3


def _camera(card: Card, start: int, stop: int) -> float:
    """What the camera itself says of bracketing, by its tags and by exposure bias."""
    shots = card.shots[start:stop]
    said = {shot.bracketing for shot in shots}
    cost = CHANGED if len(said - {None}) == 2 else 0.0
    cost += CHANGED if len({s.metadata.f_number for s in shots}) > 1 and not _same_iso(shots) else 0
    if said == {True}:
        return cost + TOLD
    if _bias_follows(card, start, stop):
        return cost + TOLD
    automatic = any(dict(s.metadata.bracket_tags).get("EXIF ExposureMode") == "0" for s in shots)
    still = all(shot.metadata.bias is not None for shot in shots)
    return cost + (0.0 if stop - start >= 5 else METERED if automatic else STILL * still)


def _same_iso(shots: Sequence[Shot]) -> bool:
    return len({(s.metadata.iso, s.metadata.exposure_time) for s in shots}) == 1


def _bias_follows(card: Card, start: int, stop: int) -> bool:
    """Whether exposure bias moves with the exposure: what automatic bracketing writes."""
    biases = [shot.metadata.bias for shot in card.shots[start:stop]]
    values = card.stops[start:stop]
    if any(bias is None for bias in biases) or len(set(biases)) < 2:
        return False
    differences = [
        (value or 0.0) - (bias or 0.0) for value, bias in zip(values, biases, strict=True)
    ]
    return max(differences) - min(differences) < 0.4


# ---- the cheapest cut ------------------------------------------------------------------------


def _cut(stream: Sequence[Shot], rules: Rules) -> list[Group]:
    if rules.how == "folder":
        return _by_folder(stream)
    card = Card.of(stream, rules)
    if rules.brackets is not None:
        return _by_count(card, rules.brackets)
    if rules.how == "time":
        return _by_time(card)
    parts: list[tuple[int, int]] = []
    for _ in range(3):  # the usual patterns are those of the last round's brackets
        parts = _cheapest(card)
        usual = Counter(card.pattern(a, b) for a, b in parts if b - a > 1)
        if usual == card.usual:
            break
        card.usual = usual
    return [part for a, b in parts for part in _parts(card, a, b)]


def _parts(card: Card, start: int, stop: int) -> list[Group]:
    """A bracket, or the photographs of a burst one by one."""
    shots = tuple(card.shots[start:stop])
    if len(card.levels(start, stop) or ()) == 1:
        return [Group((shot,)) for shot in shots]
    return [Group(shots, reasons(card, start, stop))]


def _cheapest(card: Card) -> list[tuple[int, int]]:
    """Cut a stream into parts, one photograph or a bracket each, at the least cost."""
    count = len(card.shots)
    best = [0.0] + [math.inf] * count
    came = [0] * (count + 1)
    for stop in range(1, count + 1):
        cut = _cut_price(card, stop)
        best[stop], came[stop] = best[stop - 1] + SINGLE + cut, stop - 1
        for start in range(stop - 2, max(-1, stop - 1 - LONGEST), -1):
            if not card.joined[start]:
                break
            cost = best[start] + price(card, start, stop) + cut
            if cost < best[stop]:
                best[stop], came[stop] = cost, start
    parts = []
    stop = count
    while stop:
        parts.append((came[stop], stop))
        stop = came[stop]
    return parts[::-1]


def _cut_price(card: Card, stop: int) -> float:
    """What it costs to end a part before ``stop``, where the next photograph follows at once."""
    after = card.pauses[stop - 1] if stop <= len(card.pauses) else None
    if after is None or not card.joined[stop - 1]:
        return 0.0
    return CLOSE * max(0.0, 1 - after / AT_ONCE)


def _by_count(card: Card, wanted: int) -> list[Group]:
    """``wanted`` photographs each, counted anew after every pause; too few are left single."""
    groups = []
    for a, b in _runs(card):
        spare = (b - a) % wanted
        for start in range(a, b - spare, wanted):
            why = (f"{wanted} photographs each, as asked", *reasons(card, start, start + wanted))
            groups.append(Group(tuple(card.shots[start : start + wanted]), why))
        groups += [Group((shot,)) for shot in card.shots[b - spare : b]]
    return groups


def _by_time(card: Card) -> list[Group]:
    return [Group(tuple(card.shots[a:b]), reasons(card, a, b)) for a, b in _runs(card)]


def _runs(card: Card) -> list[tuple[int, int]]:
    """Parts between which there is a pause or another size."""
    cuts = [i + 1 for i, together in enumerate(card.joined) if not together]
    return list(pairwise([0, *cuts, len(card.shots)]))


def _by_folder(stream: Sequence[Shot]) -> list[Group]:
    folders: dict[object, list[Shot]] = {}
    for shot in stream:
        folders.setdefault((shot.path.parent, shot.size), []).append(shot)
    return [Group(tuple(shots), ("one folder",)) for shots in folders.values()]


# ---- why -------------------------------------------------------------------------------------


def reasons(card: Card, start: int, stop: int) -> tuple[str, ...]:
    """In words: why a part is one bracket."""
    if stop - start < 2:
        return ()
    said = [_spoken_steps(card, start, stop)]
    known = [p for p in card.pauses[start : stop - 1] if p is not None]
    if known:
        said.append(f"pauses up to {max(known):.1f} s")
    if all(shot.bracketing for shot in card.shots[start:stop]):
        said.append("the camera bracketed")
    elif _bias_follows(card, start, stop):
        said.append("exposure bias follows")
    again = card.usual[card.pattern(start, stop)]
    if again > 1:
        said.append(f"{again} sets have these steps")
    return tuple(text for text in said if text)


def _spoken_steps(card: Card, start: int, stop: int) -> str:
    levels = card.levels(start, stop)
    if levels is None:
        return "exposures are not recorded"
    steps = [b - a for a, b in pairwise(levels)]
    if not steps:
        return "one exposure"
    twice = stop - start - len(levels)
    extra = f", {twice} of them again" if twice else ""
    if max(steps) - min(steps) < 0.35:
        return f"{len(levels)} exposures in steps of {sum(steps) / len(steps):.1f} EV{extra}"
    return f"{len(levels)} exposures over {levels[-1] - levels[0]:.1f} EV{extra}"


def merged(groups: Sequence[Group], why: str) -> Group:
    """Several groups as one."""
    shots = tuple(shot for part in groups for shot in part.shots)
    return replace(groups[0], shots=shots, why=(why,))
