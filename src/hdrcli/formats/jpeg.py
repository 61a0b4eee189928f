"""JPEG. ITU-T T.81; the markers are walked here, because every decoder hides truncation."""

import io
import re
import struct
from dataclasses import dataclass, field

import numpy as np

from hdrcli.errors import FormatError
from hdrcli.formats.cmyk import rgb_of_cmyk
from hdrcli.formats.decoded import Decoded, check_size, foreign
from hdrcli.frames import Codes

_CUT = "cut short: the JPEG data stop before the end of the picture"
_CUT_HINT = "copy it again from the camera or the source"
_DAMAGED = "damaged: the JPEG data are corrupt in the middle of the picture"
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_SOI, _EOI, _SOS, _DRI, _APP1, _APP2 = 0xD8, 0xD9, 0xDA, 0xDD, 0xE1, 0xE2
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not stuffing, restart or fill
_GAIN_MAP_NOTE = "the gain map in it is not used, only the picture for common screens"
_HUFFMAN = (0xC0, 0xC1)  # baseline and extended
_SPARE = 4  # bytes that an encoder may leave behind the last block
_MOST = 89_000_000  # pixels
_FEWEST = 1000  # bytes of codes: of icons the decoder reads all at once
_AHEAD = 16  # bytes that a decoder may read beyond what it needs
_GAIN_MAPS = (b"ns.adobe.com/hdr-gain-map", b"urn:iso:std:iso:ts:21496", b"HDRGainMap")


@dataclass
class Layout:
    """What the markers of a JPEG say."""

    height: int = 0
    width: int = 0
    components: int = 0
    precision: int = 8
    exif: bytes | None = None
    icc: dict[int, bytes] = field(default_factory=dict)
    icc_parts: int = 0
    coded: int = 0  # bytes of entropy-coded data
    scans: int = 0
    process: int = 0  # the SOF marker
    end: int = 0  # behind the end-of-image marker
    gain_map: bool = False

    @property
    def profile(self) -> bytes | None:
        """The ICC profile, if all its parts are there."""
        wanted = range(1, self.icc_parts + 1)
        if not self.icc or any(part not in self.icc for part in wanted):
            return None
        return b"".join(self.icc[part] for part in wanted)


