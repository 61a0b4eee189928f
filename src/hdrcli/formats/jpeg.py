"""JPEG. ITU-T T.81; the markers are walked here, because every decoder hides truncation."""

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
_RESTARTS = range(0xD0, 0xD8)
_SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}  # by the number of components
_SPARE = 4  # bytes that an encoder may leave behind the last block of a scan
_SPARE_OF_INTERVAL = 1  # and of a restart interval
_FAULTS = ("Corrupt JPEG data", "Premature end of JPEG file")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
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

    The format has no checksum. A wrong bit in Huffman codes makes the decoder lose its place, and
    the codes then end too early or too late for the blocks of their scan or restart interval.
    Where they fit nevertheless (a wrong amplitude, or a decoder that finds its place again
    without a block too many), the file is a valid one of another picture.
    """
    layout = walk(data)
    check_size(layout.height, layout.width, layout.components * (2 if layout.precision > 8 else 1))
    if layout.coded * 8 * 64 < layout.height * layout.width:  # a block takes a bit at least
        raise FormatError(f"{_CUT}, {layout.width} x {layout.height}", hint=_CUT_HINT)
    note = _GAIN_MAP_NOTE if layout.gain_map else None
    codes: Codes | None = _strictly(data, layout)
    if layout.components == 4:
        codes = rgb_of_cmyk(data, layout.profile)
        return Decoded(codes, bits=8, exif=layout.exif, note=note)
    if codes is None:
        codes = _leniently(data)
    if codes.shape[:2] != (layout.height, layout.width):
        raise FormatError("damaged JPEG: two different sizes")
    if codes.dtype == np.uint16:
        top = (1 << layout.precision) - 1
        codes = (codes.astype(np.uint32) * 65535 // top).astype(np.uint16)
    return Decoded(codes, bits=layout.precision, icc=layout.profile, exif=layout.exif, note=note)


def _strictly(data: bytes, layout: Layout) -> Codes | None:
    """The picture of a file without fault, None where the strict decoder cannot tell.

    Of the decoders with bindings this is the one that passes libjpeg's warnings on.
    """
    import simplejpeg

    space = _SPACES.get(layout.components)
    if space is None or layout.precision != 8:
        return None
    factor = 8 if layout.components == 4 else 1  # of inks only the faults are asked for
    try:
        codes: Codes = simplejpeg.decode_jpeg(data, colorspace=space, min_factor=factor)
    except ValueError as error:
        if _is_damage(str(error), data[: layout.end - 2]):
            raise FormatError(_DAMAGED, hint=_CUT_HINT) from error
        return None
    return codes[..., 0] if layout.components == 1 else codes


def _leniently(data: bytes) -> Codes:
    import imagecodecs

    with foreign("JPEG"):
        codes: Codes = imagecodecs.jpeg8_decode(data)
    return codes


def _is_damage(said: str, coded: bytes) -> bool:
    """Whether libjpeg's first warning means wrong pixels; ``coded`` ends before the last marker.

    Encoders leave bytes behind the last block, and some pad the file.
    """
    if not said.startswith(_FAULTS):
        return False
    left = _LEFT_OVER.search(said)
    if left is None:
        return True
    marker = int(left[2], 16)
    if marker == _EOI and len(coded) - len(coded.rstrip(b"\0\xff")) > 1:
        return False
    return int(left[1]) > (_SPARE_OF_INTERVAL if marker in _RESTARTS else _SPARE)


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
        at += 2 + len(payload)
        _note(layout, marker, payload)
        if marker == _SOS:
            end = _MARKER.search(data, at)
            behind = end.start() if end else len(data)
            layout.coded, at = layout.coded + behind - at, behind
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
