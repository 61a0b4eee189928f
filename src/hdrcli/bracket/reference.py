"""Which frame decides: the best exposed one, or the one asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdrcli.errors import BracketError
from hdrcli.frames import Frame
from hdrcli.response.pairs import light_ev
from hdrcli.response.samples import Samples, take

Doubles = NDArray[np.float64]

DARK_EV = -7.0  # light of code 20 in sRGB: below it noise and JPEG rule
DARK_COST = 0.5  # a dark point can be amplified, a clipped one is lost
SIDE_COST = 0.8  # of the ends of the bracket: the photographer meant the middle


def choose(
    frames: Sequence[Frame],
    want: str | int = "auto",
    samples: Samples | None = None,
    strangers: Sequence[int] = (),
) -> int:
    """Index of the reference among ``frames``, which are darkest first, exposures known.

    ``want`` is "auto", a number from 1 (the darkest), or a file's name. ``strangers``, frames
    that show something else, are not chosen unasked. Raises BracketError where there is no
    such frame.
    """
    if want == "auto":
        return best_exposed(frames, take(frames) if samples is None else samples, strangers)
    text = str(want)
    if text.isdecimal():
        if not 1 <= int(text) <= len(frames):
            raise BracketError(
                f"--reference {text}: there are {len(frames)} frames",
                hint="a number from 1, the darkest, or a file's name",
            )
        return int(text) - 1
    return _named(frames, text)


def best_exposed(frames: Sequence[Frame], samples: Samples, strangers: Sequence[int] = ()) -> int:
    """Least clipped light and darkness; ties go toward the middle exposure."""
    cost = costs(frames, samples)
    cost[list(strangers)] += 10.0
    return int(np.argmin(cost))


def costs(frames: Sequence[Frame], samples: Samples) -> Doubles:
    """What choosing each frame would cost: parts of the picture lost, plus distance."""
    evs = np.log2([frame.exposure or 1.0 for frame in frames])
    half = max(float(np.ptp(evs)) / 2, 1e-6)
    side = np.abs(evs - (evs.max() + evs.min()) / 2) / half * SIDE_COST
    lost = np.array([_lost(f, own.codes) for f, own in zip(frames, samples.frames, strict=True)])
    return np.asarray(lost + side)


def _lost(frame: Frame, codes: NDArray[np.float32]) -> float:
    red, green, blue = codes.T
    clipped = (np.maximum(np.maximum(red, green), blue) >= frame.clip).mean()
    light = light_ev(frame.response, ((red + green + blue) / np.float32(3)).astype(np.float64))
    return float(clipped + DARK_COST * (light < DARK_EV).mean())


def _named(frames: Sequence[Frame], text: str) -> int:
    by_path = [i for i, f in enumerate(frames) if f.path is not None and f.path == Path(text)]
    by_name = [
        i for i, f in enumerate(frames) if text in (f.name, Path(f.name).name, Path(f.name).stem)
    ]
    found = by_path or by_name
    if len(found) == 1:
        return found[0]
    names = ", ".join(Path(frame.name).name for frame in frames)
    many = "more than one frame has this name" if found else "no frame has this name"
    raise BracketError(f"--reference {text}: {many}", hint=f"one of {names}")
