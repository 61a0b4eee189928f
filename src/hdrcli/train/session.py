"""From what the command line says to a finished training."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from hdrcli import __version__, device
from hdrcli.errors import InputError
from hdrcli.nets.deephdrvideo import DeepHDRVideo
from hdrcli.nets.forms import GAMMA
from hdrcli.train import denoise, flowmerge, pooled
from hdrcli.train.batches import Sample, Source, every, material
from hdrcli.train.config import PRESETS, Preset
from hdrcli.train.loop import BEST, TRAINING, Plan, Training, run
from hdrcli.train.loss import vgg
from hdrcli.train.recorded import Recorded
from hdrcli.train.scenes import Scenes
from hdrcli.train.scenes.sheet import contact_sheet, tone_mapped
from hdrcli.train.validation import SEED, Validation, divided, generated

SCENES = "scenes:"
POOLED = MappingProxyType({**flowmerge.PLANS, **denoise.PLANS})
VALIDATE_MINUTES = 3.0


@dataclass(frozen=True)
class Order:
    """What to train, on what, where to, and for how long; see ``hdrcli train --help``."""

    backend: str
    preset: str
    data: str
    out: Path
    minutes: float | None = None
    steps: int | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    validate_minutes: float = VALIDATE_MINUTES
    threads: int | None = None
    resume: bool = False
    vgg: Path | None = None  # torchvision's file of VGG19


def train(order: Order, report: Callable[[str], None] = lambda line: None) -> Path:
    """Train and return the best weights.

    Raises InputError for an unknown network, recipe or data, for a folder that holds another
    training, and for data on which nothing can be learned.
    """
    if (order.backend, order.preset) in POOLED:
        check_vgg(order, perceptual=False)
        return train_pooled(order, report)
    preset = preset_of(order.backend, order.preset)
    check_vgg(order, perceptual=preset.perceptual)
    check_out(order)
    device.prepare()
    where = device.settle(order.device, order.precision).device
    device.threads(order.threads)
    found = material_of(order.data, preset)
    plan = Plan(
        order.out,
        order.minutes,
        order.steps,
        where,
        order.precision,
        order.seed,
        order.validate_minutes,
        note_of(order),
    )
    trunk = None if order.vgg is None else vgg(order.vgg)
    training = Training(preset, plan, found.training, trunk)
    if order.resume:
        training.resume()
    run(training, Validation(found.validation(frames_of(training))), report)
    return order.out / BEST


def train_pooled(order: Order, report: Callable[[str], None]) -> Path:
    """Make the pools of analysed brackets in ``out``, where they are not yet, and train.

    It trains on the processor in single precision.
    """
    check_out(order)
    if not order.data.startswith(SCENES):
        raise InputError(
            f"--data {order.data}: {order.backend} learns from brackets it makes up itself",
            hint=f"--data {SCENES}DIR with a folder of HDR pictures",
        )
    device.prepare()
    threads = device.threads(order.threads)
    mine, held_out = divided(Scenes(folder_of(order.data)))
    plan = replace(
        POOLED[order.backend, order.preset],
        minutes=order.minutes,
        steps=order.steps,
        seed=order.seed,
        validate_minutes=order.validate_minutes,
        note=note_of(order),
    )
    pool, apart = order.out / "pool", order.out / "pool-held-out"
    report(f"making {plan.examples} examples in {pool}")
    first = order.seed * plan.examples
    pooled.make_pool(plan.task, mine, pool, plan.examples, first=first, threads=threads)
    pooled.make_pool(plan.task, held_out, apart, plan.held_out, first=SEED, threads=threads)
    return pooled.train(pool, apart, order.out, plan, resume=order.resume, report=report)


def check_out(order: Order) -> None:
    """Raise InputError where another training would be overwritten."""
    if not order.resume and (order.out / TRAINING).exists():
        raise InputError(
            f"{order.out} holds a training already",
            hint="--resume goes on with it; another --out starts anew",
        )


def check_vgg(order: Order, *, perceptual: bool) -> None:
    """Raise InputError where VGG was given to a recipe that has no use for it."""
    if order.vgg is not None and not perceptual:
        raise InputError(
            f"--vgg {order.vgg}: {order.backend} {order.preset} has no perceptual term",
            hint="deephdrvideo with --preset paper or paper3 has one",
        )


def note_of(order: Order) -> dict[str, str]:
    """What the weight files say of where they come from."""
    note = {
        "preset": order.preset,
        "data": folder_of(order.data).name,
        "version": __version__,
        "revision": revision(),
    }
    return note if order.vgg is None else {**note, "vgg": order.vgg.name}


def draw(backend: str, preset: str, data: str, step: int, png: Path) -> Path:
    """Draw the sample of a step: the frames as exposed, and the truth, tone-mapped."""
    from PIL import Image

    if (backend, preset) in POOLED:
        task = POOLED[backend, preset].task
        batch = pooled.photographed(task, Scenes(folder_of(data)), step)
        Image.fromarray(contact_sheet(batch)).save(png)
        return png
    recipe = preset_of(backend, preset)
    frames = 2 * recipe.period + 1 if recipe.period else 3
    sample = material_of(data, recipe).training(step, frames)
    rows = []
    for one in every(sample):
        codes = one.linear[0].clamp(0, 1) ** (1 / GAMMA)
        seen = (255 * codes).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        rows.append(np.concatenate([*seen, tone_mapped(one.truth[0])], axis=1))
    Image.fromarray(np.concatenate(rows, axis=0)).save(png)
    return png


def preset_of(backend: str, name: str) -> Preset:
    """Return a recipe. Raises InputError, naming what there is."""
    if (backend, name) in PRESETS:
        return PRESETS[backend, name]
    names = [*PRESETS, *POOLED]
    known = [preset for network, preset in names if network == backend]
    networks = sorted({network for network, _ in names})
    if not known:
        raise InputError(f"{backend}: no such network to train", hint=", ".join(networks))
    raise InputError(f"{backend} has no recipe {name!r}", hint=f"one of {', '.join(known)}")


@dataclass(frozen=True)
class Material:
    """Where samples come from: those of training, and how many frames those of validation have."""

    training: Source
    validation: Callable[[int], Sample]


def material_of(data: str, preset: Preset) -> Material:
    """Find the material that ``--data`` names: ``scenes:DIR`` or the folder of a data set.

    Raises InputError for a folder with neither.
    """
    folder = folder_of(data)
    if data.startswith(SCENES):
        mine, held_out = divided(Scenes(folder))
        return Material(
            partial(material, mine, preset),
            lambda frames: generated(held_out, preset, frames=frames),
        )
    crops = Recorded.of(folder, preset)
    return Material(crops, crops.validation)


def folder_of(data: str) -> Path:
    """Return the folder of ``scenes:DIR`` or DIR."""
    return Path(data.removeprefix(SCENES)).expanduser()


def frames_of(training: Training) -> int:
    """Frames that the whole network takes."""
    net = training.net
    return net.frames if isinstance(net, DeepHDRVideo) else 3


def revision() -> str:
    """The git revision of this code, or nothing where it is no checkout."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()
