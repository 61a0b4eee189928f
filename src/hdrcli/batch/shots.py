"""The photographs of a batch before any pixel is read: where they lie and how they were taken."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hdrcli import formats
from hdrcli.bracket.exif_exposure import exposure_of
from hdrcli.bracket.sidecar import natural
from hdrcli.errors import InputError
from hdrcli.exif import read_metadata
from hdrcli.formats.sniffed import REFUSED
from hdrcli.frames import Metadata

log = logging.getLogger("hdrcli")

# Best first: of a photograph that lies there twice, developed and as the camera made it, the
# better one is merged.
SUFFIXES = (".tif", ".tiff", ".png", ".webp", ".bmp", ".avif", ".heic", ".heif", ".jpg", ".jpeg")
RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw", ".gpr")
DCF_FOLDER = re.compile(r"[1-9]\d\d[A-Za-z0-9_]{5}")  # 100CANON: cameras go on in 101CANON
OFF = {"", "0", "off", "none", "disabled", "no"}


@dataclass(frozen=True)
class Shot:
    """One photograph: its file and what its metadata says. None is what it does not say.

    ``root`` is the folder it was found under, ``start`` seconds since 1970 in the camera's own
    clock, ``size`` the upright (width, height).
    """

    path: Path
    root: Path
    metadata: Metadata = field(default=Metadata(), repr=False)
    size: tuple[int, int] | None = None

    @property
    def exposure(self) -> float | None:
        """Seconds x ISO / 100 / f-number squared."""
        return exposure_of(self.metadata)

    @property
    def start(self) -> float | None:
        """When the shutter opened, in seconds; cameras' clocks have no time zone."""
        return seconds_of(self.metadata)

    @property
    def camera(self) -> tuple[str | None, ...]:
        """What tells one camera from another."""
        return self.metadata.make, self.metadata.model, self.metadata.serial

    @property
    def stream(self) -> Path:
        """The folder; the one above where the camera numbers its folders itself."""
        folder = self.path.parent
        return folder.parent if DCF_FOLDER.fullmatch(folder.name) else folder

    @property
    def prefix(self) -> str:
        """The name up to its last number."""
        return _split(self.path.stem)[0]

    @property
    def number(self) -> int | None:
        """The last number of the name: 12 of IMG_0012."""
        return _split(self.path.stem)[1]

    @property
    def bracketing(self) -> bool | None:
        """Whether the camera says that it was bracketing; None where it says nothing."""
        return bracketing_of(self.metadata)


def _split(stem: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.*?)(\d{1,9})\D{0,8}", stem)
    return (match[1], int(match[2])) if match else (stem, None)


