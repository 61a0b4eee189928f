"""FlowMerge, the default for scenes that move: the classical merge, corrected by a network.

The network sees the reduced picture that motion was estimated on, corrects belief and flow and
guesses light that clips in the reference; the strips then merge at full size exactly as
``average`` does. So a frame in which nothing moved is merged as ``average`` merges it, and the
cost of the network does not grow with the picture. It works tile by tile, so that its memory does
not grow with the frames. Noise that is left can be taken out at the end: see denoise.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.backends import denoise
from hdrcli.backends.average import Average
from hdrcli.backends.registry import Settings
from hdrcli.frames import Bracket, Radiance
from hdrcli.motion import Motion, compose
from hdrcli.sights import DARK_BOUND
from hdrcli.tiling import Window, windows

if TYPE_CHECKING:
    import torch

    from hdrcli.nets.flowmerge import Evidence, FlowMerge

BLACK = 1e-4  # light below which nothing is known, whatever a recovered curve says
Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]
FEW = 5  # frames: of more the tiles are half as wide
CORE = 1024  # px, side of the tiles: few, as each sees its surroundings too
PAIR_HALO, FILL_HALO = (
    64,
    64,
)  # px of the reduced picture that matter to the networks around a pixel


class FlowMergeBackend:
    """Correct the motion by the network, then merge as ``average`` does.

    ``corrected`` is the motion that the last merge used, for whoever shows it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.corrected: Motion | None = None

    def merge(self, bracket: Bracket, motion: Motion) -> Radiance:
        """Merge an aligned bracket. ``motion`` must have kept its views."""
        average = Average(self.settings)
        if all(belief is None for belief in motion.confidence):
            return average.merge(bracket, motion)
        assert motion.views, "motion.analyse(..., keep_views=True) comes before flowmerge"
        net, device = loaded(self.settings)
        self.corrected, guess = correct(net, bracket, motion, device)
        if not denoise.wanted(self.settings):
            return average.merge(bracket, self.corrected, guess)
        deviation = np.empty(bracket.size, np.float16)
        image = average.merge(bracket, self.corrected, guess, deviation)
        much = denoise.amount(bracket, self.corrected)
        known = image, deviation, bracket, much, *denoise.loaded(self.settings)
        return denoise.denoised(*known, threads=self.settings.threads)


def loaded(settings: Settings) -> "tuple[FlowMerge, torch.device]":
    """The trained network, on the device asked for."""
    from hdrcli import device, weights
    from hdrcli.nets.flowmerge import FlowMerge

    where = device.choose(settings.device)
    state, arch = weights.load("flowmerge")
    net = FlowMerge(**arch)
    net.load_state_dict(state)
    return net.eval().to(where), where