def decode(data: bytes) -> Decoded:
    """Decode strictly: a file that stops early, or is corrupt, is refused, not filled up.

    The format has no checksum: damage is found where the codes end too early or too late for
    it. That leaves out a single wrong block, what restart markers contain, and progressive files.
    """
    import imagecodecs

    layout = walk(data)
    check_size(layout.height, layout.width, layout.components * (2 if layout.precision > 8 else 1))
    if layout.coded * 8 * 64 < layout.height * layout.width:  # a block takes a bit at least
        raise FormatError(f"{_CUT}, {layout.width} x {layout.height}", hint=_CUT_HINT)
    if _is_damaged(data, layout):
        raise FormatError(_DAMAGED, hint=_CUT_HINT)
    note = _GAIN_MAP_NOTE if layout.gain_map else None
    if layout.components == 4:
        codes: Codes = rgb_of_cmyk(data, layout.profile)
        return Decoded(codes, bits=8, exif=layout.exif, note=note)
    with foreign("JPEG"):
        codes = imagecodecs.jpeg8_decode(data)
    if codes.shape[:2] != (layout.height, layout.width):
        raise FormatError("damaged JPEG: two different sizes")
    if codes.dtype == np.uint16:
        top = (1 << layout.precision) - 1
        codes = (codes.astype(np.uint32) * 65535 // top).astype(np.uint16)
    return Decoded(codes, bits=layout.precision, icc=layout.profile, exif=layout.exif, note=note)


def _is_damaged(data: bytes, layout: Layout) -> bool:
    """Whether the picture is complete too early, or not yet, at the end of the data.

    A wrong bit in Huffman codes makes the decoder lose its place: the blocks behind it are read
    from other bits, and their number no longer fits. Decoders say so in messages that no binding
    passes on, and decode on. An eighth of the size takes half the time of decoding.
    """
    from PIL import Image

    known = layout.process in _HUFFMAN and layout.precision == 8 and layout.components in (1, 3)
    known &= layout.scans == 1  # of several, as in progressive files, all are read at first
    known &= layout.height * layout.width <= _MOST  # Pillow warns of larger ones
    known &= layout.coded >= _FEWEST
    coded = data[: layout.end - 2].rstrip(b"\0\xff")
    if not known or layout.end - 2 - len(coded) > 1:  # some encoders pad
        return False
    meter = _Meter(data[: layout.end - 2])
    try:
        with Image.open(meter, formats=["JPEG"]) as picture:
            picture.draft("L", (max(1, picture.width // 8), max(1, picture.height // 8)))
            picture.load()
    except OSError:
        return True
    return not meter.needed


class _Meter(io.BytesIO):
    """A JPEG without its end that knows whether its last bytes were needed."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data + bytes(_AHEAD))  # no block needs them
        self.head = len(data) - _SPARE
        self.needed = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to the last bytes first, and those when they are asked for."""
        at = self.tell()
        size = self.head if size is None or size < 0 else size
        if at < self.head:
            return super().read(min(size, self.head - at))
        self.needed = True
        return super().read(size)


def walk(data: bytes) -> Layout:
    """Read the segments up to the end-of-image marker; FormatError where that is missing."""
    layout, at = Layout(), 2
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            raise FormatError(_CUT, hint=_CUT_HINT)
        marker, at = data[found.start() + 1], found.end()
        if marker == _EOI:
            layout.end = at
            break
        if marker in (_SOI, 0x01):
            continue
        payload = _segment(data, at)
        if marker in _FRAMES and not layout.components:
            layout.process = marker
        at += 2 + len(payload)
        _note(layout, marker, payload)
        if marker == _SOS:
            layout.scans += 1
            end = _MARKER.search(data, at)
            layout.coded += (end.start() if end else len(data)) - at
    if not (layout.components and layout.coded):
        raise FormatError(_CUT, hint=_CUT_HINT)
    return layout


def _segment(data: bytes, at: int) -> bytes:
    size = int.from_bytes(data[at : at + 2], "big")
    if size < 2 or at + size > len(data):
        raise FormatError(_CUT, hint=_CUT_HINT)
    return data[at + 2 : at + size]


def _note(layout: Layout, marker: int, payload: bytes) -> None:
    if marker in _FRAMES and not layout.components and len(payload) >= 6:
        layout.precision, layout.height, layout.width, layout.components = struct.unpack_from(
            ">BHHB", payload
        )
    elif marker == _APP1 and payload.startswith(b"Exif\0\0"):
        layout.exif = layout.exif or payload[6:]
    elif marker == _APP2 and payload.startswith(b"ICC_PROFILE\0") and len(payload) > 14:
        layout.icc[payload[12]] = payload[14:]
        layout.icc_parts = payload[13]
    if marker in (_APP1, _APP2):
        layout.gain_map |= any(name in payload for name in _GAIN_MAPS)


def encode(
    codes: Codes, *, quality: int, icc: bytes | None = None, exif: bytes | None = None
) -> bytes:
    """(H, W, 3) uint8 RGB, 4:2:0, with its profile and EXIF block right behind the header."""
    import imagecodecs

    data = bytes(imagecodecs.jpeg8_encode(codes, level=quality, subsampling="420"))
    extra = b""
    if exif and len(exif) < 65000:
        extra += _wrapped(_APP1, b"Exif\0\0" + exif)
    if icc:
        extra += _wrapped(_APP2, b"ICC_PROFILE\0\1\1" + icc)
    behind = 4 + int.from_bytes(data[4:6], "big")  # the JFIF header stays first
    return data[:behind] + extra + data[behind:]


def _wrapped(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload
