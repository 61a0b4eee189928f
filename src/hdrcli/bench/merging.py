"""A merge beside its floor, which is to decode the inputs and encode the outputs, and OpenCV."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import color, device, exif, formats, pipeline
from hdrcli.backends.registry import silent
from hdrcli.bench import Progress, fresh
from hdrcli.bracket import read_bracket
from hdrcli.example import Example, Shot
from hdrcli.example.camera import Hand, turned
from hdrcli.example.figures import MOVERS
from hdrcli.example.light import Floats
from hdrcli.example.moment import moment
from hdrcli.example.render import Canvas, render
from hdrcli.formats import WriteOptions
from hdrcli.frames import Codes, Metadata, Radiance
from hdrcli.pipeline import MergeOptions

EXAMPLE = (960, 640)  # width, height of the rendering that is enlarged
DETAIL = {1: 0.4, 2: 0.3, 4: 0.2, 8: 0.14, 16: 0.1, 32: 0.1}  # log light of each octave, by pixels
PATCH = 256  # pixels over which there is more of it, or less
SHOT, READ = 4e-4, 1e-3  # variance of noise per light, and its deviation in the dark; white is 1
SOFT = 0.6  # pixels over which a camera spreads its noise
SAME = 0.15  # stops of difference from the still scene, beyond which a pixel is not of it
DARK = 1e-3
ROWS = 256
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

    Everything is done in turns, ``runs`` times; seconds are medians. ``times_floor`` is over
    decoding and encoding alone in the same turn, the median too: a machine that others use is
    faster in one minute than in the next. The processor's seconds are those of all threads.
    """
    tell = progress or silent
    count = threads or device.cores()
    with tempfile.TemporaryDirectory(prefix="hdrcli-bench-") as folder:
        room, written = Path(folder), Path(folder) / "written"
        written.mkdir()
        tell("photographs", 0.0)
        paths = list(files) or made(room, make)
        tell("merge, cold", 0.1)
        (cold, outcome), memory = fresh(cold_merge, paths, written / "cold.exr", count, backend)
        outputs = [written / "warm.exr"]

        def merge(name: str) -> Callable[[], object]:
            options = MergeOptions(threads=count, backend=name)
            return lambda: pipeline.merge_files(paths, outputs, options)

        steps: list[tuple[str, Callable[[], object]]] = [
            ("merge, warm", merge(backend)),
            ("decode the inputs", lambda: formats.read_all(paths, count)),
            ("encode the outputs", Encode(paths, written, count)),
            ("OpenCV: AlignMTB, MergeDebevec, .hdr", OpenCV(paths, written, count)),
        ]
        if outcome["backend"] != "average":
            steps.append(("merge by average, warm", merge("average")))
        taken: list[list[Clocked]] = [[] for _ in steps]
        for turn in range(runs):
            for i, (name, work) in enumerate(steps):
                tell(name, 0.2 + 0.8 * (turn + i / len(steps)) / runs)
                for old in written.iterdir():  # some disks are slow to replace a large file
                    old.unlink()
                taken[i].append(clocked(work))
        height, width = formats.read(paths[0]).size
    floors = np.add(taken[1], taken[2])
    rows = [row("merge, cold: a new process, imports included", [(cold, float("nan"))], floors)]
    rows += [row(name, times, floors) for (name, _), times in zip(steps, taken, strict=True)]
    tell("done", 1.0)
    return {
        "bracket": f"{len(paths)} photographs" if files else str(make),
        "size": [width, height],
        "frames": len(paths),
        "threads": count,
        "backend": outcome["backend"],
        "peak_memory_gb": round(memory / 1e9, 2),
        "floor_seconds": round(float(np.median(floors[:, 0])), 3),
        "rows": rows,
        "stages": outcome["seconds"],
    }


Clocked = tuple[float, float]  # seconds on the wall, and of the processor over all threads


def clocked(work: Callable[[], object]) -> Clocked:
    """Run ``work``."""
    start, before = time.perf_counter(), os.times()
    work()
    wall, after = time.perf_counter() - start, os.times()
    return wall, after.user + after.system - before.user - before.system


def row(what: str, runs: Sequence[Clocked], floors: NDArray[np.float64]) -> dict[str, Any]:
    """One line of the table: a run beside the floor (n, 2) of its turn, or one beside them all."""
    wall, processor = (float(median) for median in np.median(runs, axis=0))
    over, processor_over = (float(ratio) for ratio in np.median(np.divide(runs, floors), axis=0))
    unknown = np.isnan(processor)
    return {
        "what": what,
        "seconds": round(wall, 3),
        "cpu_seconds": None if unknown else round(processor, 3),
        "runs": [round(seconds, 3) for seconds, _ in runs],
        "times_floor": round(over, 2),
        "cpu_times_floor": None if unknown else round(processor_over, 2),
    }


def cold_merge(
    paths: Sequence[Path], output: Path, threads: int, backend: str
) -> tuple[float, dict[str, Any]]:
    """The first merge of a process, in seconds, with what importing costs; and what it says."""
    start = time.perf_counter()
    options = MergeOptions(threads=threads, backend=backend)
    outcome = pipeline.merge_files(paths, [output], options)
    return time.perf_counter() - start, outcome.as_dict()