def correct(
    net: "FlowMerge",
    bracket: Bracket,
    motion: Motion,
    device: "torch.device | str" = "cpu",
    core: int | None = None,
) -> tuple[Motion, Floats]:
    """Corrected motion, and the guess of clipped light, (h, w, 3), on the reduced picture.

    Tile by tile, with as much of the surroundings as the network can see: tiles change nothing
    but the memory, and what stays in the caches. ``core`` is their side, a multiple of 32.
    """
    import torch

    core = core or (CORE if len(bracket.frames) <= FEW else CORE // 2)
    arrays = evidence_arrays(bracket, motion)
    for name, grown in padding(arrays, net.multiple_of):
        arrays[name] = grown  # one after the other: all of them twice would be too much
    height, width = motion.views[0].clipped.shape
    touched = [c is not None for c in motion.confidence]
    with torch.inference_mode():
        judged = judge(net, arrays, device, core)
        level = guess(net, arrays, judged, device, core)
    shifts = judged.shift[:, :height, :width]
    return (
        replace(
            motion,
            views=(),
            confidence=tuple(
                judged.confidence[i, :height, :width] if t else None for i, t in enumerate(touched)
            ),
            flows=tuple(
                compose(shift.astype(np.float32), flow) if t else flow
                for shift, flow, t in zip(shifts, motion.flows, touched, strict=True)
            ),
        ),
        level[:height, :width],
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """What PairNet makes of the evidence, on the padded picture."""

    confidence: Floats  # (n, h, w)
    shift: NDArray[np.float16]  # (n, h, w, 2), pixels, two at most
    radiance: Floats  # (3, h, w)
    shortest: Floats  # (3, h, w), light of the shortest frame after the shift
    belief: Floats  # (1, h, w), in light that clips in the reference


def cut(arrays: Arrays, window: Window) -> Arrays:
    """A part of the maps; what is no map stays whole."""
    return {name: a[(..., *window)] if a.ndim > 2 else a for name, a in arrays.items()}


def judge(net: "FlowMerge", arrays: Arrays, device: "torch.device | str", core: int) -> Judged:
    """The corrections of belief and flow, and the merge they make, tile by tile."""
    count, size = len(arrays["clipped"]), arrays["clipped"].shape[-2:]
    found = Judged(
        np.empty((count, *size), np.float32),
        np.empty((count, *size, 2), np.float16),
        np.empty((3, *size), np.float32),
        np.empty((3, *size), np.float32),
        np.empty((1, *size), np.float32),
    )
    for seen, kept, at in windows(size, core, PAIR_HALO):
        evidence = evidence_of([cut(arrays, seen)], device)
        correction = net.correct(evidence)
        confidence, merged, moved = net.judge(evidence, correction)
        for whole, part in (
            (found.confidence, confidence[0, :, 0]),
            (found.shift.transpose(3, 0, 1, 2), correction.flow[0].transpose(0, 1)),
            (found.radiance, merged.radiance[0]),
            (found.shortest, moved.light[0, 0]),
            (found.belief, merged.belief[0]),
        ):
            whole[(..., *at)] = part[(..., *kept)].float().cpu().numpy()
    return found


def guess(
    net: "FlowMerge", arrays: Arrays, judged: Judged, device: "torch.device | str", core: int
) -> Floats:
    """The correction of clipped light, (h, w, 3); zero in tiles where the reference never clips."""
    import torch

    from hdrcli.nets.flowmerge import Around, Highlights

    reference, size = int(arrays["reference"]), judged.belief.shape[-2:]
    level = np.zeros((*size, 3), np.float32)
    clipped = arrays["clipped"][reference]
    if reference == 0 or not clipped.any():
        return level
    rise, distance = surroundings(arrays, judged, device)

    def tensor(maps: NDArray[Any], window: Window) -> "torch.Tensor":
        part = np.ascontiguousarray(maps[(..., *window)], np.float32)
        return torch.from_numpy(part).to(device)[None]

    for seen, kept, at in windows(size, core, FILL_HALO):
        around = tuple(
            slice(max(0, s.start - 2), s.stop + 2) for s in at
        )  # bilinear, and resampled
        if not clipped[around].any():
            continue
        asked = Highlights(
            reference=tensor(arrays["light"][reference], seen),
            shortest=tensor(judged.shortest, seen),
            radiance=tensor(judged.radiance, seen),
            clipped=tensor(clipped[None], seen),
            belief=tensor(judged.belief, seen),
            ratio=torch.from_numpy(arrays["ratio"][:1]).to(device),
            around=Around(tensor(rise, seen), tensor(distance, seen)),
        )
        said = net.level_of(asked)[0][(..., *kept)]
        level[at] = said.permute(1, 2, 0).float().cpu().numpy()
    return level


def surroundings(
    arrays: Arrays, judged: Judged, device: "torch.device | str"
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """What is known around clipped light, rise and distance, (3, h, w): of the whole picture.

    It comes from further away than a tile reaches.
    """
    import torch

    from hdrcli.nets.flowmerge import spread_out

    def tensor(maps: NDArray[Any]) -> "torch.Tensor":
        return torch.from_numpy(np.asarray(maps, np.float32)).to(device)[None]

    bound = float(arrays["bound"])
    clips = tensor(arrays["light"][int(arrays["reference"])]) >= bound
    known = spread_out(tensor(judged.radiance), clips, tensor(judged.belief), torch.tensor(bound))
    rise, distance = (part[0].half().cpu().numpy() for part in (known.rise, known.distance))
    return rise, distance


def evidence_arrays(bracket: Bracket, motion: Motion) -> Arrays:
    """What the network is given of a bracket, as compact arrays. ``motion`` must keep its views."""
    height, width = motion.views[0].clipped.shape
    flat = np.ones((height, width), np.float16)
    response = bracket.ref.response
    beliefs = [flat if c is None else c.astype(np.float16) for c in motion.confidence]
    differences = [0 * flat if d is None else d for d in motion.disagreement]
    light = np.empty((len(motion.views), 3, height, width), np.float16)
    for view, planes in zip(motion.views, light, strict=True):
        planes[:] = view.light.transpose(2, 0, 1)
    return {
        "light": light,
        "clipped": np.stack([v.clipped for v in motion.views]),
        "valid": np.stack([v.valid for v in motion.views]),
        "belief": np.stack(beliefs),
        "disagreement": np.stack(differences),
        "ratio": bracket.ratios.astype(np.float32),
        "reference": np.array(bracket.reference, np.int64),
        "fade": np.array(response.at(bracket.ref.fade), np.float32),
        "bound": np.array(response.at(bracket.ref.clip), np.float32),
        "dark": np.array(max(response.at(DARK_BOUND), BLACK), np.float32),
    }


def padded(arrays: Arrays, multiple: int) -> Arrays:
    """The same with maps grown to multiples of ``multiple`` by repeating their last row, column."""
    return dict(padding(arrays, multiple))


def padding(arrays: Arrays, multiple: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """The same one by one."""
    height, width = arrays["clipped"].shape[-2:]
    more = ((0, -height % multiple), (0, -width % multiple))
    for name, a in list(arrays.items()):
        maps = a.ndim > 2 and more != ((0, 0), (0, 0))
        yield name, np.pad(a, [*[(0, 0)] * (a.ndim - 2), *more], "edge") if maps else a


def evidence_of(arrays: Sequence[Arrays], device: "str | torch.device" = "cpu") -> "Evidence":
    """A batch of examples with the same number of frames and size, as the network takes it."""
    import torch

    from hdrcli.nets.flowmerge import Evidence, photon_weight

    def stack(name: str) -> "torch.Tensor":
        return torch.from_numpy(np.stack([a[name] for a in arrays])).to(device)

    def plane(name: str) -> "torch.Tensor":
        return stack(name).float()[:, :, None]

    light, ratio = stack("light").float(), stack("ratio")
    fade, bound = stack("fade"), stack("bound")
    return Evidence(
        light=light,
        weight=photon_weight(light, ratio, fade, bound),
        clipped=plane("clipped"),
        belief=plane("belief"),
        valid=plane("valid"),
        disagreement=plane("disagreement"),
        ratio=ratio,
        reference=stack("reference"),
        fade=fade,
        bound=bound,
        dark=stack("dark"),
    )