def seconds_of(metadata: Metadata) -> float | None:
    """Time of a photograph in seconds since 1970 by the camera's clock."""
    try:
        taken = datetime.strptime((metadata.taken or "")[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    return (taken - datetime(1970, 1, 1)).total_seconds() + metadata.subsecond


def bracketing_of(metadata: Metadata) -> bool | None:
    """By exposure mode 2 (Exif 2.32) or a maker's bracket tag that is not off."""
    said = dict(metadata.bracket_tags)
    mode = said.pop("EXIF ExposureMode", None)
    maker = [
        value.lower() not in OFF
        for key, value in said.items()
        if not key.startswith("MakerNote WB") and "value" not in key.lower()
    ]
    if mode == "2" or any(maker):
        return True
    return False if mode in ("0", "1") or maker else None


# ---- finding ---------------------------------------------------------------------------------


def find(
    inputs: Iterable[Path], skip: Iterable[Path] = (), suffixes: Sequence[str] = SUFFIXES
) -> list[tuple[Path, Path]]:
    """Every photograph of files and folders, with the folder it was found under.

    Folders are searched to any depth, hidden files and ``skip`` (files or folders) left out.
    Raises InputError for what does not exist.
    """
    left = {_real(path) for path in skip}
    found: dict[Path, tuple[Path, Path]] = {}
    for given in inputs:
        if given.is_dir():
            pairs = [(path, given) for path in _walk(given, left, suffixes)]
        elif given.is_file():
            pairs = [(given, given.parent)]
        else:
            raise InputError(f"{given}: there is no such file or folder")
        for path, root in pairs:
            found.setdefault(_real(path), (path, root))
    return list(found.values())


def _walk(folder: Path, skip: set[Path], suffixes: Sequence[str]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: natural(entry.name))
    except OSError as err:
        raise InputError(f"{folder}: {err.strerror}") from err
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or _real(path) in skip:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _below(path, skip, suffixes)
        elif path.suffix.lower() in suffixes and path.is_file():
            yield path


def _below(folder: Path, skip: set[Path], suffixes: Sequence[str]) -> Iterator[Path]:
    """The same of a folder that nobody named: one that may not be read does not stop the rest."""
    try:
        yield from _walk(folder, skip, suffixes)
    except InputError as err:
        log.warning("%s; it is left out", err)


def _real(path: Path) -> Path:
    """The file behind links. A circle of them is no error, as in ``resolve`` before Python 3.13."""
    return Path(os.path.realpath(path))


def read(found: Sequence[tuple[Path, Path]], threads: int | None = None) -> list[Shot]:
    """The metadata of each file, side by side. What is no photograph is warned of and left out."""
    with ThreadPoolExecutor(threads or min(8, 2 * (os.cpu_count() or 1))) as pool:
        shots = list(pool.map(_read, found))
    return [shot for shot in shots if shot is not None]


def _read(found: tuple[Path, Path]) -> Shot | None:
    path, root = found
    try:
        kind = formats.sniff(path)
    except InputError as err:
        log.warning("%s; it is left out", err)
        return None
    if kind in REFUSED:
        log.warning("%s: %s; it is left out", path, REFUSED[kind][0])
        return None
    metadata = read_metadata(path, kind, path.name)
    return Shot(path, root, metadata, _size(path, metadata.orientation))


def _size(path: Path, orientation: int) -> tuple[int, int] | None:
    """Upright width and height by the file's header, None where Pillow does not know it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return (height, width) if orientation >= 5 else (width, height)


def without_results(shots: Sequence[Shot]) -> tuple[list[Shot], list[tuple[Shot, str]]]:
    """The photographs, and what hdrcli made of brackets before, with why it is left out."""
    taken = [shot for shot in shots if not shot.metadata.merged]
    made = [(shot, "hdrcli made it of a bracket") for shot in shots if shot.metadata.merged]
    return taken, made


# ---- the same photograph again ---------------------------------------------------------------


def without_twins(shots: Sequence[Shot]) -> tuple[list[Shot], list[tuple[Shot, str]]]:
    """The photographs once each, and those left out, with why.

    Twins are files of the same bytes, and files of one name that differ in their suffix only.
    """
    kept: dict[object, Shot] = {}
    dropped: list[tuple[Shot, str]] = []
    for shot in sorted(shots, key=lambda s: SUFFIXES.index(_suffix(s.path))):
        key = (shot.path.parent, shot.path.stem.lower(), shot.metadata.taken)
        if key in kept:
            dropped.append((shot, f"{kept[key].path.name} is the same photograph"))
        else:
            kept[key] = shot
    copies = _copies(list(kept.values()))
    dropped += [(shot, f"the same bytes as {first.path.name}") for shot, first in copies]
    gone = {id(shot) for shot, _ in dropped}
    return [shot for shot in shots if id(shot) not in gone], dropped


def _suffix(path: Path) -> str:
    return path.suffix.lower() if path.suffix.lower() in SUFFIXES else SUFFIXES[-1]


def _copies(shots: Sequence[Shot]) -> list[tuple[Shot, Shot]]:
    """Files in one folder with the bytes of an earlier one; only equal sizes are read."""
    sizes: dict[tuple[Path, int], list[Shot]] = {}
    for shot in sorted(shots, key=lambda s: (len(s.path.name), natural(s.path.name))):
        sizes.setdefault((shot.stream, shot.path.stat().st_size), []).append(shot)
    found = []
    for alike in sizes.values():
        first: dict[bytes, Shot] = {}
        for shot in alike if len(alike) > 1 else ():
            with shot.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            if digest in first:
                found.append((shot, first[digest]))
            else:
                first[digest] = shot
    return found
