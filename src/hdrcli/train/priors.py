"""What FlowMerge learns from: synthetic brackets with their classical analysis.

The network starts where the classical merge ends, so its training examples carry that merge's
flow and belief. They are made by the very code that merges photographs, which takes longer than
a training step; so a pool of them is written once, by as many processes as are at hand, and
the training reads it again and again in random crops.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdrcli import motion
from hdrcli.backends.flowmerge import Arrays, evidence_arrays, evidence_of
from hdrcli.formats.save import whole
from hdrcli.frames import Bracket, Frame, Response
from hdrcli.train.scenes import Batch

__all__ = ["Arrays", "bracket_of", "evidence_arrays", "evidence_of", "examples", "save"]


def bracket_of(batch: Batch, item: int) -> Bracket:
    """One bracket of a batch as the merger sees it: codes, told response, told exposures."""
    response = Response("told", monotone(batch.told_decode[item].numpy()))
    frames = [
        Frame(
            np.ascontiguousarray(codes.permute(1, 2, 0).numpy()),
            response,
            exposure=float(exposure),
            name=f"{i}",
        )
        for i, (codes, exposure) in enumerate(
            zip(batch.codes[item], batch.exposures[item], strict=True)
        )
    ]
    return Bracket(tuple(frames), int(batch.reference[item]))


def monotone(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The table without the last rounding errors that make it fall."""
    return np.maximum.accumulate(np.asarray(table, np.float32), axis=0)


def examples(batch: Batch) -> Iterator[Arrays]:
    """Analyse every bracket of a batch; its truth is added as ``radiance`` (3, H, W)."""
    for item in range(len(batch.codes)):
        bracket = bracket_of(batch, item)
        arrays = evidence_arrays(bracket, motion.analyse(bracket, keep_views=True))
        truth = batch.radiance[item].numpy()
        yield {**arrays, "radiance": np.minimum(truth, 6e4).astype(np.float16)}


def save(path: Path, arrays: Arrays) -> None:
    """Write one example whole or not at all."""
    with whole(path, overwrite=True) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
