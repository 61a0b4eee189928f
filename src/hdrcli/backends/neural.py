"""The papers' networks as backends: any bracket in, radiance without an upper bound out.

1. arrange.py chooses the frames; they come globally aligned, as codes at the reference's pixels.
2. Tile by tile the codes become linear light by the bracket's own response, then the form that the
   network reads (``nets.forms``: gamma 2.2 of linear light, whatever the camera's curve was), and
   what it answers becomes radiance, 1.0 the reference's white. Only tiles are ever floats.
3. A network with whole-image statistics is shown the whole picture once, reduced; what its pools
   saw is held fixed in every tile (``nets.pooling``).
4. extend.py merges the frames that the network did not take, and mends what clips in all.

When memory runs out everything starts again with tiles of half the side, at last on the CPU if the
device was chosen by ``auto``. When half precision gives anything else than finite numbers,
everything starts again in float32.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  as everywhere
from numpy.typing import NDArray
from torch import Tensor, nn

from hdrcli import device, weights
from hdrcli.backends import arrange, extend
from hdrcli.backends.arrange import Stack
from hdrcli.backends.registry import BACKENDS, NetworkSpec, Settings
from hdrcli.device import Compute
from hdrcli.errors import DeviceError, InputError, WeightsError
from hdrcli.frames import Bracket, Radiance
from hdrcli.motion import Motion
from hdrcli.nets import forms, pooling
from hdrcli.nets.build import build
from hdrcli.nets.forms import Form
from hdrcli.tiling import Tile, TileSpec, shrinking, tiles
from hdrcli.weights import Entry

log = logging.getLogger("hdrcli")

BLEND = 16  # px over which tiles fade into each other
LARGEST = {"cpu": 1536, "cuda": 1024, "mps": 512}  # px inside the halo: its share falls with them
MOST = {"cpu": 2.8e9}  # bytes that a tile may take, however much is free
LEAST_LEFT = 8e8  # of that: else what the last tile left behind is given back before the next one
MOST_HELD = 3.5e9  # bytes that the process shall have in all, if the tiles are on the CPU
SMALLEST = 64  # px inside the halo, whatever the memory; out of memory may halve it
LEAST_SIDE = 32  # px, of a tile that is padded: coarsest scales need a few pixels
STATISTICS_PIXELS = 1 << 16  # of the picture that whole-image statistics are measured on
THREE = "deephdrvideo-3"  # the weights of DeepHDRVideo for three exposures
BRIGHTEST = 60_000.0  # radiance that half floats hold

# The four-fold ensemble of ADNet's authors. Each of these undoes itself.
Symmetry = Callable[[Tensor], Tensor]
SYMMETRIES: tuple[Symmetry, ...] = (
    lambda x: x,
    lambda x: x.transpose(-1, -2),
    lambda x: x.flip(-1),
    lambda x: x.flip(-2),
)


class NotFiniteError(ArithmeticError):
    """A network answered with infinities or not-a-numbers."""


class Neural:
    """Base of the networks' backends; a subclass gives its name in the table of backends."""

    name: ClassVar[str]

    def __init__(self, settings: Settings, most_held: float = MOST_HELD) -> None:
        self.settings, self.most_held = settings, most_held
        spec = BACKENDS[self.name]
        assert spec.network is not None
        assert spec.weights is not None
        self.spec: NetworkSpec = spec.network
        self.compute = device.settle(settings.device, settings.precision)
        self.entry = weights.find(spec.weights)

    def merge(self, bracket: Bracket, motion: Motion) -> Radiance:
        """Merge an aligned bracket. Pixels that clip in every frame are counted.

        Raises WeightsError where there are no weights for this network, DeviceError where the
        memory does not suffice even for the smallest tiles.
        """
        entry = self.weights_for(bracket)
        net, form = network(self.name, *weights.load(entry))
        device.threads(self.settings.threads)
        places = places_of(net, bracket)
        flow = self.spec.flow or wants_aligned(net)
        stack = Stack(bracket, places, motion, flow, self.settings.threads)
        out, ran = self.run(net, form, stack)
        clipped = extend.complete(out, bracket, motion, places, self.settings)
        assert bracket.ref.exposure is not None
        facts = {
            "weights": f"{entry.name} {entry.sha256[:8]}",
            "network_frames": [bracket.frames[place].name for place in places],
            **ran,
        }
        return Radiance(out, bracket.ref.primaries, bracket.ref.exposure, clipped, facts)

    def weights_for(self, bracket: Bracket) -> Entry:
        """The weights to merge this bracket with."""
        return self.entry

    def run(
        self, net: nn.Module, form: Form, stack: Stack
    ) -> tuple[NDArray[np.floating], dict[str, Any]]:
        """Radiance of the whole picture, (H, W, 3), and where and how it was computed."""
        compute = self.compute
        while True:
            try:
                return self.attempt(net, form, stack, compute)
            except NotFiniteError:
                if compute.precision == "fp32":
                    raise WeightsError(
                        f"{self.name} answers with infinities, with {self.entry.path}",
                        hint="the weights are of no use; install or import others",
                    ) from None
                log.warning("%s overflows in %s: again in fp32", self.name, compute.precision)
                compute = compute.exact()
            except MemoryError:
                if not compute.chosen or compute.kind == "cpu":
                    raise DeviceError(
                        f"{self.name}: {compute.device} has no memory for the smallest tiles",
                        hint="close other programs, or choose --backend average",
                    ) from None
                log.warning("%s has no memory left: on the CPU instead", compute.device)
                compute = device.settle("cpu", self.settings.precision)

    def attempt(
        self, net: nn.Module, form: Form, stack: Stack, compute: Compute
    ) -> tuple[NDArray[np.floating], dict[str, Any]]:
        """The same on one device in one precision, with tiles as small as memory demands."""
        symmetries = SYMMETRIES if self.settings.ensemble else SYMMETRIES[:1]
        runner = Runner.of(net, form, stack, compute, symmetries)
        runner.measure(stack)
        device.release(compute)
        most = most_of(compute, self.most_held)
        spec = tile_spec(self.settings.tile, net, self.spec, compute, stack.bracket.size, most)

        def whole(spec: TileSpec) -> tuple[NDArray[np.floating], dict[str, Any]]:
            device.release(compute)
            log.info("%s on %s, tiles of %d px, halo %d", self.name, compute, spec.size, spec.halo)
            out = self.paint(runner, stack, spec)
            return out, {"device": compute.device, "precision": compute.precision} | {
                "tile": min(spec.size, max(stack.bracket.size))
            }

        return shrinking(whole, spec)

    def paint(self, runner: "Runner", stack: Stack, spec: TileSpec) -> NDArray[np.floating]:
        """All tiles, faded into each other."""
        size = stack.bracket.size
        out = np.zeros((*size, 3), self.settings.dtype)
        cut = tiles(size, spec)
        self.settings.progress("network", 0.0)
        for done, tile in enumerate(cut, start=1):
            put(out, tile, runner.radiance(stack.light(tile.rows, tile.cols)) * float(stack.white))
            self.settings.progress("network", done / len(cut))
            if runner.compute.kind == "cpu" and device.held() > self.most_held - LEAST_LEFT:
                device.release(runner.compute)
        return out


