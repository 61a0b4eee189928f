"""HDR pictures as raw material: views, crops, composites, procedural textures and lights.

Every picture here is scene-linear radiance of arbitrary scale, (3, H, W) float32, never
negative and finite; `expose` brings it to the scale of a reference frame.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from hdrcli.errors import FormatError, InputError
from hdrcli.train.scenes.dice import Dice

_LUMA = (0.2126, 0.7152, 0.0722)
_BRIGHTEST = 60000.0  # half float ends at 65504


@dataclass(frozen=True)
class Picture:
    """One HDR picture with its mip levels, each (3, h, 1 + w + 1) half, wrapped or repeated.

    The extra column on either side lets a panorama be read across its seam.
    """

    name: str
    levels: tuple[Tensor, ...]
    panorama: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture in pixels."""
        _, height, width = self.levels[0].shape
        return height, width - 2

    def sample(self, x: Tensor, y: Tensor, footprint: float) -> Tensor:
        """Read the picture at pixel positions x, y (h, w); `footprint` is their spacing.

        Positions are in pixels of the full picture, the first pixel's centre at 0.5;
        outside, a panorama wraps around and a photograph is mirrored.
        """
        height, width = self.size
        if self.panorama:
            x = torch.remainder(x, width)
        index = min(max(round(math.log2(max(footprint, 1.0))), 0), len(self.levels) - 1)
        level = self.levels[index]
        rows, columns = level.shape[1:]
        x, y = x * ((columns - 2) / width) + 1.0, y * (rows / height)
        # Only the part that is looked at becomes float: whole levels would take most of the time.
        top, y = _window(y, rows)
        left, x = _window(x, columns)
        part = level[:, top, left].float()[None]
        grid = torch.stack((x * (2.0 / part.shape[-1]), y * (2.0 / part.shape[-2])), -1)[None] - 1.0
        return F.grid_sample(part, grid, padding_mode="reflection", align_corners=False)[0]


def _window(positions: Tensor, length: int) -> tuple[slice, Tensor]:
    """The part of an axis that positions need, and the positions within it."""
    first, last = (float(v) for v in positions.aminmax())
    if first < 0.5 or last > length - 0.5:  # mirrored at the picture's own border
        return slice(0, length), positions
    start = int(first - 0.5)
    return slice(start, min(int(last) + 2, length)), positions - start


class Scenes:
    """All HDR pictures (.exr, .hdr, .npy) under a folder, in memory, ready to be photographed.

    Raises InputError where the folder holds none, FormatError where one cannot be read.
    """

    def __init__(
        self, folder: Path, *, device: str | torch.device = "cpu", only: slice | None = None
    ) -> None:
        paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in _READERS)
        paths = paths[only] if only is not None else paths
        if not paths:
            raise InputError(
                f"{folder}: no .exr, .hdr or .npy pictures",
                hint="name a folder of HDR panoramas or photographs",
            )
        self.device = torch.device(device)
        self.pictures = [_load(path, self.device) for path in paths]

    def texture(self, dice: Dice, height: int, width: int) -> Tensor:
        """Return a textured area (3, height, width) of mean 1, without extreme lights."""
        if dice.chance(0.25):
            area = procedural(dice, height, width, self.device)
        else:
            picture = dice.pick(self.pictures)
            area = plain_crop(picture, dice, height, width, (0.25, 2.5))
        area = area / area.mean().clamp_min(1e-6)
        return recolour(area.clamp_max(12.0), dice, strength=0.35)

    def background(self, dice: Dice, height: int, width: int) -> Tensor:
        """Return a scene (3, height, width): a view, a crop, a composite, or made up."""
        scene = self._plain(dice, height, width)
        if dice.chance(0.2):
            scene = composite(scene, self._plain(dice, height, width), dice)
        if dice.chance(0.25):
            scene = scene * detail(dice, height, width, self.device)
        scene = recolour(scene, dice, strength=0.2)
        if dice.chance(0.15):
            scene = scene + lamps(dice, scene)
        return scene.clamp(0.0, _BRIGHTEST)

    def _plain(self, dice: Dice, height: int, width: int) -> Tensor:
        if dice.chance(0.12):
            return procedural(dice, height, width, self.device)
        picture = dice.pick(self.pictures)
        if picture.panorama and dice.chance(0.5):
            scene = perspective_view(picture, dice, height, width)
        else:
            scene = plain_crop(picture, dice, height, width, (0.6, 3.0))
        return _mirrored(scene, dice)


