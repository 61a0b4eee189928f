"""``hdrcli bench``: how fast this machine is."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hdrcli.cli import display, options

Found = TypeVar("Found")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure how fast hdrcli is on this machine.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _measured(measure: Callable[..., Found], *of: object, quiet: bool, **how: object) -> Found:
    """What a benchmark finds, its progress shown on terminals."""
    with display.progress(quiet=quiet) as progress:
        return measure(*of, **how, progress=progress)


@app.command()
def merge(
    files: options.Files = None,
    *,
    size: Annotated[
        float | None, typer.Option(min=0.05, max=200, metavar="MEGAPIXELS", help="Without FILES.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=2, max=15, help="Without FILES.")] = None,
    moving: Annotated[
        bool, typer.Option("--moving", help="Without FILES: by hand, with people in the picture.")
    ] = False,
    runs: Annotated[int, typer.Option(min=1, help="How often; medians are shown.")] = 3,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time a merge beside decoding and encoding alone, which is the floor, and beside OpenCV.

    Without FILES, --size, --frames or --moving three brackets are made and measured: 3 × 24 MP
    from a tripod, the same by hand with people in it, and 9 × 12 MP.
    """
    from hdrcli.bench.merging import USUAL, Made, measure

    display.talk(quiet=quiet)
    paths = [Path(name) for name in options.expand(files)] if files else []
    asked = Made(size or 24.0, frames or 3, moving)
    wanted = [asked] if paths or size or frames or moving else USUAL
    with display.progress(quiet=quiet) as progress:
        found = [
            measure(
                paths, make=make, runs=runs, threads=threads, backend=backend, progress=progress
            )
            for make in wanted
        ]
    if json:
        display.as_json(found[0] if len(found) == 1 else found)
        return
    for one in found:
        show_merge(one)


def show_merge(found: dict[str, Any]) -> None:
    """The table of one bracket."""

    def cell(number: float | None) -> str:
        return "" if number is None else f"{number:.2f}"

    width, height = found["size"]
    names = "seconds", "times_floor", "cpu_seconds", "cpu_times_floor"
    display.table(
        (
            f"{found['bracket']}, {width}x{height}, {found['threads']} threads",
            ">s",
            ">floors",
            ">CPU s",
            ">floors",
        ),
        ((row["what"], *(cell(row[name]) for name in names)) for row in found["rows"]),
    )
    display.out(f"backend {found['backend']}, peak memory {found['peak_memory_gb']:.2f} GB")


