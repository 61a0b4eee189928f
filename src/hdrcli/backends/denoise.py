"""Noise that can be seen is taken out of a merge, tile by tile: see nets/denoise.py.

Most of a well-exposed photograph is left alone, exactly, and costs next to nothing: only tiles
in which some pixel is uncertain are shown to the network.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels, strips
from hdrcli.backends import noise
from hdrcli.backends.registry import Settings
from hdrcli.device import cores
from hdrcli.frames import Bracket, Frame, Radiance
from hdrcli.motion import Motion, shots_of
from hdrcli.sights import Noise, light_of
from hdrcli.tiling import Window, windows

if TYPE_CHECKING:
    import torch

    from hdrcli.nets.denoise import Denoiser

Floats = NDArray[np.float32]

WEIGHTS = "denoise"
ENOUGH = 2_000_000  # pixels of a frame that its noise is measured on
BAND = 16  # rows of them that are taken together
QUIETER = 0.25  # of the steps of brightness, by their noise
MOST_NOISE = 1.4  # times what was assumed: beyond, it is rather texture that does not match
CORE, HALO = 688, 40  # px of a tile, and of its surroundings that it depends on


def wanted(settings: Settings) -> bool:
    """Whether it was asked for; only weights that follow the noise tell how much there is."""
    chosen = settings.options
    return bool(chosen.get("denoise")) and chosen.get("weight") in (None, "noise")


def loaded(settings: Settings) -> "tuple[Denoiser, torch.device]":
    """The trained network, on the device asked for."""
    from hdrcli import device, weights
    from hdrcli.nets.denoise import Denoiser

    where = device.choose(settings.device)
    state, arch = weights.load(WEIGHTS)
    net = Denoiser(**arch)
    net.load_state_dict(state)
    return net.eval().to(where), where


def denoised(
    image: Radiance,
    deviation: NDArray[np.floating],
    bracket: Bracket,
    scale: float,
    net: "Denoiser",
    device: "torch.device | str" = "cpu",
    core: int = CORE,
    threads: int | None = None,
) -> Radiance:
    """The image without the noise that would be seen in it.

    ``deviation`` (H, W), of any float type: the standard deviation of each pixel, the reference's
    white at 1.0, under the noise that was assumed; ``scale`` is how much of that there is, see
    ``amount``. ``core`` is the side of the tiles, a multiple of 8.
    """
    import torch

    ceiling = np.float32(bracket.ref.response.at(bracket.ref.clip))
    times, out = np.float32(scale), image.pixels.copy()
    on_this = str(device) == "cpu"
    clean = here if on_this else partial(there, device=device)

    def work(seen: Window, kept: Window, at: Window) -> None:
        if not noisy(image.pixels[at], times * deviation[at]):
            return
        light, unsure, clipped = (
            grown(part, net.multiple_of)
            for part in (
                image.pixels[seen].astype(np.float32),
                times * deviation[seen].astype(np.float32),
                clips(bracket.ref, seen).view(np.uint8),
            )
        )
        with torch.inference_mode():  # of each thread
            out[at] = clean(net, light, unsure, clipped, ceiling)[kept]

    tiles = list(windows(bracket.size, core, HALO))
    side_by_side(work, tiles, (threads or cores()) if on_this else 1)
    return replace(image, pixels=out, info={**image.info, "denoised": True})


def side_by_side(work: Callable[..., None], tiles: Sequence[tuple[Any, ...]], count: int) -> None:
    """Do tiles in so many threads, with one for each convolution: most is done between them."""
    import torch

    alone = partial(torch.set_num_threads, 1) if count > 1 else None
    name = "denoise"
    with _kept, ThreadPoolExecutor(count, thread_name_prefix=name, initializer=alone) as pool:
        for job in [pool.submit(work, *tile) for tile in tiles]:
            job.result()


class _KeptThreads:
    """How many threads torch uses, put back as the first of several side by side found it.

    A number that is set holds for the thread that sets it, and for those that begin later: a
    thread that began meanwhile has the wrong one, so that each puts its own right when it ends.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.before = 1

    def __enter__(self) -> None:
        import torch

        with self.lock:
            if self.running == 0:
                self.before = torch.get_num_threads()
            self.running += 1

    def __exit__(self, *_: object) -> None:
        import torch

        with self.lock:
            self.running -= 1
            torch.set_num_threads(self.before)


_kept = _KeptThreads()


