"""OpenEXR: linear light. Through the OpenEXR package alone; OpenCV's and imageio's are traps."""

import logging
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, Primaries, known
from hdrcli.errors import FormatError
from hdrcli.formats.decoded import Decoded, check_size, foreign
from hdrcli.frames import LINEAR, Metadata, Radiance

log = logging.getLogger("hdrcli")

HALF_MAX = 65504.0
TYPES = ("auto", "half", "float")
COMPRESSIONS = {
    "none": "NO_COMPRESSION",
    "rle": "RLE_COMPRESSION",
    "zips": "ZIPS_COMPRESSION",
    "zip": "ZIP_COMPRESSION",
    "piz": "PIZ_COMPRESSION",
    "pxr24": "PXR24_COMPRESSION",
    "b44": "B44_COMPRESSION",
    "b44a": "B44A_COMPRESSION",
    "dwaa": "DWAA_COMPRESSION",
    "dwab": "DWAB_COMPRESSION",
}
_HALF_SCALE = "hdrcli:half_scale"  # multiply the stored pixels by this


@lru_cache(maxsize=8)
def use_threads(threads: int) -> None:
    """Give OpenEXR's pool its threads; without this call it has none."""
    import OpenEXR

    OpenEXR.set_global_thread_count(threads)


def decode(path: Path) -> Decoded:
    """The first part's R, G and B (or its one channel) as float32, on the whole display window."""
    import OpenEXR

    with foreign("EXR"):
        with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
            header = dict(file.header())
        names = [channel.name for channel in header["channels"]]
        chosen = _chosen(names)
        height, width = _shape(header["dataWindow"])
        check_size(height, width, 4 * (len(names) + 3))
        with OpenEXR.File(str(path), separate_channels=True) as file:
            planes = _planes(file, [*chosen, *_alpha(chosen, names)], (height, width))
    codes, valid = _placed(header, np.stack(planes[: len(chosen)], -1), planes[len(chosen) :])
    return Decoded(
        codes * np.float32(_number(header, _HALF_SCALE) or 1),
        bits=32,
        metadata=_metadata(header),
        orientation=1,
        response=LINEAR,
        primaries=_primaries(header),
        valid=valid,
    )


def _shape(window: tuple[NDArray[Any], NDArray[Any]]) -> tuple[int, int]:
    low, high = window
    return int(high[1]) - int(low[1]) + 1, int(high[0]) - int(low[0]) + 1


def _chosen(names: Iterable[str]) -> list[str]:
    """R, G, B of the file itself, else of its first layer, else its only channel."""
    every = sorted(names, key=lambda name: (name.count("."), name))
    for name in every:
        layer, _, last = name.rpartition(".")
        triple = [f"{layer}.{c}" if layer else c for c in "RGB"]
        if last == "R" and all(channel in every for channel in triple):
            return triple
    if {"Y", "RY", "BY"} <= set(every):
        raise FormatError("an EXR of luminance and chroma", hint="convert it to RGB first")
    if "Y" in every or len(every) == 1:
        return ["Y" if "Y" in every else every[0]]
    raise FormatError(f"an EXR without R, G and B: it has {', '.join(every) or 'no channel'}")


def _alpha(chosen: list[str], names: list[str]) -> list[str]:
    layer, dot, _ = chosen[0].rpartition(".")
    return [name for name in names if name == f"{layer}{dot}A"]


def _planes(file: Any, names: list[str], shape: tuple[int, int]) -> list[NDArray[np.float32]]:  # noqa: ANN401
    channels = file.channels()
    missing = [name for name in names if name not in channels]
    planes = [channels[name].pixels for name in names if name in channels]
    if missing or any(plane is None or plane.shape != shape for plane in planes):
        raise FormatError("cut short: a part of the pixels is missing")
    return [np.asarray(plane, np.float32) for plane in planes]


