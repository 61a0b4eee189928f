"""Each backend on the same bracket: processor seconds of a merge, and its memory."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hdrcli.backends import BACKENDS
from hdrcli.backends.registry import silent
from hdrcli.bench import Progress, fresh
from hdrcli.bench.merging import Made, made

PER = 12.0  # megapixels that seconds are given for
NETWORK_MEGAPIXELS = 3.0  # networks take seconds a megapixel: they are not kept at it for longer


def measure(
    names: Sequence[str] = tuple(BACKENDS),
    *,
    megapixels: float = PER,
    network_megapixels: float = NETWORK_MEGAPIXELS,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One row per backend: seconds of one core for each 12 MP of three frames, and peak memory.

    The seconds are those of a merge of photographs that are read: response, alignment, motion and
    the backend, without imports, reading and writing; memory is the whole process's, at the size
    that is given.
    """
    tell = progress or silent
    rows = []
    with tempfile.TemporaryDirectory(prefix="hdrcli-bench-") as folder:
        brackets: dict[float, list[Path]] = {}
        for i, name in enumerate(names):
            tell(name, i / len(names))
            size = network_megapixels if BACKENDS[name].network else megapixels
            if size not in brackets:
                room = Path(folder) / str(len(brackets))
                room.mkdir()
                brackets[size] = made(room, Made(size, 3, moving=True))
            seconds, memory = fresh(merge_seconds, brackets[size], name)
            rows.append(
                {
                    "name": name,
                    "megapixels": size,
                    "seconds_per_12_mp": round(seconds * PER / size, 2),
                    "memory_gb": round(memory / 1e9, 2),
                }
            )
    tell("done", 1.0)
    return rows


def merge_seconds(paths: Sequence[Path], name: str) -> float:
    """Processor seconds, user and system, of merging these photographs on one thread."""
    from hdrcli import backends, device, pipeline
    from hdrcli.bracket import read_bracket
    from hdrcli.pipeline import MergeOptions

    device.prepare()
    device.threads(1)
    options = MergeOptions(backend=name, threads=1)
    bracket = read_bracket(paths, threads=1)
    backends.load_backend(name)
    before = os.times()
    pipeline.merge(bracket, options)
    after = os.times()
    return after.user + after.system - before.user - before.system
