"""The --help of every command as docs/help/NAME.txt. ``python -m tests.help_texts`` writes them."""

import io
import os
import re
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pytest

from hdrcli.cli import main
from hdrcli.cli.lazy import COMMANDS

FOLDER = Path(__file__).parents[1] / "docs" / "help"
WIDTH = "100"
TYPER = FOLDER / "typer-version.txt"  # another Typer may draw another help


def typer_version() -> str:
    return ".".join(version("typer").split(".")[:2])


def help_text(*words: str) -> str:
    """What ``hdrcli WORDS --help`` prints on a terminal 100 columns wide, without colour."""
    quiet = {"COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    out = io.StringIO()
    with mock.patch.dict(os.environ, quiet), redirect_stdout(out), pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0, words
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    return "\n".join(line.rstrip() for line in plain.strip().split("\n")) + "\n"


def texts() -> dict[str, str]:
    """File name to text."""
    return {"hdrcli.txt": help_text()} | {
        f"hdrcli-{name}.txt": help_text(name) for name in COMMANDS
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    TYPER.write_text(typer_version() + "\n")