def _placed(
    header: Mapping[str, Any], data: NDArray[np.float32], alpha: list[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """The pixels on the display window; outside of the data, and where alpha is 0, not valid."""
    valid = alpha[0] > 0 if alpha else None
    low, high = header["dataWindow"]
    left, top = (int(v) for v in header["displayWindow"][0])
    height, width = _shape(header["displayWindow"])
    if (height, width, left, top) == (*data.shape[:2], int(low[0]), int(low[1])):
        return data, valid
    check_size(height, width, 16)
    canvas = np.zeros((height, width, data.shape[2]), np.float32)
    inside = np.zeros((height, width), np.bool_)
    y0, x0 = max(int(low[1]) - top, 0), max(int(low[0]) - left, 0)
    y1, x1 = min(int(high[1]) - top + 1, height), min(int(high[0]) - left + 1, width)
    if y1 <= y0 or x1 <= x0:
        raise FormatError("an EXR whose data lie outside of its picture")
    from_y, from_x = y0 + top - int(low[1]), x0 + left - int(low[0])
    part = np.s_[from_y : from_y + y1 - y0, from_x : from_x + x1 - x0]
    canvas[y0:y1, x0:x1] = data[part]
    inside[y0:y1, x0:x1] = True if valid is None else valid[part]
    return canvas, inside


def _number(header: Mapping[str, Any], name: str) -> float | None:
    value = header.get(name)
    usable = isinstance(value, int | float) and 0 < value < math.inf
    return float(value) if usable else None  # type: ignore[arg-type]


def _string(header: Mapping[str, Any], name: str) -> str | None:
    value = header.get(name)
    return value if isinstance(value, str) and value else None


def _metadata(header: Mapping[str, Any]) -> Metadata:
    return Metadata(
        exposure_time=_number(header, "expTime"),
        f_number=_number(header, "aperture"),
        iso=_number(header, "isoSpeed"),
        taken=_string(header, "capDate"),
        make=_string(header, "cameraMake"),
        model=_string(header, "cameraModel"),
    )


def _primaries(header: Mapping[str, Any]) -> Primaries:
    value = header.get("chromaticities")
    if value is None:
        return REC709
    x = [float(v) for v in np.asarray(value).ravel()]
    if len(x) != 8 or not all(map(math.isfinite, x)) or x[7] <= 0:
        return REC709
    return known(Primaries("of the file", (x[0], x[1]), (x[2], x[3]), (x[4], x[5]), (x[6], x[7])))


# --- writing ----------------------------------------------------------------------------------


def write(
    path: Path,
    image: Radiance,
    *,
    kind: str = "auto",
    compression: str = "zip",
    attributes: Mapping[str, object] | None = None,
    layers: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write R, G, B and the layers. Half where it holds the range, or where asked for.

    Half asked for over a larger range: the pixels are scaled by a power of two, the factor
    stands in ``hdrcli:half_scale`` and is honoured in reading.
    """
    import OpenEXR

    pixels, scale = _stored(image.pixels, kind)
    header: dict[str, Any] = {
        "compression": getattr(OpenEXR, COMPRESSIONS[compression]),
        "type": OpenEXR.scanlineimage,
        "chromaticities": image.primaries.chromaticities,
        "hdrcli:scale": float(image.exposure),
    }
    header |= {name: _plain(value) for name, value in (attributes or {}).items()}
    if scale != 1:
        header[_HALF_SCALE] = scale
    # OpenEXR ignores strides: whatever is not contiguous would be written as noise
    channels = {"RGB": np.ascontiguousarray(pixels)}
    for name, layer in (layers or {}).items():
        channels[name] = np.ascontiguousarray(_layer(layer, pixels.shape[:2], name))
    OpenEXR.File(header, channels).write(str(path))


def _stored(pixels: NDArray[np.floating], kind: str) -> tuple[NDArray[np.floating], float]:
    """The pixels in the type to be written, and the factor to bring them back."""
    if pixels.dtype == np.float16:
        return (pixels.astype(np.float32) if kind == "float" else pixels), 1.0
    largest = float(max(pixels.max(initial=0), -pixels.min(initial=0)))
    if kind == "float" or (kind == "auto" and largest > HALF_MAX):
        return pixels, 1.0
    scale = 2.0 ** max(0, math.ceil(math.log2(max(largest, 1) / HALF_MAX)))
    if scale != 1:
        log.warning(
            "half floats end at %g: the pixels are stored divided by %g (hdrcli:half_scale)",
            HALF_MAX,
            scale,
        )
        return (pixels / np.float32(scale)).astype(np.float16), scale
    return pixels.astype(np.float16), 1.0


def _layer(layer: NDArray[Any], size: tuple[int, int], name: str) -> NDArray[Any]:
    assert layer.shape == size, (name, layer.shape, size)
    stored = layer if layer.dtype in (np.float16, np.float32, np.uint32) else None
    return stored if stored is not None else layer.astype(np.float32)


def _plain(value: object) -> object:
    """OpenEXR takes Python's own numbers, strings and tuples, and nothing of numpy's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return tuple(float(v) for v in value) if len(value) in (2, 3, 8) else str(value)
    return value if isinstance(value, str | int | float) else str(value)
