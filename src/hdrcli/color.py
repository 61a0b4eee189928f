"""Transfer curves and primaries: what the three numbers of a pixel mean as light.

A transfer curve here goes from display-encoded [0, 1] to linear [0, 1] (``decode``) and back
(``encode``); PQ alone is absolute and speaks cd/m². Primaries are CIE 1931 xy chromaticities
of R, G, B and white.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]  # (3, 3)


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
D50 = (0.3457, 0.3585)
ACES_WHITE = (0.32168, 0.33767)  # near D60, SMPTE ST 2065-1

REC709 = Primaries("Rec. 709", (0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)
REC2020 = Primaries("Rec. 2020", (0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65)
DISPLAY_P3 = Primaries("Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65)
ADOBE_RGB = Primaries("Adobe RGB", (0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
PROPHOTO = Primaries(
    "ProPhoto", (0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105), D50
)
ACES_AP0 = Primaries("ACES AP0", (0.7347, 0.2653), (0.0, 1.0), (0.0001, -0.0770), ACES_WHITE)
ACES_AP1 = Primaries("ACES AP1", (0.713, 0.293), (0.165, 0.830), (0.128, 0.044), ACES_WHITE)

PRIMARIES = {  # by the names of the command line
    "rec709": REC709,
    "p3": DISPLAY_P3,
    "rec2020": REC2020,
    "adobe": ADOBE_RGB,
    "prophoto": PROPHOTO,
    "aces": ACES_AP0,
    "acescg": ACES_AP1,
}
KNOWN = (REC709, REC2020, DISPLAY_P3, ADOBE_RGB, PROPHOTO, ACES_AP0, ACES_AP1)

# Cone responses of the Bradford chromatic adaptation, ICC.1:2022 annex E.
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def xyz_of(xy: tuple[float, float]) -> NDArray[np.float64]:
    """XYZ of a chromaticity at Y = 1."""
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def xy_of(xyz: NDArray[np.float64]) -> tuple[float, float]:
    """The chromaticity of an XYZ colour."""
    total = float(xyz.sum())
    return float(xyz[0]) / total, float(xyz[1]) / total


@lru_cache(maxsize=256)
def _rgb_to_xyz(primaries: Primaries) -> Matrix:
    columns = []
    for x, y in (primaries.red, primaries.green, primaries.blue):
        columns.append((x, y, 1 - x - y))  # not divided by y: AP0's blue has y < 0, green x = 0
    base = np.array(columns).T
    matrix = np.asarray(base * np.linalg.solve(base, xyz_of(primaries.white)), np.float64)
    matrix.setflags(write=False)
    return matrix


def rgb_to_xyz(primaries: Primaries) -> Matrix:
    """The matrix from linear RGB to XYZ relative to the primaries' own white. SMPTE RP 177."""
    return _rgb_to_xyz(primaries)


def adaptation(src: tuple[float, float], dst: tuple[float, float]) -> Matrix:
    """The Bradford matrix that turns XYZ seen under the white ``src`` into XYZ under ``dst``."""
    gains = (_BRADFORD @ xyz_of(dst)) / (_BRADFORD @ xyz_of(src))
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD, np.float64)


def conversion(src: Primaries, dst: Primaries) -> Matrix:
    """The (3, 3) matrix from linear RGB of ``src`` to linear RGB of ``dst``; white stays white."""
    if src.chromaticities == dst.chromaticities:
        return np.eye(3)
    adapted = adaptation(src.white, dst.white) @ rgb_to_xyz(src)
    return np.asarray(np.linalg.solve(rgb_to_xyz(dst), adapted), np.float64)


def convert(pixels: NDArray[np.floating], src: Primaries, dst: Primaries) -> Floats:
    """Linear (..., 3) of one set of primaries as another, float32; may leave [0, inf) where
    the colour lies outside the target's gamut."""
    linear = np.ascontiguousarray(pixels, np.float32)
    if src.chromaticities == dst.chromaticities:
        return linear
    import cv2

    matrix = conversion(src, dst).astype(np.float32)
    rows = linear.reshape(1, -1, 3) if linear.ndim != 3 else linear
    return np.asarray(cv2.transform(rows, matrix), np.float32).reshape(linear.shape)


def luminance_weights(primaries: Primaries) -> NDArray[np.float64]:
    """How much R, G and B of these primaries count in luminance: three numbers of sum 1."""
    return np.array(rgb_to_xyz(primaries)[1], np.float64)


def known(primaries: Primaries, tolerance: float = 1e-3) -> Primaries:
    """The well-known set of these chromaticities, or the set itself if none is as near."""
    given = np.array(primaries.chromaticities)
    for candidate in KNOWN:
        if np.abs(np.array(candidate.chromaticities) - given).max() <= tolerance:
            return candidate
    return primaries


# --- transfer curves --------------------------------------------------------------------------


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


