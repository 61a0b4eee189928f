"""Exposure and camera from metadata; metadata into outputs.

Reading goes through exifread, then Pillow for the containers exifread does not know; numbers
are parsed here, by hand, because tags hold such things as ``1/0``. Writing needs no library:
an EXIF block is a small TIFF file of three directories (Exif 2.32, CIPA DC-008).
"""

import io
import logging
import math
import mmap
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from hdrcli.errors import FOREIGN
from hdrcli.frames import Metadata

log = logging.getLogger("hdrcli")

SOFTWARE = "hdrcli"  # as EXIF names the program that wrote a file
LONGEST = 3600.0  # seconds: a longer exposure time is taken for nonsense

Tags = Mapping[str, str]

# The names exifread gives, best first. DNG and TIFF keep some of them in the first directory.
_EXPOSURE_TIME = ("EXIF ExposureTime", "Image ExposureTime")
_SHUTTER_APEX = ("EXIF ShutterSpeedValue", "Image ShutterSpeedValue")
_F_NUMBER = ("EXIF FNumber", "Image FNumber")
_APERTURE_APEX = ("EXIF ApertureValue", "Image ApertureValue")
_ISO = (
    "EXIF ISOSpeedRatings",
    "EXIF PhotographicSensitivity",
    "Image ISOSpeedRatings",
    "EXIF RecommendedExposureIndex",
    "EXIF StandardOutputSensitivity",
    "EXIF ISOSpeed",
    "MakerNote ISOSetting",
    "MakerNote ISO",
)
_BIAS = ("EXIF ExposureBiasValue", "Image ExposureBiasValue")
_TAKEN = ("EXIF DateTimeOriginal", "EXIF DateTimeDigitized", "Image DateTime")
_SUBSECOND = ("EXIF SubSecTimeOriginal", "EXIF SubSecTimeDigitized", "EXIF SubSecTime")
_OFFSET = ("EXIF OffsetTimeOriginal", "EXIF OffsetTimeDigitized", "EXIF OffsetTime")
_SERIAL = ("EXIF BodySerialNumber", "MakerNote SerialNumber", "Image BodySerialNumber")
_LENS = ("EXIF LensModel", "MakerNote LensModel", "MakerNote LensType")
_FOCAL = ("EXIF FocalLength", "Image FocalLength")
_COMPOSITE_IMAGE = ("EXIF CompositeImage", "EXIF Tag 0xA460")
_ISO_OVERFLOW = 65535  # Exif 2.3: the true value does not fit and stands in another tag


def read_metadata(source: Path | bytes, kind: str = "exif", name: str | None = None) -> Metadata:
    """What a file says of how it was taken; empty where it says nothing, never an error.

    ``source`` is a file or its bytes; ``kind`` is what ``formats.sniff`` found, or "exif" for a
    bare EXIF block (a TIFF header and its directories), which is then kept in ``exif``.
    ``name`` is used in warnings.
    """
    named = name or (str(source) if isinstance(source, Path) else "photograph")
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError:
        return Metadata()
    block = data if kind in ("exif", "tiff") else _pillow_block(data)
    if block is None:  # a container that Pillow does not open, HEIF mostly
        return metadata_of(_texts(_processed(data, details=False)), named)
    exif = block if kind != "tiff" else exif_for_output(data)
    return replace(metadata_of(_tags_of(block), named), exif=exif or None)


# Whose maker notes exifread understands and where brackets are named; the others' it takes
# long to misread: a quarter of a second for Sony's.
_BRACKETING_MAKERS = ("CANON", "NIKON", "FUJIFILM", "OLYMPUS", "PENTAX", "CASIO")


def _tags_of(block: bytes) -> dict[str, str]:
    """Every tag of a block as the text of its first value.

    exifread gets a tidy copy: a damaged block can keep it busy for minutes. Only for maker notes
    it needs the original, where their offsets are right.
    """
    order = _byte_order(block)
    if order is None:
        return {}
    texts = _texts(_processed(_tidy(block, order), details=False))
    make = texts.get("Image Make", "").upper()
    if make.startswith(_BRACKETING_MAKERS) and _is_whole(block, order):
        return _texts(_processed(block, details=True)) | texts
    return texts


def _texts(found: Mapping[Any, Any]) -> dict[str, str]:
    return {str(key): text for key, tag in found.items() if (text := _text(tag)) is not None}


def _processed(data: bytes, *, details: bool) -> Mapping[Any, Any]:
    import exifread

    logging.getLogger("exifread").setLevel(logging.CRITICAL)
    try:
        found: Mapping[Any, Any] = exifread.process_file(
            io.BytesIO(data), details=details, extract_thumbnail=False
        )
    except FOREIGN:
        return {}
    return found


