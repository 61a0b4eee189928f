"""``hdrcli config``: where settings come from."""

from typing import Annotated, Any

import typer

from hdrcli import settings
from hdrcli.cli import display, lazy, options
from hdrcli.cli import settings as from_settings

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings=HELP,
    help="Show settings, and where they come from.",
)


@app.command("show", context_settings=HELP)
def show(
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="The command whose options are shown.")
    ] = "merge",
    *,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="As if this preset was used.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show every option of a command, its value, and where that comes from.

    [dim]hdrcli config show batch[/]
    """
    if command not in lazy.COMMANDS:
        raise typer.BadParameter(
            f"{command!r} is not one of {', '.join(lazy.COMMANDS)}", param_hint="COMMAND"
        )
    found = _shown(command, preset)
    if json:
        display.as_json(found)
        return
    display.table(
        ("option", "value", "from"),
        ((key, _text(entry["value"]), entry["from"]) for key, entry in found.items()),
    )


def _shown(name: str, preset: str | None) -> dict[str, dict[str, Any]]:
    known = from_settings.parameters_of(lazy.load(name))
    found = settings.sources(list(lazy.COMMANDS))
    settings.check_common(found, from_settings.all_keys())
    chosen = settings.settings_of(name, list(known), found)
    if preset is not None:
        chosen |= settings.preset_of(preset, list(known), found)
    usual = {key: _usual(param.default) for key, param in known.items() if key != "help"}
    return {
        key: (
            {"value": chosen[key].value, "from": chosen[key].source}
            if key in chosen
            else {"value": value, "from": "default"}
        )
        for key, value in usual.items()
    }


def _usual(value: object) -> object:
    return None if callable(value) or type(value).__name__ == "Sentinel" else value


def _text(value: object) -> str:
    return "" if value is None else str(value)


@app.command("path", context_settings=HELP)
def path() -> None:
    """Print the settings files, the user's first; (none) behind one that does not exist."""
    mine = settings.user_file()
    if mine is not None:
        display.out(f"{mine}" if mine.is_file() else f"{mine} (none)")
    project = settings.project_file()
    display.out(f"{project}" if project is not None else f"{settings.NAME} (none)")


@app.command("presets", context_settings=HELP)
def presets(*, json: options.Json = False) -> None:
    """List the presets, and what they set."""
    found = settings.sources(list(lazy.COMMANDS))
    named = {name: (source, table) for source in found for name, table in source.presets.items()}
    if json:
        display.as_json({name: dict(table) for name, (_, table) in named.items()})
        return
    display.table(
        ("preset", "sets", "in"),
        (
            (name, ", ".join(f"{key}={_text(v)}" for key, v in table.items()), source.name)
            for name, (source, table) in named.items()
        ),
    )
