"""A stamp says from what and how a set was merged, so that nothing is done twice or left old."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hdrcli import __version__
from hdrcli.pipeline import MergeOptions

PIECE = 1 << 16  # bytes hashed at each end of a file
IDLE = ("threads", "overwrite", "debug_dir")  # options that change no pixel of the outputs


def stamp(paths: Sequence[Path], outputs: Sequence[Path], options: MergeOptions) -> dict[str, str]:
    """Three short hashes and the version; they are equal only where the outputs would be.

    Inputs count by path, size, time of change, and the bytes at both ends. A file that cannot
    be read counts as missing; merging will say so.
    """
    chosen = {key: value for key, value in asdict(options).items() if key not in IDLE}
    return {
        "inputs": _hash([_file(path) for path in paths]),
        "options": _hash(chosen),
        "outputs": _hash([path.name for path in outputs]),
        "version": __version__,
    }


def difference(old: dict[str, Any], new: dict[str, str]) -> str | None:
    """In words, what has changed since; None where nothing has."""
    words = {
        "inputs": "the photographs have changed",
        "options": "it was made with other options",
        "outputs": "its outputs had other names",
        "version": f"it was made by hdrcli {old.get('version')}",
    }
    return next((text for key, text in words.items() if old.get(key) != new[key]), None)


def _file(path: Path) -> list[Any]:
    try:
        status = path.stat()
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(PIECE))
            file.seek(max(0, status.st_size - PIECE))
            digest.update(file.read(PIECE))
    except OSError:
        return [str(path), "missing"]
    return [str(path.absolute()), status.st_size, status.st_mtime_ns, digest.hexdigest()]


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
