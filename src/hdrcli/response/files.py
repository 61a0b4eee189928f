"""Response curves in files: what other tools write, and CSV of our own.

| suffix | written by | layout |
|---|---|---|
| .m | pfstools, Luminance HDR | three matrices, rows "log10(response) code response" |
| .rsp | hdrgen | one polynomial per channel: degree, coefficients, highest power first |
| .npy | OpenCV calibrators | (256, 1, 3), blue first; a plain (K, 3) array is red first |
| .csv | AliceVision, hdrcli | a name, then rows "code in [0, 1], red, green, blue" |
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdrcli.errors import FormatError, InputError
from hdrcli.frames import Response

Doubles = NDArray[np.float64]

MAX_BYTES = 16 << 20  # 65536 codes with all digits take 4 MB
POLYNOMIAL = 1024  # samples of a curve that is given as a polynomial


def load(path: Path) -> Response:
    """Read a response curve. Each channel is scaled to 1.0 at the largest code.

    Raises InputError where there is no such file or kind, FormatError where it does not hold
    a rising curve.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path}: not a kind of response file",
            hint=f"one of {', '.join(READERS)}, or a name: auto, srgb, gamma2.2, linear",
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"{path}: too large for a response curve")
        curve = reader(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, IndexError) as error:
        raise FormatError(f"{path}: not a response curve ({error})") from error
    return _checked(path, np.asarray(curve, np.float64))


def save(path: Path, response: Response, codes: int = 1024) -> None:
    """Write a curve as CSV in AliceVision's layout, at ``codes`` evenly spaced codes."""
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: response curves are written as .csv")
    rows = np.column_stack([np.linspace(0, 1, codes), response.table(codes)])
    lines = [",".join(f"{value:.9g}" for value in row) for row in rows]
    path.write_text("\n".join([response.name, *lines]) + "\n", encoding="utf-8")


def _checked(path: Path, curve: Doubles) -> Response:
    if curve.ndim != 2 or curve.shape[1] != 3 or not 2 <= len(curve) <= 65536:
        raise FormatError(f"{path}: three channels of 2 to 65536 codes expected")
    if not np.isfinite(curve).all() or (curve < 0).any() or not (curve[-1] > 0).all():
        raise FormatError(f"{path}: a response is finite, not negative, and ends above 0")
    curve = curve / curve[-1]
    if (np.diff(curve, axis=0) < -0.01).any():
        raise FormatError(f"{path}: light must rise with the code")
    rising = np.minimum(np.maximum.accumulate(curve, axis=0), 1).astype(np.float32)
    return Response(path.name, rising)


def _matrices(path: Path) -> Doubles:
    """pfstools: the third column of each matrix; one matrix serves all channels."""
    channels: list[list[float]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("# name:"):
            channels.append([])
        elif line.strip() and not line.startswith("#"):
            channels[-1].append(float(line.split()[2]))
    if len(channels) not in (1, 3) or len({len(c) for c in channels}) != 1:
        raise ValueError(f"{len(channels)} channels")
    return np.array(channels * (3 // len(channels))).T


def _polynomials(path: Path) -> Doubles:
    """Hdrgen: degree, then coefficients from the highest power to the constant."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [[float(word) for word in line] for line in lines if line]
    if len(rows) != 3 or any(len(row) != row[0] + 2 for row in rows):
        raise ValueError("three lines expected, each a degree and its coefficients")
    codes = np.linspace(0, 1, POLYNOMIAL)
    curves = np.stack([np.polyval(row[1:], codes) for row in rows], axis=1)
    return np.maximum.accumulate(np.maximum(curves, 0), axis=0)


def _array(path: Path) -> Doubles:
    curve = np.load(path, allow_pickle=False)
    if curve.ndim == 3 and curve.shape[1:] == (1, 3):
        return np.asarray(curve[:, 0, ::-1], np.float64)
    return np.asarray(curve, np.float64)


def _table(path: Path) -> Doubles:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [[float(word) for word in line.split(",")[:4]] for line in lines[1:] if line.strip()]
    return np.array(rows)[:, 1:4]


READERS: dict[str, Callable[[Path], Doubles]] = {
    ".m": _matrices,
    ".rsp": _polynomials,
    ".npy": _array,
    ".csv": _table,
}
