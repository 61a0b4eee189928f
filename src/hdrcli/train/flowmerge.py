"""Training of FlowMerge: a pool of analysed brackets, and a loss on what it merges of them.

The analysis that FlowMerge starts from takes longer than a training step: see pooled.py.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from hdrcli.nets.flowmerge import Evidence, FlowMerge, corrected, merge
from hdrcli.train import priors
from hdrcli.train.loss import mu_law
from hdrcli.train.pooled import Arrays, Judged, Plan, Task
from hdrcli.train.scenes import Recipe

SQUARES = 8.0  # weight of the squared error in the mu-law beside the absolute one
LINEAR, LINEAR_SQUARES = 0.5, 2.0  # weights of the errors in linear light
BEYOND = 0.05  # slope kept above the shortest frame's white, so that too bright is pulled back

RECIPE = Recipe(
    speeds=(0.5, 90.0),
    exposure_error_ev=0.12,
    told_srgb=0.08,
    shakes={(0.0, 0.0): 0.45, (0.1, 0.7): 0.4, (0.5, 3.0): 0.15},
    static=0.1,
)


def learned(net: nn.Module, arrays: Sequence[Arrays]) -> tuple[Tensor, float]:
    """The loss on some examples, and its mean square in the mu-law."""
    evidence = priors.evidence_of(arrays)
    return loss_of(net(evidence), truth_of(arrays), evidence.ratio)


def judged(arrays: Arrays) -> Judged:
    """An example that is kept apart."""
    evidence = priors.evidence_of([arrays])
    certain = corrected(evidence, torch.zeros_like(evidence.belief))
    own, merged = evidence.of_reference(evidence.light), merge(evidence, certain).radiance
    pictures = [shown(x, evidence) for x in (truth_of([arrays]), own, merged)]
    return Judged(arrays, *pictures)


def merged(net: nn.Module, arrays: Arrays) -> Tensor:
    """What a network makes of it."""
    evidence = priors.evidence_of([arrays])
    return shown(net(evidence), evidence)


def shown(radiance: Tensor, evidence: Evidence) -> Tensor:
    """Radiance relative to the shortest frame's white, cut there."""
    return (radiance * evidence.ratio[:, :1, None, None].clamp_max(1)).clamp(0, 1)


def truth_of(arrays: Sequence[Arrays]) -> Tensor:
    """The true radiance of examples, (B, 3, H, W), the reference's white at 1.0."""
    return torch.from_numpy(np.stack([a["radiance"] for a in arrays])).float()


def loss_of(radiance: Tensor, truth: Tensor, ratio: Tensor) -> tuple[Tensor, float]:
    """Errors in the mu-law and in linear light, relative to the shortest frame's white.

    Where both clip even there, nothing is asked. The second value is the mean square in the
    mu-law, for the log.
    """
    top = (1 / ratio[:, :1]).clamp_min(1)[..., None, None]
    ours, true = radiance / top, truth / top
    ours = torch.where(ours > 1, 1 + BEYOND * (ours - 1), ours)
    both = (true >= 1) & (ours >= 1)
    curved = torch.where(both, 0.0, mu_law(ours.clamp_min(0)) - mu_law(true.clamp(0, 1)))
    linear = torch.where(both, 0.0, ours - true.clamp(0, 1))
    loss = (
        curved.abs().mean()
        + SQUARES * curved.square().mean()
        + LINEAR * linear.abs().mean()
        + LINEAR_SQUARES * linear.square().mean()
    )
    return loss, float(curved.detach().square().mean())


TASK = Task(
    backend="flowmerge",
    network=FlowMerge,
    recipe=RECIPE,
    maps=("light", "clipped", "valid", "belief", "disagreement", "radiance"),
    coloured=("light", "radiance"),
    examples=priors.examples,
    loss=learned,
    judged=judged,
    shown=merged,
)
PLANS: Mapping[tuple[str, str], Plan] = MappingProxyType({("flowmerge", "cpu"): Plan(TASK)})
