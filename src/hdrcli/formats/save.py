"""Writing whole or not at all."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hdrcli.errors import InputError, ResourceError, SetupError

REPEATED = 50  # letters of a file's name in that of its temporary file: a name has 255 bytes
_LITTLE = 1 << 20  # bytes: a disk with less is full
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary name beside ``path``; at the end it becomes ``path``, or vanishes.

    Raises InputError for an existing file (unless ``overwrite``) or a missing folder, SetupError
    or ResourceError where the disk will not take it.
    """
    target = check_target(path, overwrite=overwrite)
    begun = f".{target.name[:REPEATED]}.{secrets.token_hex(4)}.part{target.suffix}"
    temporary = target.with_name(begun)
    try:
        try:
            # made here, so that it gets the rights that the user's umask gives to new files
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            _flush(temporary)
            check_target(path, overwrite=overwrite)
            temporary.replace(target)
        except OSError as err:
            raise _translated(err, path) from err
    finally:
        with suppress(OSError):  # what could not be made cannot be removed
            temporary.unlink(missing_ok=True)


@contextmanager
def together(paths: Sequence[Path]) -> Iterator[None]:
    """Around the writing of several files: where one fails, the others do not stay either.

    They would be in the way of the next try. What was there before stays, replaced or not, and
    so does all of it where another program has just made one of the names its own.
    """
    fresh = [path for path in paths if not path.exists()]
    try:
        yield
    except InputError:
        raise
    except BaseException:
        for path in fresh:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder, and those it is in. InputError where a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as err:
        raise InputError(
            f"{folder}: a file is in the way of this folder", hint="name another folder"
        ) from err
    except OSError as err:
        raise _translated(err, folder) from err


def check_folder(folder: Path) -> None:
    """Refuse early a folder that cannot be made, or be written to."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as err:  # too long a name, a circle of links
        raise _translated(err, folder) from err
    if not there.is_dir():
        raise InputError(f"{folder}: {there} is a file", hint="name another folder")
    if not os.access(there, os.W_OK):
        raise _translated(OSError(errno.EACCES, f"{there} may not be written to"), folder)


def check_target(path: Path, *, overwrite: bool) -> Path:
    """Refuse early what cannot be written; returns the file behind a link."""
    target = Path(os.path.realpath(path))
    kind = _kind(target, path)
    if kind == stat.S_IFDIR:
        raise InputError(f"{path}: this is a folder", hint="name a file in it")
    if not target.parent.is_dir():
        folder = target.parent if path.is_symlink() else path.parent
        raise InputError(f"{path}: there is no folder {folder}", hint=f"mkdir -p {folder}")
    if kind not in (None, stat.S_IFREG):
        raise InputError(
            f"{path}: this is a device or a pipe", hint="name a file: it is written as a whole"
        )
    if kind is not None and not overwrite:
        raise InputError(
            f"{path}: the file exists", hint="--overwrite replaces it, or choose another name"
        )
    if not os.access(target.parent, os.W_OK):
        raise _translated(OSError(errno.EACCES, "its folder may not be written to"), path)
    return target


def _kind(target: Path, path: Path) -> int | None:
    """What is there under a name, in the words of ``stat``; None for nothing."""
    try:
        return stat.S_IFMT(target.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:  # too long a name, a circle of links
        raise _translated(err, path) from err


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _translated(err: OSError, path: Path) -> SetupError:
    if err.errno in _FULL:
        return ResourceError(
            f"{path}: the disk is full", hint="free some space, or write to another disk"
        )
    return SetupError(
        f"{path}: cannot be written ({err.strerror or err})",
        hint="check the rights of the folder, or choose another one, or another name",
    )


@contextmanager
def encoding(path: Path) -> Iterator[None]:
    """Around a call into an encoder: its own errors (a full disk, mostly) name the file."""
    try:
        yield
    except MemoryError as err:
        raise ResourceError(f"{path}: not enough memory to write it") from err
    except (RuntimeError, ValueError) as err:
        if shutil.disk_usage(path.resolve().parent).free < _LITTLE:
            raise OSError(errno.ENOSPC, "no space left") from err
        raise SetupError(f"{path}: cannot be written ({' '.join(str(err).split())})") from err
