"""FlowMerge, the default for scenes that move: the classical merge, corrected by a network.

The network sees the reduced picture that motion was estimated on, corrects belief and flow and
guesses light that clips in the reference; the strips then merge at full size exactly as
``average`` does. So a frame in which nothing moved is merged as ``average`` merges it, and the
cost of the network does not grow with the picture.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.backends.average import FADE, Average
from hdrcli.backends.registry import Settings
from hdrcli.frames import Bracket, Radiance
from hdrcli.motion import CLIP, DARK_BOUND, Motion, compose

if TYPE_CHECKING:
    import torch

    from hdrcli.nets.flowmerge import Evidence, FlowMerge

BLACK = 1e-4  # light below which nothing is known, whatever a recovered curve says
Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]


class FlowMergeBackend:
    """Correct the motion by the network, then merge as ``average`` does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def merge(self, bracket: Bracket, motion: Motion) -> Radiance:
        """Merge an aligned bracket. ``motion`` must have kept its views."""
        average = Average(self.settings)
        if all(belief is None for belief in motion.confidence):
            return average.merge(bracket, motion)
        assert motion.views, "motion.analyse(..., keep_views=True) comes before flowmerge"
        net, device = loaded(self.settings)
        corrected, guess = correct(net, bracket, motion, device)
        return average.merge(bracket, corrected, guess)


def loaded(settings: Settings) -> "tuple[FlowMerge, torch.device]":
    """The trained network, on the device asked for."""
    from hdrcli import device, weights
    from hdrcli.nets.flowmerge import FlowMerge

    where = device.choose(settings.device)
    state, arch = weights.load("flowmerge")
    net = FlowMerge(**arch)
    net.load_state_dict(state)
    return net.eval().to(where), where


def correct(
    net: "FlowMerge", bracket: Bracket, motion: Motion, device: "torch.device | str" = "cpu"
) -> tuple[Motion, Floats]:
    """Corrected motion, and the guess of clipped light, (h, w, 3), on the reduced picture."""
    import torch

    arrays = padded(evidence_arrays(bracket, motion), net.multiple_of)
    height, width = motion.views[0].clipped.shape
    with torch.inference_mode():
        evidence = evidence_of([arrays], device)
        correction = net.correct(evidence)
        confidence, radiance, belief, moved = net.judge(evidence, correction)
        guess = net.guess(radiance, belief, moved)
    beliefs = confidence[0, :, 0, :height, :width].float().cpu().numpy()
    shifts = correction.flow[0, :, :, :height, :width].permute(0, 2, 3, 1).float().cpu().numpy()
    level = guess[0, :, :height, :width].permute(1, 2, 0).float().cpu().numpy()
    touched = [c is not None for c in motion.confidence]
    return (
        replace(
            motion,
            confidence=tuple(b if t else None for b, t in zip(beliefs, touched, strict=True)),
            flows=tuple(
                compose(shift, flow) if t else flow
                for shift, flow, t in zip(shifts, motion.flows, touched, strict=True)
            ),
        ),
        np.ascontiguousarray(level),
    )


def evidence_arrays(bracket: Bracket, motion: Motion) -> Arrays:
    """What the network is given of a bracket, as compact arrays. ``motion`` must keep its views."""
    height, width = motion.views[0].clipped.shape
    flat = np.ones((height, width), np.float32)
    response = bracket.ref.response
    beliefs = [flat if c is None else c for c in motion.confidence]
    differences = [0 * flat if d is None else np.minimum(d, 100) for d in motion.disagreement]
    return {
        "light": np.stack([v.light.transpose(2, 0, 1) for v in motion.views]).astype(np.float16),
        "clipped": np.stack([v.clipped for v in motion.views]),
        "valid": np.stack([v.valid for v in motion.views]),
        "belief": np.stack(beliefs).astype(np.float16),
        "disagreement": np.stack(differences).astype(np.float16),
        "ratio": bracket.ratios.astype(np.float32),
        "reference": np.array(bracket.reference, np.int64),
        "fade": np.array(response.at(FADE), np.float32),
        "bound": np.array(response.at(CLIP), np.float32),
        "dark": np.array(max(response.at(DARK_BOUND), BLACK), np.float32),
    }


def padded(arrays: Arrays, multiple: int) -> Arrays:
    """The same with maps grown to multiples of ``multiple`` by repeating their last row, column."""
    height, width = arrays["clipped"].shape[-2:]
    more = ((0, -height % multiple), (0, -width % multiple))

    def grown(a: NDArray[Any]) -> NDArray[Any]:
        return np.pad(a, [*[(0, 0)] * (a.ndim - 2), *more], "edge") if a.ndim > 2 else a

    return {name: grown(a) for name, a in arrays.items()}


def evidence_of(arrays: Sequence[Arrays], device: "str | torch.device" = "cpu") -> "Evidence":
    """A batch of examples with the same number of frames and size, as the network takes it."""
    import torch

    from hdrcli.nets.flowmerge import Evidence, photon_weight

    def stack(name: str) -> "torch.Tensor":
        return torch.from_numpy(np.stack([a[name] for a in arrays])).to(device)

    def plane(name: str) -> "torch.Tensor":
        return stack(name).float()[:, :, None]

    light, ratio = stack("light").float(), stack("ratio")
    fade, bound = stack("fade"), stack("bound")
    return Evidence(
        light=light,
        weight=photon_weight(light, ratio, fade, bound),
        clipped=plane("clipped"),
        belief=plane("belief"),
        valid=plane("valid"),
        disagreement=plane("disagreement"),
        ratio=ratio,
        reference=stack("reference"),
        fade=fade,
        bound=bound,
        dark=stack("dark"),
    )