def gamma_decode(encoded: NDArray[np.floating], gamma: float) -> Floats:
    """A power law: code in [0, 1] to linear light, code ** gamma. Negative codes are black."""
    return (np.maximum(np.asarray(encoded, np.float64), 0) ** gamma).astype(np.float32)


def gamma_encode(linear: NDArray[np.floating], gamma: float) -> Floats:
    """The inverse of ``gamma_decode``."""
    return gamma_decode(linear, 1 / gamma)


_ALPHA, _BETA = 1.09929682680944, 0.018053968510807  # BT.2020-2 table 4, all digits


def rec709_decode(encoded: NDArray[np.floating]) -> Floats:
    """BT.709 / BT.2020 camera code in [0, 1] to scene light in [0, 1] (inverse OETF)."""
    x = np.asarray(encoded, np.float64)
    power = ((np.maximum(x, 0) + _ALPHA - 1) / _ALPHA) ** (1 / 0.45)
    return np.where(x < 4.5 * _BETA, x / 4.5, power).astype(np.float32)


def rec709_encode(linear: NDArray[np.floating]) -> Floats:
    """Scene light in [0, 1] to BT.709 / BT.2020 code in [0, 1] (OETF)."""
    x = np.asarray(linear, np.float64)
    power = _ALPHA * np.maximum(x, _BETA) ** 0.45 - (_ALPHA - 1)
    return np.where(x < _BETA, x * 4.5, power).astype(np.float32)


# SMPTE ST 2084 / BT.2100 table 4.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
PQ_PEAK = 10000.0  # cd/m²


def pq_encode(luminance: NDArray[np.floating]) -> Floats:
    """Display light in cd/m², 0 to 10,000, to PQ code in [0, 1]. BT.2100; clips outside."""
    power = np.clip(np.asarray(luminance, np.float64) / PQ_PEAK, 0, 1) ** _M1
    return (((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2).astype(np.float32)


def pq_decode(encoded: NDArray[np.floating]) -> Floats:
    """PQ code in [0, 1] to display light in cd/m², 0 to 10,000. BT.2100."""
    power = np.clip(np.asarray(encoded, np.float64), 0, 1) ** (1 / _M2)
    ratio = np.maximum(power - _C1, 0) / (_C2 - _C3 * power)
    return (PQ_PEAK * ratio ** (1 / _M1)).astype(np.float32)


# ARIB STD-B67 / BT.2100 table 5.
_HLG_A = 0.17883277
_HLG_B = 1 - 4 * _HLG_A
_HLG_C = 0.5 - _HLG_A * np.log(4 * _HLG_A)


def hlg_encode(linear: NDArray[np.floating]) -> Floats:
    """Scene light in [0, 1], 1 being the largest the signal holds, to HLG code (OETF)."""
    x = np.clip(np.asarray(linear, np.float64), 0, 1)
    high = _HLG_A * np.log(np.maximum(12 * x, 1) - _HLG_B) + _HLG_C
    return np.where(x <= 1 / 12, np.sqrt(3 * x), high).astype(np.float32)


def hlg_decode(encoded: NDArray[np.floating]) -> Floats:
    """HLG code in [0, 1] to scene light in [0, 1] (inverse OETF)."""
    x = np.clip(np.asarray(encoded, np.float64), 0, 1)
    high = (np.exp((np.maximum(x, 0.5) - _HLG_C) / _HLG_A) + _HLG_B) / 12
    return np.where(x <= 0.5, x * x / 3, high).astype(np.float32)


def hlg_ootf(scene: NDArray[np.floating], peak: float = 1000.0) -> Floats:
    """Scene light in [0, 1] of Rec. 2020 to what a display of that peak shows, cd/m². BT.2100.

    The system gamma is 1.2 at 1,000 cd/m² and grows with the peak; it acts on luminance, so
    hue and saturation stay.
    """
    gamma = 1.2 + 0.42 * np.log10(peak / 1000)
    light = np.asarray(scene, np.float64)
    luminance = light @ luminance_weights(REC2020)
    gain = np.maximum(luminance, 1e-12) ** (gamma - 1)
    return np.asarray(peak * light * gain[..., None], np.float32)


# --- Y'CbCr of video --------------------------------------------------------------------------

_LUMA = {"Rec. 709": (0.2126, 0.7152, 0.0722), "Rec. 2020": (0.2627, 0.6780, 0.0593)}


def ycbcr_matrix(primaries: Primaries) -> Matrix:
    """R'G'B' in [0, 1] to Y' in [0, 1], Cb and Cr in [-0.5, 0.5]. BT.709, BT.2020 (NCL).

    The luma weights are the rounded ones of the standards, which players use.
    """
    assert primaries.name in _LUMA, primaries.name
    red, green, blue = _LUMA[primaries.name]
    luma = np.array([red, green, blue])
    return np.stack(
        [
            luma,
            (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)),
            (np.array([1, 0, 0]) - luma) / (2 * (1 - red)),
        ]
    )
