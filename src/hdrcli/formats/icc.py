"""ICC profiles of the matrix and curve kind, read and written. ICC.1:2022.

A colour transform through lookup tables (A2B0 alone) is not read: such profiles belong to
printers and to a few scanners, and are not what a bracket is made in.
"""

import logging
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import (
    ADOBE_RGB,
    D50,
    D65,
    KNOWN,
    REC709,
    Primaries,
    adaptation,
    rgb_to_xyz,
    xy_of,
)
from hdrcli.errors import FormatError
from hdrcli.frames import LINEAR, SRGB, Response

log = logging.getLogger("hdrcli")

_SAMPLES = 65536
_PCS_WHITE = np.array([0.9642, 1.0, 0.8249])  # D50 as the standard rounds it
_TAGS_MOST = 200
_COLORANT_TOLERANCE = 0.0025  # profiles of one space differ by rounding and by adaptation
_CURVE_TOLERANCE = 1e-3

Curve = NDArray[np.float64]  # (_SAMPLES,) linear light behind each code


@dataclass(frozen=True)
class Meaning:
    """What a profile says of the codes."""

    response: Response
    primaries: Primaries


@lru_cache(maxsize=32)
def meaning(profile: bytes) -> Meaning | None:
    """The curve and the primaries of a profile; None (and a warning) where it has neither.

    Frames of one bracket share one profile, and through the cache one table.
    """
    try:
        return _meaning(profile)
    except FormatError as err:
        why = str(err)
    except (struct.error, np.linalg.LinAlgError, ValueError):
        why = "it is damaged"
    log.warning("a colour profile cannot be used (%s): taken as sRGB", why)
    return None


