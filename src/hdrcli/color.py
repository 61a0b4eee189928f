"""Transfer curves and primaries: what the three numbers of a pixel mean as light.

A transfer curve here goes from display-encoded [0, 1] to linear [0, 1] (``decode``) and back
(``encode``). Primaries are CIE 1931 xy chromaticities of R, G, B and white.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Primaries:
    """A set of RGB primaries and their white, as CIE 1931 xy chromaticities."""

    name: str
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]

    @property
    def chromaticities(self) -> tuple[float, ...]:
        """The eight numbers of the EXR attribute: red, green, blue, white, x before y."""
        return (*self.red, *self.green, *self.blue, *self.white)


D65 = (0.3127, 0.3290)
REC709 = Primaries("Rec. 709", (0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)


def srgb_decode(encoded: NDArray[np.floating]) -> Floats:
    """sRGB code in [0, 1] to linear light in [0, 1]. IEC 61966-2-1."""
    x = np.asarray(encoded, np.float64)
    linear = np.where(x <= 0.04045, x / 12.92, ((np.maximum(x, 0.04045) + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)


def srgb_encode(linear: NDArray[np.floating]) -> Floats:
    """Linear light in [0, 1] to sRGB code in [0, 1]. IEC 61966-2-1."""
    x = np.asarray(linear, np.float64)
    code = np.where(
        x <= 0.0031308, x * 12.92, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055
    )
    return code.astype(np.float32)
