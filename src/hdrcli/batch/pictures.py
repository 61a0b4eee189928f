"""Small pictures of a merge for the report: before, naive, after, ghosts, clipping, frames."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import maps, tonemap
from hdrcli.formats import jpeg
from hdrcli.frames import Codes, DisplayImage, Frame, Radiance
from hdrcli.motion import warped
from hdrcli.pipeline import Merged, MergeOptions, Window, tone_plan
from hdrcli.sights import look
from hdrcli.stakes import Stakes, ends_of

Floats = NDArray[np.float32]

SIDE = 600  # pixels, the longer side of the pictures that are compared
FRAME_SIDE = 160
QUALITY = 78
MOVED = 0.001  # fraction of the picture from which a mask is worth showing


def pictures(merged: Merged, options: MergeOptions) -> dict[str, Any]:
    """JPEG pictures as base64 text, of one size but the frames; masks only where they show."""
    bracket = merged.bracket
    small = [maps.reduced(maps.eight_bits(frame.codes), SIDE) for frame in merged.framed]
    result, naive = _compared(merged, options, small)
    masks = {
        "ghost": moved_mask(merged),
        "clip": _clipped(small[0]),
    }
    shown = {name: mask for name, mask in masks.items() if (mask > 0.5).mean() > MOVED}
    return {
        "result": _encoded(result),
        "naive": _encoded(naive),
        "reference": _encoded(small[bracket.reference]),
        "frames": [_encoded(maps.reduced(codes, FRAME_SIDE)) for codes in small],
        **{name: _encoded(maps.grey(_fitted(mask, result))) for name, mask in shown.items()},
        "size": [result.shape[1], result.shape[0]],
    }


def _encoded(codes: Codes) -> str:
    return base64.b64encode(jpeg.encode(codes, quality=QUALITY)).decode("ascii")


def _compared(merged: Merged, options: MergeOptions, small: list[Codes]) -> tuple[Codes, Codes]:
    """The result, and the frames merged as they lie, through the same tone curve."""
    image = merged.image
    if isinstance(image, DisplayImage):
        codes = np.rint(np.clip(image.pixels, 0, 1) * 255).astype(np.uint8)
        mean = np.mean([codes.astype(np.float32) for codes in small], axis=0)
        return maps.reduced(codes, SIDE), np.rint(mean).astype(np.uint8)
    light = _light(image)
    plan = tone_plan(image, options)
    naive = naive_merge(merged.framed, merged.bracket.ratios, light.pixels.shape[:2])
    if options.anchor == "absolute":
        naive = naive / np.float32(merged.bracket.ref.exposure or 1.0)
    shown = Radiance(naive, merged.bracket.ref.primaries, light.exposure)
    return (
        np.asarray(tonemap.tonemap_codes(light, plan)),
        np.asarray(tonemap.tonemap_codes(shown, plan)),
    )


def _light(image: Radiance) -> Radiance:
    pixels = maps.reduced(np.asarray(image.pixels, np.float32), SIDE)
    return Radiance(np.asarray(pixels, np.float32), image.primaries, image.exposure)


def naive_merge(frames: list[Frame], ratios: NDArray[np.float64], size: tuple[int, ...]) -> Floats:
    """What merging without alignment and deghosting gives, (h, w, 3), 1.0 the reference's white.

    Weighted by a hat over the codes (Debevec and Malik 1997, eq. 4) and by exposure.
    """
    import cv2

    total = np.zeros((size[0], size[1], 3), np.float32)
    weight = np.full((size[0], size[1], 1), 1e-6, np.float32)
    for i, (frame, ratio) in enumerate(zip(frames, ratios, strict=True)):
        step = max(1, round(min(frame.size) / min(size[:2])))  # one of them is enough
        light = np.ascontiguousarray(frame.linear(slice(None, None, step), slice(None, None, step)))
        light = cv2.resize(light, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        code = np.sqrt(light.max(axis=2, keepdims=True))
        hat = np.clip(1 - np.abs(2 * code - 1), 0.02, 1)
        hat[code > 0.98] = 1e-3 if i else 1.0  # where all clip, the darkest counts
        share = (hat * ratio).astype(np.float32)
        total += share * light / np.float32(ratio)
        weight += share
    return np.asarray(total / weight, np.float32)


def moved_mask(merged: Merged) -> Floats:
    """1 where something moved: where what the merge believes shows (stakes.py), (h, w).

    Asked again on a small picture, as the merge keeps the share alone; the same frames, flow and
    belief give the same answer.
    """
    bracket, motion = merged.bracket, merged.motion
    if all(belief is None for belief in motion.confidence):
        return np.zeros((1, 1), np.float32)
    shrink = min(1.0, SIDE / max(bracket.size))
    size = max(1, round(bracket.size[0] * shrink)), max(1, round(bracket.size[1] * shrink))
    stakes = Stakes(size, (motion.noise[0].shot, motion.noise[0].read))
    for i, frame in enumerate(bracket.frames):
        still, flow = look(frame, float(bracket.ratios[i]), size), motion.flows[i]
        moved = still if flow is None else warped(still, _flow_at(flow, size))
        stakes.add(still, moved, motion.confidence[i], ends_of(frame), shortest=i == 0)
    mask = stakes.moved().astype(np.float32)
    return mask if merged.window is None else _windowed(mask, merged.window, shrink)


def _flow_at(flow: Floats, size: tuple[int, int]) -> Floats:
    """A flow on a picture of another size (height, width), in that picture's pixels."""
    import cv2

    scale = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]], np.float32)
    return np.asarray(cv2.resize(flow, size[::-1], interpolation=cv2.INTER_AREA) * scale)


def _windowed(mask: Floats, window: Window, shrink: float) -> Floats:
    rows, cols = (slice(int(cut.start * shrink), int(cut.stop * shrink)) for cut in window)
    part = mask[rows, cols]
    return part if part.size else mask


def _clipped(darkest: Codes) -> Floats:
    """Where even the darkest photograph is white."""
    return np.asarray(darkest.max(axis=2) >= 250, np.float32)


def _fitted(mask: Floats, like: Codes) -> Floats:
    import cv2

    size = (like.shape[1], like.shape[0])
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR), np.float32)
