"""What FlowMerge learns from: synthetic brackets with their classical analysis.

The network starts where the classical merge ends, so its training examples carry that merge's
flow and belief. They are made by the very code that merges photographs, which takes longer than
a training step; so a pool of them is written once, by as many processes as are at hand, and
the training reads it again and again in random crops.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdrcli import motion
from hdrcli.backends.average import FADE
from hdrcli.formats.save import whole
from hdrcli.frames import Bracket, Frame, Response
from hdrcli.motion import CLIP, Motion
from hdrcli.nets.flowmerge import Evidence, photon_weight
from hdrcli.train.scenes import Batch

Arrays = dict[str, NDArray[Any]]


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


def evidence_arrays(bracket: Bracket, moved: Motion) -> Arrays:
    """What the network is given of a bracket, as compact arrays. ``moved`` must keep its views."""
    height, width = moved.views[0].clipped.shape
    flat = np.ones((height, width), np.float32)
    response = bracket.ref.response
    return {
        "light": np.stack([v.light.transpose(2, 0, 1) for v in moved.views]).astype(np.float16),
        "clipped": np.stack([v.clipped for v in moved.views]),
        "valid": np.stack([v.valid for v in moved.views]),
        "belief": np.stack([flat if c is None else c for c in moved.confidence]).astype(np.float16),
        "disagreement": np.stack(
            [0 * flat if d is None else np.minimum(d, 100) for d in moved.disagreement]
        ).astype(np.float16),
        "ratio": bracket.ratios.astype(np.float32),
        "reference": np.array(bracket.reference, np.int64),
        "fade": np.array(response.at(FADE), np.float32),
        "bound": np.array(response.at(CLIP), np.float32),
    }


def evidence_of(arrays: Sequence[Arrays], device: str | torch.device = "cpu") -> Evidence:
    """A batch of examples with the same number of frames and size, as the network takes it."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([a[name] for a in arrays])).to(device)

    def plane(name: str) -> Tensor:
        return stack(name).float()[:, :, None]

    light, ratio, bound = stack("light").float(), stack("ratio"), stack("bound")
    return Evidence(
        light=light,
        weight=photon_weight(light, ratio, stack("fade"), bound),
        clipped=plane("clipped"),
        belief=plane("belief"),
        valid=plane("valid"),
        disagreement=plane("disagreement"),
        ratio=ratio,
        reference=stack("reference"),
        bound=bound,
    )


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