class ADNet(Neural):
    """See ``nets.adnet``."""

    name = "adnet"


class PSFNet(Neural):
    """See ``nets.psfnet``."""

    name = "psfnet"


class HDRGAN(Neural):
    """See ``nets.hdrgan``."""

    name = "hdrgan"


class APNTFusion(Neural):
    """See ``nets.apntfusion``."""

    name = "apntfusion"


class DeepHDRVideo(Neural):
    """See ``nets.deephdrvideo``. It has weights for two exposures, and others for three."""

    name = "deephdrvideo"

    def weights_for(self, bracket: Bracket) -> Entry:
        """Those for three exposures where the bracket has darker and brighter frames.

        Weights of the user's own are not passed over for shipped ones.
        """
        if len(set(arrange.triple(bracket))) < 3:
            return self.entry
        try:
            three = weights.find(THREE)
        except WeightsError:
            return self.entry
        known = ("set", "imported", "shipped")
        return three if known.index(three.origin) <= known.index(self.entry.origin) else self.entry


def network(name: str, state: dict[str, Tensor], arch: dict[str, Any]) -> tuple[nn.Module, Form]:
    """The network with its weights, ready to run, and how it is called.

    Raises WeightsError for weights of another network.
    """
    try:
        net = build(name, arch)
        net.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError) as err:
        reason = " ".join(str(err).split())[:200]
        raise WeightsError(
            f"not weights of {name}: {reason}", hint="hdrcli weights verify tells which are whole"
        ) from err
    return net.eval(), forms.form_of(name, str(arch.get("output", "")))


def wants_aligned(net: nn.Module) -> bool:
    """Whether frames must come moved by a flow: DeepHDRVideo without a flow net of its own."""
    return getattr(net, "flow_net", True) is None and getattr(net, "weight_net", None) is not None


def places_of(net: nn.Module, bracket: Bracket) -> tuple[int, ...]:
    """The frames of a bracket in the order that the network wants them."""
    exposures = getattr(net, "exposures", None)
    if exposures is None:
        return arrange.triple(bracket)
    return arrange.window(bracket, int(exposures), int(getattr(net, "frames", 0)))


