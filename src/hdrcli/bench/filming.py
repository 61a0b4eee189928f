"""Video merging beside its floor, which is to decode the clip and to encode as many frames.

The clip is the rendered room, enlarged, with noise; so the true light is known, and the quality
of every backend stands beside its time.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import formats
from hdrcli.backends import check_backend
from hdrcli.backends.registry import silent
from hdrcli.bench import Progress, fresh
from hdrcli.bench.merging import noisy
from hdrcli.color import REC709
from hdrcli.errors import HdrcliError
from hdrcli.example.render import Canvas, render
from hdrcli.frames import Radiance
from hdrcli.video import EncodeOptions, Target, VideoOptions, open_clip, video_file
from hdrcli.video.clip import Timed
from hdrcli.video.encode import VideoFile, video_frame
from hdrcli.video.example import ClipExample, filmed, light_of, planes_of
from hdrcli.video.look import Grade, LightLevel, Planes
from hdrcli.video.merge import available
from hdrcli.video.planes import Levels
from hdrcli.video.quality import Scores, flicker, psnr_mu
from hdrcli.video.stages import Worker, ahead

Floats = NDArray[np.float32]

RENDERED = (480, 270)  # width, height of the rendering that is enlarged
SCORED = (480, 270)  # of the pictures that are compared with the truth
STILL = 0.004  # relative change of light up to which a pixel of the truth stands still


def measure(
    *,
    size: tuple[int, int] = (1920, 1080),
    frames: int = 24,
    exposures: int = 2,
    preset: str | None = None,
    backends: Sequence[str] | None = None,
    static: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time the floor and every backend, each in a process of its own.

    A row has seconds per frame (wall-clock, and of all processors), times the floor, memory,
    PSNR-μ per place of the pattern, and flicker. ``left_out`` tells which backends could not run.
    """
    tell = progress or silent
    with tempfile.TemporaryDirectory(prefix="hdrcli-bench-") as folder:
        room = Path(folder)
        tell("clip", 0.0)
        example = ClipExample(frames=frames, exposures=exposures, size=RENDERED, static=static)
        clip = made(room, example, size)
        tell("floor", 0.2)
        spent, memory = fresh(floor, clip, room / "floor.mp4", preset)
        rows = [_row("decode and encode alone", spent, memory, frames)]
        left_out = {}
        chosen = list(backends or available())
        for i, name in enumerate(chosen):
            tell(name, 0.3 + 0.7 * i / len(chosen))
            try:
                check_backend(name, device)
            except HdrcliError as err:
                left_out[name] = str(err)
                continue
            spent, memory = fresh(merge, clip, room / f"{name}.mp4", name, preset, device, threads)
            found = scored(clip, room, name, example)
            rows.append(_row(name, spent, memory, frames, found))
    for row in rows:
        row["times_floor"] = round(row["seconds_per_frame"] / rows[0]["seconds_per_frame"], 2)
    tell("done", 1.0)
    return {
        "size": list(size),
        "frames": frames,
        "exposures": exposures,
        "rows": rows,
        "left_out": left_out,
    }


def _row(
    what: str,
    spent: dict[str, Any],
    memory: int,
    frames: int,
    quality: dict[str, Any] | None = None,
) -> dict[str, Any]:
    found = quality or {"psnr_mu": None, "flicker_percent": None}
    return {
        "what": what,
        "seconds_per_frame": round(spent["wall"] / frames, 4),
        "cpu_seconds_per_frame": round(spent["cpu"] / frames, 4),
        "memory_gb": round(memory / 1e9, 2),
        "stages": spent.get("stages", {}),
        **found,
    }


# --- the clip ---------------------------------------------------------------------------------


def made(folder: Path, example: ClipExample, size: tuple[int, int]) -> Path:
    """The example's clip, enlarged, with noise, 8 bits H.264; the truth, small, beside it."""
    import av
    import cv2

    path = folder / "clip.mp4"
    still = render(Canvas(*example.size))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=example.rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 1, 13, 1
        context.color_range = 1
        context.options = {"crf": "16", "preset": "veryfast"}
        for i in range(example.frames):
            light = light_of(example, still, i)
            np.save(folder / f"{i}.npy", light)
            codes = cv2.resize(filmed(example, light, i), size, interpolation=cv2.INTER_CUBIC)
            frame = video_frame(planes_of(noisy(codes, i)), "yuv420p")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# --- what is timed, each in a process of its own ----------------------------------------------


