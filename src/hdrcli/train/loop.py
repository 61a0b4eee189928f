"""The training loop: time-boxed, resumable, deterministic by seed.

Step k sees sample k, so a training of N steps gives the same weights in one run or in several.
With ``minutes`` the rate follows the clock instead, and only the samples are the same.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from hdrcli import device
from hdrcli.errors import InputError
from hdrcli.nets import forms
from hdrcli.nets.apntfusion import APNTFusion
from hdrcli.nets.build import build
from hdrcli.nets.deephdrvideo import LOW, DeepHDRVideo, well_exposed
from hdrcli.nets.hdrgan import Discriminator
from hdrcli.train import checkpoint
from hdrcli.train.batches import Ahead, Sample, Source
from hdrcli.train.config import Preset, Stage
from hdrcli.train.loss import LOSSES, Aids, Trunk, adversary, matching_loss
from hdrcli.train.start import begin_at_merge
from hdrcli.train.validation import Scores, Validation

# These compare H; the others what the network itself returns.
LINEAR_LOSSES = ("mu-law", "log-squares", "masked")
MOST_BAD_STEPS = 20  # in a row
TRAINING, LAST, BEST = "training.safetensors", "last.safetensors", "best.safetensors"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How long, where and with what. ``steps`` or ``minutes`` of training, resumed ones counted."""

    out: Path
    minutes: float | None = None
    steps: int | None = None
    device: str = "cpu"
    precision: str = "auto"
    seed: int = 0
    validate_minutes: float = 3.0
    note: Mapping[str, Any] = field(default_factory=dict)  # what the weight file shall say too


@dataclass
class Progress:
    """How far a training is; saved with it."""

    step: int = 0
    elapsed: float = 0.0  # seconds, of all runs
    bad: int = 0  # steps in a row without a finite gradient
    best: float = -math.inf  # PSNR-mu
    scores: dict[str, float] = field(default_factory=dict)  # at the best


