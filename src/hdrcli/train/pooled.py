"""Training on a pool: examples that take longer to make than a step, made once and read again.

A task says how an example is made of a synthetic bracket, what the network is given of it and what
its loss is; the loop over random crops, its checkpoints and its judging on examples that are kept
apart are the same for all. The moving average of the weights is what is judged and shipped.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hdrcli.errors import InputError
from hdrcli.train import checkpoint, priors
from hdrcli.train.loop import BEST, LAST, TRAINING
from hdrcli.train.loss import mu_law
from hdrcli.train.scenes import Batch, Recipe, Scenes, bracket_batch
from hdrcli.train.scenes.sheet import tone_mapped
from hdrcli.train.validation import Scores, curve, psnrs

SIDE = 192  # px of a pooled example
BRACKETS = 4  # examples that are generated together
SHOWN = 6  # brackets of the sheet

Arrays = priors.Arrays
Report = Callable[[str], None]


@dataclass(frozen=True)
class Judged:
    """One held-out example: its arrays, the truth, and what costs no network.

    Pictures are (1, 3, H, W), the white of the shortest frame at 1.0, and cut there.
    """

    arrays: Arrays
    truth: Tensor
    reference: Tensor
    merge: Tensor


@dataclass(frozen=True)
class Task:
    """What is learned.

    ``maps``: the arrays of an example that are cropped and mirrored; of those in ``coloured`` the
    last but two axis is red, green, blue. ``examples``: of a batch of brackets. ``loss``: of a
    network on some examples, and for the log its mean square in the mu-law. ``judged``: an
    example that is kept apart. ``shown``: what a network makes of one, as ``Judged`` has pictures.
    """

    backend: str
    network: Callable[[], nn.Module]
    recipe: Recipe
    maps: Sequence[str]
    coloured: Sequence[str]
    examples: Callable[[Batch], Iterator[Arrays]]
    loss: Callable[[nn.Module, Sequence[Arrays]], tuple[Tensor, float]]
    judged: Callable[[Arrays], Judged]
    shown: Callable[[nn.Module, Arrays], Tensor]


@dataclass(frozen=True)
class Plan:
    """How to train, for how long; the defaults are those of the weights that are shipped.

    ``minutes`` or ``steps`` of training, resumed ones counted, the making of the pool not.
    """

    task: Task
    minutes: float | None = None
    steps: int | None = None
    batch: int = 6
    crop: int = 128
    rate: float = 1e-3
    decay: float = 1e-3
    clip: float = 0.5  # the largest norm of a gradient
    average: float = 0.999
    seed: int = 0
    examples: int = 2400
    held_out: int = 48
    validate_minutes: float = 3.0
    note: Mapping[str, Any] = field(default_factory=dict)  # what the weight file shall say too


def make_pool(
    task: Task, scenes: Scenes, folder: Path, examples: int, *, first: int = 0, threads: int = 1
) -> None:
    """Fill ``folder`` with analysed brackets of the seeds from ``first``; keeps what is there.

    Each is written whole or not at all, so that a pool may be made in several runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(first, first + -(-examples // BRACKETS))
    with ThreadPoolExecutor(threads, thread_name_prefix="pool") as workers:
        jobs = [workers.submit(_made, task, scenes, folder, seed) for seed in seeds]
        for job in jobs:
            job.result()


def _made(task: Task, scenes: Scenes, folder: Path, seed: int) -> None:
    if len(list(folder.glob(f"n*-{seed:010d}-*.npz"))) == BRACKETS:
        return
    batch = photographed(task, scenes, seed)
    for i, arrays in enumerate(task.examples(batch)):
        priors.save(folder / f"n{batch.codes.shape[1]}-{seed:010d}-{i}.npz", arrays)


def photographed(task: Task, scenes: Scenes, seed: int) -> Batch:
    """Brackets of one seed."""
    return bracket_batch(scenes, seed, size=(SIDE, SIDE), batch=BRACKETS, recipe=task.recipe)


def train(
    pool: Path,
    held_out: Path,
    out: Path,
    plan: Plan,
    *,
    resume: bool = False,
    report: Report = lambda line: None,
) -> Path:
    """Train on one pool and judge on another until the plan is over; the best weights' path.

    Writes ``best.safetensors`` and ``last.safetensors`` (moving averages of the weights),
    ``training.safetensors`` (to resume), ``log.jsonl``, ``curve.png`` and ``sheet.png``.
    """
    run = Run(pool, plan)
    if resume:
        run.restore(*checkpoint.load(out / TRAINING))
    judge = Judge(plan.task, held_out)
    run.look(judge, out, report)
    looked = run.spent
    try:
        while run.done < 1:
            run.step()
            if run.spent - looked >= 60 * plan.validate_minutes:
                run.look(judge, out, report)
                looked = run.spent
    except KeyboardInterrupt:
        run.save(out)
        raise
    run.look(judge, out, report)
    return out / BEST


class Run:
    """One training in progress."""

    def __init__(self, pool: Path, plan: Plan) -> None:
        self.pool, self.plan = pool, plan
        torch.manual_seed(plan.seed)
        self.net, self.averaged = plan.task.network(), plan.task.network()
        self.averaged.load_state_dict(self.net.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=plan.rate, betas=(0.9, 0.99), weight_decay=plan.decay
        )
        self.steps, self.spent = 0, 0.0
        self.best, self.scores = -np.inf, dict[str, float]()
        self.losses: list[float] = []

    @property
    def done(self) -> float:
        """The part of the training that is done, 0 to 1."""
        if self.plan.steps is not None:
            return min(self.steps / self.plan.steps, 1.0)
        return min(self.spent / (60 * (self.plan.minutes or 0.0) or 1e-9), 1.0)

    def step(self) -> float:
        """One step on a fresh batch: its mean square for the log. Not finite: nothing learned."""
        start = time.monotonic()
        arrays = self.examples(random.Random(self.plan.seed * 1_000_003 + self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss, squared = self.plan.task.loss(self.net, arrays)
        self.optimizer.zero_grad()
        if torch.isfinite(loss):
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.plan.clip)
            self.optimizer.step()
            self.follow()
        self.losses.append(float(loss.detach()))
        self.steps += 1
        self.spent += time.monotonic() - start
        return squared

    def rate(self) -> float:
        """Warm-up over 200 steps, then a cosine down to a fiftieth."""
        falling = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * self.done))
        return float(self.plan.rate * min(1.0, (self.steps + 1) / 200) * falling)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the network."""
        keep = min(self.plan.average, (self.steps + 1) / (self.steps + 10))
        for slow, fast in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)

    @cached_property
    def files(self) -> list[list[Path]]:
        """The pool's examples by number of frames, as many as a batch needs or more."""
        found = [files for files in grouped(self.pool) if len(files) >= self.plan.batch]
        if not found:
            raise InputError(f"{self.pool}: too few examples", hint="make a pool of brackets first")
        return found

    def examples(self, dice: random.Random) -> list[Arrays]:
        """A batch of crops of brackets with one number of frames, three most of the time."""
        counts = [frames_of(files[0]) for files in self.files]
        wanted = [1.0 if count == 3 else 0.75 / max(count, 3) for count in counts]
        files = dice.choices(self.files, wanted)[0]
        return [self.crop(dice.choice(files), dice) for _ in range(self.plan.batch)]

    def crop(self, path: Path, dice: random.Random) -> Arrays:
        """A random part of an example, mirrored, transposed, its channels in any order."""
        arrays, task = loaded(path), self.plan.task
        height, width = arrays[task.maps[0]].shape[-2:]
        side = self.plan.crop
        y, x = dice.randrange(height - side + 1), dice.randrange(width - side + 1)
        down, across = dice.choice((1, -1)), dice.choice((1, -1))
        transposed, order = dice.random() < 0.5, dice.sample(range(3), 3)
        for name in task.maps:
            part = arrays[name][..., y : y + side, x : x + side][..., ::down, ::across]
            part = part.swapaxes(-1, -2) if transposed else part
            part = part[..., order, :, :] if name in task.coloured else part
            arrays[name] = np.ascontiguousarray(part)
        return arrays

    # -- on disk -------------------------------------------------------------------------------

    def look(self, judge: "Judge", out: Path, report: Report) -> None:
        """Judge the average, log, draw and save."""
        results = judge.results(self.averaged)
        scores = judge.scores(results)
        if scores.psnr_mu > self.best:
            self.best, self.scores = scores.psnr_mu, asdict(scores)
            checkpoint.save(out / BEST, self.averaged.state_dict(), self.about())
        line = {
            "step": self.steps,
            "minutes": round(self.spent / 60, 2),
            "rate": self.rate(),
            "loss": sum(self.losses) / max(len(self.losses), 1),
            **asdict(scores),
        }
        self.losses.clear()
        with (out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        curve(out / "log.jsonl", out / "curve.png")
        judge.draw(results, out / "sheet.png")
        self.save(out)
        report(
            f"step {self.steps}  {line['minutes']} min  loss {line['loss']:.4f}  "
            f"PSNR-mu {scores.psnr_mu:.2f}  PSNR-L {scores.psnr_l:.2f}  (reference "
            f"{scores.reference_mu:.2f} / {scores.reference_l:.2f}, merge {scores.merge_mu:.2f} / "
            f"{scores.merge_l:.2f})"
        )

    def save(self, out: Path) -> None:
        """Write ``training.safetensors`` and ``last.safetensors``."""
        checkpoint.save(out / TRAINING, *self.state())
        checkpoint.save(out / LAST, self.averaged.state_dict(), self.about())

    def about(self) -> dict[str, Any]:
        """Facts for the files."""
        return {
            "backend": self.plan.task.backend,
            "step": self.steps,
            "minutes": round(self.spent / 60, 2),
            "seed": self.plan.seed,
            "device": "cpu",
            "scores": self.scores,
            **self.plan.note,
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that resuming needs."""
        tensors = {
            **checkpoint.under("net", self.net),
            **checkpoint.under("averaged", self.averaged),
            **checkpoint.moments("optimizer", self.optimizer),
        }
        progress = {"seconds": self.spent, "best": self.best if self.scores else None}
        return tensors, {**self.about(), "progress": progress}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self.net.load_state_dict(checkpoint.below("net", tensors))
        self.averaged.load_state_dict(checkpoint.below("averaged", tensors))
        checkpoint.restore("optimizer", self.optimizer, tensors)
        self.steps, self.spent = int(about["step"]), float(about["progress"]["seconds"])
        self.scores = about["scores"]
        self.best = about["progress"]["best"] if self.scores else -np.inf


class Judge:
    """Brackets that no training sees, kept in memory. The merge is the network's starting point."""

    def __init__(self, task: Task, pool: Path) -> None:
        self.task = task
        self.brackets = [task.judged(loaded(path)) for files in grouped(pool) for path in files]
        if not self.brackets:
            raise InputError(f"{pool}: no examples", hint="make a pool of brackets first")
        plain = [
            (*psnrs(one.reference, one.truth), *psnrs(one.merge, one.truth))
            for one in self.brackets
        ]
        self.plain: list[float] = np.mean(plain, axis=0).tolist()

    def results(self, net: nn.Module) -> list[Tensor]:
        """Every bracket as the network merges it."""
        net.eval()
        with torch.inference_mode():
            return [self.task.shown(net, one.arrays) for one in self.brackets]

    def scores(self, results: Sequence[Tensor]) -> Scores:
        """Mean decibels over the brackets."""
        pairs = zip(results, self.brackets, strict=True)
        mine = np.mean([psnrs(result, one.truth) for result, one in pairs], axis=0).tolist()
        return Scores(*mine, *self.plain)

    def draw(self, results: Sequence[Tensor], png: Path) -> None:
        """Per bracket reference, merge, network and truth tone-mapped, and the network's error."""
        from PIL import Image

        rows = []
        for result, one in list(zip(results, self.brackets, strict=True))[:SHOWN]:
            top = 1 / min(float(one.arrays["ratio"].min()), 1.0)
            cells = [tone_mapped(top * x[0]) for x in (one.reference, one.merge, result, one.truth)]
            error = (mu_law(result.clamp(0, 1)) - mu_law(one.truth)).abs().amax(1)[0]
            grey = (error / 0.1).clamp(0, 1).mul(255).byte().numpy()
            rows.append(np.concatenate([*cells, np.repeat(grey[..., None], 3, 2)], axis=1))
        Image.fromarray(np.concatenate(rows)).save(png)


def grouped(pool: Path) -> list[list[Path]]:
    """The examples of a pool, sorted, by their number of frames."""
    files: dict[int, list[Path]] = {}
    for path in sorted(pool.glob("n*.npz")):
        files.setdefault(frames_of(path), []).append(path)
    return list(files.values())


def frames_of(path: Path) -> int:
    """The number of frames of an example, from its name."""
    return int(path.name[1:].split("-")[0])


def loaded(path: Path) -> Arrays:
    """One example."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}
