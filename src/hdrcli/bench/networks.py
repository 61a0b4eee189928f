"""Each network as its backend runs it, beside a plain forward pass over the whole picture.

Plain is what a script does: float32, contiguous, one call, torch as it comes. Both run in processes
of their own with the same threads, on the same picture and weights: those that are shipped or
imported, or random ones of the paper's size where there are none or ``paper`` asks for them.
``whole_merges`` times what a user waits for: the same photographs of people, by hand, from files
to files by every network, and beside them by flowmerge and by average.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hdrcli import device, pipeline, weights
from hdrcli.backends import BACKENDS, Settings, load_backend
from hdrcli.backends.registry import silent
from hdrcli.bench import Progress, Timing, fresh, timed
from hdrcli.bench.merging import Made, made
from hdrcli.errors import WeightsError
from hdrcli.frames import Bracket, Frame
from hdrcli.motion import Motion
from hdrcli.pipeline import MergeOptions

NAMES = tuple(name for name, spec in BACKENDS.items() if spec.network is not None)
BESIDE = ("flowmerge", "average")  # of whole merges
EXPOSURES = (0.25, 1.0, 4.0)


def measure(
    names: Sequence[str] = NAMES,
    *,
    megapixels: float = 1.5,
    runs: int = 1,
    threads: int | None = None,
    settings: Settings | None = None,
    paper: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One row per network: seconds plain and tiled, their ratio, and the memory of both."""
    tell = progress or silent
    chosen = settings or Settings()
    count = threads or device.cores()
    rows = []
    for i, name in enumerate(names):
        tell(name, i / len(names))
        with weights_of(name, paper=paper) as folder:
            job = (name, folder, megapixels, runs, count, chosen.device, chosen.precision)
            plain, plain_memory = fresh(run_plain, *job)
            (tiled, facts), memory = fresh(run_tiled, *job)
        rows.append(
            {
                "name": name,
                "megapixels": megapixels,
                "threads": count,
                "plain_seconds": round(plain.median, 3),
                "seconds": round(tiled.median, 3),
                "plain_cpu_seconds": round(plain.cpu_median, 3),
                "cpu_seconds": round(tiled.cpu_median, 3),
                "times_faster": round(plain.median / tiled.median, 2),
                "plain_memory_gb": round(plain_memory / 1e9, 2),
                "memory_gb": round(memory / 1e9, 2),
                **facts,
            }
        )
    tell("done", 1.0)
    return rows


