"""The code that frames show of all grey light beyond white.

Mostly it is the last one. Some cameras end below it, films in a logarithmic curve do, and so do
photographs that were developed with their whites turned down. It is the code of smooth grey blocks
that are the same in two frames, of which one is brighter, and nothing grey is brighter than that:
else it is a border, or a stamp.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WHITEST = 180 / 255  # no camera's white has a smaller code
FULL = 253 / 255  # a white from here on is the end of the range
SMOOTH, GREY, ALIKE = 2 / 255, 4 / 255, 3 / 255  # blocks without detail, colour, or a difference
MIDDLES = (40 / 255, 180 / 255)  # codes of the darker of two frames by which they are compared
BRIGHTER = 8 / 255  # such codes are higher by so much in a frame that is certainly brighter
WHITES = 100  # blocks that tell the code of white; all but a tenth of them lie
SPREAD = 2 / 255  # within so much
BEYOND = 0.01  # of so many blocks may be certainly brighter: noise, and what JPEG rings


def greys_alike(dark: Floats, dark_spread: Floats, bright: Floats, bright_spread: Floats) -> Floats:
    """The codes of smooth grey blocks that are the same in a frame and a brighter one, (n,).

    All are (P, 3), over the largest code: the blocks' means, and how much varies inside them.
    """
    level, green = dark[:, 1], bright[:, 1]
    at = np.flatnonzero((green > WHITEST) & (np.abs(green - level) < ALIKE))
    middle = (level > MIDDLES[0]) & (level < MIDDLES[1])
    if not len(at) or not middle.any() or np.median((green - level)[middle]) < BRIGHTER:
        return np.zeros(0, np.float32)
    (least, top), (_, rough) = ends(bright[at]), ends(bright_spread[at])
    (darkest, brightest), (_, before) = ends(dark[at]), ends(dark_spread[at])
    same = np.maximum(np.abs(top - brightest), np.abs(least - darkest)) < ALIKE
    return np.asarray(top[same & (top - least < GREY) & (np.maximum(rough, before) < SMOOTH)])


def agreed(found: Sequence[Floats], shown: Iterable[Floats]) -> float:
    """The code of white that blocks of all pairs of frames agree on, over the largest; mostly 1.

    ``shown`` are the means of all blocks, (P, 3), frame by frame.
    """
    codes = np.concatenate([np.zeros(0, np.float32), *found])
    if len(codes) < WHITES or np.ptp(np.quantile(codes, (0.05, 0.95))) > SPREAD:
        return 1.0
    white = float(np.median(codes))
    if white >= FULL:
        return 1.0
    brighter = sum(np.count_nonzero(ends(blocks)[0] > white + ALIKE) for blocks in shown)
    return white if brighter <= BEYOND * len(codes) else 1.0


def told(why: str, white: float) -> str:
    """Why a curve was taken, and the code of white where that is not the last one."""
    return why if white == 1 else f"{why}; white is at {white:.1%} of the codes"


def ends(codes: Floats) -> tuple[Floats, Floats]:
    """The smallest and the largest of three channels: by columns, which is ten times as fast."""
    red, green, blue = codes.T
    lower, upper = np.minimum(red, green), np.maximum(red, green)
    return np.minimum(lower, blue), np.maximum(upper, blue)