def tile_spec(
    asked: int | None,
    net: nn.Module,
    spec: NetworkSpec,
    compute: Compute,
    size: tuple[int, int],
    most: float,
) -> TileSpec:
    """How to cut: as asked (0 is the whole picture), or what fits ``most`` bytes and the cache.

    Raises InputError for tiles that would hold their margins alone.
    """
    multiple = spec.multiple_of
    halo = -(-min(spec.halo, int(getattr(net, "reach", spec.halo))) // multiple) * multiple
    margins = 2 * halo + BLEND
    if asked == 0:
        return TileSpec(max(size) + margins + multiple, halo, BLEND, multiple)
    if asked is not None:
        if asked < margins + multiple:
            raise InputError(
                f"--tile {asked}: tiles of this network overlap by {margins} px",
                hint=f"--tile {margins + SMALLEST} or more; not given it fits the memory",
            )
        return TileSpec(asked // multiple * multiple, halo, BLEND, multiple)
    width = int(getattr(net, "channels", spec.channels))
    most_live = spec.aligned_bytes_per_pixel if wants_aligned(net) else spec.bytes_per_pixel
    bytes_per_pixel = most_live * width / spec.channels
    widest = int((most / bytes_per_pixel) ** 0.5)
    side = device.tile_side(
        compute,
        bytes_per_pixel,
        largest=min(LARGEST[compute.kind] + margins, widest),
        least=SMALLEST + margins,
        multiple=multiple,
    )
    return TileSpec(side, halo, BLEND, multiple, oblong=True)


def most_of(compute: Compute, most_held: float = MOST_HELD) -> float:
    """Bytes that a tile may take: on the CPU less where the pictures themselves take much."""
    if compute.kind not in MOST:
        return float(1 << 62)
    return max(MOST[compute.kind] / 4, min(MOST[compute.kind], most_held - device.held()))


def put(out: NDArray[np.floating], tile: Tile, found: Tensor) -> None:
    """Add a tile (3, h, w) to the canvas (H, W, 3) by its weight."""
    part = found.permute(1, 2, 0).cpu().numpy()
    out[tile.rows, tile.cols] += part * tile.weight[..., None]


@dataclass(frozen=True, eq=False)
class Runner:
    """A network on a device, and what is the same for all tiles of one bracket.

    ``order``: which of the stack's frames each input is. ``ratios`` (1, N): their exposures over
    the shortest one's.
    """

    net: nn.Module
    form: Form
    order: list[int]
    ratios: Tensor
    compute: Compute
    symmetries: tuple[Symmetry, ...]
    statistics: list[pooling.Statistics]

    @classmethod
    def of(
        cls,
        net: nn.Module,
        form: Form,
        stack: Stack,
        compute: Compute,
        symmetries: tuple[Symmetry, ...],
    ) -> "Runner":
        """Bring the network, and what is the same for all tiles, to the device."""
        layout: Any = {"memory_format": device.memory_format(compute)}
        net = net.to(compute.device).to(**layout)
        ratios = torch.from_numpy(stack.ratios)[None].to(compute.device)
        return cls(net, form, stack.order, ratios, compute, symmetries, [])

    def measure(self, stack: Stack) -> None:
        """Measure whole-image statistics on the reduced picture, where the network has any."""
        if not pooling.pools(self.net):
            return
        linear = self.prepared(stack.reduced(STATISTICS_PIXELS))
        with self.compute.running():
            for symmetry in self.symmetries:
                with pooling.record(self.net) as seen:
                    self.answer(padded(symmetry(linear), self.multiple))
                self.statistics.append(seen)

    @property
    def multiple(self) -> int:
        """Sides that the network takes."""
        return int(self.net.multiple_of)  # type: ignore[arg-type]

    def radiance(self, light: NDArray[np.float32]) -> Tensor:
        """Radiance (3, h, w) of a part of the stack, (n, h, w, 3) linear."""
        linear = self.prepared(light)
        with self.compute.running():
            answers = [
                self.symmetric(symmetry, linear, number)
                for number, symmetry in enumerate(self.symmetries)
            ]
            answer = torch.stack(answers).mean(0) if len(answers) > 1 else answers[0]
            found = forms.radiance(self.form, answer, self.ratios)[0]
            if not bool(torch.isfinite(found).all()):
                raise NotFiniteError
            return found.clamp(0, BRIGHTEST)

    def prepared(self, light: NDArray[np.float32]) -> Tensor:
        """Linear light (1, N, 3, h, w) on the device, in the network's order."""
        frames = torch.from_numpy(light).permute(0, 3, 1, 2).to(self.compute.device)
        return frames[self.order][None]

    def symmetric(self, symmetry: Symmetry, linear: Tensor, number: int) -> Tensor:
        """The answer (1, 3, h, w) of one turned picture, turned back."""
        turned = symmetry(linear)
        height, width = turned.shape[-2:]
        with ExitStack() as held:
            if self.statistics:
                held.enter_context(pooling.frozen(self.net, self.statistics[number]))
            answer = self.answer(padded(turned, self.multiple))
        return symmetry(answer[..., :height, :width])

    def answer(self, linear: Tensor) -> Tensor:
        """Call the network: (1, N, 3, H, W) to its own domain, (1, 3, H, W) float32."""
        given = forms.inputs(self.form, linear, self.ratios)
        return forms.answer(self.net(*map(self.laid_out, given))).float()

    def laid_out(self, x: Tensor) -> Tensor:
        """The memory layout that the device likes."""
        if x.dim() != 4:
            return x
        return x.contiguous(memory_format=device.memory_format(self.compute))


def padded(linear: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until the sides are multiples, and not too small."""
    height, width = (
        -(-max(side, LEAST_SIDE) // multiple) * multiple - side for side in linear.shape[-2:]
    )
    if not height and not width:
        return linear
    return F.pad(linear[0], (0, width, 0, height), mode="replicate")[None]
