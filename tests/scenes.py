"""Scenes whose radiance is known, and a camera to photograph them with.

Radiance here is (H, W, 3) float32; 1.0 is what an exposure of 1 records as white.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdrcli import formats
from hdrcli.color import srgb_encode
from hdrcli.exif import write_exif
from hdrcli.frames import LINEAR, SRGB, Bracket, Frame, Metadata, Response, sampled

Floats = NDArray[np.float32]

STOPS = (-2.0, 0.0, 2.0)
TINT = (1.0, 0.8, 0.6)


# ---- radiance --------------------------------------------------------------------------------


def gradient(height: int = 48, width: int = 64, low: float = 0.02, high: float = 3.0) -> Floats:
    """Light that rises evenly in stops from left to right, tinted."""
    light = np.geomspace(low, high, width)[None, :, None] * np.ones((height, 1, 1))
    return (light * TINT).astype(np.float32)


def checker(
    height: int = 48, width: int = 64, cell: int = 8, low: float = 0.05, high: float = 2.0
) -> Floats:
    """A chess board of two levels: hard edges everywhere."""
    y, x = np.mgrid[:height, :width] // cell
    light = np.where((x + y) % 2 == 0, low, high)[..., None]
    return (light * TINT).astype(np.float32)


def texture(height: int = 96, width: int = 128, seed: int = 0, stops: float = 6.0) -> Floats:
    """Coloured blobs of many sizes over some stops: something to align and to match."""
    import cv2

    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for scale, share in ((2, 0.15), (4, 0.25), (12, 0.5), (40, 1.0)):
        small = rng.standard_normal((height // scale + 4, width // scale + 4, 3))
        grown = cv2.resize(
            small.astype(np.float32),
            None,
            fx=scale,
            fy=scale,
            interpolation=cv2.INTER_CUBIC,
        )
        total += np.float32(share) * grown[:height, :width]
    total -= total.mean()
    stop = total / np.abs(total).max() * np.float32(stops / 2)
    return np.asarray(0.25 * np.exp2(stop), np.float32)


def flat(height: int = 16, width: int = 16, level: float = 0.3) -> Floats:
    """One grey everywhere."""
    return np.full((height, width, 3), level, np.float32)


def with_disc(
    radiance: Floats, centre: tuple[float, float], radius: float, light: Sequence[float] | float
) -> Floats:
    """A disc of one light in front of the scene: ``centre`` is row, column. Smooth edge."""
    y, x = np.mgrid[: radiance.shape[0], : radiance.shape[1]]
    away = np.hypot(y - centre[0], x - centre[1])
    alpha = np.clip(radius + 0.5 - away, 0, 1)[..., None].astype(np.float32)
    disc = np.asarray(light, np.float32)
    return np.asarray(radiance * (1 - alpha) + alpha * disc, np.float32)


def moved(radiance: Floats, matrix: NDArray[np.float64]) -> Floats:
    """The scene as a camera sees it whose pixel p shows the scene's pixel ``matrix`` p, (3, 3)."""
    import cv2

    height, width = radiance.shape[:2]
    return np.asarray(
        cv2.warpPerspective(
            radiance,
            matrix,
            (width, height),
            flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ).clip(1e-6),
        np.float32,
    )


def shake(dx: float = 0.0, dy: float = 0.0, degrees: float = 0.0, size=(96, 128)):
    """A hand's movement as a matrix for ``moved``: shift in pixels, rotation about the centre."""
    cy, cx = (size[0] - 1) / 2, (size[1] - 1) / 2
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array(
        [[c, -s, cx + dx - c * cx + s * cy], [s, c, cy + dy - s * cx - c * cy], [0, 0, 1]]
    )


# ---- the camera ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A camera's response: light in [0, 1] to code in [0, 1], and what a Frame says of it."""

    encode: Callable[[NDArray[np.floating]], NDArray[np.floating]]
    response: Response


def _film(light: NDArray[np.floating]) -> NDArray[np.floating]:
    """A contrasty curve with toe and shoulder on top of sRGB, as cameras make."""
    code = np.asarray(srgb_encode(light), np.float64)
    return 0.6 * code + 0.4 * (3 * code**2 - 2 * code**3)


def _inverse(encode: Callable[[NDArray[np.floating]], NDArray[np.floating]]):
    grid = np.linspace(0, 1, 20001) ** 2.2
    codes = np.asarray(encode(grid), np.float64)
    return lambda code: np.interp(code, codes, grid)


SRGB_CURVE = Curve(srgb_encode, SRGB)
LINEAR_CURVE = Curve(np.asarray, LINEAR)
GAMMA_CURVE = Curve(lambda x: x ** (1 / 2.2), sampled("gamma 2.2", lambda c: c**2.2))
FILM_CURVE = Curve(_film, sampled("film", _inverse(_film)))


