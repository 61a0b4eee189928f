"""Which module reads which file. The content decides what is read, not the name."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709
from hdrcli.errors import FormatError, HdrcliError, InputError
from hdrcli.exif import is_adobe_rgb, read_metadata
from hdrcli.formats import exr, icc, jpeg, other, png, rgbe, tiff
from hdrcli.formats.decoded import Decoded
from hdrcli.formats.sniffed import REFUSED, kind_of_head
from hdrcli.formats.upright import upright
from hdrcli.frames import LINEAR, SRGB, Codes, Frame, Metadata

log = logging.getLogger("hdrcli")

Followed = TypeVar("Followed")


def _of_bytes(decode: Callable[[bytes], Decoded]) -> Callable[[Path], Decoded]:
    return lambda path: decode(path.read_bytes())


READERS: Mapping[str, Callable[[Path], Decoded]] = {
    "jpeg": _of_bytes(jpeg.decode),
    "png": _of_bytes(png.decode),
    "tiff": tiff.decode,
    "exr": exr.decode,
    "hdr": _of_bytes(rgbe.decode),
    "webp": _of_bytes(other.decode_pillow),
    "bmp": _of_bytes(other.decode_pillow),
    "gif": _of_bytes(other.decode_pillow),
    "avif": _of_bytes(other.decode_pillow),
    "jp2": _of_bytes(other.decode_pillow),
    "heif": _of_bytes(other.decode_heif),
    "unknown": other.decode_odd,
}


def sniff(path: Path) -> str:
    """The kind of a file by its first bytes: "jpeg", "png", ..., "text", "empty", "unknown"."""
    try:
        with path.open("rb") as file:
            return kind_of_head(file.read(512))
    except IsADirectoryError as err:
        hint = "name the photographs in it, or: hdrcli batch FOLDER"
        raise InputError(f"{path}: this is a folder", hint=hint) from err
    except OSError as err:
        raise InputError(f"{path}: {err.strerror}") from err


def read(path: Path) -> Frame:
    """Read a photograph, or linear light, whatever its suffix says.

    The codes are upright RGB; the response and the primaries come from the profile, sRGB without
    one; float files are linear. FormatError names the file, what it is, and what to do.
    """
    kind = sniff(path)
    if kind in REFUSED:
        what, hint = REFUSED[kind]
        raise FormatError(f"{path}: {what}, not a photograph", hint=hint)
    try:
        decoded = READERS[kind](path)
    except HdrcliError as err:
        raise type(err)(f"{path}: {_as(kind)}{err}", hint=err.hint) from err
    except OSError as err:
        raise InputError(f"{path}: {err.strerror or err}") from err
    if decoded.note:
        log.warning("%s: %s", path, decoded.note)
    return _frame(path, decoded, _metadata(path, kind, decoded))


def _as(kind: str) -> str:
    return "not a picture hdrcli knows: " if kind == "unknown" else f"read as {kind.upper()}: "


def read_all(paths: Iterable[Path], threads: int | None = None) -> list[Frame]:
    """Read photographs side by side, in the order given. The first error in that order wins."""
    frames, _ = read_with(paths, lambda _pool, _pending: None, threads)
    return frames


def read_with(
    paths: Iterable[Path],
    follow: Callable[[Executor, Sequence[Future[Frame]]], Followed],
    threads: int | None = None,
) -> tuple[list[Frame], Followed]:
    """The same, and what ``follow`` returns, which may queue work on the photographs meanwhile.

    Threads that have nothing left to read do that work, in its order, and all of it is done in
    the end, well or not. A task may wait for photographs and for tasks queued before it.
    """
    listed = list(paths)
    workers = max(1, min(threads or os.cpu_count() or 1, len(listed)))
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        pending = [pool.submit(read, path) for path in listed]
        followed = follow(pool, pending)
        try:
            frames = [future.result() for future in pending]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _warn_of_mixed_colours(frames)
    return frames, followed


def _warn_of_mixed_colours(frames: list[Frame]) -> None:
    found = {(frame.response.name, frame.primaries.name): frame.name for frame in frames}
    if len(found) > 1:
        said = ", ".join(f"{name}: {'/'.join(key)}" for key, name in sorted(found.items()))
        log.warning("the photographs differ in colour profile (%s)", said)


# --- from Decoded to Frame --------------------------------------------------------------------


def _metadata(path: Path, kind: str, decoded: Decoded) -> Metadata:
    if decoded.metadata is not None:
        return decoded.metadata
    if decoded.exif:
        return read_metadata(decoded.exif, "exif", path.name)
    return Metadata()


def _frame(path: Path, decoded: Decoded, metadata: Metadata) -> Frame:
    codes, valid = _without_alpha(decoded)
    orientation = decoded.orientation or metadata.orientation
    codes, valid = _finite(path, codes, valid)
    meaning = _meaning(decoded)
    linear = codes.dtype == np.float32
    return Frame(
        codes=upright(codes, orientation),
        response=LINEAR if linear else meaning.response,
        primaries=meaning.primaries,
        exposure=decoded.exposure,
        name=str(path),
        path=path,
        metadata=replace(metadata, orientation=orientation),
        bits=decoded.bits,
        valid=None if valid is None or valid.all() else upright(valid, orientation),
    )


def _without_alpha(decoded: Decoded) -> tuple[Codes, NDArray[np.bool_] | None]:
    """Split (H, W) or (H, W, C) into RGB and the mask of what is picture."""
    codes = decoded.codes[..., None] if decoded.codes.ndim == 2 else decoded.codes
    colours = 3 if codes.shape[2] >= 3 else 1
    valid = decoded.valid
    if codes.shape[2] > colours:
        alpha = codes[..., colours] > 0
        valid = alpha if valid is None else valid & alpha
    if codes.shape[2] != 3:
        codes = np.broadcast_to(codes[..., :colours], (*codes.shape[:2], 3))
    return np.ascontiguousarray(codes), valid


def _finite(
    path: Path, codes: Codes, valid: NDArray[np.bool_] | None
) -> tuple[Codes, NDArray[np.bool_] | None]:
    if codes.dtype != np.float32:
        return codes, valid
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(codes).all(axis=2))
    if finite.all():
        return codes, valid
    log.warning(
        "%s: %d pixels are infinite or no numbers; they count as transparent",
        path,
        finite.size - np.count_nonzero(finite),
    )
    cleaned = np.where(finite[..., None], codes, np.float32(0))
    return cleaned, finite if valid is None else finite & valid


def _meaning(decoded: Decoded) -> icc.Meaning:
    if decoded.icc and (meaning := icc.meaning(decoded.icc)):
        return meaning
    if decoded.exif and not decoded.icc and is_adobe_rgb(decoded.exif):
        return icc.adobe_rgb()
    return icc.Meaning(decoded.response or SRGB, decoded.primaries or REC709)
