"""EXIF orientation: turned once, here, so that the rest of the program knows only upright."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# What the orientation asks for: transpose first, then flip down and flip across. Exif 2.32, 4.6.4.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (H, W) or (H, W, C) the way its orientation tag, 1 to 8, asks for; contiguous."""
    transposed, down, across = _TURNS.get(orientation, _TURNS[1])
    turned = pixels.swapaxes(0, 1) if transposed else pixels
    turned = turned[:: -1 if down else 1, :: -1 if across else 1]
    return np.ascontiguousarray(turned)
