"""AHDRNet's patches of Kalantari's data in HDF5, read where h5py is installed.

A file has ``IN``, 18 channels: three photographs (gamma 2.2, [0, 1]) and then their light, code^2.2
over exposure; and ``GT``, 3 channels: light, 1 where the shortest frame clips. It holds one patch,
or many along a first axis; MATLAB's files have the axes in the opposite order. Exposures are not
told: they follow from codes and light.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.errors import FormatError, InputError

Array = NDArray[np.float32]
FRAMES = 3
WELL_EXPOSED = (0.05, 0.95)  # codes that tell a frame's exposure


def count(path: Path) -> int:
    """Patches along the first axis; 0 where the file is one patch by itself."""
    with _opened(path) as file:
        shape = _shape(path, file, "IN")
    return shape[0] if len(shape) == 4 else 0


def photographs(path: Path, patch: int = -1) -> tuple[list[Array], list[Array]]:
    """The three photographs of a patch (H, W, 3), gamma-encoded, and their light over exposure."""
    every = _dataset(path, "IN", 6 * FRAMES, patch)
    parts = [every[..., 3 * n : 3 * n + 3] for n in range(2 * FRAMES)]
    return parts[:FRAMES], parts[FRAMES:]


def truth(path: Path, patch: int = -1) -> Array:
    """Light of a patch (H, W, 3), 1.0 where the shortest frame clips."""
    return _dataset(path, "GT", 3, patch)


def exposures(path: Path, patch: int = -1) -> tuple[float, ...]:
    """Exposures of the frames in stops, 0 the shortest, to a hundredth.

    Raises FormatError where a frame has no pixel that tells.
    """
    found = []
    for codes, light in zip(*photographs(path, patch), strict=True):
        known = (codes > WELL_EXPOSED[0]) & (codes < WELL_EXPOSED[1]) & (light > 0)
        if not known.any():
            raise FormatError(
                f"{path}: a frame has no well exposed pixel, so that its exposure is unknown",
                hint="take the file out of the folder",
            )
        found.append(float(np.median(np.log2(codes[known] ** 2.2 / light[known]))))
    return tuple(round(ev - min(found), 2) for ev in found)


def _dataset(path: Path, key: str, channels: int, patch: int) -> Array:
    with _opened(path) as file:
        shape = _shape(path, file, key)
        found = np.asarray(file[key][patch] if len(shape) == 4 else file[key][()], np.float32)
    if found.shape[0] == channels:
        found = found.T
    if found.shape[2] != channels or not np.isfinite(found).all():
        raise FormatError(f"{path}: {key} of {shape} is no picture of {channels} channels")
    return np.ascontiguousarray(found)


def _shape(path: Path, file: Mapping[str, Any], key: str) -> tuple[int, ...]:
    shape = tuple(getattr(file[key], "shape", ())) if key in file else ()
    if len(shape) not in (3, 4):
        raise FormatError(
            f"{path}: no pictures called {key}", hint="AHDRNet's files have IN and GT"
        )
    return shape


def _opened(path: Path) -> Any:  # noqa: ANN401  h5py has no types
    try:
        import h5py
    except ImportError as err:
        raise InputError(f"{path}: HDF5 needs h5py", hint='pip install "hdrcli[hdf5]"') from err
    try:
        return h5py.File(path, "r")
    except OSError as err:
        raise FormatError(f"{path}: {err}") from err
