"""Windows of video, and of brackets, as DeepHDRVideo without a flow net gets them.

It begins where the classical merge ends, so its samples carry that merge's motion: frames come
moved to the one in the middle by the very code that merges clips and photographs, with the belief
in each, and so with all the errors that these make. Most windows of video are compressed as video.
"""

import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hdrcli import motion
from hdrcli.backends.arrange import WINDOWS, Stack
from hdrcli.frames import Bracket, Codes, Frame, Response
from hdrcli.train.priors import bracket_of, monotone
from hdrcli.train.scenes import Batch
from hdrcli.train.scenes.dice import Dice
from hdrcli.video.clip import Timed, open_clip
from hdrcli.video.encode import video_frame
from hdrcli.video.example import SRGB_TAGS, planes_of
from hdrcli.video.neural import stack_of
from hdrcli.video.windows import windows

COMPRESSED = 0.8  # of the windows of video, as video
STILL_CODED = 0.2  # of them, frame by frame as JPEG
QUALITY = (10, 24)  # x264's crf
PRESETS = ("veryfast", "fast", "medium")
DEGHOST = "medium"


def of_clips(batch: Batch, period: int, dice: Dice) -> tuple[Tensor, Tensor]:
    """Moved windows of a batch of video: linear light and belief (B, N, 4, H, W), ratios (B, N)."""
    return _stacked(batch, lambda item: clip_stack(batch, item, period, dice))


def of_brackets(batch: Batch, frames: int) -> tuple[Tensor, Tensor]:
    """The same of a batch of brackets of two or three, whose frames come repeatedly."""
    return _stacked(batch, lambda item: bracket_stack(batch, item, frames))


def _stacked(batch: Batch, stack: Callable[[int], Stack]) -> tuple[Tensor, Tensor]:
    found = [seen(stack(item)) for item in range(len(batch.codes))]
    light, ratios = (torch.stack(parts) for parts in zip(*found, strict=True))
    device = batch.radiance.device
    return light.to(device), ratios.to(device)


def seen(stack: Stack) -> tuple[Tensor, Tensor]:
    """What a network is shown of a stack: (N, 4, H, W) and ratios (N,)."""
    light = torch.from_numpy(stack.light(slice(None), slice(None)))[stack.order]
    return light.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(stack.ratios)


def clip_stack(batch: Batch, item: int, period: int, dice: Dice) -> Stack:
    """The window around the middle of a generated clip, its motion found as for any clip."""
    codes = [frame.permute(1, 2, 0).cpu().numpy() for frame in batch.codes[item]]
    codes = [np.ascontiguousarray(frame) for frame in codes]
    if dice.chance(COMPRESSED):
        codes = through_h264(codes, dice.integer(*QUALITY), dice.pick(list(PRESETS)))
    response = Response("told", monotone(batch.told_decode[item].cpu().numpy()))
    told, middle = batch.exposures[item].tolist(), len(codes) // 2
    of_key = {n % period: told[n] for n in range(middle - period + 1, middle + 1)}
    frames = [
        Timed(
            Frame(frame, response, exposure=of_key[n % period], name=f"{n}"), n, n, key=n % period
        )
        for n, frame in enumerate(codes)
    ]
    window = list(windows(frames, period, {key: key for key in of_key}))[middle]
    return stack_of(window, middle, DEGHOST, threads=1)


def bracket_stack(batch: Batch, item: int, frames: int) -> Stack:
    """A window of so many frames made of a bracket, as ``backends.arrange.window`` makes it."""
    bracket: Bracket = bracket_of(batch, item)
    order = WINDOWS[len(bracket.frames)]
    cut = (len(order) - frames) // 2
    of_place = {0: 0, 1: 1, 2: 2}
    if len(bracket.frames) == 2:
        of_place = {0: 1 - bracket.reference, 1: bracket.reference}
    places = tuple(of_place[place] for place in order[cut : len(order) - cut])
    return Stack(bracket, places, motion.analyse(bracket, DEGHOST), flow=True, threads=1)


def through_h264(frames: Sequence[Codes], crf: int, preset: str) -> list[Codes]:
    """Frames (H, W, 3) uint8, of even sides, after a round trip through 4:2:0 H.264."""
    import av

    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory(prefix="hdrcli-train-") as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(24))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace = SRGB_TAGS
            context.color_range = 1
            context.options = {"crf": str(crf), "preset": preset, "threads": "1"}
            for n, codes in enumerate(frames):
                frame = video_frame(planes_of(codes), "yuv420p")
                frame.pts = n
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return [timed.frame.codes for timed in open_clip(path).frames()]
