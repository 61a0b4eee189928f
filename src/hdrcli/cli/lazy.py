"""The table of commands, and a Typer group that imports a command when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Command, Context

# A module of this package holds either ``command``, a function, or ``app``, a Typer of its own.
COMMANDS = {
    "merge": "hdrcli.cli.merge",
    "tonemap": "hdrcli.cli.tonemap",
    "align": "hdrcli.cli.align",
    "info": "hdrcli.cli.info",
    "example": "hdrcli.cli.example",
    "backends": "hdrcli.cli.backends",
    "doctor": "hdrcli.cli.doctor",
}


class LazyGroup(TyperGroup):
    """The commands of COMMANDS, in that order. Only the one that runs is imported."""

    def list_commands(self, ctx: "Context") -> list[str]:
        """Names in the order of the table, for --help and shell completion."""
        return list(COMMANDS)

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        """Import and build one command; None if there is no such command."""
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            self.commands[cmd_name] = _load(cmd_name)
        return self.commands.get(cmd_name)


def _load(name: str) -> "Command":
    module = import_module(COMMANDS[name])
    sub = getattr(module, "app", None)
    if sub is None:
        sub = typer.Typer(add_completion=False, rich_markup_mode="rich")
        sub.command(name, context_settings={"help_option_names": ["-h", "--help"]})(module.command)
    command = typer.main.get_command(sub)
    command.name = name
    return command
