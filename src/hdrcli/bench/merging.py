"""A merge beside its floor, which is to decode the inputs and encode the outputs, and OpenCV."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import color, device, exif, formats, pipeline
from hdrcli.backends.registry import silent
from hdrcli.bench import Progress, fresh
from hdrcli.bracket import read_bracket
from hdrcli.example import Example, write_example
from hdrcli.formats import WriteOptions
from hdrcli.frames import Codes, Metadata, Radiance
from hdrcli.pipeline import MergeOptions

EXAMPLE = (960, 640)  # width, height of the rendering that is enlarged
NOISE = 1.5  # codes, added after enlarging, so that files compress like photographs
GRAIN = 8  # per cent, of a texture on what stands still: enlarging leaves none as fine as a pixel
WIDEST = 8.0  # stops from the darkest to the brightest photograph


@dataclass(frozen=True)
class Made:
    """A bracket to be made for the measurement."""

    megapixels: float = 24.0
    frames: int = 3
    moving: bool = False  # by hand, with people in it; else from a tripod, and nobody there

    def __str__(self) -> str:
        kind = "by hand, moving" if self.moving else "tripod"
        return f"{self.frames} × {self.megapixels:g} MP, {kind}"


USUAL = (Made(), Made(moving=True), Made(megapixels=12.0, frames=9))  # where nothing is asked for


def measure(
    files: Sequence[Path],
    *,
    make: Made = USUAL[0],
    runs: int = 3,
    threads: int | None = None,
    backend: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time a merge of ``files``, or of a bracket made for it, and everything it is compared to.

    Seconds are medians of ``runs``; ``times_floor`` is over decoding and encoding alone. The
    processor's seconds, of all threads, say the same on a machine that does something else too.
    """
    tell = progress or silent
    count = threads or device.cores()
    with tempfile.TemporaryDirectory(prefix="hdrcli-bench-") as folder:
        room = Path(folder)
        tell("photographs", 0.0)
        paths = list(files) or made(room, make)
        tell("merge, cold", 0.1)
        (cold, outcome), memory = fresh(cold_merge, paths, room / "cold.exr", count, backend)
        rows = [row("merge, cold: a new process, imports included", [(cold, float("nan"))])]
        outputs = [room / "warm.exr"]

        def merge(name: str) -> Callable[[], object]:
            options = MergeOptions(threads=count, overwrite=True, backend=name)
            return lambda: pipeline.merge_files(paths, outputs, options)

        steps: list[tuple[str, Callable[[], object]]] = [
            ("merge, warm", merge(backend)),
            ("decode the inputs", lambda: formats.read_all(paths, count)),
            ("encode the outputs", Encode(paths, room, count)),
            ("OpenCV: AlignMTB, MergeDebevec, .hdr", OpenCV(paths, room, count)),
        ]
        if outcome["backend"] != "average":
            steps.append(("merge by average, warm", merge("average")))
        for i, (name, work) in enumerate(steps):
            tell(name, 0.2 + 0.8 * i / len(steps))
            rows.append(row(name, clocked(work, runs)))
        height, width = formats.read(paths[0]).size
    for kind in ("", "cpu_"):
        floor = rows[2][f"{kind}seconds"] + rows[3][f"{kind}seconds"]
        for entry in rows:
            spent = entry[f"{kind}seconds"]
            entry[f"{kind}times_floor"] = None if spent is None else round(spent / floor, 2)
    tell("done", 1.0)
    return {
        "bracket": f"{len(paths)} photographs" if files else str(make),
        "size": [width, height],
        "frames": len(paths),
        "threads": count,
        "backend": outcome["backend"],
        "peak_memory_gb": round(memory / 1e9, 2),
        "floor_seconds": round(rows[2]["seconds"] + rows[3]["seconds"], 3),
        "rows": rows,
        "stages": outcome["seconds"],
    }


Clocked = tuple[float, float]  # seconds on the wall, and of the processor over all threads


def clocked(work: Callable[[], object], runs: int) -> list[Clocked]:
    """Run ``work`` so many times."""
    found = []
    for _ in range(runs):
        start, before = time.perf_counter(), os.times()
        work()
        after = os.times()
        spent = after.user + after.system - before.user - before.system
        found.append((time.perf_counter() - start, spent))
    return found


def row(what: str, runs: Sequence[Clocked]) -> dict[str, Any]:
    """One line of the table."""
    wall, processor = (float(np.median(column)) for column in zip(*runs, strict=True))
    return {
        "what": what,
        "seconds": round(wall, 3),
        "cpu_seconds": None if np.isnan(processor) else round(processor, 3),
        "runs": [round(seconds, 3) for seconds, _ in runs],
    }


