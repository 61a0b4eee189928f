"""The table of backends. Reading it imports none of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from hdrcli import device, weights
from hdrcli.errors import SetupError
from hdrcli.frames import Bracket, DisplayImage, Radiance

if TYPE_CHECKING:
    from hdrcli.motion import Motion

WEIGHT_NAMES = ("noise", "hat", "gaussian", "plateau", "flat")  # of average, debevec, robertson
Progress = Callable[[str, float], None]  # stage, fraction done


def silent(_stage: str, _done: float) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Settings:
    """How to run a backend; none of it changes what the pixels mean."""

    threads: int | None = None  # None: all cores
    half: bool = False  # pixels of a Radiance as float16, for an output that stores half
    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None  # px; None chooses, 0 is the whole picture
    ensemble: bool = False  # average over the picture's flips and transposition
    options: Mapping[str, Any] = field(default_factory=dict)  # of this backend alone
    progress: Progress = silent

    @property
    def dtype(self) -> type[np.floating]:
        """The type of the radiance to make."""
        return np.float16 if self.half else np.float32


class Backend(Protocol):
    """What every backend is: an aligned bracket and its motion in, one image out."""

    def merge(self, bracket: Bracket, motion: "Motion") -> Radiance | DisplayImage:
        """Merge. 1.0 in a Radiance is the reference frame's white."""


@dataclass(frozen=True)
class NetworkSpec:
    """What running one of the papers' networks takes; the numbers are for the paper's sizes.

    How it is called and answers is its row of ``nets.forms.FORMS``. ``multiple_of``: sides it
    takes. ``reach``: pixels around an output pixel that may change it at all, offsets aside.
    ``halo``: pixels of context that tiles are given; beyond it the change is below 1e-3 in the
    mu-law. ``bytes_per_pixel``: of memory at its widest, in float32, with features of
    ``channels``; ``aligned_bytes_per_pixel`` where frames come moved by a flow, so that there is
    no flow net. ``pooled``: whether it has whole-image statistics. ``flow``: whether frames come
    to it moved by motion's flow too; the papers align globally and leave the rest to the network.
    """

    multiple_of: int
    reach: int
    halo: int
    bytes_per_pixel: int
    aligned_bytes_per_pixel: int = 0
    channels: int = 64
    pooled: bool = False
    flow: bool = False


@dataclass(frozen=True)
class BackendSpec:
    """All that is known of a backend before it is loaded."""

    name: str
    target: str  # "module:Class", imported by load_backend
    kind: Literal["classical", "fusion", "neural"]
    paper: str
    summary: str
    produces: Literal["radiance", "display"] = "radiance"
    frames: tuple[int, int | None] = (2, None)  # how many it takes itself; others are arranged
    weights: str | None = None  # a table of weights/manifest.toml
    licence: str = "MIT"
    network: "NetworkSpec | None" = None


