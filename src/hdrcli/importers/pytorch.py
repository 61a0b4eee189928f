"""Read a .pth checkpoint without running anything that is in it.

PyTorch's checkpoints are pickles, which can run code. `weights_only=True` allows tensors and plain
containers alone; numpy's numbers are allowed in addition, because trainers store their scores.
"""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdrcli.errors import WeightsError

_LARGEST = 1 << 30  # bytes; VGG19 with its classifier has 575 MB, everything else less than 40
_WRAPPERS = ("state_dict", "model", "params", "net")
# What the unpickler and the reader of the archive raise for damaged or hostile bytes.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)
_SCALAR = np.float64(0).__reduce__()[0]  # the function that numpy's numbers are pickled with
_NUMBERS: list[Any] = [
    np.dtype,
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)),
]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without `module.` and without optimizer and counters.

    A dict of tensors, or a dict with one under "state_dict". Tensors may be views of anything:
    check their shapes before copying them. Raises WeightsError.
    """
    _check_size(path)
    try:
        with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols, before the error that says it better
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise WeightsError(
            f"{path}: not a checkpoint of tensors: {_first_line(error)}",
            hint="PyTorch's own files (.pth, .pt) are read, and only tensors in them; "
            "download the file again if it should be one",
        ) from error
    return _tensors(_unwrap(found), path)


def _check_size(path: Path) -> None:
    """Refuse what would fill the memory: huge files, and archives that unpack to huge ones."""
    try:
        size = path.stat().st_size
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, struct.error) as error:
        raise WeightsError(
            f"{path}: cannot be read: {_first_line(error)}", hint="check the name of the file"
        ) from error
    if size > _LARGEST:
        raise WeightsError(
            f"{path}: {size / 2**30:.1f} GB, more than any published network has",
            hint="give the file of weights that the authors published",
        )


def _unwrap(found: object) -> object:
    if isinstance(found, Mapping):
        for key in _WRAPPERS:
            if isinstance(found.get(key), Mapping):
                return found[key]
    return found


def _tensors(found: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        raise WeightsError(
            f"{path}: holds {type(found).__name__}, not tensors by name",
            hint="give a checkpoint that holds a state_dict",
        )
    tensors = {
        str(name).removeprefix("module."): tensor.detach()
        for name, tensor in found.items()
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided
    }
    if not tensors:
        raise WeightsError(
            f"{path}: holds no tensors", hint="give a checkpoint that holds a state_dict"
        )
    return tensors


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