def cold_merge(
    paths: Sequence[Path], output: Path, threads: int, backend: str
) -> tuple[float, dict[str, Any]]:
    """The first merge of a process, in seconds, with what importing costs; and what it says."""
    start = time.perf_counter()
    options = MergeOptions(threads=threads, overwrite=True, backend=backend)
    outcome = pipeline.merge_files(paths, [output], options)
    return time.perf_counter() - start, outcome.as_dict()


def made(folder: Path, make: Made) -> list[Path]:
    """Photographs of the rendered example, enlarged, with grain and noise."""

    step = min(3.0, WIDEST / max(make.frames - 1, 1))
    example = Example(make.frames, ev_step=step, size=EXAMPLE, static=not make.moving)
    small = write_example(folder / "example", example)
    scale = (make.megapixels * 1e6 / (EXAMPLE[0] * EXAMPLE[1])) ** 0.5
    size = round(EXAMPLE[0] * scale), round(EXAMPLE[1] * scale)
    source: Iterable[Codes] = (
        enlarged(formats.read(path).codes, size) for path in small if path.suffix == ".jpg"
    )
    if not make.moving:  # of the light itself: enlarged noise would be blotches that come and go
        light = enlarged(formats.read(small[-1]).codes, size) * grained(size)
        source = (exposed(light, shot.ev) for shot in example.shots())
    paths = []
    for i, (codes, shot) in enumerate(zip(source, example.shots(), strict=True)):
        paths.append(folder / shot.name)
        told = shot.metadata
        told = Metadata(exposure_time=told.exposure_time, f_number=told.f_number, iso=told.iso)
        formats.write_display_codes(paths[-1], noisy(codes, i), exif=exif.write_exif(told))
    return paths


def enlarged(picture: Codes, size: tuple[int, int]) -> Codes:
    """A picture at another size (width, height)."""
    import cv2

    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))


def grained(size: tuple[int, int]) -> NDArray[np.float32]:
    """A fine texture to multiply light by, (height, width, 1)."""
    import cv2

    cv2.setRNGSeed(1)
    grain = np.empty((size[1] // 2 + 1, size[0] // 2 + 1), np.float32)
    cv2.randn(grain, 1, GRAIN / 100)
    return np.asarray(cv2.resize(grain, size), np.float32)[..., None]


def exposed(light: Codes, ev: float) -> Codes:
    """Eight-bit codes of light, so many stops brighter, without noise."""
    import cv2

    table = np.rint(255 * color.srgb_encode(np.linspace(0, 1, 65536))).astype(np.uint8)
    steps = np.clip(light * np.float32(65535 * 2.0**ev), 0, 65535).astype(np.uint16)
    return np.asarray(cv2.LUT(steps, table[None]))


def noisy(codes: Codes, seed: int) -> Codes:
    """Codes with Gaussian noise."""
    import cv2

    cv2.setRNGSeed(seed)
    noise = np.empty(codes.shape, np.int16)
    cv2.randn(noise, (0, 0, 0), (NOISE,) * 3)
    return np.asarray(cv2.add(codes, noise, dtype=cv2.CV_8U), np.uint8)


class Encode:
    """Writing what a merge writes: half floats in a ZIP EXR, and a JPEG of the same size."""

    def __init__(self, paths: Sequence[Path], folder: Path, threads: int) -> None:
        bracket = read_bracket(paths, threads=threads).bracket
        light = bracket.ref.linear().astype(np.float16)
        assert bracket.ref.exposure is not None
        self.image = Radiance(light, bracket.ref.primaries, bracket.ref.exposure)
        self.codes = bracket.ref.codes.astype(np.uint8, copy=False)
        self.store = WriteOptions(exr_type="half", exr_compression="zip", threads=threads)
        self.folder = folder

    def __call__(self) -> None:
        """Write both."""
        formats.write(self.folder / "encoded.exr", self.image, overwrite=True, options=self.store)
        formats.write_display_codes(
            self.folder / "encoded.jpg", self.codes, overwrite=True, options=self.store
        )


class OpenCV:
    """What a script around OpenCV does: read, AlignMTB, MergeDebevec with the times, write."""

    def __init__(self, paths: Sequence[Path], folder: Path, threads: int) -> None:
        bracket = read_bracket(paths, threads=threads).bracket
        self.times = bracket.exposures.astype(np.float32)
        self.paths = [str(frame.path) for frame in bracket.frames]
        self.target = str(folder / "opencv.hdr")
        self.threads = threads

    def __call__(self) -> None:
        """Do it."""
        import cv2

        before = cv2.getNumThreads()
        cv2.setNumThreads(self.threads)
        images = [cv2.imread(path) for path in self.paths]
        cv2.createAlignMTB().process(images, images)
        cv2.imwrite(self.target, cv2.createMergeDebevec().process(images, self.times))
        cv2.setNumThreads(before)
