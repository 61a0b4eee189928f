"""The camera: exposure, photon and read noise, response curve, 8 bits, JPEG.

Signals are scene-linear, 1.0 being the level at which the frame itself clips.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hdrcli.train.scenes.dice import Dice

_STEPS = 4096  # entries of an encoding table, even in the square root of the signal
Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Response:
    """One camera's response, per channel, in both directions."""

    name: str
    encode: Tensor  # (3, 4096) code in [0, 1] of a signal whose square root is even in [0, 1]
    decode: Tensor  # (256, 3) signal in [0, 1] of a code


def srgb(signal: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: the code in [0, 1] of a signal in [0, 1]."""
    low = 12.92 * signal
    return np.where(signal <= 0.0031308, low, 1.055 * np.maximum(signal, 1e-9) ** (1 / 2.4) - 0.055)


def _s_curve(strength: float, middle: float) -> Curve:
    """sRGB, then a logistic that steepens the middle: a picture style."""
    low, high = 1 / (1 + np.exp(strength * middle)), 1 / (1 + np.exp(-strength * (1 - middle)))

    def curve(signal: np.ndarray) -> np.ndarray:
        bent = 1 / (1 + np.exp(-strength * (srgb(signal) - middle)))
        return np.asarray((bent - low) / (high - low))

    return curve


def _toned(strength: float) -> Curve:
    """sRGB mixed with a smooth step of it."""

    def curve(signal: np.ndarray) -> np.ndarray:
        code = srgb(signal)
        return np.asarray((1 - strength) * code + strength * code * code * (3 - 2 * code))

    return curve


def _power(gamma: float) -> Curve:
    return lambda signal: np.asarray(signal ** (1 / gamma))


_KINDS: dict[str, Callable[[Dice], Curve]] = {
    "srgb": lambda dice: srgb,
    "gamma": lambda dice: _power(dice.uniform(1.8, 2.4)),
    "tone": lambda dice: _toned(dice.uniform(0.2, 0.9)),
    "style": lambda dice: _s_curve(dice.uniform(1.5, 5.0), dice.uniform(0.4, 0.6)),
}


def response(dice: Dice, kind: str) -> Response:
    """Return a response of a kind: srgb, gamma, tone (smooth step on sRGB), style (logistic).

    One in five of the others differs a little between the channels.
    """
    curve = _KINDS[kind](dice)
    bend = 0.03 if kind != "srgb" and dice.chance(0.2) else 0.0
    signal = np.linspace(0.0, 1.0, _STEPS) ** 2
    encode = np.stack([np.clip(curve(signal), 0, 1) ** (1 + dice.normal(bend)) for _ in range(3)])
    codes = np.arange(256) / 255.0
    root = np.sqrt(signal)
    decode = np.stack([np.interp(codes, channel, root) ** 2 for channel in encode], -1)
    return Response(kind, torch.from_numpy(encode).float(), torch.from_numpy(decode).float())


def sensor(light: Tensor, noise: Tensor, dice: Dice) -> Tensor:
    """Return light (B, N, 3, H, W) as a sensor records it, clipped to [0, 1].

    `noise` (B, 2): photon and read noise, variance = a × signal + b.
    """
    photon, read = noise.view(-1, 2, 1, 1, 1, 1).unbind(1)
    variance = light.clamp_max(1.5).mul_(photon).add_(read)
    return variance.sqrt_().mul_(dice.noise_like(light)).add_(light).clamp_(0.0, 1.0)


def develop(signal: Tensor, encode: Tensor) -> Tensor:
    """Return codes in [0, 1] of a signal in [0, 1], (B, N, 3, H, W), by tables (B, 3, 4096)."""
    index = signal.sqrt().mul_(_STEPS - 1).add_(0.5).int()
    return _look_up(encode, index)


def linearise(codes: Tensor, decode: Tensor) -> Tensor:
    """Return the signal in [0, 1] of uint8 codes (B, N, 3, H, W) by tables (B, 256, 3)."""
    return _look_up(decode.transpose(1, 2), codes.int())


def linearise_fine(codes: Tensor, decode: Tensor) -> Tensor:
    """Return the signal of unquantised codes in [0, 1] (B, N, 3, H, W), between table entries."""
    at = codes * 255.0
    low = at.floor().clamp_(0, 254)
    tables = decode.transpose(1, 2)
    dark, bright = _look_up(tables, low.int()), _look_up(tables, low.int() + 1)
    return dark + (at - low) * (bright - dark)


def _look_up(tables: Tensor, index: Tensor) -> Tensor:
    """Read tables (B, 3, T) at index (B, N, 3, H, W)."""
    batch, channels, length = tables.shape
    start = torch.arange(batch * channels, device=index.device, dtype=torch.int32) * length
    index = index + start.view(batch, 1, channels, 1, 1)
    return tables.reshape(-1).index_select(0, index.reshape(-1)).view(index.shape)


def through_jpeg(frames: Tensor, quality: int, *, full_colour: bool) -> Tensor:
    """Return uint8 frames (N, 3, H, W) after a round trip through JPEG.

    `full_colour` keeps colour at full resolution (4:4:4); otherwise 4:2:0.
    """
    import cv2

    sampling = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        if full_colour
        else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    )
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    pictures = frames.flip(1).permute(0, 2, 3, 1).contiguous().cpu().numpy()  # BGR
    decoded = np.empty_like(pictures)
    for picture, back in zip(pictures, decoded, strict=True):
        encoded = cv2.imencode(".jpg", picture, options)[1]
        back[:] = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).flip(1).to(frames.device)
