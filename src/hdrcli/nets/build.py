"""Networks by the names of their backends, with the keywords that a weight file remembers."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from torch import nn

NETWORKS: Mapping[str, str] = MappingProxyType(
    {
        "adnet": "hdrcli.nets.adnet:ADNet",
        "psfnet": "hdrcli.nets.psfnet:PSFNet",
        "hdrgan": "hdrcli.nets.hdrgan:HDRGAN",
        "apntfusion": "hdrcli.nets.apntfusion:APNTFusion",
        "deephdrvideo": "hdrcli.nets.deephdrvideo:DeepHDRVideo",
        "flowmerge": "hdrcli.nets.flowmerge:FlowMerge",
        "denoise": "hdrcli.nets.denoise:Denoiser",
    }
)


def build(backend: str, arch: Mapping[str, Any] | None = None) -> nn.Module:
    """Make the network of a backend; ``arch`` are its class's keywords, the paper's without."""
    module, _, name = NETWORKS[backend].partition(":")
    net: nn.Module = getattr(import_module(module), name)(**(arch or {}))
    return net