def _load(path: Path, device: torch.device) -> Picture:
    pixels = _READERS[path.suffix.lower()](path)
    pixels = np.nan_to_num(pixels, nan=0.0, posinf=_BRIGHTEST, neginf=0.0)
    level = torch.from_numpy(pixels).permute(2, 0, 1).clamp(0.0, _BRIGHTEST)
    height, width = level.shape[1:]
    panorama = width == 2 * height
    levels = []
    while True:
        mode = "circular" if panorama else "replicate"
        levels.append(F.pad(level[None], (1, 1, 0, 0), mode=mode)[0].half().to(device))
        if min(level.shape[1:]) < 64:
            return Picture(path.stem, tuple(levels), panorama)
        level = F.avg_pool2d(level[None], 2)[0]


def _read_exr(path: Path) -> np.ndarray:
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {n.split(".")[-1]: c.pixels for n, c in file.channels().items()}
            return np.stack([np.asarray(channels[c], np.float32) for c in "RGB"], -1)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path}: not a readable OpenEXR picture with R, G and B ({error})",
            hint="take it out of the folder, or write it again as RGB",
        ) from error


def _read_rgbe(path: Path) -> np.ndarray:
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3:
        raise FormatError(
            f"{path}: not a readable Radiance picture",
            hint="take it out of the folder, or write it again",
        )
    return np.ascontiguousarray(pixels[..., ::-1], dtype=np.float32)