def there(
    net: "Denoiser",
    light: Floats,
    deviation: Floats,
    clipped: NDArray[np.uint8],
    ceiling: np.float32,
    device: "torch.device | str",
) -> Floats:
    """The light of a tile without its noise, by the network as it is; what clips stays so."""
    import torch

    maps = [
        torch.from_numpy(part.astype(np.float32)).to(device)[None]
        for part in (light.transpose(2, 0, 1), deviation[None], clipped[None])
    ]
    found = net(*maps)[0].permute(1, 2, 0).cpu().numpy()
    return np.asarray(np.where(light >= ceiling, np.maximum(found, ceiling), found))


def here(
    net: "Denoiser",
    light: Floats,
    deviation: Floats,
    clipped: NDArray[np.uint8],
    ceiling: np.float32,
) -> Floats:
    """The same on this processor, over ``light`` itself.

    All but the convolutions is done by kernels: torch takes three times as long for it.
    """
    import torch

    from hdrcli.nets import denoise as of

    (height, width), count = clipped.shape, clipped.size
    noise, logarithm = np.empty_like(light), np.empty_like(light)
    kernels.doubts(light, deviation, limits(of.KNEE, of.DARKNESS, of.MOST), noise, count)
    kernels.logarithms(light, np.float32(1 / of.KNEE), logarithm, light.size)
    seen = np.empty((1, height, width, of.INPUTS), np.float32)
    near = around(logarithm, of.NEAR)
    kernels.show_noise(logarithm, near, noise, clipped, np.float32(of.STEEP), seen, count)
    said = net.said(torch.from_numpy(seen).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    spoken, wanted = said.contiguous().numpy(), logarithm  # its memory is free again
    reach = limits(of.REACH, *of.BARELY)
    kernels.want_less(spoken, noise, clipped, reach, wanted, height, width)
    heard = limits(of.REACH, of.LEAST_SEEN, of.WELL_SEEN, of.KNEE, of.BESIDE)
    kernels.quieten(light, wanted, around(wanted, of.KEPT), noise, heard, ceiling, count)
    return light


def limits(*numbers: float) -> Floats:
    """Numbers of the network as kernels take them."""
    return np.array(numbers, np.float32)


def around(picture: Floats, size: int) -> Floats:
    """Means over blocks of ``size`` pixels, and between them, (h, w, 3): nets/denoise.py."""
    import cv2

    height, width = picture.shape[:2]
    small = (width // size, height // size)
    means = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    grown = cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(grown, np.float32)


def amount(bracket: Bracket, motion: Motion) -> float:
    """The deviation that noise has over that of ``motion.noise``; MOST_NOISE at most.

    What two frames tell, where they show the same anywhere; else what the reference seems to have.
    """
    told = noise.observed(bracket, motion)
    if told is None:
        return measured(bracket.ref, motion.noise[bracket.reference])
    return min(told, MOST_NOISE)


def measured(frame: Frame, assumed: Noise) -> float:
    """The deviation that a frame's noise has over the one that is assumed, 0 to 1.

    0 where it cannot be measured. Grass passes for noise where nothing is flat: of the steps of
    brightness one of the quieter counts.
    """
    step = max(1, round(frame.codes.shape[0] * frame.codes.shape[1] / ENOUGH))
    bands = [slice(y, y + BAND) for y in range(0, frame.codes.shape[0] - BAND + 1, BAND * step)]
    if not bands or not frame.levels:
        return 0.0
    codes = np.concatenate([frame.codes[band] for band in bands])
    green = light_of(np.ascontiguousarray(codes), frame)[..., 1]
    shots = shots_of(green, strips.largest(codes) >= frame.clip * (frame.levels - 1))
    if not shots:
        return 0.0
    return float(np.sqrt(min(1.0, np.quantile(shots, QUIETER) / assumed.shot)))


def noisy(light: NDArray[np.floating], deviation: NDArray[np.floating]) -> bool:
    """Whether any pixel's noise is heard at all."""
    from hdrcli.nets.denoise import KNEE, LEAST_SEEN

    darkest = np.minimum(np.minimum(light[..., 0], light[..., 1]), light[..., 2])
    return bool(
        (deviation > np.float32(LEAST_SEEN) * (darkest.astype(np.float32) + np.float32(KNEE))).any()
    )


def clips(frame: Frame, window: Window) -> NDArray[np.bool_]:
    """Where the reference clips in any channel."""
    codes = frame.codes[window]
    if not frame.levels:
        return np.zeros(codes.shape[:2], bool)
    return strips.largest(codes) >= frame.clip * (frame.levels - 1)


def grown(part: NDArray[Any], multiple: int) -> NDArray[Any]:
    """A tile with sides that divide, by repeating its last row and column; contiguous."""
    height, width = part.shape[:2]
    more = ((0, -height % multiple), (0, -width % multiple), *[(0, 0)] * (part.ndim - 2))
    return np.ascontiguousarray(np.pad(part, more, "edge"))
