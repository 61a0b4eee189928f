"""The loops over the pixels that a merge waits for, as machine code: see native.py.

Arrays are flat here: three codes a pixel, a plane's rows one after the other. What they mean is
said where they are used.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hdrcli.native import inlined, kernel

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]  # the bits of half floats
Codes = TypeVar("Codes", NDArray[np.uint8], NDArray[np.uint16])

SMALLEST = np.uint32(113 << 23)  # bits of the smallest normal half, as a float
LARGEST = np.uint32(0x477FF000)  # of the smallest number that is rounded to infinity
ULP = np.uint32(126 << 23)  # of 0.5, whose last place is the last one of subnormal halves
BIAS = np.uint32(112 << 10)  # what the exponents of halves and floats differ by
HALF = np.float32(0.5)


@kernel
def accumulate(
    codes: Codes,
    light: Floats,
    weight: Floats,
    belief: Floats,
    step: int,
    fallback: np.float32,
    total: Floats,
    levels: int,
    count: int,
) -> None:
    """Add one frame to a weighted sum: w X of three channels, and w, for each pixel.

    ``light`` is (3, levels), ``weight`` (levels), looked up at the largest channel. ``belief``,
    for each ``step``-th pixel, multiplies it; ``fallback`` is added. ``total`` is (count, 4).
    """
    for i in range(count):
        red, green, blue = codes[3 * i], codes[3 * i + 1], codes[3 * i + 2]
        w = weight[max(red, green, blue)] * belief[i * step] + fallback
        total[4 * i] += w * light[red]
        total[4 * i + 1] += w * light[levels + green]
        total[4 * i + 2] += w * light[2 * levels + blue]
        total[4 * i + 3] += w


@inlined
def half_bits(light: np.float32) -> np.uint16:
    """The bits of the half float nearest to a number of at least 0, of two the even one."""
    bits = np.float32(light).view(np.uint32)
    small = np.float32(light + HALF).view(np.uint32) - ULP
    odd = (bits >> np.uint32(13)) & np.uint32(1)
    rounded = ((bits + np.uint32(0xFFF) + odd) >> np.uint32(13)) - BIAS
    normal = rounded if bits < LARGEST else np.uint32(0x7C00)
    return np.uint16(small if bits < SMALLEST else normal)


@kernel
def divide(total: Floats, out: Floats, count: int) -> None:
    """The means of weighted sums (count, 4), as (count, 3)."""
    for i in range(count):
        norm = total[4 * i + 3]
        for c in range(3):
            out[3 * i + c] = total[4 * i + c] / norm


@kernel
def divide_to_half(total: Floats, out: Halves, count: int) -> None:
    """The same as half floats; the means are at least 0."""
    for i in range(count):
        norm = total[4 * i + 3]
        for c in range(3):
            out[3 * i + c] = half_bits(total[4 * i + c] / norm)
