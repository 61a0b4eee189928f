"""What a network leaves out: frames it did not take, and light that no frame has recorded.

The frames left over are merged classically, in linear light:

    X = (w_T X_net + sum_E w_i c_i X_i) / (w_T + sum_E w_i c_i)

with the weights w and confidences c of the ``average`` backend; E are the frames left over, and
w_T is the sum of w c over the frames the network took. So a frame counts where it has more photons
to show or where the others clip, and only as far as it agrees.

Where the shortest frame and the reference both clip, nothing is known but a lower bound, and what a
network makes up there may have any colour: the shortest frame's own light, which is white where
all channels clip, takes over along the same ramp of codes as in ``average``.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hdrcli import strips
from hdrcli.backends.average import FALLBACK, Average, Source, add, divide, summed, tops_of
from hdrcli.backends.registry import Settings
from hdrcli.frames import Bracket, Codes, Frame
from hdrcli.motion import Motion
from hdrcli.strips import Placement

Floats = NDArray[np.float32]


def complete(
    radiance: NDArray[np.floating],
    bracket: Bracket,
    motion: Motion,
    taken: Sequence[int],
    settings: Settings,
) -> float:
    """Merge what is left into ``radiance`` (H, W, 3), in place.

    ``taken`` are the places of the frames that the network took. Returns the fraction of pixels
    that clip in every frame.
    """
    sources = Average(settings).sources(bracket, motion)
    left = [i for i in range(len(sources)) if i not in taken]
    took = [sources[i] for i in sorted(set(taken))]
    shortest = Placement(bracket.frames[0], motion.flows[0], motion.scale)

    def work(rows: slice) -> int:
        block = np.asarray(radiance[rows], np.float32)
        if left:
            tops = tops_of(bracket.ref, rows)
            block = merged(block, took, [sources[i] for i in left], rows, tops)
        block, lost = neutral(block, shortest, bracket, rows)
        radiance[rows] = block
        return lost

    lost = sum(strips.run(work, bracket.size, settings.threads))
    return lost / (bracket.size[0] * bracket.size[1])


def merged(
    block: Floats,
    took: Sequence[Source],
    left: Sequence[Source],
    rows: slice,
    tops: NDArray[np.uint16],
) -> Floats:
    """The network's radiance (h, w, 3) with the frames left over."""
    room = np.empty((*block.shape[:2], 4), np.float32)
    total = summed([source.seen(rows) for source in took], room, tops)
    total[..., 3] += np.float32(FALLBACK)
    total[..., :3] = total[..., 3:] * block
    add([replace(source, fallback=0.0).seen(rows) for source in left], total, tops)
    out = np.empty_like(block)
    divide(total, out)
    return out


def neutral(
    block: Floats, shortest: Placement, bracket: Bracket, rows: slice
) -> tuple[Floats, int]:
    """The block with the shortest frame's light where all clip, and how many pixels do."""
    codes, valid = shortest.codes(rows)
    frame = bracket.frames[0]
    share = np.minimum(distrust(codes, frame), distrust(bracket.ref.codes[rows], bracket.ref))
    if valid is not None:
        share *= valid
    where = np.nonzero(share)
    if not len(where[0]):
        return block, 0
    known = codes[where][None]  # (1, n, 3)
    light = Frame.linear(_like(frame, known))[0] / np.float32(bracket.ratios[0])
    mix = share[where][:, None]
    block[where] += mix * (light - block[where])
    lost = int(np.count_nonzero(share >= 1)) if frame.levels else 0
    return block, lost


def _like(frame: Frame, codes: Codes) -> Frame:
    return Frame(codes, response=frame.response, exposure=frame.exposure, name=frame.name)


def distrust(codes: Codes, frame: Frame) -> Floats:
    """0 where weight begins to fade, rising to 1 where the largest channel clips, (h, w)."""
    top = np.float32(max(frame.levels - 1, 1))
    largest = strips.largest(codes).astype(np.float32) / top
    return np.asarray(np.clip((largest - frame.fade) / (frame.clip - frame.fade), 0, 1), np.float32)
