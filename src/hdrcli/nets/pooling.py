"""Global average pooling that can be measured once and then held fixed.

A network that pools over the whole picture (PSFNet, APNT-Fusion) would see another picture in
every tile. So the means are recorded while the whole picture, reduced, goes through the network,
and replace the tile's own means afterwards:

    statistics = measure(net, *reduced)
    with frozen(net, statistics):
        for tile in tiles:
            net(*tile)

What is switched on lives in a context variable, not in the modules: threads that share one
network do not disturb each other, and a Statistics may be read by all of them. A new thread
starts with nothing switched on, so it has to enter ``frozen`` itself.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class GlobalPool(nn.Module):
    """Mean over the last two dimensions, kept: (..., H, W) to (..., 1, 1).

    A module that is used twice in one forward pass gives each use its own ``slot``.
    """

    def forward(self, x: Tensor, slot: int = 0) -> Tensor:
        """Take the mean of ``x``, or the recorded one where it is frozen.

        Recorded means broadcast over the batch: they were measured with a batch of one, or of
        the same size. Raises RuntimeError for statistics that lack this slot.
        """
        use = _uses.get().get(self)
        if use is None:
            return mean(x).to(x.dtype)
        if use.frozen:
            return use.statistics.of(self, slot).to(x.device, x.dtype)
        found = mean(x)
        use.statistics.means[self, slot] = found.detach()
        return found.to(x.dtype)


class Statistics:
    """The means that one picture left in the pools of one network, in float32."""

    def __init__(self) -> None:
        self.means: dict[tuple[GlobalPool, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self.means)

    def of(self, pool: GlobalPool, slot: int) -> Tensor:
        """Give the mean recorded by ``pool`` in ``slot``."""
        try:
            return self.means[pool, slot]
        except KeyError:
            raise RuntimeError(
                f"no mean was recorded for slot {slot} of this pool: "
                "the statistics are of another network, or of no picture at all"
            ) from None


@dataclass(frozen=True)
class _Use:
    statistics: Statistics
    frozen: bool


_uses: ContextVar[Mapping[GlobalPool, _Use]] = ContextVar("pools in use", default={})  # noqa: B039


def pools(net: nn.Module) -> list[GlobalPool]:
    """List the pools of a network; empty for one that can be tiled as it is."""
    return [module for module in net.modules() if isinstance(module, GlobalPool)]


def recording(net: nn.Module) -> bool:
    """Tell whether ``net`` is being recorded, so that no branch of it may be left out."""
    uses = _uses.get()
    return bool(uses) and any(not uses[p].frozen for p in pools(net) if p in uses)


@contextmanager
def record(net: nn.Module) -> Iterator[Statistics]:
    """Record the means of every pool of ``net`` while it runs; a later run replaces them."""
    statistics = Statistics()
    with _switched(net, _Use(statistics, frozen=False)):
        yield statistics


@contextmanager
def frozen(net: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Hold the pools of ``net`` at the recorded means, in this thread."""
    with _switched(net, _Use(statistics, frozen=True)):
        yield


def measure(net: nn.Module, *inputs: Tensor | float) -> Statistics:
    """Run ``net`` once without gradients and return what its pools saw."""
    with torch.no_grad(), record(net) as statistics:
        net(*inputs)
    return statistics


def mean(x: Tensor) -> Tensor:
    """Mean over the last two dimensions, summed in float32 also where ``x`` is half."""
    return x.mean((-2, -1), keepdim=True, dtype=torch.float32)


@contextmanager
def _switched(net: nn.Module, use: _Use) -> Iterator[None]:
    token = _uses.set({**_uses.get(), **dict.fromkeys(pools(net), use)})
    try:
        yield
    finally:
        _uses.reset(token)
