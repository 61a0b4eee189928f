"""Video merging beside its floor, which is to decode the clip and to encode as many frames.

The clip is the rendered room, enlarged, with noise, or a pan over an HDR picture before which
pieces of it move; so the true light is known, and the quality of every backend stands beside its
time, as in the DeepHDRVideo paper's table.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import formats
from hdrcli.backends import check_backend
from hdrcli.backends.registry import silent
from hdrcli.bench import Progress, fresh
from hdrcli.color import REC709
from hdrcli.errors import HdrcliError
from hdrcli.example.render import Canvas, render
from hdrcli.frames import Codes, Radiance
from hdrcli.video import EncodeOptions, Target, VideoOptions, open_clip, video_file
from hdrcli.video.clip import Timed
from hdrcli.video.encode import VideoFile, video_frame
from hdrcli.video.example import SHUTTER, ClipExample, filmed, light_of, planes_of
from hdrcli.video.look import Grade, LightLevel, Planes
from hdrcli.video.merge import available
from hdrcli.video.planes import Levels
from hdrcli.video.quality import Scores, flicker, flicker_beyond, psnr_mu
from hdrcli.video.stages import Worker, ahead

Floats = NDArray[np.float32]

RENDERED = (480, 270)  # width, height of the rendering that is enlarged
SCORED = (480, 270)  # of the pictures that are compared with the truth
MIDDLE = 0.25  # light of the picture's 60 % quantile
PIECES = 4  # that move before the picture
MOMENTS = 3  # of one exposure
NOISE = 1.5  # codes, added after enlarging, so that frames compress like a camera's
STILL = 0.004  # relative change of light up to which a pixel of the truth stands still


def measure(
    *,
    size: tuple[int, int] = (1920, 1080),
    frames: int = 24,
    exposures: int = 2,
    preset: str | None = None,
    backends: Sequence[str] | None = None,
    static: bool = False,
    picture: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time the floor and every backend, each in a process of its own.

    A row has seconds per frame (wall-clock, and of all processors), times the floor, memory,
    PSNR-μ per place of the pattern, and flicker; the floor's are those of the clip's own frames.
    ``picture`` is an HDR picture to film instead of the room. ``left_out`` tells which backends
    could not run.
    """
    tell = progress or silent
    with tempfile.TemporaryDirectory(prefix="hdrcli-bench-") as folder:
        room = Path(folder)
        tell("clip", 0.0)
        example = ClipExample(frames=frames, exposures=exposures, size=RENDERED, static=static)
        clip = made(room, example, size, scene_of(example, picture))
        tell("floor", 0.2)
        spent, memory = fresh(floor, clip, room / "floor.mp4", preset)
        own = compared(own_light(clip, example), room, example)
        rows = [_row("decode and encode alone", spent, memory, frames, own)]
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
        for times, spent_on in (
            ("times_floor", "seconds_per_frame"),
            ("times_floor_cpu", "cpu_seconds_per_frame"),
        ):
            row[times] = round(row[spent_on] / rows[0][spent_on], 2)
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
    quality: dict[str, Any],
) -> dict[str, Any]:
    return {
        "what": what,
        "seconds_per_frame": round(spent["wall"] / frames, 4),
        "cpu_seconds_per_frame": round(spent["cpu"] / frames, 4),
        "memory_gb": round(memory / 1e9, 2),
        "stages": spent.get("stages", {}),
        **quality,
    }


# --- the clip ---------------------------------------------------------------------------------


class Room:
    """The rendered room, filmed from the hand."""

    def __init__(self, example: ClipExample) -> None:
        self.example, self.still = example, render(Canvas(*example.size))

    def light(self, frame: int) -> Floats:
        """True light of a frame, (H, W, 3)."""
        return light_of(self.example, self.still, frame)


class Panned:
    """A camera that pans, turns and zooms over an HDR picture; pieces of it move before it."""

    def __init__(self, example: ClipExample, picture: Floats) -> None:
        self.example = example
        usual = float(np.quantile(picture.max(axis=2), 0.6))
        self.picture = np.asarray(picture * np.float32(MIDDLE / usual), np.float32)
        self.rng = np.random.default_rng([example.seed, 7])
        self.pieces = [_piece(self.picture, self.rng) for _ in range(PIECES)]

    def light(self, frame: int) -> Floats:
        """True light of a frame, (H, W, 3): the mean over the time that the shutter is open."""
        moments = [self._moment(frame + SHUTTER * (k + 0.5) / MOMENTS) for k in range(MOMENTS)]
        return np.asarray(np.mean(moments, axis=0), np.float32)

    def _moment(self, time: float) -> Floats:
        import cv2

        width, height = self.example.size
        scene = self.picture.copy()
        for piece in self.pieces:
            piece.put(scene, time)
        zoom = self.picture.shape[0] / height * 0.55 * (1 + 0.12 * np.sin(0.09 * time))
        turn = 0.03 * np.sin(0.21 * time)
        across = self.picture.shape[1] * 0.5 + 80 * np.sin(0.06 * time + 1)
        down = self.picture.shape[0] * 0.5 + 24 * np.sin(0.11 * time)
        cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
        place = np.array([[cos, -sin, across], [sin, cos, down]])
        place[:, 2] -= place[:, :2] @ [(width - 1) / 2, (height - 1) / 2]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(
            cv2.warpAffine(
                scene, place, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT
            )
        )


