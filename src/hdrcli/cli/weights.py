"""``hdrcli weights``: what the networks have learned, and where it lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdrcli.cli import display, options

if TYPE_CHECKING:
    from hdrcli.weights import Entry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List, check and import the weights of the networks.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As hdrcli weights list shows it.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="NAME…", help="All if none is given.")]


@app.command("list")
def list_all(*, json: options.Json = False) -> None:
    """List the weights there are: the network, the licence, the size, where they come from."""
    from hdrcli import weights

    found = weights.entries()
    if json:
        display.as_json([facts(entry) for entry in found])
        return
    display.table(
        ("name", "network", "licence", "MB", "origin", "trained on"),
        (
            (
                entry.name,
                entry.backend,
                entry.licence,
                megabytes(entry.path),
                entry.origin,
                entry.trained_on or entry.source,
            )
            for entry in found
        ),
    )


@app.command()
def show(name: Name, *, json: options.Json = False) -> None:
    """Show all that is known of one: training, scores, and the card in words."""
    from hdrcli import weights

    entry = weights.find(name)
    if json:
        display.as_json(facts(entry))
        return
    display.table(
        ("", ""),
        [(key.replace("_", " "), words(value)) for key, value in facts(entry).items()],
    )
    if entry.card is not None:
        display.out("\n" + entry.card.read_text(encoding="utf-8").rstrip())


@app.command()
def verify(names: Names = None, *, json: options.Json = False) -> None:
    """Check every file: its sha256, that it can be read, and that it fits its network."""
    from hdrcli import weights
    from hdrcli.device import check_torch

    check_torch("checking weights")
    chosen = [weights.find(name) for name in names] if names else weights.entries()
    for entry in chosen:
        fits(entry)
    if json:
        display.as_json([entry.name for entry in chosen])
        return
    for entry in chosen:
        display.out(f"{entry.name}: {entry.sha256[:12]}… fits {entry.backend}")


@app.command()
def path(name: Name) -> None:
    """Print where the file of these weights lies."""
    from hdrcli import weights

    display.out(str(weights.find(name).path))


@app.command("import")
def import_(
    backend: Annotated[
        str,
        typer.Argument(
            metavar="BACKEND", help="adnet, apntfusion (VGG19 for matching), deephdrvideo, hdrgan."
        ),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES…", help="The files as their authors publish them."),
    ],
    *,
    licence: Annotated[
        str, typer.Option(help="Under which licence the files are; kept with the weights.")
    ] = "unknown",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn published weights into ours, for your own use; they then come before the shipped ones.

    [dim]hdrcli weights import deephdrvideo flow_net.pth weight_net.pth refine_net.pth[/]
    """
    from hdrcli import weights
    from hdrcli.device import check_torch

    check_torch("importing weights")
    from hdrcli.backends import imported

    display.talk(quiet=quiet)
    tensors, arch = imported.network_of(backend, files)
    told = {
        "backend": backend,
        "licence": licence,
        "arch": arch,
        "source": ", ".join(file.name for file in files),
    }
    name = f"{backend}-3" if arch.get("exposures") == 3 else backend
    entry = weights.add(weights.user_folder(), name, tensors, told)
    if json:
        display.as_json(facts(entry))
    else:
        display.paths([entry.path], quiet=quiet)


def facts(entry: "Entry") -> dict[str, Any]:
    """An entry as plain data, without what is not known."""
    known = {key: value for key, value in vars(entry).items() if value not in ("", None, {})}
    return {**known, "path": str(entry.path)}


def words(value: object) -> str:
    """A fact on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    return str(value)


def fits(entry: "Entry") -> None:
    """Raise WeightsError unless the file is whole and its tensors are those of the network."""
    from hdrcli import weights
    from hdrcli.backends import imported

    imported.check(entry.backend, *weights.load(entry))


def megabytes(file: Path) -> str:
    """The size of a file; a dash where it is missing."""
    return f"{file.stat().st_size / 1e6:.1f}" if file.is_file() else "-"
