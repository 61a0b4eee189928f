"""``hdrcli train``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hdrcli.cli import display, options


class Precision(StrEnum):
    """Arithmetic of the network."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def _list() -> None:
    """Print every preset."""
    from hdrcli.device import check_torch

    check_torch("hdrcli train")
    from hdrcli.train.config import PRESETS
    from hdrcli.train.session import POOLED

    for (backend, name), plan in POOLED.items():
        display.out(
            f"{backend} {name}: {plan.batch} × {plan.crop} px of {plan.examples} analysed "
            f"brackets, cosine from {plan.rate:g}"
        )
    for (backend, name), preset in PRESETS.items():
        arch = ", ".join(f"{key}={value}" for key, value in preset.arch.items())
        display.out(
            f"{backend} {name}: {preset.batch} × {preset.patch} px, {preset.loss}, "
            f"{preset.schedule} from {preset.stages[0].rate:g}; {arch or 'as in the paper'}"
        )


def command(
    backend: Annotated[
        str, typer.Argument(metavar="BACKEND", help="Network to train; see --list.")
    ],
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="[scenes:]DIR",
            help="scenes:DIR photographs a folder of HDR pictures; DIR is a data set, as for eval.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Weights, log and pictures go here.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="How long, earlier runs counted.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="How long in steps: the same bits in every run.")
    ] = None,
    preset: Annotated[str, typer.Option(metavar="NAME", help="Recipe; see --list.")] = "cpu",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    precision: Annotated[Precision, typer.Option(help="bf16 where it is faster.")] = Precision.auto,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in DIR.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    vgg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="VGG19 as torchvision has it: DeepHDRVideo's loss compares its features too.",
        ),
    ] = None,
    validate_every: Annotated[float, typer.Option(min=0.01, metavar="MINUTES")] = 3.0,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Only draw what the network would see, and the truth."),
    ] = None,
    listed: Annotated[bool, options.listing(_list, "List networks and their recipes.")] = False,
    threads: options.Threads = None,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on brackets made up from HDR pictures.

    Writes best.safetensors and last.safetensors (weights), training.safetensors (to resume),
    log.jsonl, curve.png and sheet.png: reference, plain merge, network, truth, error.

    [dim]hdrcli train psfnet --data scenes:hdri --minutes 30 --out psfnet-run[/]
    """
    from hdrcli.device import check_torch
    from hdrcli.formats.save import make_folder

    display.talk(verbose=verbose, quiet=quiet)
    check_torch("hdrcli train")
    from hdrcli.train.session import Order, draw, train

    if sheet is not None:
        display.paths([draw(backend, preset, data, seed, sheet)], quiet=quiet)
        return
    if out is None or (minutes is None) == (steps is None):
        raise typer.BadParameter("say --out, and how long: either --minutes or --steps")
    make_folder(out)
    order = Order(
        backend,
        preset,
        data,
        out,
        minutes=minutes,
        steps=steps,
        device=device,
        precision=precision.value,
        seed=seed,
        validate_minutes=validate_every,
        threads=threads,
        resume=resume,
        vgg=vgg,
    )
    display.paths([train(order, report=display.note)], quiet=quiet)
