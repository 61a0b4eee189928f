"""Tone mapping: from scene light to a picture for a screen.

``tonemap`` does it in one step. For big pictures and for video there are two: ``analyse`` decides
from a reduced picture (a ``Plan``, which video smooths over time with ``blend``), ``apply`` or
``tonemap_codes`` carries it out strip by strip. All parameters are fractions of the image or
stops, so that a preview looks like the full picture.
"""

from collections.abc import Mapping

import numpy as np

from hdrcli.frames import DisplayImage, Radiance
from hdrcli.tonemap.operators import (
    DEFAULT,
    OPERATORS,
    Operator,
    Param,
    described,
    operator_of,
    settled,
)
from hdrcli.tonemap.plan import Plan, analyse, blend
from hdrcli.tonemap.render import apply, tonemap_codes

__all__ = [
    "DEFAULT",
    "OPERATORS",
    "Operator",
    "Param",
    "Plan",
    "analyse",
    "apply",
    "blend",
    "described",
    "operator_of",
    "settled",
    "tonemap",
    "tonemap_codes",
]


def tonemap(
    radiance: Radiance,
    operator: str = DEFAULT,
    params: Mapping[str, float] | None = None,
    size: int | None = None,
    *,
    threads: int | None = None,
) -> DisplayImage:
    """Show a Radiance on an sRGB screen.

    ``size`` is the longer side of the result in pixels; smaller than the picture, or None for
    its own size. The result is encoded, in Rec. 709 primaries; ``info`` says what was done.
    Raises InputError for an operator or a parameter that does not exist or is out of range.
    """
    plan = analyse(radiance, operator, params, threads=threads)
    shown = tonemap_codes(radiance, plan, threads, dtype="float32")
    height, width = shown.shape[:2]
    longer = max(height, width)
    if size is not None and size < longer:
        import cv2

        assert size > 0, size
        target = max(1, round(width * size / longer)), max(1, round(height * size / longer))
        shown = cv2.resize(shown, target, interpolation=cv2.INTER_AREA)
    info = {"operator": plan.operator, "params": dict(plan.params), "ev": plan.numbers["ev"]}
    return DisplayImage(np.asarray(shown, np.float32), info=info)
