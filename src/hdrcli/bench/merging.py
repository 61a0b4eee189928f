"""A merge beside its floor, which is to decode the inputs and encode the outputs, and OpenCV."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hdrcli import device, exif, formats, pipeline
from hdrcli.backends.registry import silent
from hdrcli.bench import Progress, fresh, timed
from hdrcli.bracket import read_bracket
from hdrcli.example import Example, write_example
from hdrcli.formats import WriteOptions
from hdrcli.frames import Codes, Metadata, Radiance
from hdrcli.pipeline import MergeOptions

EXAMPLE = (480, 320)  # width, height of the rendering that is enlarged
NOISE = 1.5  # codes, added after enlarging, so that files compress like photographs


def measure(
    files: Sequence[Path],
    *,
    megapixels: float = 24.0,
    frames: int = 3,
    runs: int = 3,
    threads: int | None = None,
    backend: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time a merge of ``files``, or of a bracket made for it, and everything it is compared to.

    Seconds are medians of ``runs``; ``times_floor`` is over decoding and encoding alone.
    """
    tell = progress or silent
    count = threads or device.cores()
    with tempfile.TemporaryDirectory(prefix="hdrcli-bench-") as folder:
        room = Path(folder)
        tell("photographs", 0.0)
        paths = list(files) or made(room, megapixels, frames)
        tell("merge, cold", 0.1)
        (cold, outcome), memory = fresh(cold_merge, paths, room / "cold.exr", count, backend)
        rows = [row("merge, cold: a new process, imports included", [cold])]
        options = MergeOptions(threads=count, overwrite=True, backend=backend)
        outputs = [room / "warm.exr"]
        steps: tuple[tuple[str, Callable[[], object]], ...] = (
            ("merge, warm", lambda: pipeline.merge_files(paths, outputs, options)),
            ("decode the inputs", lambda: formats.read_all(paths, count)),
            ("encode the outputs", Encode(paths, room, count)),
            ("OpenCV: AlignMTB, MergeDebevec, .hdr", OpenCV(paths, room, count)),
        )
        for i, (name, work) in enumerate(steps):
            tell(name, 0.2 + 0.2 * i)
            rows.append(row(name, timed(work, runs).runs))
        height, width = formats.read(paths[0]).size
    floor = rows[2]["seconds"] + rows[3]["seconds"]
    for entry in rows:
        entry["times_floor"] = round(entry["seconds"] / floor, 2)
    tell("done", 1.0)
    return {
        "size": [width, height],
        "frames": len(paths),
        "threads": count,
        "backend": outcome["backend"],
        "peak_memory_gb": round(memory / 1e9, 2),
        "floor_seconds": round(floor, 3),
        "rows": rows,
        "stages": outcome["seconds"],
    }


def row(what: str, runs: Sequence[float]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "what": what,
        "seconds": round(float(np.median(runs)), 3),
        "runs": [round(seconds, 3) for seconds in runs],
    }


def cold_merge(
    paths: Sequence[Path], output: Path, threads: int, backend: str
) -> tuple[float, dict[str, Any]]:
    """The first merge of a process, in seconds, with what importing costs; and what it says."""
    start = time.perf_counter()
    options = MergeOptions(threads=threads, overwrite=True, backend=backend)
    outcome = pipeline.merge_files(paths, [output], options)
    return time.perf_counter() - start, outcome.as_dict()


def made(folder: Path, megapixels: float, frames: int) -> list[Path]:
    """Photographs of the rendered example, enlarged to so many megapixels, with noise."""
    import cv2

    small = write_example(folder / "example", Example(frames=frames, size=EXAMPLE))
    scale = (megapixels * 1e6 / (EXAMPLE[0] * EXAMPLE[1])) ** 0.5
    size = round(EXAMPLE[0] * scale), round(EXAMPLE[1] * scale)
    paths = []
    for i, source in enumerate(path for path in small if path.suffix == ".jpg"):
        frame = formats.read(source)
        codes = cv2.resize(frame.codes, size, interpolation=cv2.INTER_CUBIC)
        paths.append(folder / source.name)
        meta = frame.metadata
        told = Metadata(exposure_time=meta.exposure_time, f_number=meta.f_number, iso=meta.iso)
        formats.write_display_codes(paths[-1], noisy(codes, i), exif=exif.write_exif(told))
    return paths


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
