"""A clip to try hdrcli with: the rendered room, filmed with alternating exposures.

The camera alternates its gain, as Magic Lantern does, so that every frame is open equally long.
The true light of every frame is written beside the clip.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from hdrcli import formats
from hdrcli.color import REC709
from hdrcli.errors import InputError
from hdrcli.example.camera import Hand, develop, expose
from hdrcli.example.figures import MOVERS
from hdrcli.example.light import Floats
from hdrcli.example.render import Canvas, Still, render
from hdrcli.formats import WriteOptions
from hdrcli.formats.save import check_target, make_folder, whole
from hdrcli.frames import Radiance
from hdrcli.video.clip import video_errors
from hdrcli.video.encode import EXR_NAME, video_frame
from hdrcli.video.planes import (
    Codes,
    Levels,
    Planes,
    chroma_codes,
    coding_matrix,
    luma_codes,
)

Progress = Callable[[str, float], None]

CLIP, TRUTH = "clip.mp4", "truth"
SHUTTER = 0.5  # of the time from frame to frame
BRIGHTEST = 1.0  # stops above the photograph's reference, of the brightest exposure
STEADIER = 0.35  # a filming hand, against a photographing one
SRGB_TAGS = (1, 13, 1)  # primaries, transfer, matrix of ITU-T H.273


@dataclass(frozen=True)
class ClipExample:
    """What to film, and how."""

    frames: int = 24
    exposures: int = 2
    ev_step: float = 3.0
    size: tuple[int, int] = (640, 360)  # width, height
    seed: int = 0
    static: bool = False
    rate: Fraction = Fraction(24)

    def evs(self) -> tuple[float, ...]:
        """Stops of one period, darkest first; 0 is white at 1.0 in the truth."""
        return tuple(
            BRIGHTEST - self.ev_step * (self.exposures - 1 - i) for i in range(self.exposures)
        )

    def ev(self, frame: int) -> float:
        """Stops of a frame."""
        return self.evs()[frame % self.exposures]


class _Calm(Hand):
    """A hand that shakes less."""

    def angles(self, seconds: float) -> np.ndarray:
        """See Hand."""
        return np.asarray(STEADIER * super().angles(seconds))


def light_of(example: ClipExample, still: Still, frame: int) -> Floats:
    """True light of a frame, (H, W, 3): 1.0 is the white of an exposure at 0 EV."""
    interval = float(1 / example.rate)
    hand = _Calm(example.seed, steady=example.static)
    movers = () if example.static else MOVERS
    return expose(still, movers, hand, frame * interval, SHUTTER * interval)


def filmed(example: ClipExample, light: Floats, frame: int) -> Codes:
    """The codes of a frame, (H, W, 3) uint8, sRGB."""
    rng = np.random.default_rng([example.seed, 3, frame])
    return develop(light, 2.0 ** example.ev(frame), rng)


def write_clip(
    folder: Path,
    example: ClipExample,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write clip.mp4 and truth/frame_000000.exr and so on. Returns the paths, the clip first."""
    say = progress or (lambda _stage, _done: None)
    if example.size[0] % 2 or example.size[1] % 2:
        raise InputError("a clip's width and height are even numbers")
    clip, truth = folder / CLIP, folder / TRUTH
    make_folder(truth)
    check_target(clip, overwrite=overwrite)
    paths = [truth / EXR_NAME.format(i) for i in range(example.frames)]
    for path in paths:
        formats.check_output(path, overwrite=overwrite)
    say("scene", 0.0)
    still = render(Canvas(*example.size))
    with video_errors(clip), whole(clip, overwrite=overwrite) as temporary:
        _write(temporary, example, still, paths, overwrite=overwrite, say=say)
    return [clip, *paths]


def _write(
    temporary: Path,
    example: ClipExample,
    still: Still,
    paths: list[Path],
    *,
    overwrite: bool,
    say: Progress,
) -> None:
    import av

    with av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=example.rate)
        stream.width, stream.height = example.size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = SRGB_TAGS
        context.color_range = 1
        context.options = {"crf": "8", "preset": "fast"}
        for i, path in enumerate(paths):
            light = light_of(example, still, i)
            frame = video_frame(planes_of(filmed(example, light, i)), "yuv420p")
            frame.pts = i
            container.mux(stream.encode(frame))
            formats.write(
                path,
                Radiance(light),
                overwrite=overwrite,
                options=WriteOptions(exr_type="float"),
                attributes={"comments": "true light; 1.0 is white at 0 EV"},
            )
            say("frames", (i + 1) / len(paths))
        container.mux(stream.encode(None))


def planes_of(codes: Codes, levels: Levels | None = None, *, topleft: bool = False) -> Planes:
    """Y', Cb and Cr of full-range R'G'B' codes, (H, W, 3) uint8, even sizes, BT.709, 4:2:0."""
    import cv2

    levels = levels or Levels(8)
    mixed = cv2.transform(codes.astype(np.float32) / np.float32(255), coding_matrix(REC709))
    luma, blue, red = cv2.split(mixed)
    return (
        luma_codes(luma, levels),
        chroma_codes(blue, levels, topleft=topleft),
        chroma_codes(red, levels, topleft=topleft),
    )
