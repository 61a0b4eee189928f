"""What was measured of each backend, from ``measured.toml``; docs/measure.py writes it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

FILE = "measured.toml"


@dataclass(frozen=True)
class Measured:
    """Scores on our validation brackets, and the cost of a merge of three frames on a processor.

    ``scores``: PSNR-mu and PSNR-L in dB by group of brackets. ``seconds_per_12_mp``: of one core,
    from frames that are read to radiance. ``memory_gb``: of the process, at ``megapixels``.
    """

    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seconds_per_12_mp: float | None = None
    memory_gb: float | None = None
    megapixels: float | None = None


@cache
def measurements() -> Mapping[str, Measured]:
    """What is known, by name of the backend; empty where the package came without the file."""
    source = resources.files("hdrcli.backends") / FILE
    if not source.is_file():
        return {}
    tables = tomllib.loads(source.read_text(encoding="utf-8"))
    return {name: _measured(table) for name, table in tables.items() if isinstance(table, dict)}


def _measured(table: dict[str, object]) -> Measured:
    scores = {
        key.removeprefix("psnr "): (float(value[0]), float(value[1]))
        for key, value in table.items()
        if key.startswith("psnr ") and isinstance(value, list)
    }

    def number(key: str) -> float | None:
        value = table.get(key)
        return float(value) if isinstance(value, (int, float)) else None

    return Measured(scores, number("seconds_per_12_mp"), number("memory_gb"), number("megapixels"))