def _text(tag: Any) -> str | None:  # noqa: ANN401  exifread's own type, or bytes
    values = getattr(tag, "values", None)
    if isinstance(values, str):
        return values.replace("\0", "").strip() or None
    if isinstance(values, list) and values:
        return str(values[0])
    return None


def _pillow_block(data: bytes) -> bytes | None:
    """The EXIF block of a picture, b"" where it has none; None if Pillow does not open it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            block: bytes = image.info.get("exif") or b""
    except (*FOREIGN, Image.DecompressionBombError):
        return None
    return block.removeprefix(b"Exif\0\0")


# --- from tags to Metadata --------------------------------------------------------------------

_RATIONAL = re.compile(r"\s*([+-]?\d{1,20}(?:\.\d{1,20})?)\s*(?:/\s*([+-]?\d{1,20}))?\s*")


def rational(text: str | None) -> float | None:
    """A number or a fraction, as "1/60", "5.6" or "2". None for "1/0", "0/0", and other text."""
    match = _RATIONAL.fullmatch(text or "")
    if match is None:
        return None
    over = float(match[2] or 1)
    return float(match[1]) / over if over else None


def metadata_of(tags: Tags, name: str) -> Metadata:
    """The tags exifread names, as Metadata. Impossible values are left out, and said so."""
    return Metadata(
        exposure_time=_exposure_time(tags, name),
        f_number=_f_number(tags, name),
        iso=_iso(tags),
        bias=rational(_first(tags, _BIAS)),
        taken=_first(tags, _TAKEN),
        subsecond=_subsecond(_first(tags, _SUBSECOND)),
        utc_offset=_first(tags, _OFFSET),
        make=_first(tags, ("Image Make",)),
        model=_first(tags, ("Image Model",)),
        serial=_first(tags, _SERIAL),
        lens=_first(tags, _LENS),
        focal_length=_positive(rational(_first(tags, _FOCAL))),
        orientation=_orientation(tags),
        bracket_tags=tuple(_bracket_tags(tags)),
        merged=_first(tags, ("Image Software",)) == SOFTWARE
        and _first(tags, _COMPOSITE_IMAGE) == "2",
    )


def _first(tags: Tags, names: Iterable[str]) -> str | None:
    return next((tags[name].strip() for name in names if tags.get(name, "").strip()), None)


def _positive(value: float | None) -> float | None:
    return value if value is not None and 0 < value < math.inf else None


def _exposure_time(tags: Tags, name: str) -> float | None:
    text = _first(tags, _EXPOSURE_TIME)
    seconds = _positive(rational(text))
    if seconds is not None and seconds <= LONGEST:
        return seconds
    if text is not None:
        log.warning("%s: the exposure time %r makes no sense and is left out", name, text)
    apex = rational(_first(tags, _SHUTTER_APEX))  # Tv = -log2(t)
    return 2.0**-apex if apex is not None and -11.8 < apex < 20 else None


def _f_number(tags: Tags, name: str) -> float | None:
    text = _first(tags, _F_NUMBER)
    number = _positive(rational(text))
    if number is not None:
        return number
    if text is not None and rational(text) != 0:  # a manual lens writes 0
        log.warning("%s: the f-number %r makes no sense and is left out", name, text)
    apex = rational(_first(tags, _APERTURE_APEX))  # Av = 2 log2(N); 0 is a manual lens, too
    return 2.0 ** (apex / 2) if apex is not None and 0 < apex < 20 else None


def _iso(tags: Tags) -> float | None:
    found = (_positive(rational(tags.get(name))) for name in _ISO)
    usable = [value for value in found if value is not None]
    exact = [value for value in usable if value != _ISO_OVERFLOW]
    return next(iter(exact or usable), None)


def _subsecond(text: str | None) -> float:
    return float(f"0.{text}") if text and re.fullmatch(r"[0-9]{1,9}", text) else 0.0


def _orientation(tags: Tags) -> int:
    text = tags.get("Image Orientation", "1")
    return int(text) if text in set("12345678") else 1


def _bracket_tags(tags: Tags) -> Iterable[tuple[str, str]]:
    for key, text in sorted(tags.items()):
        if "bracket" in key.lower() or key == "EXIF ExposureMode":
            yield key, text


# --- EXIF blocks ------------------------------------------------------------------------------

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_ASCII, _SHORT, _LONG, _RATIO, _UNDEFINED, _SRATIO = 2, 3, 4, 5, 7, 10
_EXIF_POINTER, _GPS_POINTER, _INTEROP_POINTER = 0x8769, 0x8825, 0xA005
_ORIENTATION, _SOFTWARE, _COMPOSITE = 0x0112, 0x0131, 0xA460
_OF_SEVERAL = 2  # CompositeImage: made of photographs that were taken apart
# Of the first directory only what says who, when and with what; the rest describes the pixels.
_KEPT = (
    0x010E,
    0x010F,
    0x0110,
    _ORIENTATION,
    0x011A,
    0x011B,
    0x0128,
    0x0131,
    0x0132,
    0x013B,
    0x8298,
)
# Maker note, pixel sizes, colour space, interoperability, padding: not true of another file.
_DROPPED = (0x927C, 0xA001, 0xA002, 0xA003, _INTEROP_POINTER, 0xEA1C)
_LARGEST = 4096  # bytes of one tag that is copied


Entry = tuple[int, int, bytes]  # type, count, value bytes in the block's byte order
Directory = dict[int, Entry]
Block = bytes | mmap.mmap  # of which little is touched, so that a large TIFF may be one


def exif_for_output(exif: bytes, *, merged: bool = False) -> bytes:
    """The same block for a new picture made of the photograph: upright, small, nothing private
    to the camera's file. Camera, time, exposure and place stay; damaged blocks give b"".

    ``merged``: the picture is made of a bracket, and the block says so, lest it be taken for one
    of its photographs."""
    order = _byte_order(exif)
    if order is None:
        return b""
    first, inner = {_ORIENTATION: _number(order, 1)}, {}
    if merged:
        first[_SOFTWARE] = _ASCII, len(SOFTWARE) + 1, SOFTWARE.encode() + b"\0"
        inner[_COMPOSITE] = _number(order, _OF_SEVERAL)
    return _repacked(exif, order, first, inner)


def exif_block_of_tiff(path: Path) -> bytes | None:
    """The EXIF block inside a TIFF file, without what describes its pixels; None without any."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as block:
        order = _byte_order(block)
        return _repacked(block, order, {}, {}) if order else None


def _number(order: str, value: int) -> Entry:
    return _SHORT, 1, struct.pack(order + "H", value)


def _repacked(block: Block, order: str, new_first: Directory, new_inner: Directory) -> bytes:
    first, inner, place = _directories(block, order)
    first = {tag: entry for tag, entry in first.items() if tag in _KEPT} | new_first
    inner = {tag: entry for tag, entry in inner.items() if tag not in _DROPPED} | new_inner
    return _block(order, _small(first), _small(inner), _small(place))


def _tidy(block: Block, order: str) -> bytes:
    """The three directories anew, each tag once, without the maker note."""
    first, inner, place = (_small(directory) for directory in _directories(block, order))
    for tag in (0x927C, _INTEROP_POINTER):
        inner.pop(tag, None)
    for tag in (0x014A, 0x0111, 0x0144):  # pointers to other directories and to pixels
        first.pop(tag, None)
    return _block(order, first, inner, place)


def _directories(block: Block, order: str) -> tuple[Directory, Directory, Directory]:
    first = _directory(block, order, _offset(block, order, 4))
    inner = _directory(block, order, _pointer(first, _EXIF_POINTER, order))
    place = _directory(block, order, _pointer(first, _GPS_POINTER, order))
    return first, inner, place


def _is_whole(block: Block, order: str) -> bool:
    """Whether every directory lies inside the block and the chain of them ends after the second."""
    first = _directory(block, order, _offset(block, order, 4))
    starts = [_offset(block, order, 4)]
    starts += [at for tag in (_EXIF_POINTER, _GPS_POINTER) if (at := _pointer(first, tag, order))]
    following = _next(block, order, starts[0])
    if following:
        starts.append(following)
    ends = [_next(block, order, at) for at in starts]
    return None not in ends and not any(ends[1:])


def _next(block: Block, order: str, start: int | None) -> int | None:
    """Where the directory after the one at ``start`` begins, 0 for none; None if it is cut."""
    if start is None or not 8 <= start <= len(block) - 6:
        return None
    end = start + 2 + 12 * struct.unpack_from(order + "H", block, start)[0]
    return _offset(block, order, end) if end + 4 <= len(block) else None