class _Plain:
    """A look that only brings codes into planes, as any transcoder must."""

    def __init__(self) -> None:
        self.light = LightLevel()

    def planes(self, radiance: Radiance, seconds: float, scene: int) -> Planes:
        """Planes of the codes that stand in for radiance."""
        assert (seconds, scene) >= (0.0, 0)
        return planes_of(np.asarray(radiance.pixels), Levels(10), topleft=True)


class _Codes(Radiance):
    """Codes in the place of radiance, for the floor."""

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3, self.pixels.shape


def floor(clip: Path, output: Path, preset: str | None) -> dict[str, Any]:
    """Decode every frame, and encode it as HDR10 is encoded; in threads, as merging does."""
    source = open_clip(clip)
    start = time.perf_counter(), time.process_time()
    sink = VideoFile(
        Target(output), source, _Plain(), Grade(), EncodeOptions(preset=preset, audio=False)
    )

    def work(timed: Timed) -> None:
        sink.take(timed, _Codes(timed.frame.codes, REC709))

    worker: Worker[Timed] = Worker(work)
    for timed in ahead(source.frames()):
        worker.put(timed)
    worker.finish()
    sink.finish()
    return {"wall": time.perf_counter() - start[0], "cpu": time.process_time() - start[1]}


def merge(
    clip: Path, output: Path, backend: str, preset: str | None, device: str, threads: int | None
) -> dict[str, Any]:
    """Merge the clip into HDR10; then, not timed, into small EXR frames beside it."""
    options = VideoOptions(
        backend=backend, device=device, threads=threads, encode=EncodeOptions(preset=preset)
    )
    start = time.perf_counter(), time.process_time()
    outcome = video_file(clip, [Target(output)], options)
    spent = {"wall": time.perf_counter() - start[0], "cpu": time.process_time() - start[1]}
    return {**spent, "stages": {k: round(v, 2) for k, v in outcome.seconds.items()}}


# --- quality ----------------------------------------------------------------------------------


def scored(clip: Path, folder: Path, backend: str, example: ClipExample) -> dict[str, Any]:
    """PSNR-μ by exposure, and flicker where nothing moves, both on reduced pictures."""
    target = folder / f"{backend}-exr"
    video_file(clip, [Target(target, "exr")], VideoOptions(backend=backend))
    scores, shown, true = Scores(), [], []
    dark = np.float32(2.0 ** min(example.evs()))
    gain: float | None = None
    for i in range(example.frames):
        light = reduced(formats.read(target / f"frame_{i:06d}.exr").codes)
        truth = reduced(np.load(folder / f"{i}.npy"))
        gain = scale_of(light, truth, max(example.evs())) if gain is None else gain
        scores.add(i % example.exposures, psnr_mu(light * np.float32(gain) * dark, truth * dark))
        shown.append(light.mean(axis=2))
        true.append(truth.mean(axis=2))
    change = np.abs(np.diff(np.stack(true), axis=0)) / np.maximum(np.stack(true[1:]), 1e-4)
    still = np.asarray((change < STILL).all(axis=0), bool)
    return {
        "psnr_mu": {k: round(v, 2) for k, v in scores.table(example.evs()).items()},
        "flicker_percent": round(flicker(shown, still), 3) if still.any() else None,
    }


def scale_of(light: Floats, truth: Floats, brightest: float) -> float:
    """The one factor between the clip's scale and the truth's."""
    clear = (truth.max(axis=2) * 2.0**brightest < 0.8) & (truth.min(axis=2) > 0.02)
    return float(np.median(truth[clear] / np.maximum(light[clear], 1e-6)))


def reduced(light: Floats) -> Floats:
    """At the size that is scored."""
    import cv2

    return np.asarray(cv2.resize(light, SCORED, interpolation=cv2.INTER_AREA), np.float32)
