"""``hdrcli eval``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrcli.cli import display, options

if TYPE_CHECKING:
    from hdrcli.evaluate import Request, Row, Table


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _list() -> None:
    """Print every metric."""
    from hdrcli.metrics import METRICS

    rows = [(m.name, m.unit, m.summary, m.source) for m in METRICS.values()]
    display.table(["metric", "unit", "what", "source"], rows)


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…", help="Folders of data sets, or two files: an estimate and the truth."
        ),
    ],
    *,
    backend: Annotated[
        str, typer.Option(metavar="NAME,…", help="Merge with each of these backends.")
    ] = "auto",
    metric: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Metrics; --list names them.")
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            metavar="none|median|least-squares",
            help="Bring the estimate to the truth's brightness by one factor first.",
        ),
    ] = "none",
    peak: Annotated[
        float, typer.Option(min=1e-6, help="Of two files: the light that counts as 1.")
    ] = 1.0,
    nits: Annotated[
        float, typer.Option(min=1, help="cd/m² of white, for pu21-psnr, cvvdp.")
    ] = 1000,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first brackets.")] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also with short and long shifted by 5, 10 and 20 pixels."
        ),
    ] = False,
    align: Annotated[
        str, typer.Option(help="As for merge; none tests the backend alone.")
    ] = "auto",
    deghost: Annotated[str, typer.Option(help="As for merge.")] = "medium",
    response: Annotated[
        str, typer.Option(help="As for merge; auto is the data set's own curve.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …")] = "auto",
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table as CSV.")] = None,
    listed: Annotated[bool, options.listing(_list, "List the metrics.")] = False,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Measure merges against known radiance, published results beside.

    Known layouts: Kalantari (as published, DeepHDR, HDR-GAN, patches), Tel, Hu, Challenge123,
    NTIRE 2021, DeepHDRVideo (real, synthetic), and folders with meta.json and gt.exr.

    [dim]hdrcli eval Test --backend adnet,average --csv scores.csv[/]
    """
    from hdrcli import metrics
    from hdrcli.evaluate import SHIFTS, Request, compare, evaluate
    from hdrcli.formats.save import check_target, whole
    from hdrcli.pipeline import MergeOptions

    display.talk(verbose=verbose, quiet=quiet)
    if scale not in metrics.SCALES:
        raise typer.BadParameter(f"--scale {scale}: one of {', '.join(metrics.SCALES)}")
    if csv is not None:
        check_target(csv, overwrite=overwrite)
    request = Request(
        metrics=_words(metric) if metric else metrics.DEFAULT,
        backends=_words(backend),
        options=MergeOptions(
            align=align, deghost=deghost, response=response, device=device, threads=threads
        ),
        scale=scale,  # type: ignore[arg-type]  # checked above
        nits=nits,
        limit=limit,
        shifts=SHIFTS if robustness else (0,),
    )
    if len(paths) == 2 and all(path.is_file() for path in paths):
        table = compare([(paths[0], paths[1])], request, peak)
    else:
        with display.progress(quiet=quiet) as progress:
            table = evaluate(paths, request, progress)
    if csv is not None:
        with whole(csv, overwrite=overwrite) as part:
            part.write_text(table.as_csv(), encoding="utf-8")
    if json:
        display.as_json(table.as_dict())
    else:
        _show(table, request)


def _show(table: "Table", request: "Request") -> None:
    """Rows, means, and papers' numbers below."""
    shifts = len(request.shifts) > 1
    headings = ["bracket", "backend", *([">shift"] if shifts else [])]
    every = [*table.rows, *(table.means() if len(table.rows) > 1 else [])]
    lines = [_cells(row, table, shifts=shifts) for row in every]
    for paper in table.published:
        values = paper.values()
        cells = [_number(values.get(name)) for name in table.metrics]
        lines.append([f"{paper.method} ({paper.source})", "published", *[""] * shifts, *cells])
    display.table([*headings, *(f">{name}" for name in table.metrics)], lines)


def _cells(row: "Row", table: "Table", *, shifts: bool) -> list[str]:
    shift = [str(row.shift)] if shifts else []
    return [row.name, row.backend, *shift, *(_number(row.values[name]) for name in table.metrics)]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) <= 1 else f"{value:.2f}"
