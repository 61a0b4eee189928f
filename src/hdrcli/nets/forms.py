"""What each network reads and writes, in one table: linear light to inputs, outputs to radiance.

Light comes as ``linear`` (B, N, 3, H, W) in [0, 1] of each frame's own white, frames darkest first
(of a video window, in order of time), with ``ratios`` (B, N), exposures over that of the shortest
frame, so at least 1. Networks expect gamma 2.2 of linear light, whatever the camera's curve was:
L = linear^(1 / γ), γ = 2.2 (ADNet 2.24). Light relative to the shortest frame is
H = linear / ratio, in [0, 1]. Radiance is 1.0 where the reference, the frame in the middle, is
white.

Where a paper leaves the exposures' unit open, they are relative to the shortest frame, as in
Kalantari and Ramamoorthi's data and all code made for it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

GAMMA = 2.2
ADNET_GAMMA = 2.24
MU = 5000.0

Half = Literal["linear", "mu-law", "aligned", "none"]
Domain = Literal["linear", "mu-law", "gamma"]
Call = Literal["frames", "light", "window"]


@dataclass(frozen=True)
class Form:
    """How a network is called, and in which domain it answers.

    call: "frames" takes one (B, 6, H, W) per frame, L then the second half; "light" one (B, 3, H,
    W) per frame, H alone, and the ratio of reference to shortest; "window" all L (B, N, 3, H, W)
    and all ratios, and the belief in each frame (B, N, 1, H, W) where ``linear`` has it as a fourth
    channel.
    half: the second half is H, T(H) after the μ-law, or L as the reference would have taken it.
    signed: both halves are in [-1, 1] instead of [0, 1].
    output: "linear" H, "mu-law" 2 T(H) - 1, "gamma" radiance^(1 / 2.24).
    """

    frames: tuple[int, ...]
    call: Call = "frames"
    half: Half = "none"
    signed: bool = False
    output: Domain = "linear"
    gamma: float = GAMMA


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "psfnet": Form(frames=(3,), half="linear"),
        "hdrgan": Form(frames=(3,), half="mu-law", signed=True, output="mu-law"),
        "adnet": Form(frames=(3,), half="aligned", output="gamma", gamma=ADNET_GAMMA),
        # ADNet with a sigmoid, as others train it on Kalantari's data.
        "adnet-sigmoid": Form(frames=(3,), half="aligned", gamma=ADNET_GAMMA),
        "apntfusion": Form(frames=(3,), call="light"),
        "deephdrvideo": Form(frames=(3, 5, 7), call="window"),
    }
)


def form_of(backend: str, output: str = "") -> Form:
    """Return the form of a backend; ``output`` is that of ADNet's architecture.

    Raises KeyError for a backend that has none.
    """
    return FORMS["adnet-sigmoid" if (backend, output) == ("adnet", "sigmoid") else backend]


def inputs(form: Form, linear: Tensor, ratios: Tensor) -> tuple[Tensor, ...]:
    """Return what the network is called with, from linear light and exposure ratios."""
    return _CALLS[form.call](form, linear, ratios)


def answer(output: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the picture itself of a network that may return several; the last is the best."""
    return output if isinstance(output, Tensor) else output[-1]


def light(form: Form, output: Tensor, ratios: Tensor) -> Tensor:
    """Return H (B, 3, H, W), relative to the shortest frame, of one output of the network."""
    return _LIGHT[form.output](output.float(), _reference(ratios))


def radiance(form: Form, output: Tensor | Sequence[Tensor], ratios: Tensor) -> Tensor:
    """Return radiance (B, 3, H, W), 1.0 the reference's white, of what the network returned."""
    return light(form, answer(output), ratios) * _reference(ratios)


def encoded(form: Form, truth: Tensor, ratios: Tensor) -> Tensor:
    """Return what the network should answer for this radiance (B, 3, H, W).

    Light beyond the shortest frame's white is cut off where the network's range ends there.
    """
    relative = (truth / _reference(ratios)).clamp(min=0)
    return _ENCODED[form.output](relative, _reference(ratios))


def tone(relative: Tensor) -> Tensor:
    """T(H) = log(1 + μH) / log(1 + μ), μ = 5000."""
    return torch.log1p(MU * relative) / math.log1p(MU)


def untone(code: Tensor) -> Tensor:
    """Invert ``tone``."""
    return torch.expm1(code * math.log1p(MU)) / MU


def _reference(ratios: Tensor) -> Tensor:
    """The reference's exposure over the shortest one's, (B, 1, 1, 1)."""
    return ratios[:, ratios.shape[1] // 2].view(-1, 1, 1, 1)


def _frames(form: Form, linear: Tensor, ratios: Tensor) -> tuple[Tensor, ...]:
    linear = linear.clamp(0, 1)
    both = torch.cat((linear ** (1 / form.gamma), _HALVES[form.half](linear, ratios)), 2)
    return (2 * both - 1 if form.signed else both).unbind(1)


def _light(form: Form, linear: Tensor, ratios: Tensor) -> tuple[Tensor, ...]:
    return (*_linear_half(linear.clamp(0, 1), ratios).unbind(1), _reference(ratios).flatten())


def _window(form: Form, linear: Tensor, ratios: Tensor) -> tuple[Tensor, ...]:
    codes = linear[:, :, :3].clamp(0, 1) ** (1 / form.gamma)
    return (codes, ratios, linear[:, :, 3:]) if linear.shape[2] > 3 else (codes, ratios)


def _linear_half(linear: Tensor, ratios: Tensor) -> Tensor:
    return linear / ratios[:, :, None, None, None]


def _mu_law_half(linear: Tensor, ratios: Tensor) -> Tensor:
    return tone(_linear_half(linear, ratios))


def _aligned_half(linear: Tensor, ratios: Tensor) -> Tensor:
    """(L_i^γ t_r / t_i)^(1 / γ), γ = 2.24: the reference's is L itself."""
    gain = (ratios[:, ratios.shape[1] // 2, None] / ratios)[:, :, None, None, None]
    return (linear * gain) ** (1 / ADNET_GAMMA)


_CALLS: Mapping[Call, Callable[[Form, Tensor, Tensor], tuple[Tensor, ...]]] = {
    "frames": _frames,
    "light": _light,
    "window": _window,
}
_HALVES: Mapping[Half, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": _linear_half,
    "mu-law": _mu_law_half,
    "aligned": _aligned_half,
}
_LIGHT: Mapping[Domain, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda output, reference: output,
    "mu-law": lambda output, reference: untone((output + 1) / 2),
    "gamma": lambda output, reference: output.clamp(min=0) ** ADNET_GAMMA / reference,
}
_ENCODED: Mapping[Domain, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda relative, reference: relative.clamp(max=1),
    "mu-law": lambda relative, reference: 2 * tone(relative.clamp(max=1)) - 1,
    "gamma": lambda relative, reference: (relative * reference) ** (1 / ADNET_GAMMA),
}
