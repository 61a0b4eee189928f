"""Weights that others published become ours: same tensors, our names, checked shapes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hdrcli.errors import WeightsError
from hdrcli.importers.architecture import ARCHITECTURES, Arch, Shapes
from hdrcli.importers.names import IGNORED, NAMES, rename
from hdrcli.importers.pytorch import read_checkpoint
from hdrcli.importers.tf_bundle import fold_spectral_norm, read_bundle

State = dict[str, Tensor]


def import_files(backend: str, files: Sequence[Path]) -> tuple[State, Arch]:
    """The state dict of our network, float32, and the arguments that build the network.

    adnet: one .pth. deephdrvideo: flow_net.pth, weight_net.pth and refine_net.pth, in any order.
    hdrgan: a TensorFlow checkpoint, by its .index file, its .data file, both, or what they have in
    common; the generator alone, spectral normalisation folded. apntfusion: torchvision's VGG19,
    which gives the matching trunk (`Psi.`) alone. Raises WeightsError.
    """
    if backend not in NAMES:
        raise WeightsError(
            f"no published weights are known for {backend}", hint=f"known: {', '.join(NAMES)}"
        )
    if not files:
        raise WeightsError(f"no file of weights for {backend}", hint="give the published files")
    found = _read_tensorflow(files[0]) if backend == "hdrgan" else _read_pytorch(backend, files)
    guess, build = ARCHITECTURES[backend]
    where = ", ".join(str(path) for path in files)
    try:
        if backend == "hdrgan":
            found = _folded(found)
        arch = guess(Shapes(found))
        with torch.device("meta"):
            expected = build(**arch).state_dict()
        return _checked(found, expected), arch
    except WeightsError as error:
        raise WeightsError(
            f"{where}: not weights of {backend}: {error}",
            hint=error.hint or f"give the files that the authors of {backend} published, unchanged",
        ) from error


def _read_pytorch(backend: str, files: Sequence[Path]) -> State:
    found: State = {}
    for path in files:
        for name, tensor in read_checkpoint(path).items():
            ours = rename(name, NAMES[backend])
            if ours is None and not name.startswith(IGNORED[backend]):
                raise WeightsError(
                    f"{path}: not weights of {backend}: {name} is unknown",
                    hint=f"{backend} is read from what its authors published",
                )
            if ours in found:
                raise WeightsError(
                    f"{path}: {name} was in another file already", hint="give every part once"
                )
            if ours is not None:
                found[ours] = tensor
    return found


def _read_tensorflow(path: Path) -> State:
    """The generator's variables under their published names: kernels, biases and u."""
    table = NAMES["hdrgan"]
    return read_bundle(path, lambda name: rename(name, table) is not None and "/Adam" not in name)


def _folded(variables: State) -> State:
    """Kernels and biases under our names, kernels as they act."""
    found = {}
    for name, value in variables.items():
        layer, _, kind = name.rpartition("/")
        ours = rename(f"{layer}/", NAMES["hdrgan"])
        if kind == "kernel":
            found[f"{ours}weight"] = _convolution(value, variables.get(f"{layer}/u"), name)
        elif kind == "bias":
            found[f"{ours}bias"] = value
    return found


def _convolution(kernel: Tensor, u: Tensor | None, name: str) -> Tensor:
    """TensorFlow's (kh, kw, cin, cout) to PyTorch's (cout, cin, kh, kw), folded if u is there."""
    if kernel.dim() != 4 or (u is not None and u.shape != (1, kernel.shape[3])):
        raise WeightsError(f"{name} has the impossible shape {tuple(kernel.shape)}")
    if u is not None:
        kernel = fold_spectral_norm(kernel, u)
    return kernel.permute(3, 2, 0, 1)


def _checked(found: State, expected: Mapping[str, Tensor]) -> State:
    """Copies of the tensors in the network's order. Shapes first: a view may claim any size."""
    unknown = sorted(found.keys() - expected.keys())
    missing = sorted(
        name for name in expected.keys() - found.keys() if not name.endswith("num_batches_tracked")
    )
    if unknown or missing:
        raise WeightsError(
            "; ".join(
                f"{what} {', '.join(names[:3])}{' …' * (len(names) > 3)}"
                for what, names in (("missing", missing), ("unknown", unknown))
                if names
            ),
            hint="give all files of the network, unchanged",
        )
    return {name: _copy(name, found.get(name), like) for name, like in expected.items()}


def _copy(name: str, tensor: Tensor | None, like: Tensor) -> Tensor:
    if tensor is None or not like.dtype.is_floating_point:  # BatchNorm's counters, used by none
        return torch.zeros(like.shape, dtype=like.dtype)
    if tensor.shape != like.shape:
        raise WeightsError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(like.shape)}")
    if not tensor.dtype.is_floating_point or not bool(torch.isfinite(tensor).all()):
        raise WeightsError(f"{name} holds something else than finite numbers")
    return tensor.to(like.dtype, memory_format=torch.contiguous_format, copy=True)