def write_exif(metadata: Metadata, software: str = SOFTWARE) -> bytes:
    """An EXIF block that says what ``metadata`` says, with proper fractions."""
    first: dict[int, Entry | None] = {
        0x010F: _ascii(metadata.make),
        0x0110: _ascii(metadata.model),
        _ORIENTATION: _short(metadata.orientation),
        0x0131: _ascii(software),
        0x0132: _ascii(metadata.taken),
    }
    inner: dict[int, Entry | None] = {
        0x829A: _fraction(metadata.exposure_time),
        0x829D: _fraction(metadata.f_number),
        0x8827: _short(metadata.iso),
        0x9000: (_UNDEFINED, 4, b"0232"),
        0x9003: _ascii(metadata.taken),
        0x9011: _ascii(metadata.utc_offset),
        0x9204: _fraction(metadata.bias, signed=True),
        0x920A: _fraction(metadata.focal_length),
        0x9291: _ascii(f"{metadata.subsecond:.3f}"[2:] if metadata.subsecond else None),
        0xA431: _ascii(metadata.serial),
        0xA434: _ascii(metadata.lens),
    }
    return _block("<", _present(first), _present(inner), {})


def is_adobe_rgb(exif: bytes) -> bool:
    """Whether the block says Adobe RGB the way cameras do, without a profile. DCF 2.0: R03."""
    order = _byte_order(exif)
    if order is None:
        return False
    _, inner, _ = _directories(exif, order)
    interop = _directory(exif, order, _pointer(inner, _INTEROP_POINTER, order))
    return interop.get(1, (0, 0, b""))[2].startswith(b"R03")


def _byte_order(block: Block) -> str | None:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])


def _offset(block: Block, order: str, at: int) -> int:
    return int(struct.unpack_from(order + "I", block, at)[0]) if at + 4 <= len(block) else 0


def _pointer(directory: Directory, tag: int, order: str) -> int:
    kind, count, value = directory.get(tag, (0, 0, b""))
    return int(struct.unpack(order + "I", value)[0]) if (kind, count) in ((4, 1), (13, 1)) else 0


def _directory(block: Block, order: str, start: int) -> Directory:
    """The entries of one directory that lie inside the block; nothing for a bad offset."""
    if not 8 <= start <= len(block) - 2:
        return {}
    count = struct.unpack_from(order + "H", block, start)[0]
    entries: Directory = {}
    for at in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", block, at)
        size = _SIZES.get(kind, 0) * number
        where = at + 8 if size <= 4 else _offset(block, order, at + 8)
        if size and where + size <= len(block):
            entries[tag] = (kind, number, block[where : where + size])
    return entries


def _small(directory: Directory) -> Directory:
    return {tag: entry for tag, entry in directory.items() if len(entry[2]) <= _LARGEST}


def _present(directory: dict[int, Entry | None]) -> Directory:
    return {tag: entry for tag, entry in directory.items() if entry is not None}


def _block(order: str, first: Directory, inner: Directory, place: Directory) -> bytes:
    """Lay the directories one behind the other, each followed by its long values."""
    first = dict(first)
    for tag, directory in ((_EXIF_POINTER, inner), (_GPS_POINTER, place)):
        first.pop(tag, None)
        if directory:
            first[tag] = (_LONG, 1, b"\0\0\0\0")
    at = 8 + len(_packed(order, first, 8))
    tail = b""
    for tag, directory in ((_EXIF_POINTER, inner), (_GPS_POINTER, place)):
        if directory:
            first[tag] = (_LONG, 1, struct.pack(order + "I", at + len(tail)))
            tail += _packed(order, directory, at + len(tail))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8) + _packed(order, first, 8) + tail


def _packed(order: str, directory: Directory, start: int) -> bytes:
    entries, values = b"", b""
    behind = start + 2 + 12 * len(directory) + 4
    for tag, (kind, count, value) in sorted(directory.items()):
        if len(value) <= 4:
            field = value.ljust(4, b"\0")
        else:
            field = struct.pack(order + "I", behind + len(values))
            values += value + b"\0" * (len(value) % 2)  # values start at even offsets
        entries += struct.pack(order + "HHI", tag, kind, count) + field
    return struct.pack(order + "H", len(directory)) + entries + b"\0\0\0\0" + values


def _ascii(text: str | None) -> Entry | None:
    if text is None:
        return None
    value = text.encode("ascii", "replace") + b"\0"
    return _ASCII, len(value), value


def _short(number: float | None) -> Entry | None:
    if number is None:
        return None
    return _SHORT, 1, struct.pack("<H", min(max(round(number), 0), _ISO_OVERFLOW))


def _fraction(number: float | None, *, signed: bool = False) -> Entry | None:
    """As photographers write it: 1/250 s, f/5.6, 2.5 s."""
    if number is None:
        return None
    exact = Fraction(number).limit_denominator(1_000_000)
    inverse = Fraction(1, round(1 / number)) if 0 < number < 0.5 else exact
    near = inverse if abs(float(inverse) / number - 1 if number else 1) < 1e-9 else exact
    kind = _SRATIO if signed else _RATIO
    return kind, 1, struct.pack("<ii" if signed else "<II", near.numerator, near.denominator)