class Training:
    """One network, its average, its optimizers and its samples.

    ``trunk``: VGG, for presets with a perceptual term; without it the term is left out.
    """

    def __init__(
        self, preset: Preset, plan: Plan, source: Source, trunk: nn.Module | None = None
    ) -> None:
        torch.manual_seed(plan.seed)
        self.preset, self.plan = preset, plan
        self.trunk = trunk and trunk.to(plan.device).eval().requires_grad_(requires_grad=False)
        self.device = torch.device(plan.device)
        self.form = forms.form_of(preset.backend, preset.arch.get("output", ""))
        self.net = build(preset.backend, preset.arch)
        self.built = begin_at_merge(self.net) if preset.from_merge else {}
        self.net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = build(preset.backend, preset.arch).to(self.device).eval()
        self.average.load_state_dict(self.net.state_dict())
        self.optimizer = optimizer_of(self.net, preset)
        self.adversary: Discriminator | None = None
        if preset.adversarial:
            self.adversary = Discriminator(channels=preset.discriminator).to(self.device)
            self.adversary_optimizer = optimizer_of(self.adversary, preset)
        self.progress = Progress()
        self.source = source
        self.bf16 = has_bf16(self.device) if plan.precision == "auto" else plan.precision == "bf16"

    # -- progress ------------------------------------------------------------------------------

    @property
    def done(self) -> float:
        """The part of the training that is done, 0 to 1."""
        if self.plan.steps is not None:
            return min(self.progress.step / self.plan.steps, 1.0)
        return min(self.progress.elapsed / (60 * (self.plan.minutes or 0.0) or 1e-9), 1.0)

    def stage(self) -> tuple[Stage, float]:
        """The stage that runs now, and the part of it that is done."""
        start, done = 0.0, self.done
        for stage in self.preset.stages:
            if done < start + stage.share or stage is self.preset.stages[-1]:
                break
            start += stage.share
        return stage, min((done - start) / stage.share, 1.0)

    def rate(self) -> float:
        """The learning rate of the next step."""
        stage, part = self.stage()
        return stage.rate * SCHEDULES[self.preset.schedule](self.preset, part) * self._warm()

    def _warm(self) -> float:
        return min(1.0, (self.progress.step + 1) / (self.preset.warmup + 1))

    # -- a step --------------------------------------------------------------------------------

    def frames(self) -> int:
        """Frames that the samples of this stage have."""
        if isinstance(self.net, DeepHDRVideo):
            return self.net.window if self.stage()[0].name == "coarse" else self.net.frames
        return 3

    def step(self, sample: Sample) -> float:
        """Take one step; return the loss. A step without a finite gradient changes nothing."""
        self.net.train()
        sample = sample.to(self.device)
        outputs = self.outputs(sample)
        adversary_now = self.adversary if self.done >= self.preset.adversarial_from else None
        loss = self.loss(outputs, sample, adversary_now)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.preset.clip or math.inf)
        if torch.isfinite(norm) and torch.isfinite(loss):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate()
            self._update()
            self.progress.bad = 0
            if adversary_now is not None:
                self._adversary_step(outputs, sample, adversary_now)
        else:
            self._count_bad()
        self.progress.step += 1
        self._follow()
        return float(loss.detach())

    def _update(self) -> None:
        """A step of the optimizer; what carries the merge goes only ``held`` of the way."""
        parameters = dict(self.net.named_parameters())
        held = {name: (built, parameters[name]) for name, built in self.built.items()}
        before = {name: parameter.detach().clone() for name, (_, parameter) in held.items()}
        self.optimizer.step()
        with torch.no_grad():
            for name, (built, parameter) in held.items():
                short = torch.lerp(before[name], parameter, self.preset.held)
                parameter.copy_(torch.where(built.to(parameter.device), short, parameter))

    def outputs(self, sample: Sample) -> tuple[Tensor, ...]:
        """Run the part of the network that this stage trains."""
        fed = tuple(_last(x) for x in forms.inputs(self.form, sample.linear, sample.ratios))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output = RUNS[self.stage()[0].name](self.net, fed)
        return (output,) if isinstance(output, Tensor) else tuple(output)

    def loss(
        self, outputs: Sequence[Tensor], sample: Sample, adversary_now: Discriminator | None
    ) -> Tensor:
        """The preset's loss, in the domain that it is defined in."""
        truth = forms.encoded(self.form, sample.truth, sample.ratios)
        if self.preset.loss in LINEAR_LOSSES:
            truth = forms.light(self.form, truth, sample.ratios).clamp(max=1)
            outputs = [forms.light(self.form, y, sample.ratios) for y in outputs]
        aids = Aids(
            badly_exposed=badly_exposed(sample) if self.preset.loss == "masked" else None,
            trunk=self._perceptual(),
            discriminator=adversary_now,
            adversarial=self.preset.adversarial,
        )
        loss = LOSSES[self.preset.loss](outputs, truth, aids)
        return loss + self._matching(truth, sample) if self._matches() else loss

    def _perceptual(self) -> Trunk | None:
        """What compares features now: as in the authors' code, in the second stage only."""
        return self.trunk if self.preset.perceptual and self.stage()[0].name == "refine" else None

    def _matches(self) -> bool:
        every = self.preset.matching_every
        return self.preset.matching > 0 and self.progress.step % every == 0

    def _matching(self, truth: Tensor, sample: Sample) -> Tensor:
        assert isinstance(self.net, APNTFusion)
        assert self.net.Psi is not None
        dice = torch.Generator().manual_seed(self.progress.step)
        ratio = sample.ratios[:, sample.ratios.shape[1] // 2]
        return self.preset.matching * matching_loss(self.net.Psi, truth, ratio, dice)

    def _adversary_step(
        self, outputs: Sequence[Tensor], sample: Sample, discriminator: Discriminator
    ) -> None:
        truth = forms.encoded(self.form, sample.truth, sample.ratios)
        loss = adversary(outputs, truth, discriminator)
        self.adversary_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(discriminator.parameters(), self.preset.clip or math.inf)
        if torch.isfinite(norm):
            self.adversary_optimizer.step()

    def _count_bad(self) -> None:
        self.progress.bad += 1
        _log.warning("step %d: no finite gradient, left out", self.progress.step)
        if self.progress.bad >= MOST_BAD_STEPS:
            raise InputError(
                f"{self.preset.backend}: {MOST_BAD_STEPS} steps in a row without a finite gradient",
                hint="look for broken pictures among the data; --precision fp32",
            )

    def _follow(self) -> None:
        """Move the average of the weights; young averages follow faster."""
        step = self.progress.step
        keep = min(self.preset.average, (1 + step) / (10 + step))
        mine = self.net.state_dict()
        with torch.no_grad():
            for name, kept in self.average.state_dict().items():
                if kept.is_floating_point():
                    kept.lerp_(mine[name].to(kept), 1 - keep)
                else:
                    kept.copy_(mine[name])

    # -- on disk -------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What the weight files say of themselves."""
        return {
            "backend": self.preset.backend,
            "arch": dict(self.preset.arch),
            "step": self.progress.step,
            "minutes": round(self.progress.elapsed / 60, 2),
            "seed": self.plan.seed,
            "device": self.device.type,
            "scores": self.progress.scores,
            **self.plan.note,
        }

    def save(self) -> None:
        """Write ``training.safetensors`` and ``last.safetensors``."""
        tensors = checkpoint.under("net", self.net) | checkpoint.under("average", self.average)
        tensors |= checkpoint.moments("optimizer", self.optimizer)
        if self.adversary is not None:
            tensors |= checkpoint.under("adversary", self.adversary)
            tensors |= checkpoint.moments("adversary_optimizer", self.adversary_optimizer)
        about = {**self.about(), "progress": asdict(self.progress)}
        checkpoint.save(self.plan.out / TRAINING, tensors, about)
        checkpoint.save(self.plan.out / LAST, plain(self.average), self.about())

    def resume(self) -> None:
        """Go on where ``save`` left off. Raises InputError for another architecture."""
        path = self.plan.out / TRAINING
        tensors, about = checkpoint.load(path)
        mine = json.loads(json.dumps(dict(self.preset.arch)))
        if (about.get("backend"), about.get("arch")) != (self.preset.backend, mine):
            raise InputError(
                f"{path}: a training of {about.get('backend')} with {about.get('arch')}",
                hint="resume with the preset it was started with, or name another --out",
            )
        if about.get("vgg") != self.plan.note.get("vgg"):
            raise InputError(
                f"{path}: was trained {'with' if about.get('vgg') else 'without'} VGG's features",
                hint="resume with the same --vgg it was started with",
            )
        self.net.load_state_dict(checkpoint.below("net", tensors))
        self.average.load_state_dict(checkpoint.below("average", tensors))
        checkpoint.restore("optimizer", self.optimizer, tensors)
        if self.adversary is not None:
            self.adversary.load_state_dict(checkpoint.below("adversary", tensors))
            checkpoint.restore("adversary_optimizer", self.adversary_optimizer, tensors)
        self.progress = Progress(**about["progress"])

    def keep_best(self, scores: Scores) -> None:
        """Keep the average if it is the best by PSNR-mu so far."""
        if scores.psnr_mu > self.progress.best:
            self.progress.best, self.progress.scores = scores.psnr_mu, asdict(scores)
            checkpoint.save(self.plan.out / BEST, plain(self.average), self.about())


def run(
    training: Training,
    validation: Validation,
    report: Callable[[str], None] = lambda line: None,
) -> Progress:
    """Train to the end of the plan, validating and saving on the way; return how it ended."""
    progress, losses = training.progress, list[float]()
    every = 60 * training.plan.validate_minutes
    _look(training, validation, losses, report)
    next_look = progress.elapsed + every
    with Ahead(training.source) as ahead:
        try:
            while training.done < 1:
                started = time.monotonic()
                sample = ahead.sample(training.plan.seed + progress.step, training.frames())
                losses.append(training.step(sample))
                progress.elapsed += time.monotonic() - started
                if progress.elapsed >= next_look:
                    _look(training, validation, losses, report)
                    next_look = progress.elapsed + every
        except KeyboardInterrupt:
            training.save()
            raise
    _look(training, validation, losses, report)
    return progress


def _look(
    training: Training,
    validation: Validation,
    losses: list[float],
    report: Callable[[str], None],
) -> None:
    """Validate the average, draw, log and save."""
    progress = training.progress
    results = validation.results(training)
    scores = validation.scores(results)
    training.keep_best(scores)
    line = {
        "step": progress.step,
        "minutes": round(progress.elapsed / 60, 2),
        "stage": training.stage()[0].name,
        "rate": training.rate(),
        "loss": sum(losses) / max(len(losses), 1),
        **asdict(scores),
    }
    losses.clear()
    out = training.plan.out
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    validation.draw(results, out)
    training.save()
    report(
        f"step {progress.step}  {line['minutes']} min  loss {line['loss']:.4f}  "
        f"PSNR-mu {scores.psnr_mu:.2f}  PSNR-L {scores.psnr_l:.2f}  (reference "
        f"{scores.reference_mu:.2f} / {scores.reference_l:.2f}, merge {scores.merge_mu:.2f})"
    )


# -- tables and small parts -------------------------------------------------------------------


def _whole(net: nn.Module, fed: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    output: Tensor | tuple[Tensor, ...] = net(*fed)
    return output


def _coarse(net: nn.Module, fed: tuple[Tensor, ...]) -> Tensor:
    assert isinstance(net, DeepHDRVideo)
    return net.coarse(*fed)


def _refine(net: nn.Module, fed: tuple[Tensor, ...]) -> Tensor:
    """Stage 2 on coarse frames that get no gradient."""
    assert isinstance(net, DeepHDRVideo)
    codes, ratios = fed[:2]
    with torch.no_grad():
        coarse = net.coarse_frames(*fed)
    middle = slice(codes.shape[1] // 2 - 1, codes.shape[1] // 2 + 2)
    return net.refine(coarse, codes[:, middle], ratios[:, middle])


RUNS: Mapping[str, Callable[[nn.Module, tuple[Tensor, ...]], Tensor | tuple[Tensor, ...]]] = (
    MappingProxyType({"whole": _whole, "coarse": _coarse, "refine": _refine})
)


def _cosine(preset: Preset, part: float) -> float:
    return preset.floor + (1 - preset.floor) * 0.5 * (1 + math.cos(math.pi * part))


def _steps(preset: Preset, part: float) -> float:
    return float(preset.factor ** sum(part >= drop for drop in preset.drops))


SCHEDULES: Mapping[str, Callable[[Preset, float], float]] = MappingProxyType(
    {"cosine": _cosine, "steps": _steps, "flat": lambda preset, part: 1.0}
)


def optimizer_of(module: nn.Module, preset: Preset) -> torch.optim.Optimizer:
    """Adam, or AdamW where the preset decays weights, at the rate of the first stage."""
    kind = torch.optim.AdamW if preset.decay else torch.optim.Adam
    return kind(
        module.parameters(),
        lr=preset.stages[0].rate,
        betas=preset.betas,
        weight_decay=preset.decay,
    )


def badly_exposed(sample: Sample) -> Tensor:
    """1 - M of DeepHDRVideo's second stage, (B, 1, H, W), of the frame in the middle."""
    middle = sample.ratios.shape[1] // 2
    codes = sample.linear[:, middle, :3].clamp(0, 1) ** (1 / forms.GAMMA)
    return 1 - well_exposed(codes, sample.ratios[:, middle], sample.ratios, LOW)


def has_bf16(place: torch.device) -> bool:
    """Whether half the bits are also less work: CUDA, and processors that multiply bfloat16."""
    if place.type == "cpu":
        return device.cpu_has_bf16()
    return place.type == "cuda" and torch.cuda.is_bf16_supported()


def plain(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights as a plain network has them, spectral norms worked in."""
    module.eval()  # or reading normalised weights would move their estimate
    found = {k: v for k, v in module.state_dict().items() if ".parametrizations." not in k}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d) and is_parametrized(layer, "weight"):
            found[f"{name}.weight"] = layer.weight
    return found


def _last(x: Tensor) -> Tensor:
    """Channels last, where the tensor is a picture."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
