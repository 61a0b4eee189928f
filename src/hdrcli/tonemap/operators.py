"""The table of tone-mapping operators: what each is, which numbers it takes, how it looks.

An operator is data: a curve on light, how it judges a picture (``judge``: the image-dependent
numbers), and for the local ones what the reduced picture should become (``adapt``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hdrcli.errors import InputError
from hdrcli.tonemap import curves
from hdrcli.tonemap.curves import GREY, Doubles, Values
from hdrcli.tonemap.local import bilateral, dodged, local_laplacian
from hdrcli.tonemap.scene import Scene

Floats = NDArray[np.float32]
GREY_EV = float(np.log2(GREY))
MEAN_EV = float(np.log2(0.22))  # where the mean belongs, were it alone
HEADROOM = 4.0  # stops from the mean to the highlights that the curve shows well
BLACK = 0.004  # display light of the darkest half percent: code 13
SHOULDER = 0.8  # stops that white lies above a broad bright area, which must not burn out
BRIGHT_PERCENT = 92.0  # of the pixels are darker than the bright parts of a picture
BRIGHT_EV = float(np.log2(0.7))  # where the bright parts belong: a light wall
LOW_KEY = (-0.3, -0.6)  # keys between which a picture turns into a night, or a cave
NIGHT = 1.5  # stops that a night is shown darker


@dataclass(frozen=True)
class Param:
    """One number a user may set, and the range in which it makes sense."""

    name: str
    default: float
    low: float
    high: float
    meaning: str


@dataclass(frozen=True)
class Operator:
    """One way from radiance to display.

    ``curve`` works on the three channels or on luminance alone (``on``). ``judge`` gives the
    image-dependent numbers, at least ``ev``, the exposure in stops, and ``top``, the light in
    stops above which the curve is 1 anyway. ``adapt`` gives the new log2 light of the reduced
    picture, from the exposed one; ``conclude`` gives further numbers from that, among them
    ``show_ev``, the exposure that follows it.
    """

    name: str
    summary: str
    source: str
    params: tuple[Param, ...]
    curve: Callable[[Doubles, Values], Doubles]
    judge: Callable[[Scene, Values], dict[str, float]]
    on: Literal["channels", "luminance"] = "channels"
    adapt: Callable[[Floats, Values], Floats] | None = None
    conclude: Callable[[Floats, Values], dict[str, float]] | None = None
    before: Doubles | None = None  # (3, 3), working colours of the curve
    after: Doubles | None = None  # (3, 3), back to Rec. 709
    exposes: bool = True  # the picture is the same for every multiple of the radiance


EXPOSURE = Param("exposure", 0.0, -8.0, 8.0, "stops brighter (+) or darker (-)")
SATURATION = Param("saturation", 1.0, 0.0, 2.0, "colour: 0 is grey, 1 as photographed")


def _grey_on_mean(scene: Scene, values: Values) -> dict[str, float]:
    """Expose so that the mean of the log luminance is middle grey."""
    return {"ev": GREY_EV - scene.mid + values["exposure"], "top": 7.0}


def _keyed(scene: Scene, values: Values) -> dict[str, float]:
    """Expose by the key of Reinhard, JGT 2002, eq. 3: a = 0.18 x 4^key, ``key`` 0 meaning auto."""
    key = values["key"] or GREY * 4**scene.key
    ev = float(np.log2(key)) - scene.mid + values["exposure"]
    white = max(scene.peak + ev, 0.0)
    return {"ev": ev, "white_ev": white, "top": max(white, 1.0)}


def _dodging(scene: Scene, values: Values) -> dict[str, float]:
    return {**_keyed(scene, values), "top": 0.0}


def _drago(scene: Scene, values: Values) -> dict[str, float]:
    ev = values["exposure"] - scene.mid
    white = max(scene.peak + ev, 0.5)
    return {"ev": ev, "white_ev": white, "top": white}


def _durand(scene: Scene, values: Values) -> dict[str, float]:
    """The range of the base layer becomes ``range`` stops, its top white."""
    span = max(scene.high - scene.low, 1e-3)
    return {
        "ev": values["exposure"] - scene.high,
        "slope": min(1.0, values["range"] / span),
        "top": 0.0,
    }


def _as_it_is(_scene: Scene, values: Values) -> dict[str, float]:
    return {"ev": values["exposure"], "top": 0.0}


def _hable_exposure(scene: Scene, values: Values) -> dict[str, float]:
    return {**_grey_on_mean(scene, values), "top": float(np.log2(values["white"] / 2))}


def _photo(scene: Scene, values: Values) -> dict[str, float]:
    """How far the default operator reduces large contrasts. ``_photo_exposure`` does the rest."""
    span = max(scene.high - scene.low, 1e-3)
    above = max(scene.high - scene.mid, 1e-3)
    slope = float(np.clip(min(values["range"] / span, HEADROOM / above), 0.3, 1))
    slope **= values["compression"]
    return {"ev": -scene.mid, "slope": slope, "night": _night(scene)}


def _night(scene: Scene) -> float:
    """Stops by which a picture is meant to be darker than grey: most of it dark, a few lights.

    By Reinhard's key (JGT 2002, eq. 3), of the median: lights are few, however bright.
    """
    low, middle, high = np.percentile(scene.stops, (1, 50, 99.5))
    key = (2 * middle - low - high) / max(high - low, 1e-3)
    return NIGHT * float(np.interp(key, LOW_KEY[::-1], (1.0, 0.0)))


def _photo_exposure(stops: Floats, values: Values) -> dict[str, float]:
    """Exposure and white from what the picture has become.

    Half way between the mean on grey and the bright parts on a light wall's white: white
    rooms come out white; and a night of a few lights is shown as one. The brightest 0.2 percent may
    burn out; a broad bright area, such as a window, stays clear of white.
    """
    percent = (0.5, BRIGHT_PERCENT, 97, 99.8)
    dark, bright, broad, peak = (float(v) for v in np.percentile(stops, percent))
    ev = MEAN_EV - float(stops.mean())
    ev += values["key"] * (BRIGHT_EV - bright - ev) + values["exposure"] - values["night"]
    white = float(np.clip(max(peak, broad + SHOULDER) + ev, 1.0, 4.0))
    veil = curves.veil(2.0 ** (dark + ev), BLACK, {**values, "white_ev": white})
    return {"show_ev": ev, "white_ev": white, "top": white, "veil": values["black"] * veil}


def _photo_adapt(stops: Floats, values: Values) -> Floats:
    return local_laplacian(
        stops, threshold=values["edge"], detail=values["detail"], compression=values["slope"]
    )


def _durand_adapt(stops: Floats, values: Values) -> Floats:
    base = bilateral(stops, space=0.02, tone=1.33)  # 0.4 in log10, as in the paper
    slope = np.float32(values["slope"])
    return np.asarray(slope * base + values["detail"] * (stops - base), np.float32)


def _dodge(stops: Floats, values: Values) -> Floats:
    """Eq. 9: L / (1 + V1), with the white of eq. 4 on the numerator."""
    light = np.exp2(stops)
    adapted = dodged(light, threshold=values["threshold"], sharpness=values["sharpness"])
    white = np.float32(2.0 ** (2 * values["white_ev"]))
    return np.asarray(np.log2(light * (1 + adapted / white) / (1 + adapted)), np.float32)


_ALL = (
    Operator(
        name="photo",
        summary="Photographs: local contrast kept, highlights roll off to white, blacks stay black",
        source="local Laplacian filter (Paris et al. 2011, Aubry et al. 2014), log-logistic curve",
        params=(
            EXPOSURE,
            Param("compression", 1.0, 0.0, 1.5, "how far large contrasts are reduced; 0: not"),
            Param("range", 7.0, 3.0, 14.0, "stops from black to white that need no reduction"),
            Param("contrast", 1.35, 1.0, 2.0, "slope of the curve at middle grey"),
            Param("detail", 1.1, 0.5, 2.0, "small contrasts: 1 as they are, more is crisper"),
            Param("edge", 1.5, 0.5, 4.0, "stops: smaller contrasts count as detail"),
            Param("black", 1.0, 0.0, 1.0, "how much of a veil over the blacks is taken off"),
            Param("key", 0.5, 0.0, 1.0, "exposed for the mean (0) or for the bright parts (1)"),
            SATURATION,
        ),
        curve=curves.photo,
        judge=_photo,
        adapt=_photo_adapt,
        conclude=_photo_exposure,
        before=curves.towards_grey(0.14, curves.REC709_LUMINANCE),
    ),
    Operator(
        name="reinhard02",
        summary="Photographic tone reproduction, the same curve everywhere",
        source="Reinhard et al., SIGGRAPH 2002, eq. 4; key of JGT 2002",
        params=(
            EXPOSURE,
            Param("key", 0.0, 0.0, 1.0, "what the mean becomes; 0 finds it from the picture"),
            SATURATION,
        ),
        curve=curves.reinhard,
        judge=_keyed,
        on="luminance",
    ),
    Operator(
        name="reinhard02-local",
        summary="Photographic tone reproduction with dodging and burning",
        source="Reinhard et al., SIGGRAPH 2002, eq. 5-9",
        params=(
            EXPOSURE,
            Param("key", 0.0, 0.0, 1.0, "what the mean becomes; 0 finds it from the picture"),
            Param("threshold", 0.05, 0.005, 1.0, "contrast at which a surround ends"),
            Param("sharpness", 8.0, 1.0, 16.0, "phi of the paper: edges stand out more"),
            SATURATION,
        ),
        curve=curves.linear,
        judge=_dodging,
        on="luminance",
        adapt=_dodge,
    ),
    Operator(
        name="drago",
        summary="Logarithm with a base that adapts to the light",
        source="Drago et al., Eurographics 2003",
        params=(
            EXPOSURE,
            Param("bias", 0.85, 0.5, 1.0, "smaller is darker in the highlights"),
            SATURATION,
        ),
        curve=curves.drago,
        judge=_drago,
        on="luminance",
    ),
    Operator(
        name="durand",
        summary="Large contrasts reduced by the bilateral filter, details kept",
        source="Durand and Dorsey, SIGGRAPH 2002",
        params=(
            EXPOSURE,
            Param("range", 5.6, 2.0, 14.0, "stops that the large contrasts get; paper: log2 50"),
            Param("detail", 1.0, 0.5, 2.0, "small contrasts: 1 as they are, more is crisper"),
            SATURATION,
        ),
        curve=curves.linear,
        judge=_durand,
        on="luminance",
        adapt=_durand_adapt,
    ),
    Operator(
        name="hable",
        summary="Filmic curve of Uncharted 2",
        source="John Hable, GDC 2010",
        params=(
            EXPOSURE,
            Param("white", 11.2, 2.0, 64.0, "light that becomes white"),
            SATURATION,
        ),
        curve=curves.hable,
        judge=_hable_exposure,
    ),
    Operator(
        name="aces",
        summary="The Academy's look: strong contrast, saturated",
        source="RRT and ODT fitted by Stephen Hill, 2015",
        params=(EXPOSURE, SATURATION),
        curve=curves.aces,
        judge=_grey_on_mean,
        before=curves.ACES_IN,
        after=curves.ACES_OUT,
    ),
    Operator(
        name="agx",
        summary="Wide range, colours that pale naturally towards white",
        source="Troy Sobotka's AgX, fitted by Benjamin Wrensch, 2023",
        params=(EXPOSURE, SATURATION),
        curve=curves.agx,
        judge=_grey_on_mean,
        before=curves.AGX_IN,
        after=curves.AGX_OUT,
    ),
    Operator(
        name="mulaw",
        summary="The mu-law by which HDR papers compare; not exposed automatically",
        source="Kalantari and Ramamoorthi, SIGGRAPH 2017, eq. 5",
        params=(EXPOSURE, Param("mu", 5000.0, 1.0, 100000.0, "strength"), SATURATION),
        curve=curves.mulaw,
        judge=_as_it_is,
        exposes=False,
    ),
    Operator(
        name="gamma",
        summary="A power curve, clipped at white; not exposed automatically",
        source="code = light ^ (1 / gamma)",
        params=(EXPOSURE, Param("gamma", 2.2, 1.0, 4.0, "exponent"), SATURATION),
        curve=curves.gamma,
        judge=_as_it_is,
        exposes=False,
    ),
    Operator(
        name="linear",
        summary="sRGB, clipped at white: what the reference frame would show",
        source="IEC 61966-2-1",
        params=(EXPOSURE, SATURATION),
        curve=curves.linear,
        judge=_as_it_is,
        exposes=False,
    ),
)

OPERATORS: Mapping[str, Operator] = MappingProxyType({op.name: op for op in _ALL})
DEFAULT = "photo"


def operator_of(name: str) -> Operator:
    """The operator called ``name``. InputError, listing what exists, where there is none."""
    if name not in OPERATORS:
        raise InputError(
            f"there is no tone-mapping operator {name!r}", hint=f"one of {', '.join(OPERATORS)}"
        )
    return OPERATORS[name]


def settled(operator: Operator, given: Mapping[str, float]) -> dict[str, float]:
    """All parameters of the operator: the given ones, checked, and defaults for the others."""
    known = {param.name: param for param in operator.params}
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"{operator.name} has no parameter {name!r}", hint=f"it has {', '.join(known)}"
            )
        low, high = known[name].low, known[name].high
        if not low <= value <= high:
            raise InputError(
                f"{operator.name}: {name} is {value:g}, outside {low:g} to {high:g}",
                hint=known[name].meaning,
            )
    return {param.name: float(given.get(param.name, param.default)) for param in operator.params}


def described(operator: Operator) -> str:
    """The operator and its parameters as text, one line each: for help and documents."""
    lines = [f"{operator.name}: {operator.summary} ({operator.source})"]
    lines += [
        f"  {p.name}={p.default:g}  ({p.low:g} to {p.high:g})  {p.meaning}" for p in operator.params
    ]
    return "\n".join(lines)
