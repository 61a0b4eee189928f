"""Settings brought to the command line: defaults of a command, ``--preset``, ``--save-preset``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdrcli import settings
from hdrcli.cli import lazy
from hdrcli.errors import HdrcliError

if TYPE_CHECKING:
    from typer._click import Command, Parameter

PANEL = "Settings"
UNSAVED = (  # what belongs to one call, not to a way of working
    "output", "files-from", "dry-run", "sets", "preset", "save-preset", "json", "verbose",
    "quiet", "help", "overwrite", "debug-dir", "watch",
)  # fmt: skip


def parameters_of(command: "Command") -> dict[str, "Parameter"]:
    """The options of a command by their key in a settings file."""
    found = {}
    for param in command.params:
        if param.param_type_name == "option":
            for flag in param.opts:
                if flag.startswith("--"):
                    found[settings.plain(flag)] = param
    return {key: param for key, param in found.items() if key not in ("preset", "save-preset")}


def default_map(name: str, command: "Command") -> dict[str, Any]:
    """What stands for the options of a command that are not given, by parameter name."""
    known = parameters_of(command)
    found = settings.sources(list(lazy.COMMANDS))
    _check(found, known)
    return _by_name(settings.settings_of(name, list(known), found), known)


def _check(found: Sequence[settings.Source], known: Mapping[str, Any]) -> None:
    """Look through all commands only where this one does not know a key: that takes a while."""
    try:
        settings.check_common(found, list(known))
    except HdrcliError:
        settings.check_common(found, all_keys())


def all_keys() -> list[str]:
    """The keys of every command."""
    commands = [lazy.load(name) for name in lazy.COMMANDS]
    return sorted({key for command in commands for key in parameters_of(command)})


def _by_name(
    chosen: Mapping[str, settings.Setting], known: Mapping[str, "Parameter"]
) -> dict[str, Any]:
    return {
        str(known[key].name): settings.texts(
            setting.value, many=bool(getattr(known[key], "multiple", False))
        )
        for key, setting in chosen.items()
    }


def _use_preset(ctx: typer.Context, name: str | None) -> str | None:
    """Put a preset before the other settings. Eager: the other options are read after it."""
    if name:
        known = parameters_of(ctx.command)
        found = settings.sources(list(lazy.COMMANDS))
        chosen = settings.preset_of(name, list(known), found)
        ctx.default_map = {**(ctx.default_map or {}), **_by_name(chosen, known)}
    return name


Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        rich_help_panel=PANEL,
        metavar="NAME",
        help="Options saved under a name; those given here win.",
        envvar=settings.PRESET,
        show_envvar=False,
        is_eager=True,
        callback=_use_preset,
    ),
]
SavePreset = Annotated[
    str | None,
    typer.Option(
        "--save-preset",
        rich_help_panel=PANEL,
        metavar="NAME",
        help="Save the options given here under a name, too.",
    ),
]


def save(ctx: typer.Context, name: str) -> Path:
    """Write what the command line gave as a preset."""
    given = {}
    for key, param in parameters_of(ctx.command).items():
        source = ctx.get_parameter_source(str(param.name))
        if source is not None and source.name == "COMMANDLINE" and key not in UNSAVED:
            given[key] = _saved(ctx.params[str(param.name)])
    return settings.save_preset(name, given)


def _saved(value: Any) -> settings.Value:  # noqa: ANN401  whatever an option may be
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_saved(item) for item in value]
    if hasattr(value, "_fields"):  # --tmo-param
        return f"{value[0]}={value[1]}"
    return str(value)
