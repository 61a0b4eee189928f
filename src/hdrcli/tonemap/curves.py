"""Tone curves: scene light in, display light in [0, 1] out. Pure functions, monotone.

Input is non-negative float64 on the working scale (0.18 is middle grey where an operator exposes
the picture itself, 1.0 is the Radiance's white where it does not); output is linear display
light, to be encoded as sRGB.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, luminance_weights, srgb_decode

Doubles = NDArray[np.float64]
Values = Mapping[str, float]

GREY = 0.18  # middle grey, of scene and of display light
REC709_LUMINANCE = luminance_weights(REC709)


def reinhard(x: Doubles, values: Values) -> Doubles:
    """Reinhard et al., SIGGRAPH 2002, eq. 4: L (1 + L / white^2) / (1 + L)."""
    white = 2.0 ** values["white_ev"]
    return np.asarray(np.minimum(x * (1 + x / white**2) / (1 + x), 1))


def drago(x: Doubles, values: Values) -> Doubles:
    """Drago et al., Adaptive logarithmic mapping, Eurographics 2003, eq. 4, with Ldmax = 100."""
    top = 2.0 ** values["white_ev"]
    base = np.log(values["bias"]) / np.log(0.5)
    warped = np.log(2 + 8 * np.minimum(x / top, 1) ** base)
    return np.asarray(np.minimum(np.log1p(x) / warped / np.log10(1 + top), 1))


def hable(x: Doubles, values: Values) -> Doubles:
    """Hable, Filmic tonemapping with piecewise power curves' predecessor (Uncharted 2), GDC 2010.

    The exposure bias of 2 and the white of 11.2 are the author's.
    """
    return np.minimum(_hable(2 * x) / _hable(np.float64(values["white"])), 1)


def _hable(x: Doubles | np.float64) -> Doubles:
    a, b, c, d, e, f = 0.15, 0.50, 0.10, 0.20, 0.02, 0.30
    y: Doubles = np.asarray((x * (a * x + c * b) + d * e) / (x * (a * x + b) + d * f) - e / f)
    return np.maximum(y, 0)


def aces(x: Doubles, _values: Values) -> Doubles:
    """RRT and ODT in one rational function: Stephen Hill, BakingLab, ACES.hlsl, 2015."""
    y = (x * (x + 0.0245786) - 0.000090537) / (x * (0.983729 * x + 0.4329510) + 0.238081)
    return np.clip(y, 0, 1)


def agx(x: Doubles, _values: Values) -> Doubles:
    """AgX's log curve from -12.47 to +4.03 stops, as the polynomial of B. Wrensch, 2023.

    The polynomial gives a code for gamma 2.2.
    """
    with np.errstate(divide="ignore"):
        stops = np.log2(x)
    t = np.clip((stops + 12.47393) / (12.47393 + 4.026069), 0, 1)
    code = np.polyval([15.5, -40.14, 31.96, -6.868, 0.4298, 0.1191, -0.00232], t)
    return np.asarray(np.maximum.accumulate(np.clip(code, 0, 1)) ** 2.2)


def mulaw(x: Doubles, values: Values) -> Doubles:
    """Kalantari and Ramamoorthi, SIGGRAPH 2017, eq. 5: the code is log(1 + mu x) / log(1 + mu)."""
    mu = values["mu"]
    code = np.log1p(mu * np.minimum(x, 1)) / np.log1p(mu)
    return srgb_decode(code).astype(np.float64)


def gamma(x: Doubles, values: Values) -> Doubles:
    """The code is x ** (1 / gamma), clipped at white."""
    return srgb_decode(np.minimum(x, 1) ** (1 / values["gamma"])).astype(np.float64)


def linear(x: Doubles, _values: Values) -> Doubles:
    """Clipped at white, otherwise as it is."""
    return np.minimum(x, 1)


def photo(x: Doubles, values: Values) -> Doubles:
    """A generalised log-logistic (the curve of photographic paper) from black to white.

    x^c / (x^c + k), scaled so that ``white_ev`` gives 1 and middle grey about itself; c is the
    contrast. Below grey it falls as x^c. First ``veil``, the light that lies over everything, is
    taken off, so smoothly that nothing is clipped: x^2 / (x + veil); and the more stops there
    are above grey, the nearer they are brought together (``_eased``).
    """
    clear = x * x / np.maximum(x + values["veil"], 1e-30)
    c, k, white = _paper(values)
    power = np.minimum(_eased(clear, values["white_ev"]) ** c, white)
    return np.asarray(power / (power + k) * (white + k) / white)


def veil(darkest: float, target: float, values: Values) -> float:
    """The veil whose removal shows the light ``darkest`` as ``target``, or halves it at most."""
    c, k, white = _paper(values)
    wanted = (target * white * k / (white + k - target * white)) ** (1 / c)
    return darkest * float(np.clip(darkest / wanted - 1, 0, 1))


def _eased(x: Doubles, white_ev: float) -> Doubles:
    """Light with its stops from one above grey on multiplied by 1 (white_ev 1.5) to 0.75 (4)."""
    slope = float(np.interp(white_ev, (1.5, 4.0), (1.0, 0.75)))
    above = np.log2(np.maximum(x, 1e-30) / (2 * GREY))
    excess = np.logaddexp(0, 3 * above) / 3  # 0 below the knee, straight above it, smooth between
    return np.asarray(x * 2.0 ** ((slope - 1) * excess))


def _paper(values: Values) -> tuple[float, float, float]:
    """c, k and white^c; k from (g / (g + k)) (white^c + k) / white^c = GREY with g = GREY^c."""
    c, white_ev = values["contrast"], values["white_ev"]
    grey, white = GREY**c, float(_eased(np.asarray(2.0**white_ev), white_ev)) ** c
    return c, grey * (1 - GREY) * white / (GREY * white - grey), white


ACES_IN = np.array(
    [[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]]
)
ACES_OUT = np.array(
    [[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]]
)
AGX_IN = np.array(
    [
        [0.842479062253094, 0.0784335999999992, 0.0792237451477643],
        [0.0423282422610123, 0.878468636469772, 0.0791661274605434],
        [0.0423756549057051, 0.0784336, 0.879142973793104],
    ]
)
AGX_OUT = np.asarray(np.linalg.inv(AGX_IN), np.float64)


def towards_grey(amount: float, weights: Doubles) -> Doubles:
    """The (3, 3) matrix that moves each colour by ``amount`` (of 1) to the grey of its luminance.

    Negative amounts move it away. Neutral stays where it is: the rows sum to 1.
    """
    return (1 - amount) * np.eye(3) + amount * np.broadcast_to(weights, (3, 3))
