"""Which backend suits a bracket, and why."""

import logging

from hdrcli import device, weights
from hdrcli.errors import WeightsError
from hdrcli.frames import Bracket
from hdrcli.motion import Motion

log = logging.getLogger("hdrcli")

STILL = "average"
MOVING = "flowmerge"
WANT_VIEWS = ("auto", MOVING)  # backends that look at the pictures motion was estimated on
A_LITTLE = 0.0004  # fraction of the picture whose motion the mean handles as well as any


def choose(wanted: str, bracket: Bracket, motion: Motion) -> tuple[str, str]:
    """The backend to use and the reason in words; ``auto`` looks at what moved."""
    if wanted != "auto":
        return wanted, "as asked"
    said = f"{100 * motion.moved:.1f} % of the picture moved over {len(bracket.frames)} frames"
    if motion.moved <= A_LITTLE:
        return STILL, said
    try:
        weights.find(MOVING)
    except WeightsError:
        return STILL, f"{said}; no weights of {MOVING} are installed"
    if not device.has_torch():
        log.warning("PyTorch is not installed: what moved is merged without a network")
        return STILL, f"{said}; PyTorch is not installed"
    return MOVING, said
