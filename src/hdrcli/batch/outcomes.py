"""outcomes.jsonl: one line per set that was tried, appended whole and on disk before the next."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NAME = "outcomes.jsonl"


class OutcomeLog:
    """The log of an output folder. Only one process writes it at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def append(self, outcome: Mapping[str, Any]) -> None:
        """Add a line; when this returns, it is on disk."""
        line = json.dumps(dict(outcome), ensure_ascii=False, default=str) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            data = memoryview(line.encode("utf-8", "surrogateescape"))
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def repair(self) -> None:
        """Cut off a last line that was not written to its end; call it before appending."""
        if not self.path.is_file():
            return
        with self.path.open("rb+") as file:
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                file.truncate(whole)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every outcome, oldest first; what is no outcome is passed over."""
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                try:
                    found = json.loads(line)
                except ValueError:  # torn by a power cut
                    continue
                if isinstance(found, dict) and isinstance(found.get("outputs"), list):
                    yield found

    def latest(self) -> dict[str, dict[str, Any]]:
        """The last outcome of each set, by its first output."""
        return {line["target"]: line for line in self.lines() if "target" in line}
