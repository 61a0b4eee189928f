"""MaxCLL and MaxFALL, written into a file that is already encoded.

They are known when the last frame is. So the encoder is given two numbers that no film has, and
these are found and replaced in the finished file: in the SEI messages of HEVC, in the metadata
OBUs of AV1. The containers' own boxes are added to MP4 and MOV, whose index comes last.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

PLACEHOLDER = (0xA5C3, 0x5A3C)  # MaxCLL and MaxFALL to give to an encoder
_MARK = struct.pack(">HH", *PLACEHOLDER)
# What surrounds the four bytes: an SEI prefix NAL of payload 144, and an OBU of metadata type 1.
MARKS: Mapping[str, tuple[bytes, bytes]] = MappingProxyType(
    {
        "hevc": (bytes.fromhex("4e019004"), b"\x80"),
        "av1": (bytes.fromhex("0601"), b"\x80"),
    }
)
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_ENTRIES = (b"hvc1", b"hev1", b"av01", b"apch", b"apcn", b"ap4h")
_ENTRY_HEADER = 86  # bytes of a VisualSampleEntry before its own boxes (ISO 14496-12, 12.1.3)


def numbers(content: float, average: float) -> tuple[int, int]:
    """MaxCLL and MaxFALL as 16-bit numbers, rounded up to whole cd/m².

    Where the two would hold 00 00 in a row, which no NAL unit may, MaxCLL is one more.
    """
    cll = min(max(1, math.ceil(round(content, 2))), 65535)
    fall = min(max(1, math.ceil(round(average, 2))), cll)
    return (cll + 1 if cll % 256 == 0 and fall < 256 else cll), fall


def patch(path: Path, codec: str, cll: int, fall: int) -> int:
    """Replace the placeholders. Returns how many there were."""
    before, after = MARKS[codec]
    found = 0
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = data.find(before + _MARK + after)
        while at >= 0:
            start = at + len(before)
            data[start : start + 4] = struct.pack(">HH", cll, fall)
            found += 1
            at = data.find(before + _MARK + after, start)
    return found


def mastering_box(peak: float) -> bytes:
    """'mdcv': Display P3 primaries, the peak, and 0.0001 cd/m² (ISO 23001-17, 12.1.6)."""
    green, blue, red, white = (13250, 34500), (7500, 3000), (34000, 16000), (15635, 16450)
    body = struct.pack(">8H", *green, *blue, *red, *white)
    body += struct.pack(">2I", round(peak * 10_000), 1)
    return struct.pack(">I4s", 8 + len(body), b"mdcv") + body


def level_box(cll: int, fall: int) -> bytes:
    """'clli' of ISO 23001-17."""
    return struct.pack(">I4sHH", 12, b"clli", cll, fall)


def add_boxes(path: Path, boxes: bytes) -> bool:
    """Put boxes into the video's sample entry of an MP4 or MOV whose index comes last.

    False, and nothing done, where the file is laid out otherwise.
    """
    with path.open("r+b") as file:
        start = _index_at(file.read(16), path)
        if start is None:
            return False
        file.seek(start)
        index = bytearray(file.read())
        opened = _entry(index)
        if opened is None:
            return False
        sizes, end = opened
        for at in sizes:
            struct.pack_into(">I", index, at, struct.unpack_from(">I", index, at)[0] + len(boxes))
        index[end:end] = boxes
        file.seek(start)
        file.write(index)
    return True


def _index_at(_head: bytes, path: Path) -> int | None:
    """Where the 'moov' box starts, if it is the last of the file."""
    size = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:
                length = struct.unpack(">Q", file.read(8))[0]
            if kind == b"moov":
                return at if at + length == size else None
            if length < 8:
                return None
            at += length
    return None


def _entry(index: bytearray) -> tuple[list[int], int] | None:
    """Places of the sizes that grow, outermost first, and the end of the video's sample entry."""
    for trak in _children(index, 8, len(index), b"trak"):
        sizes, at = [0, trak], trak
        for kind in _PARENTS[2:]:
            inner = next(iter(_children(index, at + 8, at + _size(index, at), kind)), None)
            if inner is None:
                break
            sizes.append(inner)
            at = inner
        else:
            entry = at + 16
            if bytes(index[entry + 4 : entry + 8]) in _ENTRIES:
                assert _size(index, entry) >= _ENTRY_HEADER
                return [*sizes, entry], entry + _size(index, entry)
    return None


def _size(index: bytearray, at: int) -> int:
    return int(struct.unpack_from(">I", index, at)[0])


def _children(index: bytearray, start: int, end: int, kind: bytes) -> list[int]:
    """Where the boxes of a kind start, among those between two places."""
    found, at = [], start
    while at + 8 <= end:
        length = _size(index, at)
        if bytes(index[at + 4 : at + 8]) == kind:
            found.append(at)
        if length < 8:
            break
        at += length
    return found