def whole_merges(
    names: Sequence[str] = NAMES,
    *,
    megapixels: float = 1.5,
    runs: int = 1,
    threads: int | None = None,
    paper: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One row per backend: seconds and processor seconds of a merge from files to files, warm.

    Every backend has a process of its own, whose first merge does not count.
    """
    tell = progress or silent
    count = threads or device.cores()
    backends = [*names, *(name for name in BESIDE if name not in names)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="hdrcli-bench-") as folder:
        paths = made(Path(folder), Made(megapixels, 3, moving=True))
        for i, name in enumerate(backends):
            tell(f"merge by {name}", i / len(backends))
            with weights_of(name, paper=paper and name in NAMES) as where:
                job = (name, where, paths, Path(folder) / f"{name}.exr", runs, count)
                timing, memory = fresh(run_merge, *job)
            rows.append(
                {
                    "name": name,
                    "megapixels": megapixels,
                    "threads": count,
                    "seconds": round(timing.median, 3),
                    "cpu_seconds": round(timing.cpu_median, 3),
                    "memory_gb": round(memory / 1e9, 2),
                }
            )
    tell("done", 1.0)
    return rows


def run_merge(
    name: str, folder: str | None, paths: Sequence[Path], out: Path, runs: int, threads: int
) -> Timing:
    """Seconds of whole merges in this process, after a small one that imports everything."""
    use(folder)
    small = [shrunk(path, out.with_name(f"{name}-{path.name}")) for path in paths]
    options = MergeOptions(threads=threads, overwrite=True, backend=name)
    pipeline.merge_files(small, [out], options)
    return timed(lambda: pipeline.merge_files(paths, [out], options), runs)


def shrunk(path: Path, target: Path) -> Path:
    """The same photograph at an eighth of its size, its EXIF kept."""
    from PIL import Image

    with Image.open(path) as picture:
        size = picture.width // 8, picture.height // 8
        picture.resize(size).save(target, quality=90, exif=picture.info.get("exif", b""))
    return target


class weights_of:  # noqa: N801  a context manager
    """The folder to take a network's weights from: None for the usual ones, or random ones."""

    def __init__(self, name: str, *, paper: bool) -> None:
        self.name, self.paper = name, paper
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> str | None:
        """Write random weights if there are none."""
        if self.name not in NAMES or (not self.paper and self.known()):
            return None
        from hdrcli.nets.build import build

        self.folder = tempfile.TemporaryDirectory(prefix="hdrcli-bench-")
        facts = {"backend": self.name, "licence": "random", "source": "random"}
        weights.add(Path(self.folder.name), self.name, build(self.name).state_dict(), facts)
        return self.folder.name

    def __exit__(self, *error: object) -> None:
        if self.folder is not None:
            self.folder.cleanup()

    def known(self) -> bool:
        """Whether there are weights."""
        try:
            weights.find(self.name)
        except WeightsError:
            return False
        return True


def photographs(megapixels: float) -> Bracket:
    """Three photographs of blobs of all sizes, 2:3, two stops apart."""
    import cv2

    height = round((megapixels * 1e6 / 1.5) ** 0.5 / 16) * 16
    size = height * 3 // 2, height
    rng = np.random.default_rng(0)
    stops = np.zeros((height, size[0], 3), np.float32)
    for side in (8, 32, 128):
        small = rng.standard_normal((side, side * 3 // 2, 3)).astype(np.float32)
        stops += cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
    light = np.exp2(stops - 2)
    frames = [
        Frame(
            np.rint(255 * np.clip(light * exposure, 0, 1) ** (1 / 2.2)).astype(np.uint8),
            exposure=exposure,
            name=f"{exposure}",
        )
        for exposure in EXPOSURES
    ]
    return Bracket(tuple(frames), 1)


def run_plain(
    name: str,
    folder: str | None,
    megapixels: float,
    runs: int,
    threads: int,
    where: str,
    precision: str,
) -> Timing:
    """Seconds of whole forward passes in float32, contiguous, in this process."""
    use(folder)
    import torch

    from hdrcli.backends import arrange, neural
    from hdrcli.nets import forms

    torch.set_num_threads(threads)
    net, form = neural.network(name, *weights.load(name))
    compute = device.settle(where, "fp32")
    bracket = photographs(megapixels)
    stack = arrange.Stack(bracket, neural.places_of(net, bracket), Motion.none(3))
    light = torch.from_numpy(stack.light(slice(None), slice(None))).permute(0, 3, 1, 2)
    linear = light[stack.order][None].to(compute.device)
    ratios = torch.from_numpy(stack.ratios)[None].to(compute.device)
    net = net.to(compute.device)
    given = [x.contiguous() for x in forms.inputs(form, linear, ratios)]

    def forward() -> None:
        net(*given)
        device.synchronize(compute)

    with torch.inference_mode():
        return timed(forward, runs)


def run_tiled(
    name: str,
    folder: str | None,
    megapixels: float,
    runs: int,
    threads: int,
    where: str,
    precision: str,
) -> tuple[Timing, dict[str, Any]]:
    """Seconds of the backend's own way, from codes to radiance, in this process."""
    use(folder)
    backend: Any = load_backend(name, Settings(threads=threads, device=where, precision=precision))
    from hdrcli.backends import arrange, neural

    device.threads(threads)
    net, form = neural.network(name, *weights.load(name))
    bracket = photographs(megapixels)
    stack = arrange.Stack(bracket, neural.places_of(net, bracket), Motion.none(3))
    facts: dict[str, Any] = {}
    timing = timed(lambda: facts.update(backend.run(net, form, stack)[1]), runs)
    return timing, facts


def use(folder: str | None) -> None:
    """Take weights from this folder alone, in this process."""
    if folder is not None:
        os.environ[weights.FOLDER] = folder