@dataclass(frozen=True)
class Sensor:
    """Noise of the camera: electrons at white, and of reading. ``None`` counts no photons."""

    full_well: float | None = None
    read: float = 4.0

    def expose(self, light: Floats, rng: np.random.Generator) -> Floats:
        """Light with noise, clipped to [0, 1]."""
        if self.full_well is None:
            return np.clip(light, 0, 1)
        electrons = rng.poisson(np.minimum(light, 2) * self.full_well)
        read = electrons + rng.normal(0, self.read, light.shape)
        return np.clip(read / self.full_well, 0, 1).astype(np.float32)


NOISELESS = Sensor()
NOISY = Sensor(20_000.0)


def frame_of(
    radiance: Floats,
    exposure: float,
    *,
    curve: Curve = SRGB_CURVE,
    sensor: Sensor = NOISELESS,
    bits: int = 8,
    seed: int = 0,
    name: str | None = None,
) -> Frame:
    """One photograph: expose, add noise, clip, encode, round to 8 or 16 bits.

    The frame claims the curve's own response; take another with ``dataclasses.replace`` to lie.
    """
    rng = np.random.default_rng(seed)
    light = sensor.expose(radiance * np.float32(exposure), rng)
    top = 255 if bits == 8 else 65535
    codes = np.rint(np.asarray(curve.encode(light)) * top)
    return Frame(
        codes.astype(np.uint8 if bits == 8 else np.uint16),
        response=curve.response,
        exposure=exposure,
        name=name or f"frame{np.log2(exposure):+.2f}",
        bits=bits,
    )


def photograph(
    radiance: Floats | Sequence[Floats],
    evs: Sequence[float] = STOPS,
    *,
    curve: Curve = SRGB_CURVE,
    sensor: Sensor = NOISELESS,
    bits: int = 8,
    seed: int = 0,
    reference: int | None = None,
) -> Bracket:
    """A bracket of one scene, or of one scene per frame, darkest first.

    ``evs`` are stops, 0 for an exposure of 1; the reference is the frame nearest to 0, or
    the one asked for.
    """
    scenes = [radiance] * len(evs) if isinstance(radiance, np.ndarray) else list(radiance)
    frames = [
        frame_of(scene, 2.0**ev, curve=curve, sensor=sensor, bits=bits, seed=seed + i)
        for i, (scene, ev) in enumerate(zip(scenes, evs, strict=True))
    ]
    index = int(np.argmin(np.abs(evs))) if reference is None else reference
    return Bracket.of(frames, frames[index])


def whitened(light: NDArray[np.floating]) -> NDArray[np.uint8]:
    """sRGB codes (H, W, 3) of a camera that makes white what nearly clips, as most do."""
    largest = light.max(axis=-1, keepdims=True)
    share = np.clip((largest - 0.7) / 0.5, 0, 1) * 0.8
    shown = np.clip(light + share * (largest - light), 0, 1)
    return np.rint(255 * srgb_encode(shown)).astype(np.uint8)


def unknown(bracket: Bracket) -> list[Frame]:
    """The same frames without their exposures."""
    return [replace(frame, exposure=None) for frame in bracket.frames]


def disc_bracket(
    evs: Sequence[float] = STOPS,
    *,
    step: float = 18.0,
    light: float = 0.9,
    sensor: Sensor = NOISY,
    **camera,
) -> tuple[Bracket, list[Floats]]:
    """A textured scene with a disc that moves ``step`` pixels per frame, and each true radiance."""
    background = texture()
    height, width = background.shape[:2]
    first = width / 2 - step * (len(evs) - 1) / 2
    scenes = [
        with_disc(background, (height / 2, first + step * i), 13.0, (light, 0.4 * light, 0.05))
        for i in range(len(evs))
    ]
    return photograph(scenes, evs, sensor=sensor, **camera), scenes


def handheld_bracket(
    evs: Sequence[float] = STOPS, *, pixels: float = 5.0, degrees: float = 0.4, **camera
) -> tuple[Bracket, list[NDArray[np.float64]]]:
    """A textured scene whose frames are shifted and turned about the middle one.

    The matrices take a reference pixel to the frame's pixel that shows the same.
    """
    big = texture(256, 320)
    middle = int(np.argmin(np.abs(evs)))
    hands = [
        shake(
            pixels * (i - middle), -0.6 * pixels * (i - middle), degrees * (i - middle), (256, 320)
        )
        for i in range(len(evs))
    ]
    scenes = [moved(big, hand) for hand in hands]
    return photograph(scenes, evs, **camera), [np.linalg.inv(hand) for hand in hands]


# ---- files -----------------------------------------------------------------------------------


def save(bracket: Bracket, folder: Path, suffix: str = ".png", *, exif: bool = True) -> list[Path]:
    """Write each frame as 0.png, 1.png, ... with its exposure as EXIF time at f/1, ISO 100."""
    paths = []
    for i, frame in enumerate(bracket.frames):
        paths.append(folder / f"{i}{suffix}")
        meta = Metadata(exposure_time=frame.exposure, f_number=1.0, iso=100.0)
        formats.write_display_codes(paths[-1], frame.codes, exif=write_exif(meta) if exif else None)
    return paths
