"""Training of FlowMerge: a pool of analysed brackets, and a time-boxed loop over it.

The pool is made first (``make_pool``), by as many processes as are at hand, each with seeds of
its own; the loop (``train``) reads it in random crops, flips and channel orders. Both may run at
the same time.
"""

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hdrcli.errors import InputError
from hdrcli.nets.flowmerge import FlowMerge
from hdrcli.train import checkpoint, priors
from hdrcli.train.loss import mu_law
from hdrcli.train.scenes import Recipe, Scenes, bracket_batch

MAPS = ("light", "clipped", "valid", "belief", "disagreement", "radiance")
SIDE = 192  # px of a pooled example
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


@dataclass(frozen=True)
class Plan:
    """How to train; the defaults are those of the weights that are shipped."""

    minutes: float = 95.0
    batch: int = 6
    crop: int = 128
    rate: float = 1e-3
    decay: float = 1e-3
    average: float = 0.999
    seed: int = 0


def make_pool(scenes: Scenes, folder: Path, seeds: Sequence[int]) -> int:
    """Write four analysed brackets per seed into ``folder``; how many there are then."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        batch = bracket_batch(scenes, seed, size=(SIDE, SIDE), batch=4, recipe=RECIPE)
        for i, arrays in enumerate(priors.examples(batch)):
            priors.save(folder / f"n{batch.codes.shape[1]}-{seed:08d}-{i}.npz", arrays)
    return len(list(folder.glob("n*.npz")))


def train(
    pool: Path,
    out: Path,
    plan: Plan | None = None,
    *,
    resume: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train until the plan's minutes are over, earlier runs counted; the averaged weights' path.

    Writes ``last.safetensors`` (the moving average) and ``training.safetensors`` (to resume).
    """
    plan = plan or Plan()
    run = Run(pool, plan)
    state = out / "training.safetensors"
    if resume:
        run.restore(*checkpoint.load(state))
    saved = time.monotonic()
    while run.spent < 60 * plan.minutes:
        error = run.step()
        if time.monotonic() - saved > 240 or run.spent >= 60 * plan.minutes:
            saved = time.monotonic()
            checkpoint.save(state, *run.state())
            checkpoint.save(out / "last.safetensors", run.averaged.state_dict(), run.about())
            report(json.dumps({**run.about(), "mu_law_squared_error": error}))
    return out / "last.safetensors"


class Run:
    """One training in progress."""

    def __init__(self, pool: Path, plan: Plan) -> None:
        self.pool, self.plan = pool, plan
        torch.manual_seed(plan.seed)
        self.net, self.averaged = FlowMerge(), FlowMerge()
        self.averaged.load_state_dict(self.net.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=plan.rate, betas=(0.9, 0.99), weight_decay=plan.decay
        )
        self.steps, self.spent = 0, 0.0

    def step(self) -> float:
        """One step on a fresh batch: squared error in the mu-law. Not finite: nothing learned."""
        start = time.monotonic()
        arrays = self.examples(random.Random(self.plan.seed * 1_000_003 + self.steps))
        evidence = priors.evidence_of(arrays)
        truth = torch.from_numpy(np.stack([a["radiance"] for a in arrays])).float()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss, squared = loss_of(self.net(evidence), truth, evidence.ratio)
        self.optimizer.zero_grad()
        if torch.isfinite(loss):
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)
            self.optimizer.step()
            self.follow()
        self.steps += 1
        self.spent += time.monotonic() - start
        return squared

    def rate(self) -> float:
        """Warm-up over 200 steps, then a cosine down to a fiftieth."""
        done = min(self.spent / (60 * self.plan.minutes), 1.0)
        falling = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done))
        return float(self.plan.rate * min(1.0, (self.steps + 1) / 200) * falling)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the network."""
        keep = min(self.plan.average, (self.steps + 1) / (self.steps + 10))
        for slow, fast in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)

    def examples(self, dice: random.Random) -> list[priors.Arrays]:
        """A batch of crops of brackets with one number of frames, three most of the time."""
        files: dict[str, list[Path]] = {}
        for path in sorted(self.pool.glob("n*.npz")):
            files.setdefault(path.name[:2], []).append(path)
        enough = {count: paths for count, paths in files.items() if len(paths) >= self.plan.batch}
        if not enough:
            raise InputError(f"{self.pool}: too few examples", hint="make a pool of brackets first")
        wanted = [1.0 if count == "n3" else 0.75 / max(int(count[1]), 3) for count in enough]
        paths = dice.choices(list(enough.values()), wanted)[0]
        return [self.crop(dice.choice(paths), dice) for _ in range(self.plan.batch)]

    def crop(self, path: Path, dice: random.Random) -> priors.Arrays:
        """A random part of an example, mirrored, transposed, its channels in any order."""
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        height, width = arrays["light"].shape[-2:]
        side = self.plan.crop
        y, x = dice.randrange(height - side + 1), dice.randrange(width - side + 1)
        down, across = dice.choice((1, -1)), dice.choice((1, -1))
        transposed, order = dice.random() < 0.5, dice.sample(range(3), 3)
        for name in MAPS:
            part = arrays[name][..., y : y + side, x : x + side][..., ::down, ::across]
            part = part.swapaxes(-1, -2) if transposed else part
            part = part[..., order, :, :] if name in ("light", "radiance") else part
            arrays[name] = np.ascontiguousarray(part)
        return arrays

    def about(self) -> dict[str, object]:
        """Facts for the files."""
        return {"steps": self.steps, "seconds": self.spent, "plan": asdict(self.plan)}

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Everything that resuming needs."""
        tensors = {
            **checkpoint.under("net", self.net),
            **checkpoint.under("averaged", self.averaged),
            **checkpoint.moments("optimizer", self.optimizer),
        }
        return tensors, self.about()

    def restore(self, tensors: dict[str, Tensor], about: dict[str, object]) -> None:
        """Go on from what ``state`` gave."""
        self.net.load_state_dict(checkpoint.below("net", tensors))
        self.averaged.load_state_dict(checkpoint.below("averaged", tensors))
        checkpoint.restore("optimizer", self.optimizer, tensors)
        self.steps, self.spent = int(str(about["steps"])), float(str(about["seconds"]))


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
