"""The command line: parse, call the library, print. One file per command.

``main`` is the one place where an error becomes an exit code:

* 0 done, 1 a bug, with its traceback, 2 a wrong command line,
* 3 input that cannot be used, 4 the machine lacks something, 5 some items of a batch failed,
* 130 interrupted, 141 the reader of our output has gone.
"""

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from hdrcli import __version__
from hdrcli.cli import display, lazy
from hdrcli.cli.lazy import LazyGroup
from hdrcli.errors import HdrcliError

app = typer.Typer(
    cls=LazyGroup,
    name="hdrcli",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:  # noqa: FBT001  Typer calls it with the value
    if asked:
        display.out(f"hdrcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Merge exposure brackets into ghost-free HDR images and video."""
    name = ctx.invoked_subcommand
    if name is not None and name != "config":  # which shows settings, wrong ones among them
        from hdrcli.cli.settings import default_map

        command = lazy.load(name) if name in lazy.COMMANDS else None
        ctx.default_map = {name: default_map(name, command)} if command else None


def _heed_signals() -> None:
    """Let ``kill``, ``timeout`` and a closed terminal end it like Ctrl-C, without remains."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, signal.default_int_handler)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, always ending in SystemExit, or in the traceback of a bug."""
    display.start()
    _heed_signals()
    try:
        try:
            app(args=argv, prog_name="hdrcli")
        finally:
            sys.stdout.flush()
    except HdrcliError as err:
        display.error(str(err), err.hint)
        raise SystemExit(err.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(display.reader_gone()) from None
    raise AssertionError("Typer always exits")
