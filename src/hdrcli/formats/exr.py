"""OpenEXR: linear light. Through the OpenEXR package alone; OpenCV's and imageio's are traps."""

import logging
import math
import mmap
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, Primaries, known
from hdrcli.errors import FormatError
from hdrcli.formats.decoded import Decoded, check_size, foreign
from hdrcli.frames import LINEAR, Metadata, Radiance

log = logging.getLogger("hdrcli")

Pixels = NDArray[np.float32]

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


_pool = threading.Lock()


def use_threads(threads: int = 0) -> None:
    """Give OpenEXR's pool its threads, 0 for one per core; without this call it has none."""
    import OpenEXR

    wanted = threads or os.cpu_count() or 1
    with _pool:
        if OpenEXR.global_thread_count() != wanted:
            OpenEXR.set_global_thread_count(wanted)


def decode(path: Path) -> Decoded:
    """The first part's R, G and B (or its one channel) as float32, on the whole display window."""
    import OpenEXR

    mixed = check_chunks(path)
    if OpenEXR.global_thread_count() == 0:
        use_threads()
    with foreign("EXR"), _opened(path) as source, OpenEXR.File(source, header_only=True) as file:
        header = dict(file.header())
        names = [channel.name for channel in header["channels"]]
        height, width = _shape(header["dataWindow"])
    check_size(height, width, 4 * (len(names) + 3))
    layer = _chosen_layer(names)
    with (
        foreign("EXR"),
        _opened(path) as source,
        OpenEXR.File(source, separate_channels=mixed) as file,
    ):
        stored = {name: channel.pixels for name, channel in file.channels().items()}
    pixels, alpha = _of_layer(stored, layer, (height, width))
    codes, valid = _placed(header, pixels, alpha)
    scale = _number(header, _HALF_SCALE) or 1
    return Decoded(
        codes if scale == 1 else codes * np.float32(scale),
        bits=32,
        metadata=_metadata(header),
        orientation=1,
        response=LINEAR,
        primaries=_primaries(header),
        valid=valid,
    )


@contextmanager
def _opened(path: Path, mode: str = "rb") -> Iterator[str | IO[bytes]]:
    """What OpenEXR takes: the name of a file, or the open file where the name is no text."""
    try:
        name = str(path)
        name.encode()
    except UnicodeEncodeError:
        with path.open(mode) as file:
            yield file
    else:
        yield name


def _shape(window: tuple[NDArray[Any], NDArray[Any]]) -> tuple[int, int]:
    low, high = window
    return int(high[1]) - int(low[1]) + 1, int(high[0]) - int(low[0]) + 1


def _chosen_layer(names: list[str]) -> str:
    """The prefix of R, G, B: of the file itself, else of its first layer; else the one channel."""
    for name in sorted(names, key=lambda name: (name.count("."), name)):
        layer, last = name[:-1], name[-1:]
        if last == "R" and {layer + "G", layer + "B"} <= set(names):
            return layer
    if {"Y", "RY", "BY"} <= set(names):
        raise FormatError("luminance and chroma channels", hint="convert it to RGB first")
    if "Y" in names or len(names) == 1:
        return "Y" if "Y" in names else names[0]
    raise FormatError(f"no R, G and B in it, but {', '.join(names) or 'no channel'}")


def _of_layer(
    stored: Mapping[str, NDArray[Any] | None], layer: str, shape: tuple[int, int]
) -> tuple[Pixels, NDArray[Any] | None]:
    """The colours, (H, W, 3 or 1), and the alpha. OpenEXR has joined R, G, B (and A)."""
    names = (layer[:-1],) if layer.endswith(".") else (layer + "RGBA", layer + "RGB")
    joined = next((stored[name] for name in names if name in stored), None)
    apart = [stored.get(layer + c) for c in "RGB"]
    alpha = stored.get(layer + "A")
    if joined is not None:
        alpha = joined[..., 3] if joined.shape[2] == 4 else alpha
        pixels = joined[..., :3]
    elif all(plane is not None and plane.shape == shape for plane in apart):
        pixels = np.stack([np.asarray(plane) for plane in apart], axis=-1)
    else:
        pixels = np.asarray(stored.get(layer, np.empty(0)))[..., None]
    if pixels.shape[:2] != shape:
        raise FormatError("cut short: a part of the pixels is missing")
    return np.ascontiguousarray(pixels, np.float32), alpha


