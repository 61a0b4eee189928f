"""PNG, 8 and 16 bits. W3C PNG, third edition; the chunks are walked here for what they say."""

import struct
import zlib
from collections.abc import Mapping

import numpy as np

from hdrcli.color import DISPLAY_P3, REC709, REC2020, Primaries, gamma_decode, known, rec709_decode
from hdrcli.errors import FormatError
from hdrcli.formats.decoded import Decoded, check_size, foreign
from hdrcli.frames import LINEAR, SRGB, Codes, Response, sampled

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33  # signature and IHDR
_SAMPLES = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}  # per pixel once decoded, by colour type
_NAMED = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"eXIf")
_LARGEST_PROFILE = 16 << 20
# ITU-T H.273: the code points a photograph may have.
_CICP_PRIMARIES = {1: REC709, 9: REC2020, 12: DISPLAY_P3}
_CICP_CURVES = {1: sampled("Rec. 709", rec709_decode), 8: LINEAR, 13: SRGB}


def decode(data: bytes) -> Decoded:
    """Decode; a missing end or a wrong checksum is an error."""
    import imagecodecs

    chunks = walk(data)
    header = chunks[b"IHDR"]
    width, height, bits, kind = struct.unpack_from(">IIBB", header)
    if kind not in _SAMPLES:
        raise FormatError(f"damaged PNG: there is no colour type {kind}")
    check_size(height, width, _SAMPLES[kind] * (2 if bits == 16 else 1))
    response, primaries = _meaning(chunks)
    with foreign("PNG"):
        codes = imagecodecs.png_decode(data)
    return Decoded(
        codes,
        bits=16 if bits == 16 else 8,
        icc=_profile(chunks),
        exif=chunks.get(b"eXIf"),
        response=response,
        primaries=primaries,
    )


def walk(data: bytes) -> dict[bytes, bytes]:
    """The chunks that say something of the picture, the first of each kind."""
    found: dict[bytes, bytes] = {}
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size] if name in (b"IHDR", *_NAMED) else b""
        at += 12 + size
        if at > len(data):
            break
        found.setdefault(name, body)
        if name == b"IEND" and len(found.get(b"IHDR", b"")) == 13:
            return found
    raise FormatError(
        "cut short: the PNG data stop before the end of the picture",
        hint="copy it again from the source",
    )


def _profile(chunks: Mapping[bytes, bytes]) -> bytes | None:
    if b"cICP" in chunks or b"iCCP" not in chunks:
        return None
    _, _, packed = chunks[b"iCCP"].partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        return None  # libpng reads such files, too


def _meaning(chunks: Mapping[bytes, bytes]) -> tuple[Response | None, Primaries | None]:
    """What the chunks say without a profile; cICP counts before, sRGB and gAMA after it."""
    if len(code := chunks.get(b"cICP", b"")) == 4:
        return _CICP_CURVES.get(code[1]), _CICP_PRIMARIES.get(code[0])
    if b"sRGB" in chunks:
        return SRGB, REC709
    return _gamma(chunks.get(b"gAMA", b"")), _chromaticities(chunks.get(b"cHRM", b""))


def _gamma(chunk: bytes) -> Response | None:
    value = struct.unpack(">I", chunk)[0] / 100000 if len(chunk) == 4 else 0.0
    if not 0.2 < value < 2 or abs(value - 1 / 2.2) < 0.001:  # 0.45455 stands for sRGB
        return None
    if abs(value - 1) < 0.001:
        return LINEAR
    return sampled(f"gamma {1 / value:.3g}", lambda code: gamma_decode(code, 1 / value))


def _chromaticities(chunk: bytes) -> Primaries | None:
    if len(chunk) != 32:
        return None
    v = [number / 100000 for number in struct.unpack(">8I", chunk)]
    white, red, green, blue = ((v[i], v[i + 1]) for i in (0, 2, 4, 6))
    area = (green[0] - red[0]) * (blue[1] - red[1]) - (blue[0] - red[0]) * (green[1] - red[1])
    if abs(area) < 1e-3 or min(white[1], red[1], green[1], blue[1]) <= 0:
        return None
    return known(Primaries("of the file", red, green, blue, white))


def encode(codes: Codes, *, icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """(H, W, 3) uint8 or uint16 RGB; without ``icc`` it says sRGB."""
    import imagecodecs

    # 3 and 16: run lengths of differences to the left, five times as fast as the default
    data = bytes(imagecodecs.png_encode(np.ascontiguousarray(codes), 1, strategy=3, filter=16))
    extra = _chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc)) if icc else _chunk(b"sRGB", b"\0")
    if exif:
        extra += _chunk(b"eXIf", exif)
    return data[:_HEADER_END] + extra + data[_HEADER_END:]


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)
