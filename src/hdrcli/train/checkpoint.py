"""What a training leaves on disk, as safetensors, each file written whole or not at all.

``training.safetensors`` holds all that resuming needs: weights, their moving average, the
optimizers' moments. ``last.safetensors`` and ``best.safetensors`` hold the average alone, under
the network's own names, with its architecture in the metadata.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hdrcli.errors import FormatError


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and facts to ``path``, replacing it in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, part, {key: json.dumps(value) for key, value in about.items()})
    part.replace(path)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and facts. Raises FormatError for a file that ``save`` did not write."""
    try:
        with safe_open(path, "pt") as file:
            about = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as err:
        raise FormatError(f"{path}: {err}", hint="train without --resume to start anew") from err


def moments(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer of one group as tensors by name."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore(prefix: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer the moments that ``moments`` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in below(prefix, tensors).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``prefix.``, without it."""
    start = prefix + "."
    return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}


def under(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers as ``prefix.name``."""
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


def half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with floats in half precision."""
    return {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
