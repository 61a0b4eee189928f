"""report.html: one page of every set of a batch, that opens from disk without a network.

The pictures of each set lie in OUT/.hdrcli, where the next batch finds them again; the page
holds copies of all of them, and is rewritten whole as sets are done.
"""

import html
import json
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from hdrcli import __version__
from hdrcli.batch.outcomes import OutcomeLog
from hdrcli.batch.run import FOLDER, card_of, write_whole

NAME = "report.html"
CALM = 20.0  # times as long as writing the page took, it is left as it is
SOONEST = 1.0  # seconds between two versions of the page
SHOWN = (
    "name", "status", "inputs", "evs", "pixel_evs", "exposure_source", "frames", "reference",
    "outputs", "backend", "why", "why_together", "response", "alignment", "moved_percent",
    "clipped_percent", "size", "warnings", "error", "seconds", "seconds_total", "peak_mb", "when",
)  # fmt: skip


class Report:
    """The page of one output folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cards = folder / FOLDER / "cards"
        self.next = 0.0

    def keep(self, outcome: Mapping[str, Any], pictures: Mapping[str, Any] | None) -> None:
        """Store the pictures of a set; where a merge failed, there are none any more."""
        self.cards.mkdir(parents=True, exist_ok=True)
        path = self.cards / f"{card_of(dict(outcome))}.json"
        if pictures is None:
            path.unlink(missing_ok=True)
        else:
            write_whole(path, json.dumps(dict(pictures)))

    def refresh(self) -> None:
        """Write the page again if the last time is long enough ago for its size."""
        if time.monotonic() >= self.next:
            self.write()

    def write(self) -> None:
        """Write the page as of now."""
        start = time.monotonic()
        write_whole(self.folder / NAME, page(self._sets()))
        spent = time.monotonic() - start
        self.next = time.monotonic() + max(SOONEST, CALM * spent)

    def _sets(self) -> list[dict[str, Any]]:
        latest = sorted(OutcomeLog(self.folder).latest().values(), key=_place)
        return [_shown(outcome, self._pictures(outcome), self.folder) for outcome in latest]

    def _pictures(self, outcome: dict[str, Any]) -> dict[str, Any]:
        path = self.cards / f"{card_of(outcome)}.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _place(outcome: Mapping[str, Any]) -> tuple[int, str]:
    return int(outcome.get("set", 0)), str(outcome["target"])


def _shown(outcome: Mapping[str, Any], pictures: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the page says of one set. Outputs are named as seen from the page."""
    said = {key: outcome[key] for key in SHOWN if outcome.get(key) not in (None, [], {})}
    said["outputs"] = [_seen_from(folder, Path(name)) for name in outcome["outputs"]]
    return said | {"pictures": dict(pictures)}


def _seen_from(folder: Path, path: Path) -> str:
    try:
        return path.relative_to(folder.absolute()).as_posix()
    except ValueError:
        return path.as_posix()


def page(sets: list[dict[str, Any]]) -> str:
    """The whole page: the template with one block of data per set."""
    template = files("hdrcli").joinpath("report_page.html").read_text(encoding="utf-8")
    blocks = "\n".join(
        f'<script type="application/json" class="set">{_inert(entry)}</script>' for entry in sets
    )
    head = {"version": __version__, "written": time.strftime("%Y-%m-%d %H:%M:%S")}
    noscript = "".join(f"<li>{html.escape(str(entry['name']))}</li>" for entry in sets)
    return (
        template.replace("<!--SETS-->", blocks)
        .replace("<!--HEAD-->", _inert(head))
        .replace("<!--LIST-->", noscript)
    )


def _inert(value: object) -> str:
    """JSON that ends no script element and starts no comment, whatever files are called."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