def _meaning(profile: bytes) -> Meaning:
    if profile[36:40] != b"acsp":
        raise FormatError("not an ICC profile")
    tags = _tags(profile)
    space = profile[16:20]
    if space == b"GRAY" and b"kTRC" in tags:
        return Meaning(_response([_curve(tags[b"kTRC"])] * 3, "grey profile"), REC709)
    wanted = [b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"]
    if space != b"RGB " or any(tag not in tags for tag in wanted):
        raise FormatError("it has no matrix and curves, only tables")
    colorants = np.stack([_xyz(tags[tag]) for tag in wanted[:3]], axis=1)
    primaries = _primaries(colorants, tags)
    return Meaning(_response([_curve(tags[tag]) for tag in wanted[3:]], primaries.name), primaries)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    count = min(struct.unpack_from(">I", profile, 128)[0], _TAGS_MOST)
    tags = {}
    for at in range(132, 132 + 12 * count, 12):
        name, start, size = struct.unpack_from(">4sII", profile, at)
        tags[name] = profile[start : start + size]
    return tags


def _xyz(tag: bytes) -> NDArray[np.float64]:
    if tag[:4] != b"XYZ ":
        raise FormatError("a damaged colour in it")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


# --- primaries --------------------------------------------------------------------------------


def _primaries(colorants: NDArray[np.float64], tags: dict[bytes, bytes]) -> Primaries:
    for candidate in KNOWN:
        expected = adaptation(candidate.white, D50) @ rgb_to_xyz(candidate)
        if np.abs(expected - colorants).max() <= _COLORANT_TOLERANCE:
            return candidate
    to_white, white = _unadaptation(tags)
    red, green, blue = (xy_of(column) for column in (to_white @ colorants).T)
    if abs(np.linalg.det(colorants)) < 1e-4:
        raise FormatError("its primaries lie on one line")
    return Primaries(_description(tags), red, green, blue, white)


def _description(tags: dict[bytes, bytes]) -> str:
    """The name a profile gives itself, by version 2 ("desc") or 4 ("mluc")."""
    tag = tags.get(b"desc", b"")
    if tag[:4] == b"mluc" and len(tag) >= 28:
        size, start = struct.unpack_from(">II", tag, 20)
        text = tag[start : start + min(size, 128)].decode("utf-16-be", "replace")
    else:
        text = tag[12:92].partition(b"\0")[0].decode("ascii", "replace")
    return text.strip() or "unnamed profile"


def _unadaptation(tags: dict[bytes, bytes]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The matrix back from D50 to the real white, and that white: "chad", else "wtpt", else D65."""
    if b"chad" in tags:
        matrix = np.array(struct.unpack_from(">9i", tags[b"chad"], 8)).reshape(3, 3) / 65536
        back = np.asarray(np.linalg.inv(matrix), np.float64)
        return back, xy_of(back @ _PCS_WHITE)
    white = xy_of(_xyz(tags[b"wtpt"])) if b"wtpt" in tags else D65
    return adaptation(D50, white), white


# --- curves -----------------------------------------------------------------------------------


def _response(curves: list[Curve], name: str) -> Response:
    samples = np.stack(curves, axis=1)
    for same in (SRGB, LINEAR):
        if np.abs(samples - same.samples).max() < _CURVE_TOLERANCE:
            return same
    smooth = np.maximum.accumulate(np.clip(samples, 0, 1), axis=0)
    return Response(f"{name} curve", np.ascontiguousarray(smooth, np.float32))


def _curve(tag: bytes) -> Curve:
    if tag[:4] == b"curv":
        return _sampled(tag)
    if tag[:4] == b"para":
        return _parametric(tag)
    raise FormatError("a curve of an unknown kind in it")


def _sampled(tag: bytes) -> Curve:
    count = struct.unpack_from(">I", tag, 8)[0]
    at = np.linspace(0, 1, _SAMPLES)
    if count == 0:
        return at
    if 12 + 2 * count > len(tag):
        raise FormatError("a curve in it is cut short")
    values = np.frombuffer(tag, ">u2", count, 12).astype(np.float64)
    if count == 1:
        return np.asarray(at ** (values[0] / 256))
    return np.interp(at, np.linspace(0, 1, count), values / 65535)


_PARAMETERS = (1, 3, 4, 5, 7)  # of the function types 0 to 4


def _parametric(tag: bytes) -> Curve:
    """ICC.1 table 68: Y = (aX + b)^g + e from X = d on, below it cX + f."""
    kind = struct.unpack_from(">H", tag, 8)[0]
    if kind >= len(_PARAMETERS):
        raise FormatError("a curve of an unknown type in it")
    raw = struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)
    p = [value / 65536 for value in raw]
    g, a, b = (p[0], p[1], p[2]) if kind else (p[0], 1.0, 0.0)
    if not (0.1 < g < 10 and abs(a) > 1e-3 and max(map(abs, p)) < 100):
        raise FormatError("a curve of impossible numbers in it")
    c, d, e, f = (0.0, -b / a, 0.0, 0.0)  # types 1 and 2 are flat below -b/a
    if kind == 2:
        e = f = p[3]
    if kind >= 3:
        c, d = p[3:5]
    if kind == 4:
        e, f = p[5:7]
    x = np.linspace(0, 1, _SAMPLES)
    high = np.maximum(a * x + b, 0) ** g + e
    return np.where(x >= d, high, c * x + f)


# --- writing ----------------------------------------------------------------------------------

_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile_of(primaries: Primaries, *, linear: bool = False) -> bytes:
    """A small version-4 profile of these primaries, with the sRGB curve or none.

    It holds no date, so that equal pictures are equal files.
    """
    adapt = adaptation(primaries.white, D50)
    colorants = adapt @ rgb_to_xyz(primaries)
    curve = _para((1.0,) if linear else _SRGB_CURVE)
    kind = "linear" if linear else "sRGB curve"
    tags = {
        b"desc": _text(f"{primaries.name} ({kind})"),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": _xyz_tag(_PCS_WHITE),
        b"chad": b"sf32\0\0\0\0" + _fixed(adapt.ravel()),
        b"rXYZ": _xyz_tag(colorants[:, 0]),
        b"gXYZ": _xyz_tag(colorants[:, 1]),
        b"bXYZ": _xyz_tag(colorants[:, 2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + b"\0" * (-len(value) % 4)
        at = body.find(padded) if padded in body and name[1:] == b"TRC" else len(body)
        body += padded if at == len(body) else b""
        table += struct.pack(">4sII", name, start + at, len(value))
    return _header(start + len(body)) + struct.pack(">I", len(tags)) + table + body


def _header(size: int) -> bytes:
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    head += date + b"acsp" + b"\0" * 24 + struct.pack(">I", 1)  # intent: media-relative
    return head + _fixed(_PCS_WHITE) + b"\0" * (128 - len(head) - 12)


def _fixed(values: NDArray[np.float64]) -> bytes:
    return np.rint(np.asarray(values) * 65536).astype(">i4").tobytes()


def _xyz_tag(xyz: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(xyz)


def _para(parameters: tuple[float, ...]) -> bytes:
    kind = _PARAMETERS.index(len(parameters))
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(np.array(parameters))


def _text(text: str) -> bytes:
    value = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(value), 28) + value


@lru_cache(maxsize=1)
def adobe_rgb() -> Meaning:
    """Adobe RGB (1998): the power 563/256."""
    at = np.linspace(0, 1, _SAMPLES)
    return Meaning(_response([at ** (563 / 256)] * 3, ADOBE_RGB.name), ADOBE_RGB)
