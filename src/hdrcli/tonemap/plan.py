"""A Plan: everything that was decided about a picture, before any full-size pixel is touched."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, Primaries
from hdrcli.frames import Radiance
from hdrcli.tonemap.local import gain_map
from hdrcli.tonemap.operators import DEFAULT, OPERATORS, Operator, operator_of, settled
from hdrcli.tonemap.scene import Scene, survey

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Plan:
    """How one picture will be shown.

    ``numbers`` depend on the image (``ev``: the exposure in stops; ``white_ev`` and the like),
    ``params`` are the user's. ``gain`` is (2, h, w): slope and offset of the log2 gain over
    exposed log2 luminance, None for global operators; it covers ``extent`` of the picture's
    height and width. Below ``floor`` stops it is constant.
    """

    operator: str
    params: Mapping[str, float]
    numbers: Mapping[str, float]
    gain: Floats | None = None
    extent: tuple[float, float] = (1.0, 1.0)
    primaries: Primaries = REC709

    @property
    def values(self) -> dict[str, float]:
        """Parameters and image-dependent numbers together, as the curves take them."""
        return {**self.params, **self.numbers}

    @property
    def spec(self) -> Operator:
        """The operator's entry in the table."""
        return OPERATORS[self.operator]


def analyse(
    radiance: Radiance,
    operator: str = DEFAULT,
    params: Mapping[str, float] | None = None,
    *,
    threads: int | None = None,
) -> Plan:
    """Decide how to show a picture. Any size will do: it is reduced to 512 pixels first.

    Raises InputError for an operator or a parameter that does not exist or is out of range.
    """
    spec = operator_of(operator)
    chosen = settled(spec, params or {})
    scene = survey(radiance, threads)
    numbers = spec.judge(scene, chosen)
    numbers["floor"] = float(scene.stops.min()) + numbers["ev"]
    plan = Plan(spec.name, chosen, numbers, None, scene.extent, radiance.primaries)
    return _with_gain(plan, scene)


def _with_gain(plan: Plan, scene: Scene) -> Plan:
    if plan.spec.adapt is None:
        return plan
    stops = scene.stops + np.float32(plan.numbers["ev"])
    adapted = plan.spec.adapt(stops, plan.values)
    further = plan.spec.conclude(adapted, plan.values) if plan.spec.conclude else {}
    return replace(plan, numbers={**plan.numbers, **further}, gain=gain_map(stops, adapted))


def blend(first: Plan, second: Plan, t: float) -> Plan:
    """The plan between two plans of one operator, for video: ``t`` = 0 is the first, 1 the second.

    Image-dependent numbers are stops or exponents, so that their mean is a mean of looks. The
    maps are blended too; where the camera moves, blend the numbers and keep the newer map with
    ``dataclasses.replace(blended, gain=second.gain)``.
    """
    assert first.operator == second.operator, (first.operator, second.operator)
    assert 0 <= t <= 1, t
    numbers = {k: (1 - t) * v + t * second.numbers[k] for k, v in first.numbers.items()}
    gain = second.gain
    if first.gain is not None and second.gain is not None:
        assert first.gain.shape == second.gain.shape, (first.gain.shape, second.gain.shape)
        gain = np.float32(1 - t) * first.gain + np.float32(t) * second.gain
    return replace(second, numbers=numbers, gain=gain)
