"""From what the command line says to a finished training."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hdrcli import __version__, device
from hdrcli.errors import InputError
from hdrcli.nets.deephdrvideo import DeepHDRVideo
from hdrcli.train.config import PRESETS, Preset
from hdrcli.train.loop import BEST, TRAINING, Plan, Training, run
from hdrcli.train.scenes import Scenes
from hdrcli.train.validation import Validation, divided

SCENES = "scenes:"
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


def train(order: Order, report: Callable[[str], None] = lambda line: None) -> Path:
    """Train and return the best weights.

    Raises InputError for an unknown network, recipe or data, for a folder that holds another
    training, and for data on which nothing can be learned.
    """
    preset = preset_of(order.backend, order.preset)
    folder = folder_of(order.data)
    if not order.resume and (order.out / TRAINING).exists():
        raise InputError(
            f"{order.out} holds a training already",
            hint="--resume goes on with it; another --out starts anew",
        )
    device.prepare()
    where = device.settle(order.device, order.precision).device
    device.threads(order.threads)
    training_scenes, held_out = divided(Scenes(folder))
    note = {
        "preset": order.preset,
        "data": folder.name,
        "version": __version__,
        "revision": revision(),
    }
    plan = Plan(
        order.out,
        order.minutes,
        order.steps,
        where,
        order.precision,
        order.seed,
        order.validate_minutes,
        note,
    )
    training = Training(preset, plan, training_scenes)
    if order.resume:
        training.resume()
    run(training, validation_of(training, held_out), report)
    return order.out / BEST


def preset_of(backend: str, name: str) -> Preset:
    """Return a recipe. Raises InputError, naming what there is."""
    if (backend, name) in PRESETS:
        return PRESETS[backend, name]
    known = [preset for network, preset in PRESETS if network == backend]
    networks = sorted({network for network, _ in PRESETS})
    if not known:
        raise InputError(f"{backend}: no such network to train", hint=", ".join(networks))
    raise InputError(f"{backend} has no recipe {name!r}", hint=f"one of {', '.join(known)}")


def folder_of(data: str) -> Path:
    """Return the folder of ``scenes:DIR``. Raises InputError for anything else."""
    if not data.startswith(SCENES) or len(data) == len(SCENES):
        raise InputError(
            f"--data {data}: not scenes:DIR", hint="scenes:hdri names a folder of .hdr and .exr"
        )
    return Path(data.removeprefix(SCENES)).expanduser()


def validation_of(training: Training, scenes: Scenes) -> Validation:
    """Return the set a training is judged on; frames as many as the whole network takes."""
    net = training.net
    frames = net.frames if isinstance(net, DeepHDRVideo) else 3
    return Validation(scenes, training.preset, frames=frames)


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