def _read_array(path: Path) -> np.ndarray:
    """(H, W, 3), or the middle one of (N, H, W, 3), as DeepHDRVideo's patches of HDR videos."""
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable array ({error})") from error
    if pixels.ndim == 4 and len(pixels):
        pixels = pixels[len(pixels) // 2]
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype.kind not in "fiu":
        raise FormatError(
            f"{path}: an array of {pixels.shape} is no picture", hint="(H, W, 3) or (N, H, W, 3)"
        )
    return np.ascontiguousarray(pixels, dtype=np.float32)


_READERS: Mapping[str, Callable[[Path], np.ndarray]] = MappingProxyType(
    {".exr": _read_exr, ".hdr": _read_rgbe, ".npy": _read_array}
)


def pixel_grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x and y (height, width) of pixel centres: 0.5, 1.5, …."""
    y = torch.arange(height, device=device) + 0.5
    x = torch.arange(width, device=device) + 0.5
    return x.expand(height, width), y[:, None].expand(height, width)


def plain_crop(
    picture: Picture,
    dice: Dice,
    height: int,
    width: int,
    scales: tuple[float, float],
    tilted: float = 0.3,
) -> Tensor:
    """Return a crop, enlarged (scale < 1) or reduced (> 1); `tilted` is how often it is turned."""
    rows, columns = picture.size
    scale = min(dice.log_uniform(*scales), rows / height, columns / width)
    turn = dice.normal(0.15) if dice.chance(tilted) else 0.0
    if turn == 0.0 and dice.chance(0.5):
        scale = 1.0 if min(rows / height, columns / width) >= 1.0 else scale
    left = dice.uniform(0.0, max(columns - scale * width, 0.0))
    top = dice.uniform(0.0, max(rows - scale * height, 0.0))
    if scale == 1.0:  # pixel on pixel: as sharp as the picture is
        left, top = math.floor(left), math.floor(top)
    x, y = pixel_grid(height, width, picture.levels[0].device)
    x, y = x * scale, y * scale
    if turn:
        cx, cy = scale * width / 2, scale * height / 2
        cos, sin = math.cos(turn), math.sin(turn)
        x, y = (
            cx + cos * (x - cx) - sin * (y - cy),
            cy + sin * (x - cx) + cos * (y - cy),
        )
    return picture.sample(x + left, y + top, scale)


def perspective_view(picture: Picture, dice: Dice, height: int, width: int) -> Tensor:
    """Return what a camera inside a panorama sees, at any yaw, pitch, roll and focal length."""
    rows, columns = picture.size
    density = columns / (2 * math.pi)  # panorama pixels per radian
    focal = max(density / dice.log_uniform(0.5, 2.5), 0.4 * max(height, width))
    yaw, pitch = dice.uniform(-math.pi, math.pi), max(-1.2, min(1.2, dice.normal(0.35)))
    roll = dice.normal(0.08)
    x, y = pixel_grid(height, width, picture.levels[0].device)
    x, y = (x - width / 2) / focal, (y - height / 2) / focal
    x, y = math.cos(roll) * x - math.sin(roll) * y, math.sin(roll) * x + math.cos(roll) * y
    depth = math.cos(pitch) - math.sin(pitch) * y
    down = math.sin(pitch) + math.cos(pitch) * y
    longitude = torch.atan2(x, depth) + yaw
    latitude = torch.atan2(down, torch.sqrt(x * x + depth * depth))
    return picture.sample(
        (longitude / (2 * math.pi) + 0.5) * columns,
        ((latitude / math.pi) + 0.5) * rows,
        density / focal,
    )


def _mirrored(scene: Tensor, dice: Dice) -> Tensor:
    if dice.chance(0.5):
        scene = scene.flip(-1)
    return scene.flip(-2) if dice.chance(0.1) else scene


def recolour(scene: Tensor, dice: Dice, *, strength: float) -> Tensor:
    """Return the scene with other colour balance, saturation and contrast."""
    gains = torch.exp(strength * dice.randn(3)).to(scene.device)
    scene = scene * gains[:, None, None]
    if dice.chance(0.1):
        scene = scene[dice.permutation(3)]
    weights = torch.tensor(_LUMA, device=scene.device)[:, None, None]
    luma = (scene * weights).sum(0, keepdim=True).clamp_min(1e-5)
    saturation = dice.uniform(0.3, 1.3)
    scene = (luma + saturation * (scene - luma)).clamp_min(0.0)
    contrast = dice.uniform(0.75, 1.35)
    return scene * luma.pow(contrast - 1.0) if dice.chance(0.6) else scene


def value_noise(dice: Dice, height: int, width: int, cell: float, device: torch.device) -> Tensor:
    """Return smooth noise (height, width), about normal, with features of `cell` pixels."""
    rows, columns = max(2, round(height / cell)) + 1, max(2, round(width / cell)) + 1
    coarse = dice.randn(1, 1, rows, columns).to(device)
    if (rows, columns) >= (height, width):
        return coarse[0, 0, :height, :width]
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0, 0]


def fractal(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """Return noise (height, width) of several octaves, standard deviation about 1."""
    finest = dice.log_uniform(1.0, 6.0)
    roughness = dice.uniform(0.4, 1.1)
    total = torch.zeros(height, width, device=device)
    cell, weight, power = finest, 1.0, 0.0
    while cell < max(height, width):
        total = total + weight * value_noise(dice, height, width, cell, device)
        power += weight * weight
        cell, weight = cell * 2.2, weight * 2.2**roughness
    return total / (0.7 * math.sqrt(max(power, 1e-6)))


def detail(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """Return a fine multiplicative texture (1, height, width) around 1."""
    noise = fractal(dice, height, width, device)
    return torch.exp(dice.uniform(0.05, 0.4) * noise)[None]


def _wave(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """Stripes, hard or soft, or a chequer of two such waves; in [0, 1]."""
    x, y = pixel_grid(height, width, device)
    period, turn = dice.log_uniform(3.0, 60.0), dice.uniform(0.0, math.pi)
    along = (math.cos(turn) * x + math.sin(turn) * y) * (2 * math.pi / period)
    wave = torch.sin(along)
    if dice.chance(0.4):
        across = (math.cos(turn) * y - math.sin(turn) * x) * (2 * math.pi / period)
        wave = wave * torch.sin(across)
    return torch.sigmoid(wave * dice.log_uniform(1.0, 30.0))


def _lettering(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """Rows of random glyphs, 5 cells high with a blank row between; in [0, 1]."""
    cell = dice.integer(1, 5)
    rows, columns = height // cell + 1, width // cell + 1
    ink = (dice.rand(rows, columns) < 0.55).float()
    ink[::6] = 0.0
    ink[:, ::4] = 0.0
    ink = ink * (dice.rand(1, columns // 8 + 1) < 0.8).float().repeat_interleave(8, 1)[:, :columns]
    big = ink.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:height, :width]
    return big.contiguous().to(device)


def _clouds(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    return torch.sigmoid(dice.log_uniform(0.5, 8.0) * fractal(dice, height, width, device))


_PATTERNS: tuple[Callable[[Dice, int, int, torch.device], Tensor], ...] = (
    _wave,
    _lettering,
    _clouds,
    _clouds,
)


def procedural(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """Return a made-up scene (3, height, width): two colours mixed by a pattern, uneven light."""
    pattern = dice.pick(_PATTERNS)(dice, height, width, device)
    grey = torch.tensor([dice.log_uniform(0.02, 1.0), dice.log_uniform(0.05, 2.0)])
    colours = (grey[:, None] * torch.exp(0.4 * dice.randn(2, 3))).to(device)[..., None, None]
    scene = colours[0] + (colours[1] - colours[0]) * pattern
    light = value_noise(dice, height, width, max(height, width) / 2, device)
    scene = scene * torch.exp(dice.uniform(0.0, 1.2) * light)
    return scene * detail(dice, height, width, device) if dice.chance(0.6) else scene


def _window_mask(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """Rectangular panes between bars."""
    x, y = pixel_grid(height, width, device)
    pitch_x, pitch_y = dice.uniform(0.3, 1.2) * width, dice.uniform(0.3, 1.2) * height
    bar = dice.uniform(0.05, 0.4)
    u = torch.remainder(x / pitch_x + dice.uniform(), 1.0)
    v = torch.remainder(y / pitch_y + dice.uniform(), 1.0)
    edge = torch.minimum((u - bar) * pitch_x, (v - bar) * pitch_y)
    return (edge + 0.5).clamp(0.0, 1.0)


def _half_mask(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """One side of a line: a horizon, a wall."""
    x, y = pixel_grid(height, width, device)
    turn = dice.uniform(0.0, 2 * math.pi)
    distance = math.cos(turn) * (x - width / 2) + math.sin(turn) * (y - height / 2)
    return (distance + dice.normal(0.2) * width + 0.5).clamp(0.0, 1.0)


def _patch_mask(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """Ragged areas: foliage against the sky."""
    noise = fractal(dice, height, width, device)
    return (0.5 + dice.log_uniform(1.0, 10.0) * (noise - dice.normal(0.5))).clamp(0.0, 1.0)


_MASKS = (_window_mask, _half_mask, _patch_mask)


def opening(dice: Dice, height: int, width: int, device: torch.device) -> Tensor:
    """Return where one scene hides another (height, width), 0 to 1: panes, a wall, foliage."""
    return dice.pick(_MASKS)(dice, height, width, device)


def composite(scene: Tensor, other: Tensor, dice: Dice) -> Tensor:
    """Return one scene seen through openings in another, at its own brightness."""
    mask = opening(dice, scene.shape[1], scene.shape[2], scene.device)
    level = scene.mean() / other.mean().clamp_min(1e-6)
    return scene + mask * (other * (level * dice.log_uniform(0.1, 12.0)) - scene)


def lamps(dice: Dice, scene: Tensor) -> Tensor:
    """Return one to eight lights (3, H, W), far brighter than the scene, some with a glow."""
    height, width = scene.shape[1:]
    x, y = pixel_grid(height, width, scene.device)
    typical = float(scene[:, ::4, ::4].mean())
    total = torch.zeros_like(scene)
    for _ in range(dice.integer(1, 8)):
        cx, cy = dice.uniform(0, width), dice.uniform(0, height)
        radius = dice.log_uniform(0.7, 0.05 * width + 1.0)
        distance = torch.sqrt((x - cx) ** 2 + (y - cy) ** 2)
        shape = (radius - distance + 0.5).clamp(0.0, 1.0)
        if dice.chance(0.5):
            shape = shape + 0.02 / (1.0 + (distance / (2.0 * radius)) ** 3)
        colour = torch.exp(0.25 * dice.randn(3)).to(scene.device)[:, None, None]
        total = total + colour * shape * (typical * dice.log_uniform(5.0, 500.0))
    return total


def expose(scene: Tensor, clipped: float, median: float) -> Tensor:
    """Scale a scene so that 1.0 is the white of a reference frame of which this part clips.

    More clips where the picture's median would be darker than `median` otherwise: few
    people expose so that half the picture is black.
    """
    step = max(1, scene.shape[-1] // 64)
    bright = scene[:, ::step, ::step].amax(0).flatten()
    white = float(torch.quantile(bright, 1.0 - clipped))
    white = min(white, float(torch.quantile(bright, 0.5)) / median)
    return scene / max(white, 1e-5)
