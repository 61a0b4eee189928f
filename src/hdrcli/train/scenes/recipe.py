"""What synthetic brackets are like: ranges and probabilities, in one table."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recipe:
    """What brackets are like: ranges and probabilities; the defaults are for training.

    Lengths are pixels at 320 rows and shrink with smaller frames.
    """

    frames: dict[int, float] = field(
        default_factory=lambda: {2: 0.15, 3: 0.55, 4: 0.08, 5: 0.14, 7: 0.08}
    )
    step_ev: tuple[float, float] = (1.0, 4.0)
    span_ev: float = 8.0  # at most, darkest to brightest
    middle_reference: float = 0.7  # probability; any other frame else
    exposure_error_ev: float = 0.3  # at most, in the exposures told, of half the brackets
    static: float = 0.2  # probability of no motion at all
    shakes: dict[tuple[float, float], float] = field(  # pixels, with the probability of each range
        default_factory=lambda: {(0.0, 0.0): 0.17, (0.2, 3.0): 0.7, (1.0, 8.0): 0.13}
    )
    movers: tuple[int, int] = (1, 5)
    shapes: dict[str, float] = field(
        default_factory=lambda: {"blob": 0.35, "polygon": 0.15, "figure": 0.3, "branches": 0.2}
    )
    sizes: tuple[float, float] = (0.08, 0.45)  # radius as a part of the frame's height
    heights: tuple[float, float] = (-0.05, 1.05)  # of their centres, as a part of the frame's
    speeds: tuple[float, float] = (0.5, 60.0)  # pixels per frame interval
    soft: float = 0.25  # probability of a wide soft edge, as of things out of focus
    glowing: float = 0.08  # probability that a mover is a light
    parallax: float = 0.12  # probability of a near layer that shakes by more than the far one
    moving_light: float = 0.06
    camera_blur: float = 0.12
    photon_noise: tuple[float, float] = (3e-5, 1.5e-3)
    read_noise: tuple[float, float] = (5e-8, 3e-6)
    curves: dict[str, float] = field(
        default_factory=lambda: {"srgb": 0.5, "gamma": 0.15, "tone": 0.15, "style": 0.2}
    )
    told_srgb: float = 0.3  # probability that an S-curve camera is taken for plain sRGB
    jpeg: float = 0.8
    unquantised: float = 0.06
    quality: tuple[int, int] = (85, 98)