@app.command()
def nets(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="Networks; all if none is given.")
    ] = None,
    *,
    size: Annotated[
        float, typer.Option(min=0.01, max=50, metavar="MEGAPIXELS", help="Of the picture.")
    ] = 1.5,
    runs: Annotated[int, typer.Option(min=1, help="How often; medians are shown.")] = 1,
    paper: Annotated[
        bool, typer.Option("--paper", help="The papers' sizes, with random weights.")
    ] = False,
    merges: Annotated[
        bool,
        typer.Option("--merges", help="Time whole merges instead, beside flowmerge and average."),
    ] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time each network in tiles beside a plain forward pass over the whole picture."""
    from hdrcli.backends import Settings
    from hdrcli.bench.networks import NAMES, measure, whole_merges

    display.talk(quiet=quiet)
    unknown = set(names or ()) - set(NAMES)
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: not one of {', '.join(NAMES)}")
    if merges:
        found = _measured(
            whole_merges,
            names or NAMES,
            megapixels=size,
            runs=runs,
            threads=threads,
            paper=paper,
            quiet=quiet,
        )
        show_merges(found, json=json)
        return
    found = _measured(
        measure,
        names or NAMES,
        megapixels=size,
        runs=runs,
        threads=threads,
        settings=Settings(device=device, precision=precision),
        paper=paper,
        quiet=quiet,
    )
    if json:
        display.as_json(found)
        return
    display.table(
        (
            "network",
            ">plain s",
            ">CPU s",
            ">GB",
            ">tiled s",
            ">CPU s",
            ">GB",
            ">times faster",
            "on",
        ),
        (
            (
                row["name"],
                f"{row['plain_seconds']:.2f}",
                f"{row['plain_cpu_seconds']:.2f}",
                f"{row['plain_memory_gb']:.2f}",
                f"{row['seconds']:.2f}",
                f"{row['cpu_seconds']:.2f}",
                f"{row['memory_gb']:.2f}",
                f"{row['times_faster']:.2f}",
                f"{row['device']} {row['precision']}, tile {row['tile']}",
            )
            for row in found
        ),
    )


def show_merges(found: list[dict[str, Any]], *, json: bool) -> None:
    """The table of whole merges."""
    if json:
        display.as_json(found)
        return
    display.table(
        (f"merge of 3 × {found[0]['megapixels']:g} MP", ">s", ">CPU s", ">GB"),
        (
            (
                row["name"],
                f"{row['seconds']:.2f}",
                f"{row['cpu_seconds']:.2f}",
                f"{row['memory_gb']:.2f}",
            )
            for row in found
        ),
    )


@app.command()
def video(
    *,
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels of the clip that is made for it.")
    ] = "1920x1080",
    frames: Annotated[int, typer.Option(min=6, max=1000, help="How many frames.")] = 24,
    exposures: Annotated[int, typer.Option(min=2, max=3, help="Exposures it alternates.")] = 2,
    preset: Annotated[
        str | None, typer.Option(help="Speed of the encoder, in its own words.")
    ] = None,
    backends: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="Repeat for more; all if not given.")
    ] = None,
    static: Annotated[bool, typer.Option("--static", help="Nothing moves.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Pan over this HDR picture instead of the rendered room.")
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time video merging beside decoding and encoding alone, and show how good it is."""
    from hdrcli.bench.filming import measure

    display.talk(quiet=quiet)
    found = _measured(
        measure,
        size=options.parse_size(size),
        frames=frames,
        exposures=exposures,
        preset=preset,
        backends=backends,
        static=static,
        picture=picture,
        device=device,
        threads=threads,
        quiet=quiet,
    )
    if json:
        display.as_json(found)
        return
    width, height = found["size"]
    places = list(found["rows"][0]["psnr_mu"])
    display.table(
        (
            f"{found['frames']} × {width}x{height}",
            ">s/frame",
            ">floors",
            ">in CPU",
            ">GB",
            *(f">{name}" for name in places),
            ">flicker",
        ),
        (
            (
                row["what"],
                f"{row['seconds_per_frame']:.3f}",
                f"{row['times_floor']:.2f}",
                f"{row['times_floor_cpu']:.2f}",
                f"{row['memory_gb']:.2f}",
                *(f"{row['psnr_mu'][name]:.2f}" for name in places),
                f"{row['flicker_percent']:.2f} %",
            )
            for row in found["rows"]
        ),
    )
    for name, why in found["left_out"].items():
        display.note(f"{name}: {why}")


@app.command()
def batch(
    *,
    sets: Annotated[int, typer.Option(min=1, max=1000, help="How many brackets.")] = 12,
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels of a photograph.")
    ] = "480x320",
    jobs: Annotated[
        list[int] | None,
        typer.Option("--jobs", "-j", min=1, help="Workers; repeat for more.", show_default="1, 2"),
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="The same on Dask workers on loopback.")
    ] = False,
    backend: options.Backend = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time a batch of small brackets beside the same merges one after the other."""
    from hdrcli.bench.batching import measure

    display.talk(quiet=quiet)
    found = _measured(
        measure,
        sets=sets,
        size=options.parse_size(size),
        jobs=jobs or (1, 2),
        cluster=cluster,
        backend=backend,
        quiet=quiet,
    )
    if json:
        display.as_json(found)
        return
    display.table(
        (f"{sets} sets of {size}", ">s", ">times the merges", ">processor s", ">times", ">MB"),
        (
            (
                row["what"],
                f"{row['seconds']:.1f}",
                f"{row['times_sum']:.2f}",
                f"{row['cpu_seconds']:.1f}",
                f"{row['times_cpu']:.2f}",
                _mb(row["peak_mb"]),
            )
            for row in found["rows"]
        ),
    )


def _mb(peak: float | None) -> str:
    return "?" if peak is None else f"{peak:.0f}"