BACKENDS: Mapping[str, BackendSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            BackendSpec(
                name="average",
                target="hdrcli.backends.average:Average",
                kind="classical",
                paper="inverse-variance mean under Poisson-Gaussian noise (Hasinoff et al., 2010)",
                summary="The noise-optimal mean of all frames that agree with the reference",
            ),
            BackendSpec(
                name="flowmerge",
                target="hdrcli.backends.flowmerge:FlowMergeBackend",
                kind="neural",
                paper="FlowMerge: our own; the mean above, its beliefs corrected by a network",
                summary="The mean of what agrees, judged by a network; the default where it moves",
                weights="flowmerge",
            ),
            BackendSpec(
                name="debevec",
                target="hdrcli.backends.average:Debevec",
                kind="classical",
                paper="Debevec and Malik, SIGGRAPH 1997",
                summary="Mean of log radiance, weighted by a hat over the codes",
            ),
            BackendSpec(
                name="robertson",
                target="hdrcli.backends.average:Robertson",
                kind="classical",
                paper="Robertson, Borman and Stevenson, ICIP 1999",
                summary="Maximum-likelihood mean, weighted by a Gaussian over the codes",
            ),
            BackendSpec(
                name="mertens",
                target="hdrcli.backends.mertens:Mertens",
                kind="fusion",
                paper="Mertens, Kautz and Van Reeth, Pacific Graphics 2007",
                summary="Exposure fusion: a picture for the screen, without radiance",
                produces="display",
            ),
            BackendSpec(
                name="adnet",
                target="hdrcli.backends.neural:ADNet",
                kind="neural",
                paper="ADNet: Liu et al., CVPR Workshops 2021",
                summary="Network: deformable alignment and spatial attention, three frames",
                frames=(3, 3),
                weights="adnet",
                network=NetworkSpec(
                    multiple_of=4,
                    reach=72,
                    halo=32,
                    bytes_per_pixel=9800,
                ),
            ),
            BackendSpec(
                name="psfnet",
                target="hdrcli.backends.neural:PSFNet",
                kind="neural",
                paper="PSFNet: Ye et al., ACM Multimedia 2021",
                summary="Network: progressive and selective fusion, three frames",
                frames=(3, 3),
                weights="psfnet",
                network=NetworkSpec(
                    multiple_of=1,
                    reach=33,
                    halo=24,
                    bytes_per_pixel=4000,
                    pooled=True,
                ),
            ),
            BackendSpec(
                name="hdrgan",
                target="hdrcli.backends.neural:HDRGAN",
                kind="neural",
                paper="HDR-GAN: Niu et al., IEEE Transactions on Image Processing 2021",
                summary="Network: merging at three scales, trained with an adversary, three frames",
                frames=(3, 3),
                weights="hdrgan",
                network=NetworkSpec(
                    multiple_of=4,
                    reach=61,
                    halo=40,
                    bytes_per_pixel=3700,
                    channels=32,
                ),
            ),
            BackendSpec(
                name="apntfusion",
                target="hdrcli.backends.neural:APNTFusion",
                kind="neural",
                paper="APNT-Fusion: Chen et al., IEEE Transactions on Image Processing 2022",
                summary="Network: textures of the short frame matched into saturated places",
                frames=(3, 3),
                weights="apntfusion",
                network=NetworkSpec(
                    multiple_of=4,
                    reach=189,
                    halo=64,
                    bytes_per_pixel=8600,
                    pooled=True,
                ),
            ),
            BackendSpec(
                name="deephdrvideo",
                target="hdrcli.backends.neural:DeepHDRVideo",
                kind="neural",
                paper="DeepHDRVideo: Chen et al., ICCV 2021",
                summary="Network: coarse fusion by flow, refinement by deformable alignment",
                frames=(2, 3),
                weights="deephdrvideo",
                network=NetworkSpec(
                    multiple_of=16,
                    reach=424,
                    halo=64,
                    bytes_per_pixel=9000,
                    aligned_bytes_per_pixel=4750,
                ),
            ),
        )
    }
)


def check_backend(name: str, device_name: str) -> None:
    """Raise SetupError, its WeightsError or DeviceError, for what can be known to be missing.

    A device that was asked for must be there whatever the backend; ``auto`` takes what there is.
    """
    neural = name in BACKENDS and BACKENDS[name].kind == "neural"
    if (neural or device_name != "auto") and not device.has_torch():
        raise SetupError(
            f"--backend {name} --device {device_name} needs PyTorch, which is not installed",
            hint="pip install torch, or merge without a network: --backend average --device auto",
        )
    if device_name != "auto":
        device.prepare()
        device.checked(device_name)
    spec = BACKENDS.get(name)
    if spec is not None and spec.weights is not None:
        weights.find(spec.weights)


def load_backend(name: str, settings: Settings | None = None) -> Backend:
    """Import and build the backend called ``name``."""
    if BACKENDS[name].kind == "neural":
        device.prepare()  # before torch is imported
    module, _, attribute = BACKENDS[name].target.partition(":")
    backend: Backend = getattr(import_module(module), attribute)(settings or Settings())
    return backend
