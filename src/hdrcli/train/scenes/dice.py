"""Random draws that are the same for the same seed on every machine."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Dice:
    """A seeded source of random numbers: small decisions are drawn on the CPU, noise where asked.

    Decisions are therefore the same on every device; sensor noise, drawn on the device
    itself, is the same for the same seed on the same kind of device.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._cpu = torch.Generator().manual_seed(seed)
        self._drawn: list[float] = []  # uniform numbers in store: one draw for many decisions
        self._others: dict[torch.device, torch.Generator] = {}

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number, even in [low, high)."""
        if not self._drawn:
            self._drawn = torch.rand(256, generator=self._cpu).tolist()
        return low + (high - low) * self._drawn.pop()

    def log_uniform(self, low: float, high: float) -> float:
        """Return a number whose logarithm is even in [low, high); both above 0."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, scale: float = 1.0) -> float:
        """Return a number from the normal distribution of this standard deviation."""
        return scale * float(torch.randn((), generator=self._cpu))

    def integer(self, low: int, high: int) -> int:
        """Return a whole number, even in [low, high], both ends included."""
        return low + int(self.uniform(0.0, high + 1 - low))

    def chance(self, probability: float) -> bool:
        """Return whether an event of this probability happens."""
        return self.uniform() < probability

    def pick(self, items: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """Return one of the items, by weight if weights are given."""
        if weights is None:
            return items[self.integer(0, len(items) - 1)]
        mark = self.uniform(0.0, sum(weights))
        for item, weight in zip(items, weights, strict=True):
            mark -= weight
            if mark < 0:
                return item
        return items[-1]

    def permutation(self, count: int) -> list[int]:
        """Return 0 … count-1 in random order."""
        return [int(i) for i in torch.randperm(count, generator=self._cpu)]

    def rand(self, *shape: int) -> Tensor:
        """Return a tensor on the CPU, even in [0, 1)."""
        return torch.rand(shape, generator=self._cpu)

    def randn(self, *shape: int) -> Tensor:
        """Return a normally distributed tensor on the CPU."""
        return torch.randn(shape, generator=self._cpu)

    def noise_like(self, tensor: Tensor) -> Tensor:
        """Return normal noise of a tensor's shape, drawn on that tensor's device."""
        return torch.randn(tensor.shape, generator=self._on(tensor.device), device=tensor.device)

    def _on(self, device: torch.device) -> torch.Generator:
        if device.type == "cpu":
            return self._cpu
        if device not in self._others:
            self._others[device] = torch.Generator(device).manual_seed(self._seed)
        return self._others[device]
