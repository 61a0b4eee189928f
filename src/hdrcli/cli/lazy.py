"""The table of commands, and a Typer group that imports a command when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click import Command, Context
    from typer._click.formatting import HelpFormatter


class Entry(NamedTuple):
    """A command: its module, which has ``command`` or an ``app`` of its own, and one line."""

    module: str
    summary: str


COMMANDS = {
    "merge": Entry("hdrcli.cli.merge", "Merge a bracket of photographs into one HDR image."),
    "video": Entry("hdrcli.cli.video", "Merge a clip of alternating exposures into HDR video."),
    "batch": Entry("hdrcli.cli.batch", "Merge every bracket on a card or in a folder."),
    "tonemap": Entry("hdrcli.cli.tonemap", "Make a picture for a screen of an HDR image."),
    "align": Entry("hdrcli.cli.align", "Write the frames of a bracket, aligned, for other tools."),
    "info": Entry("hdrcli.cli.info", "Show exposures by EXIF and by the pixels themselves."),
    "example": Entry("hdrcli.cli.example", "Write a rendered bracket to try hdrcli with."),
    "backends": Entry("hdrcli.cli.backends", "List the ways to merge."),
    "weights": Entry("hdrcli.cli.weights", "List, check and import the weights of the networks."),
    "train": Entry("hdrcli.cli.train", "Train a network on brackets made up from HDR pictures."),
    "eval": Entry("hdrcli.cli.eval", "Measure merges against known radiance."),
    "bench": Entry("hdrcli.cli.bench", "Measure how fast hdrcli is on this machine."),
    "config": Entry("hdrcli.cli.config", "Show settings, and where they come from."),
    "doctor": Entry("hdrcli.cli.doctor", "Say what this machine has, and what it lacks."),
}


class LazyGroup(TyperGroup):
    """The commands of COMMANDS, in that order. Only the one that runs is imported."""

    listing = False

    def list_commands(self, ctx: "Context") -> list[str]:
        """Names in the order of the table, for --help and shell completion."""
        return list(COMMANDS)

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        """Import and build one command; None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        if self.listing:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name].summary)
        if cmd_name not in self.commands:
            self.commands[cmd_name] = load(cmd_name)
        return self.commands[cmd_name]

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the list of commands without importing them."""
        self.listing = True
        super().format_help(ctx, formatter)
        self.listing = False


def load(name: str) -> "Command":
    """Import a command of the table and build what Typer runs."""
    module = import_module(COMMANDS[name].module)
    sub = getattr(module, "app", None)
    if sub is None:
        sub = typer.Typer(add_completion=False, rich_markup_mode="rich")
        sub.command(name, context_settings={"help_option_names": ["-h", "--help"]})(module.command)
    command = typer.main.get_command(sub)
    command.name = name
    return command
