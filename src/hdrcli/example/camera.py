"""The synthetic camera: a hand that shakes, a shutter, a sensor that counts photons."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import srgb_encode
from hdrcli.example.figures import Mover
from hdrcli.example.light import Floats
from hdrcli.example.moment import moment
from hdrcli.example.render import Canvas, Still

FULL_WELL = 24_000.0  # electrons behind the largest code
READ_NOISE = 5.0  # electrons
BLUR_STEP = 1.3  # pixels that things may move between two moments of one exposure
MOST_MOMENTS = 20
SPEED = 0.42  # slope per second that the quickest thing in the picture moves


@dataclass(frozen=True)
class Hand:
    """Holds the camera. ``angles`` are radians: to the side, up, and around the axis."""

    seed: int = 0
    steady: bool = False  # a tripod

    def angles(self, seconds: float) -> NDArray[np.float64]:
        """Slow drift and quick tremor, about half a degree in all."""
        if self.steady:
            return np.zeros(3)
        rng = np.random.default_rng([self.seed, 1])
        rates = np.array([0.23, 0.61, 1.7, 4.3, 8.1])  # hertz
        sizes = np.array([5.0, 3.2, 1.2, 0.35, 0.12]) * 1e-3
        phases = rng.uniform(0, 2 * np.pi, (3, len(rates)))
        sway = (sizes * np.sin(2 * np.pi * rates * seconds + phases)).sum(axis=1)
        return np.asarray(sway * [1.0, 1.0, 0.8])


def turned(canvas: Canvas, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Photograph pixel (x, y, 1) to canvas pixel, for a camera turned by small angles: (3, 3)."""
    side, up, around = angles
    rotation = np.array([[1, -around, side], [around, 1, up], [-side, -up, 1]])
    photo = np.array(
        [
            [1 / canvas.focal, 0, -(canvas.width - 1) / 2 / canvas.focal],
            [0, 1 / canvas.focal, -(canvas.height - 1) / 2 / canvas.focal],
            [0, 0, 1],
        ]
    )
    rows, columns = canvas.shape
    plane = np.array(
        [[canvas.focal, 0, (columns - 1) / 2], [0, canvas.focal, (rows - 1) / 2], [0, 0, 1]]
    )
    return np.asarray(plane @ rotation @ photo)


def expose(
    still: Still,
    movers: tuple[Mover, ...],
    hand: Hand,
    opened: float,
    seconds: float,
    level: float = 0.0,
) -> Floats:
    """Mean light on the sensor while the shutter is open, (H, W, 3), without noise.

    ``opened`` is when it opens; ``level`` is the moment at which the hand holds the camera
    straight.
    """
    import cv2

    canvas = still.canvas
    travel = 0.0 if hand.steady and not movers else seconds * SPEED * canvas.focal
    count = int(np.clip(np.ceil(travel / BLUR_STEP), 1, MOST_MOMENTS))
    total = np.zeros((canvas.height, canvas.width, 3), np.float32)
    for k in range(count):
        now = opened + seconds * (k + 0.5) / count
        light = moment(still, movers, now, suns=max(1, 5 // count)) if movers else still.light
        warp = turned(canvas, hand.angles(now) - hand.angles(level))
        total += cv2.warpPerspective(
            light,
            warp,
            (canvas.width, canvas.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return np.asarray(total / np.float32(count), np.float32)


def develop(light: Floats, ratio: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Codes of a photograph, sRGB: light × ratio is 1.0 where the sensor is full.

    Photons are counted (Poisson), reading adds Gaussian noise, eight bits are kept.
    """
    electrons = np.minimum(light * np.float32(ratio), 2.0) * np.float32(FULL_WELL)
    counted = rng.poisson(electrons) + rng.normal(0, READ_NOISE, light.shape)
    encoded = srgb_encode(np.clip(counted / FULL_WELL, 0, 1))
    return np.rint(encoded * 255).astype(np.uint8)