def made(folder: Path, make: Made) -> list[Path]:
    """Photographs of the rendered example, enlarged, with the detail and noise of photographs."""
    step = min(3.0, WIDEST / max(make.frames - 1, 1))
    example = Example(make.frames, ev_step=step, size=EXAMPLE, static=not make.moving)
    scale = (make.megapixels * 1e6 / (EXAMPLE[0] * EXAMPLE[1])) ** 0.5
    size = round(EXAMPLE[0] * scale), round(EXAMPLE[1] * scale)
    still = render(Canvas(*EXAMPLE))
    detail = detailed((round(still.canvas.shape[0] * scale), round(still.canvas.shape[1] * scale)))
    light, paths = lit(still.light, detail), []
    for i, shot in enumerate(example.shots()):
        paths.append(folder / shot.name)
        if make.moving:
            seen = moment(still, MOVERS, shot.opened + shot.shutter / 2)
            light = lit(seen, detail, still.light)
        codes = developed(light, held(example, still.canvas, shot, size, detail), size, shot.ev, i)
        told = shot.metadata
        told = Metadata(exposure_time=told.exposure_time, f_number=told.f_number, iso=told.iso)
        formats.write_display_codes(paths[-1], codes, exif=exif.write_exif(told))
    return paths


def detailed(shape: tuple[int, int]) -> Floats:
    """The logarithm of a texture with detail at every scale down to a pixel, ``shape`` (h, w).

    Alike in every octave, as in photographs, but weaker where a lens blurs; in some places there
    is more of it than in others.
    """
    import cv2

    cv2.setRNGSeed(1)
    total = np.zeros(shape, np.float32)
    for step, strength in DETAIL.items():
        total += cv2.resize(random(shape, step), shape[::-1]) * np.float32(strength)
    total *= np.clip(cv2.resize(random(shape, PATCH), shape[::-1]) * 0.7 + 0.6, 0.1, 1.5)
    return total


def random(shape: tuple[int, int], step: int) -> Floats:
    """Gaussian numbers for a grid of every ``step``-th pixel."""
    import cv2

    numbers = np.empty((shape[0] // step + 2, shape[1] // step + 2), np.float32)
    cv2.randn(numbers, 0, 1)
    return numbers


def lit(light: Floats, detail: Floats, still: Floats | None = None) -> Floats:
    """A rendering enlarged to the size of the detail, and multiplied by it, (H, W, 3).

    Where it is not the ``still`` scene's, which the detail belongs to, there is none.
    """
    import cv2

    size = detail.shape[::-1]
    out: Floats = cv2.resize(np.log(light + DARK), size, interpolation=cv2.INTER_CUBIC)
    if still is not None:
        ratio = (light.mean(axis=2) + DARK) / (still.mean(axis=2) + DARK)
        bare = (np.abs(np.log2(ratio)) < SAME).astype(np.float32)
        detail = detail * cv2.resize(cv2.GaussianBlur(bare, (0, 0), 1.0), size)
    for rows in strips(size[1]):
        out[rows] += detail[rows, :, None]
        np.exp(out[rows], out=out[rows])
    return out


def held(
    example: Example, canvas: Canvas, shot: Shot, size: tuple[int, int], detail: Floats
) -> NDArray[np.float64]:
    """Photograph pixel to pixel of the enlarged canvas, (3, 3), as the hand holds the camera."""
    hand = Hand(example.seed, steady=example.static)
    straight = hand.angles(example.reference.opened + example.reference.shutter / 2)
    warp = turned(canvas, hand.angles(shot.opened + shot.shutter / 2) - straight)
    shape = canvas.shape
    large = grown(detail.shape[1] / shape[1], detail.shape[0] / shape[0])
    small = np.linalg.inv(grown(size[0] / canvas.width, size[1] / canvas.height))
    return np.asarray(large @ warp @ small)


def grown(x: float, y: float) -> NDArray[np.float64]:
    """A picture's enlargement; pixel centres are at integers."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def strips(height: int) -> list[slice]:
    """Rows taken at a time."""
    return [slice(start, min(start + ROWS, height)) for start in range(0, height, ROWS)]


def developed(
    light: Floats, warp: NDArray[np.float64], size: tuple[int, int], ev: float, seed: int
) -> Codes:
    """The photograph of so many stops, (height, width, 3) uint8 sRGB, with its noise."""
    import cv2

    cv2.setRNGSeed(seed + 2)
    table = np.rint(255 * color.srgb_encode(np.linspace(0, 1, 65536))).astype(np.uint8)[None]
    codes = np.empty((size[1], size[0], 3), np.uint8)
    for rows in strips(size[1]):
        here = warp @ np.array([[1, 0, 0], [0, 1, rows.start], [0, 0, 1]])
        seen = cv2.warpPerspective(
            light,
            here,
            (size[0], rows.stop - rows.start),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        np.clip(seen * np.float32(2.0**ev), 0, 1.5, out=seen)
        noise = np.empty_like(seen)
        cv2.randn(noise, 0, 1)
        noise *= np.sqrt(SHOT * seen + READ**2)
        seen += cv2.GaussianBlur(noise, (0, 0), SOFT)  # a camera fills in two colours of three
        codes[rows] = cv2.LUT(np.clip(seen * 65535, 0, 65535).astype(np.uint16), table)
    return codes


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
        formats.write(self.folder / "encoded.exr", self.image, options=self.store)
        formats.write_display_codes(self.folder / "encoded.jpg", self.codes, options=self.store)


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
