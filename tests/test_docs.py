"""What the documents tell people to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from hdrcli.cli.lazy import COMMANDS, load
from hdrcli.errors import (
    BatchError,
    DeviceError,
    FormatError,
    HdrcliError,
    ResourceError,
    WeightsError,
)

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _typed():
    """(page, words) of every ``hdrcli ...`` in an indented line or in backticks."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = re.findall(r"(?m)^ {4}(?:.*[|;] *| *)(hdrcli .*)$", text)
        found += re.findall(r"`(hdrcli [^`]+)`", text)
        for line in found:
            plain = re.split(r" *(?:\||&&|>|#)", line)[0]
            yield page.name, shlex.split(plain)[1:]


def _options(words):
    """Of a command, or of the command of a group that the second word names."""
    command = load(words[0])
    command = getattr(command, "commands", {}).get((*words, "")[1], command)
    return {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)} | {"--help"}


TYPED = [(page, words) for page, words in _typed() if words and words[0] in COMMANDS]


def test_there_is_something_to_check():
    assert len(TYPED) > 15


@pytest.mark.parametrize(("page", "words"), TYPED, ids=lambda x: str(x)[:40])
def test_every_option_in_the_documents_exists(page, words):
    options = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    assert options <= _options(words), page


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_picture_is_small():
    assert (ROOT / "docs" / "example.jpg").stat().st_size < 500_000


def test_the_readme_lists_the_exit_codes():
    listed = set(re.findall(r"(?m)^\| (\d+) \|", PAGES[0].read_text(encoding="utf-8")))
    errors = (HdrcliError, FormatError, WeightsError, DeviceError, ResourceError, BatchError)
    assert listed == {str(error.exit_code) for error in errors} | {"0", "2", "130"}