def _placed(
    header: Mapping[str, Any], data: Pixels, alpha: NDArray[Any] | None
) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """The pixels on the display window; outside of the data, and where alpha is 0, not valid."""
    valid = None if alpha is None else np.asarray(alpha > 0)
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


# Scanlines in a chunk, by the number of the compression (OpenEXR file layout, 2.0).
_LINES = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}
_NOT_SIMPLE = 0x1A00  # the flags of tiled, deep and multi-part files
_CUT = "cut short: the EXR data stop before the end of the picture"


def check_chunks(path: Path) -> bool:
    """Refuse a file that ends before its last chunk. OpenEXR would print, and find no picture.

    Tiled, deep and multi-part files are left to OpenEXR. Returns whether the channels differ in
    type, when OpenEXR refuses to join them.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            attributes, at = _attributes(data)
            _check_chunks(data, attributes, at)
            return len(_types(attributes[b"channels"])) > 1
        except (struct.error, LookupError, ValueError) as err:
            raise FormatError(_CUT, hint="copy it again from the source") from err


def _check_chunks(data: mmap.mmap, attributes: Mapping[bytes, bytes], at: int) -> None:
    (flags,) = struct.unpack_from("<I", data, 4)
    lines = _LINES.get(attributes.get(b"compression", b"\xff")[0])
    if flags & _NOT_SIMPLE or lines is None:
        return
    _, top, _, bottom = struct.unpack("<4i", attributes[b"dataWindow"])
    count = -(-(bottom - top + 1) // lines)
    if not 0 < count <= (len(data) - at) // 8:
        raise struct.error
    last = max(struct.unpack_from(f"<{count}Q", data, at))
    _, size = struct.unpack_from("<iI", data, last) if last < len(data) else (0, len(data))
    if last + 8 + size > len(data):
        raise struct.error


def _attributes(data: mmap.mmap) -> tuple[dict[bytes, bytes], int]:
    """The attributes of the header as bytes, and where the table of chunks begins."""
    found, at = {}, 8
    while data[at] != 0:
        name_end = data.find(b"\0", at)
        kind_end = data.find(b"\0", name_end + 1)
        (size,) = struct.unpack_from("<I", data, kind_end + 1)
        if min(name_end, kind_end) < 0 or size > len(data):
            raise struct.error
        value = kind_end + 5
        found[data[at:name_end]] = data[value : value + size]
        at = value + size
    return found, at + 1


def _types(channels: bytes) -> set[int]:
    """The pixel types in a list of channels: name, 0, type, 12 bytes more; 0 at the end."""
    found, at = set(), 0
    while channels[at] != 0:
        at = channels.index(b"\0", at) + 1
        found.add(int(struct.unpack_from("<i", channels, at)[0]))
        at += 16
    return found


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
    if not isinstance(value, tuple | list | np.ndarray):
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
    given = (attributes or {}).items()
    header |= {name: _plain(value) for name, value in given if value is not None}
    if scale != 1:
        header[_HALF_SCALE] = scale
    # OpenEXR ignores strides: whatever is not contiguous would be written as noise
    channels = {"RGB": np.ascontiguousarray(pixels)}
    for name, layer in (layers or {}).items():
        channels[name] = np.ascontiguousarray(_layer(layer, pixels.shape[:2], name))
    with _opened(path, "wb") as target:
        OpenEXR.File(header, channels).write(target)


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
        return to_half(pixels / np.float32(scale)), scale
    return to_half(pixels), 1.0


def to_half(pixels: NDArray[np.floating]) -> NDArray[np.float16]:
    """float32 as float16, rounded to nearest: numpy's astype, five times as fast."""
    import cv2

    if pixels.dtype != np.float32 or pixels.ndim != 3 or not pixels.flags.c_contiguous:
        return pixels.astype(np.float16)
    try:
        half = cv2.add(pixels, np.zeros(4), dtype=cv2.CV_16F)
    except cv2.error:  # OpenCV 4 cannot
        return pixels.astype(np.float16)
    return np.asarray(half, np.float16)


def _layer(layer: NDArray[Any], size: tuple[int, int], name: str) -> NDArray[Any]:
    assert layer.shape == size, (name, layer.shape, size)
    stored = layer if layer.dtype in (np.float16, np.float32, np.uint32) else None
    return stored if stored is not None else layer.astype(np.float32)


def _plain(value: object) -> object:
    """OpenEXR takes Python's own numbers, strings and tuples, and nothing of numpy's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple) and len(value) in (2, 3, 8):
        return tuple(float(v) for v in value)
    if isinstance(value, int | float):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()  # names need not be text
