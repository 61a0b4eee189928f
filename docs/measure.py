"""Measure every backend anew: ``python docs/measure.py VALIDATION [BACKEND…]``.

VALIDATION holds brackets of known radiance (folders with meta.json and gt.exr). Scores are means
of PSNR-mu and PSNR-L after one scale, in the groups of GROUPS; seconds and memory are those of
``hdrcli.bench.merges`` on this machine. Backends that are not named keep what they had. Writes
src/hdrcli/backends/measured.toml, which ``hdrcli backends`` shows.
"""

import json
import logging
import platform
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hdrcli.backends import BACKENDS
from hdrcli.bench import merges
from hdrcli.evaluate import Request, evaluate
from hdrcli.train.session import revision

TARGET = Path(__file__).parents[1] / "src/hdrcli/backends/measured.toml"
GROUPS: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "3 frames": lambda name, meta: "-3x2" in name and meta["curve"] == "srgb",
    "3 frames, unknown curve": lambda name, meta: "-3x2" in name and meta["curve"] != "srgb",
    "2, 5, 7 frames": lambda name, meta: "-3x2" not in name,
}
HEADER = """# What was measured of each backend: docs/measure.py writes, hdrcli backends shows it.
# psnr: mean PSNR-mu and PSNR-L in dB on our validation brackets, their exposures given.
# Seconds are those of one core.
"""


def main() -> None:
    """Measure what is asked for and write the table."""
    root = Path(sys.argv[1])
    names = sys.argv[2:] or list(BACKENDS)
    known = tomllib.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    for row in merges.measure(names):
        name = row.pop("name")
        known[name] = {**scores(root, name), **row, "machine": machine(), "revision": revision()}
        logging.warning("%s: %s", name, known[name])
    tables = [table(name, known[name]) for name in BACKENDS if name in known]
    TARGET.write_text(HEADER + "\n" + "\n\n".join(tables) + "\n", encoding="utf-8")


def scores(root: Path, backend: str) -> dict[str, list[float]]:
    """Mean scores by group; nothing for what makes no radiance."""
    if BACKENDS[backend].produces != "radiance":
        return {}
    request = Request(metrics=("psnr-mu", "psnr-l"), backends=(backend,), scale="median")
    rows = evaluate([root], request).rows
    metas = {path.parent.name: json.loads(path.read_text()) for path in root.rglob("meta.json")}
    found = {}
    for group, belongs in GROUPS.items():
        mine = [row for row in rows if belongs(row.name, metas[Path(row.name).name])]
        means = [np.mean([row.values[key] for row in mine]) for key in request.metrics]
        found[f"psnr {group}"] = [round(float(mean), 2) for mean in means]
    return found


def machine() -> str:
    """The processor, in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(name: str, values: dict[str, Any]) -> str:
    """One table of TOML."""
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines])


if __name__ == "__main__":
    main()
