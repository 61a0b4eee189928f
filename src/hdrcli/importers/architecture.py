"""What network a set of named tensors belongs to: constructor arguments, told by the shapes."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from hdrcli.errors import WeightsError
from hdrcli.nets.adnet import ADNet
from hdrcli.nets.apntfusion import MatchingTrunk
from hdrcli.nets.deephdrvideo import DeepHDRVideo
from hdrcli.nets.hdrgan import HDRGAN

Arch = dict[str, Any]  # numbers, words and lists, as they go into a manifest

_WIDEST = 4096  # channels; far above every published network, far below what fills a memory


class Shapes:
    """Shapes of tensors by name, asked for politely."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def size(self, name: str, axis: int = 0, *, least: int = 1) -> int:
        """One side of one tensor. Raises WeightsError if it is absent or out of all bounds."""
        shape = self._shapes.get(name, ())
        if axis >= len(shape):
            raise WeightsError(
                f"no tensor for {name}", hint="give all files of the network, unchanged"
            )
        if not least <= shape[axis] <= _WIDEST:
            raise WeightsError(f"{name} has the impossible shape {shape}")
        return shape[axis]

    def has(self, prefix: str) -> bool:
        """Whether any name starts so."""
        return any(name.startswith(prefix) for name in self._shapes)

    def count(self, pattern: str) -> int:
        """How many of pattern.format(0), pattern.format(1), … there are without a gap."""
        found = 0
        while found < _WIDEST and self.has(pattern.format(found)):
            found += 1
        return found

    def groups(self, layer: str) -> int:
        """Deformable groups of a layer of ours: offsets and masks for nine taps each."""
        groups, rest = divmod(self.size(f"{layer}.conv_offset_mask.weight"), 27)
        if rest or not groups or self.size(f"{layer}.weight", 1) % groups:
            raise WeightsError(f"{layer} has an impossible number of deformable groups")
        return groups


def _adnet(shapes: Shapes) -> Arch:
    pcd = shapes.has("align_module.L3_")
    aligned = shapes.has("align_module.")
    attention = shapes.has("att_module_l.")
    first = "feat_extract.weight" if attention else "pyramid_feats.conv1.0.weight"
    arch: Arch = {
        "channels": shapes.size("conv1.weight"),
        "growth": shapes.size("RDB.0.dense_layers.0.weight"),
        "dense_layers": shapes.count("RDB.0.dense_layers.{}."),
        "blocks": shapes.count("RDB.{}."),
        "attention": attention,
        "align": "pcd" if pcd else "single" if aligned else "none",
        "dual": shapes.size(first, 1) == 3,
    }
    if aligned:
        arch["groups"] = shapes.groups(f"align_module.{'L1_' if pcd else ''}dcnpack")
    return arch


def _apntfusion(shapes: Shapes) -> Arch:
    return {"trunk": [shapes.size(f"Psi.features.{layer}.weight") for layer in (0, 5, 10)]}


def _deephdrvideo(shapes: Shapes) -> Arch:
    coarse, refine = shapes.has("flow_net."), shapes.has("refine_net.")
    if not (coarse and refine and shapes.has("weight_net.")):
        raise WeightsError(
            "one of the three parts of DeepHDRVideo is missing",
            hint="give flow_net.pth, weight_net.pth and refine_net.pth together",
        )
    deformable = shapes.has("refine_net.pcd_align.")
    arch: Arch = {
        "exposures": 3 if shapes.size("flow_net.levels.0.0.weight", 1) == 18 else 2,
        "flow_channels": shapes.size("flow_net.levels.0.0.weight", least=4),
        "levels": shapes.count("flow_net.levels.{}."),
        "weight_channels": shapes.size("weight_net.down.4.0.weight", least=4),
        "weight_tail": shapes.size("weight_net.head.weight", 1),
        "batch_norm": shapes.has("weight_net.down.0.1."),
        "channels": shapes.size("refine_net.conv_last.weight", 1),
        "extract_blocks": shapes.count("refine_net.feature_extraction.{}."),
        "trunk_blocks": shapes.count("refine_net.recon_trunk.{}."),
        "exposedness": shapes.size("refine_net.conv_first_1.weight", 1) == 6,
        "deformable": deformable,
        "attention": shapes.has("refine_net.ta_fusion.tAtt_1."),
    }
    if deformable:
        arch["groups"] = shapes.groups("refine_net.pcd_align.L1_dcnpack")
    return arch


def _hdrgan(shapes: Shapes) -> Arch:
    return {
        "channels": shapes.size("encoders.0.blocks.0.conv1.weight"),
        "scales": shapes.count("encoders.0.blocks.{}."),
        "merging": shapes.has("merge.0.convs."),
    }


def _trunk(trunk: list[int]) -> nn.Module:
    whole = nn.Module()
    whole.Psi = MatchingTrunk(trunk)
    return whole


# Backend → arguments from shapes, and the network (of APNT-Fusion the trunk alone) from them.
ARCHITECTURES: Mapping[str, tuple[Callable[[Shapes], Arch], Callable[..., nn.Module]]] = {
    "adnet": (_adnet, ADNet),
    "apntfusion": (_apntfusion, _trunk),
    "deephdrvideo": (_deephdrvideo, DeepHDRVideo),
    "hdrgan": (_hdrgan, HDRGAN),
}
