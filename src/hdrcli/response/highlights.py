"""Whether a camera makes colours white that nearly clip.

Sensors clip before the camera mixes their channels and lays its curve over them: of a bright green
the green clips first, and the file then shows more red and blue than there was light. Pictures
that are rendered and then clipped do not have that. A photograph alone cannot tell; of two
exposures the darker one knows the colour.
"""

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Response
from hdrcli.response.pairs import light_ev
from hdrcli.response.samples import Blocks, Samples
from hdrcli.response.white import ends

Doubles = NDArray[np.float64]

# Codes, of photographs that reach the last one; where they end below it, these are less by that.
NEARLY = 236 / 255  # from this code of the largest channel on a pixel nearly clips
MIDDLE = (150 / 255, 215 / 255)  # largest codes of those that certainly do not
OPEN = 246 / 255  # the channel that is compared stays below this
SEEN = (12 / 255, 230 / 255)  # codes of all channels of the darker frame
COLOURED = 1.25  # its largest code over its smallest
SMOOTH = 0.055  # spread of codes inside a block that shows no edge
NEAREST_EV, FURTHEST_EV = 0.2, 2.6  # between the two frames
STRANGE_EV = 0.4  # of points that do not clip: the frames show different things, or other steps
FEWEST = 100  # points of either kind
WHITER_EV = 0.1  # of the weakest channel beside the same of those that do not clip


def washes(samples: Samples, evs: Doubles, response: Response) -> bool:
    """Whether the weakest channel of what nearly clips is brighter than darker frames say.

    ``evs`` (F,) are the frames' exposures in stops. False where too little can be compared.
    """
    near, middle, less = [np.zeros(0)], [np.zeros(0)], 1 - samples.white
    for i, j in neighbours(evs):
        step, pair = float(evs[j] - evs[i]), (samples.frames[i], samples.frames[j])
        off, top = _whiter(*pair, step, response, OPEN - less)
        usual = off[(top >= MIDDLE[0]) & (top < MIDDLE[1] - less)]
        if len(usual) and abs(np.median(usual)) < STRANGE_EV:
            near.append(off[top >= NEARLY - less])
            middle.append(usual)
    whiter, usual = np.concatenate(near), np.concatenate(middle)
    enough = min(len(whiter), len(usual)) >= FEWEST
    return bool(enough and np.median(whiter) - np.median(usual) > WHITER_EV)


def neighbours(evs: Doubles) -> list[tuple[int, int]]:
    """Each frame with the next brighter one that is far enough from it, if that is near enough."""
    order = np.argsort(evs, kind="stable").tolist()
    brighter = [(i, next((j for j in order if evs[j] - evs[i] >= NEAREST_EV), None)) for i in order]
    return [(i, j) for i, j in brighter if j is not None and evs[j] - evs[i] <= FURTHEST_EV]


def _whiter(
    dark: Blocks, bright: Blocks, step: float, response: Response, highest: float
) -> tuple[Doubles, NDArray[np.float32]]:
    """By how much the weakest channel of coloured points is brighter than it should be, in EV.

    And the largest code of the brighter frame there. That of the weakest is below ``highest``.
    """
    weakest, strongest = ends(dark.codes)
    seen = (weakest > SEEN[0]) & (strongest < SEEN[1]) & (strongest > COLOURED * weakest)
    at = np.flatnonzero(seen)
    codes, above = dark.codes[at], bright.codes[at]
    rough = np.maximum(ends(dark.spread[at])[1], ends(bright.spread[at])[1])
    lowest = np.take_along_axis(above, codes.argmin(axis=1)[:, None], axis=1)[:, 0]
    good = (rough < SMOOTH) & (lowest < highest)
    off = light_ev(response, lowest[good]) - light_ev(response, weakest[at][good]) - step
    return off, ends(above[good])[1]
