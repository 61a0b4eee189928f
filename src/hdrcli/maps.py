"""Maps to look at: why a merge is what it is. Aligned frames, weights, ghost and clip masks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import formats, strips
from hdrcli.backends.average import Average, summed, tops_of
from hdrcli.backends.registry import Settings
from hdrcli.formats.save import make_folder
from hdrcli.frames import Bracket, Codes, Frame
from hdrcli.motion import Motion
from hdrcli.strips import Placement

Floats = NDArray[np.float32]


def aligned(frame: Frame, rows: slice | None = None) -> Frame:
    """The frame resampled to the reference by its homography; it has none any more."""
    wanted = rows or slice(0, frame.size[0])
    codes, valid = Placement(frame).codes(wanted)
    return replace(frame, codes=codes, valid=valid, warp=None)


def ghost_mask(bracket: Bracket, motion: Motion) -> Floats:
    """How little the least believed frame is believed, (H, W) in [0, 1], 1 is a ghost."""
    believed = [c for c in motion.confidence if c is not None]
    if not believed:
        return np.zeros(bracket.size, np.float32)
    least = np.min(believed, axis=0)
    return 1 - strips.upsample(least, motion.scale, slice(0, bracket.size[0]), bracket.size[1])


def clip_mask(bracket: Bracket, motion: Motion) -> Floats:
    """1 where even the shortest frame clips, (H, W): the light there is a lower bound."""
    frame = bracket.frames[0]
    if not frame.levels:
        return np.zeros(bracket.size, np.float32)
    placement = Placement(frame, motion.flows[0], motion.scale)
    out = np.empty(bracket.size, np.float32)

    def work(rows: slice) -> None:
        codes, _ = placement.codes(rows)
        out[rows] = strips.largest(codes) >= frame.clip * (frame.levels - 1)

    strips.run(work, bracket.size)
    return out


def weights(bracket: Bracket, motion: Motion) -> list[Floats]:
    """The part of the result that each frame gives, (H, W) in [0, 1]; they add up to 1."""
    sources = Average(Settings()).sources(bracket, motion)
    shares = np.empty((len(sources), *bracket.size), np.float32)

    def work(rows: slice) -> None:
        total = np.empty((rows.stop - rows.start, bracket.size[1], 4), np.float32)
        tops = tops_of(bracket.ref, rows)
        for source, share in zip(sources, shares, strict=True):
            share[rows] = summed([source.seen(rows)], total, tops)[..., 3]
        shares[:, rows] /= shares[:, rows].sum(axis=0)

    strips.run(work, bracket.size)
    return list(shares)


def layers(
    bracket: Bracket, motion: Motion, window: tuple[slice, slice] | None = None
) -> dict[str, Floats]:
    """Extra channels for an EXR: all of the picture, or the rows and columns of a window."""
    shares = weights(bracket, motion)
    named = {f"weight.{i:02d}": share for i, share in enumerate(shares)}
    channels = {
        "ghost.Y": ghost_mask(bracket, motion),
        "clip.Y": clip_mask(bracket, motion),
        "source.index": np.argmax(shares, axis=0).astype(np.float32),
        **named,
    }
    if window is None:
        return channels
    return {name: np.ascontiguousarray(plane[window]) for name, plane in channels.items()}


def write_debug(
    folder: Path, bracket: Bracket, motion: Motion, window: tuple[slice, slice] | None = None
) -> list[Path]:
    """Write every map as a PNG into ``folder``, made if it is not there. Replaces older maps.

    ``window``: the rows and columns that are shown, if not all.
    """
    make_folder(folder)
    pictures: dict[str, Codes] = {
        "ghost": grey(ghost_mask(bracket, motion)),
        "clip": grey(clip_mask(bracket, motion)),
    }
    whole = slice(0, bracket.size[0])
    shares = weights(bracket, motion)
    for i, frame in enumerate(bracket.frames):
        placement = Placement(frame, motion.flows[i], motion.scale)
        pictures[f"weight_{i + 1:02d}"] = grey(shares[i])
        pictures[f"aligned_{i + 1:02d}"] = eight_bits(aligned(frame).codes)
        if motion.flows[i] is not None:
            pictures[f"flowed_{i + 1:02d}"] = eight_bits(placement.codes(whole)[0])
    written = []
    for name, codes in pictures.items():
        path = folder / f"{name}.png"
        codes = codes if window is None else np.ascontiguousarray(codes[window])
        formats.write_display_codes(path, codes, overwrite=True)
        written.append(path)
    return written


def grey(values: Floats) -> Codes:
    """A map in [0, 1] as a grey picture."""
    codes = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(codes[..., None], 3, axis=2))


def eight_bits(codes: Codes) -> NDArray[Any]:
    """Codes of any depth as eight bits, to look at."""
    if codes.dtype == np.uint8:
        return np.ascontiguousarray(codes)
    if codes.dtype == np.uint16:
        return np.asarray(codes >> 8, np.uint8)
    encoded = np.clip(np.nan_to_num(codes), 0, 1) ** (1 / 2.2)
    return np.asarray(np.rint(encoded * 255), np.uint8)


def reduced(codes: Codes, size: int | None) -> Codes:
    """The picture with its longer side at most ``size`` pixels."""
    import cv2

    height, width = codes.shape[:2]
    if size is None or max(height, width) <= size:
        return codes
    scale = size / max(height, width)
    target = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(codes, target, interpolation=cv2.INTER_AREA))
