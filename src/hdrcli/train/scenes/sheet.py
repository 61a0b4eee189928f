"""A contact sheet: what the generator makes, for people to look at."""

import numpy as np
import torch
from torch import Tensor

from hdrcli.train.scenes.brackets import Batch
from hdrcli.train.scenes.camera import srgb

_GAP = 2  # pixels between pictures
_MARK = np.array([255, 160, 0], np.uint8)


def contact_sheet(batch: Batch) -> np.ndarray:
    """Return an RGB picture (rows, columns, 3) uint8: one row for each bracket of the batch.

    The frames as the camera wrote them, the reference under an orange bar; then the true
    radiance, tone-mapped; then where things moved.
    """
    rows = []
    for b in range(batch.codes.shape[0]):
        frames = [_picture(frame) for frame in batch.codes[b]]
        frames[int(batch.reference[b])][:4] = _MARK
        moving = (batch.moving[b].expand(3, -1, -1) * 255.0).round().to(torch.uint8)
        cells = [*frames, tone_mapped(batch.radiance[b]), _picture(moving)]
        rows.append(np.concatenate([_framed(cell) for cell in cells], axis=1))
    return np.concatenate(rows, axis=0)


def tone_mapped(radiance: Tensor) -> np.ndarray:
    """Return (H, W, 3) uint8 of radiance (3, H, W): Reinhard's global curve, then sRGB."""
    light = radiance.permute(1, 2, 0).cpu().numpy()
    luma = light.mean(-1, keepdims=True)
    white = max(float(np.quantile(luma, 0.999)), 1.0)
    scaled = 2.0 * luma
    mapped = scaled * (1.0 + scaled / (2.0 * white) ** 2) / (1.0 + scaled)
    shown = light * mapped / np.maximum(luma, 1e-9)
    return np.round(255.0 * srgb(np.clip(shown, 0.0, 1.0))).astype(np.uint8)


def _picture(frame: Tensor) -> np.ndarray:
    return frame.permute(1, 2, 0).contiguous().cpu().numpy().copy()


def _framed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)))
