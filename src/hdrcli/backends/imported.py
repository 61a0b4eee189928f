"""Weights for networks that others published: whole networks of what their files hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdrcli import weights
from hdrcli.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

TRUNK = "Psi."  # APNT-Fusion's matching trunk, which alone is imported


def network_of(backend: str, files: Sequence[Path]) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Tensors and arguments of a whole network from its authors' files.

    For APNT-Fusion they are VGG19, which becomes the matching trunk of the weights there are.
    Raises WeightsError.
    """
    from hdrcli.importers import import_files

    tensors, arch = import_files(backend, files)
    if backend == "apntfusion":
        tensors, arch = with_trunk(tensors, arch)
    check(backend, tensors, arch)
    return tensors, arch


def with_trunk(
    trunk: Mapping[str, "Tensor"], arch: Mapping[str, Any]
) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The weights of APNT-Fusion that there are, with another matching trunk."""
    state, whole = weights.load("apntfusion")
    own = {name: tensor for name, tensor in state.items() if not name.startswith(TRUNK)}
    return {**own, **trunk}, {**whole, **arch}


def check(backend: str, tensors: Mapping[str, "Tensor"], arch: Mapping[str, Any]) -> None:
    """Raise WeightsError unless the tensors are those of the network that ``arch`` builds."""
    import torch

    from hdrcli.nets.build import build

    try:
        with torch.device("meta"):
            net = build(backend, arch)
        net.load_state_dict(dict(tensors), assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as err:
        reason = " ".join(str(err).split())[:200]
        raise WeightsError(
            f"not weights of {backend}: {reason}", hint="give the published files, unchanged"
        ) from err