@dataclass(frozen=True, eq=False)
class Piece:
    """An ellipse cut out of a picture, which moves along a line and swings."""

    light: Floats  # (h, w, 3)
    cover: Floats  # (h, w, 1), 0 to 1
    start: NDArray[np.float64]  # x and y of its corner
    speed: NDArray[np.float64]  # px per frame
    swing: float  # px

    def put(self, scene: Floats, time: float) -> None:
        """Draw it into the scene."""
        import cv2

        high, wide = scene.shape[:2]
        at = self.start + self.speed * time + [0, self.swing * np.sin(0.5 * time)]
        at = at % np.array([wide - self.light.shape[1] - 1, high - self.light.shape[0] - 1])
        left, top = np.floor(at).astype(int)
        shift = np.array([[1, 0, at[0] - left], [0, 1, at[1] - top]])
        size = self.light.shape[1] + 1, self.light.shape[0] + 1
        light = cv2.warpAffine(self.light, shift, size, borderMode=cv2.BORDER_REPLICATE)
        cover = cv2.warpAffine(self.cover, shift, size)[..., None]
        part = scene[top : top + size[1], left : left + size[0]]
        part += cover * (light - part)


def _piece(picture: Floats, rng: np.random.Generator) -> Piece:
    high, wide = (int(side) for side in rng.integers((70, 40), (150, 90)))
    top = int(rng.integers(0, picture.shape[0] - high))
    left = int(rng.integers(0, picture.shape[1] - wide))
    y, x = np.linspace(-1, 1, high)[:, None], np.linspace(-1, 1, wide)
    cover = np.clip((1 - np.hypot(x, y)) * min(high, wide) / 4, 0, 1).astype(np.float32)
    middle = np.array([picture.shape[1], picture.shape[0]]) / 2
    return Piece(
        picture[top : top + high, left : left + wide].copy(),
        cover,
        middle + rng.uniform((-160, -100), (100, 20)),
        rng.uniform((-5, -1), (5, 1)),
        float(rng.uniform(0, 8)),
    )


def scene_of(example: ClipExample, picture: Path | None) -> Room | Panned:
    """What is filmed. Raises FormatError for what is no picture."""
    if picture is None:
        return Room(example)
    frame = formats.read(picture)
    return Panned(example, np.maximum(frame.linear(), 0))


def noisy(codes: Codes, seed: int) -> Codes:
    """Codes with Gaussian noise."""
    import cv2

    cv2.setRNGSeed(seed)
    noise = np.empty(codes.shape, np.int16)
    cv2.randn(noise, (0, 0, 0), (NOISE,) * 3)
    return np.asarray(cv2.add(codes, noise, dtype=cv2.CV_8U), np.uint8)


def made(folder: Path, example: ClipExample, size: tuple[int, int], scene: Room | Panned) -> Path:
    """A clip of the scene, enlarged, with noise, 8 bits H.264; the truth, small, beside it."""
    import av
    import cv2

    path = folder / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=example.rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 1, 13, 1
        context.color_range = 1
        context.options = {"crf": "16", "preset": "veryfast"}
        for i in range(example.frames):
            light = scene.light(i)
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
    """The quality of a backend, from EXR frames."""
    target = folder / f"{backend}-exr"
    video_file(clip, [Target(target, "exr")], VideoOptions(backend=backend))
    names = (target / f"frame_{i:06d}.exr" for i in range(example.frames))
    return compared((reduced(formats.read(name).codes) for name in names), folder, example)


def own_light(clip: Path, example: ClipExample) -> Iterator[Floats]:
    """What every frame says by itself: the light behind its codes."""
    for timed in open_clip(clip).frames():
        yield reduced(timed.frame.linear()) / np.float32(2.0 ** example.ev(timed.index))


def compared(frames: Iterable[Floats], folder: Path, example: ClipExample) -> dict[str, Any]:
    """PSNR-μ by exposure, and flicker where nothing moves, both on reduced pictures."""
    scores, shown, true = Scores(), [], []
    dark = np.float32(2.0 ** min(example.evs()))
    gain: float | None = None
    for i, light in enumerate(frames):
        truth = reduced(np.load(folder / f"{i}.npy"))
        gain = scale_of(light, truth, max(example.evs())) if gain is None else gain
        scores.add(i % example.exposures, psnr_mu(light * np.float32(gain) * dark, truth * dark))
        shown.append(light.mean(axis=2))
        true.append(truth.mean(axis=2))
    change = np.abs(np.diff(np.stack(true), axis=0)) / np.maximum(np.stack(true[1:]), 1e-4)
    still = np.asarray((change < STILL).all(axis=0), bool)
    return {
        "psnr_mu": {k: round(v, 2) for k, v in scores.table(example.evs()).items()},
        "flicker_percent": round(flicker_beyond(shown, true), 3),
        "still_flicker_percent": round(flicker(shown, still), 3) if still.any() else None,
    }


def scale_of(light: Floats, truth: Floats, brightest: float) -> float:
    """The one factor between the clip's scale and the truth's."""
    clear = (truth.max(axis=2) * 2.0**brightest < 0.8) & (truth.min(axis=2) > 0.02)
    return float(np.median(truth[clear] / np.maximum(light[clear], 1e-6)))


def reduced(light: Floats) -> Floats:
    """At the size that is scored."""
    import cv2

    return np.asarray(cv2.resize(light, SCORED, interpolation=cv2.INTER_AREA), np.float32)
