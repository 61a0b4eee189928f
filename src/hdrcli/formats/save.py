"""Writing whole or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hdrcli.errors import InputError, ResourceError, SetupError

_LITTLE = 1 << 20  # bytes: a disk with less is full
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary name beside ``path``; at the end it becomes ``path``, or vanishes.

    Raises InputError for an existing file (unless ``overwrite``) or a missing folder, SetupError
    or ResourceError where the disk will not take it.
    """
    target = check_target(path, overwrite=overwrite)
    temporary = target.with_name(f".{target.name[:150]}.{secrets.token_hex(4)}.part{target.suffix}")
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
        temporary.unlink(missing_ok=True)


def check_target(path: Path, *, overwrite: bool) -> Path:
    """Refuse early what cannot be written; returns the file behind a link."""
    target = path.resolve()
    if target.is_dir():
        raise InputError(f"{path}: this is a folder", hint="name a file in it")
    if not target.parent.is_dir():
        raise InputError(
            f"{path}: there is no folder {path.parent}", hint=f"mkdir -p {path.parent}"
        )
    if target.exists() and not overwrite:
        raise InputError(
            f"{path}: the file exists", hint="--overwrite replaces it, or choose another name"
        )
    return target


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
        hint="check the rights of the folder, or write to another one",
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
