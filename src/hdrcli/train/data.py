"""Real data sets of brackets with known radiance: their folders, found and checked.

    for item in items(Path("Test")):
        frames, truth = item.frames, truth_of(item)

Layouts, each as its authors or the code for it leave it on disk: Kalantari and Ramamoorthi (2017)
as published, as Wu et al. (DeepHDR), HDR-GAN and others prepared it, cut to patches, and AHDRNet's
patches in HDF5; Tel et al. (SCTNet), Hu et al. and Challenge123; NTIRE 2021, training and
validation; DeepHDRVideo's real and synthetic sets, and the videos without truth of Kalantari et al.
(2013) as it arranges them; and the folders that ``scenes.write_bracket`` and validation sets here
have.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hdrcli import formats, response
from hdrcli.errors import FormatError, InputError
from hdrcli.frames import Frame
from hdrcli.train import hdf5

Unit = Literal["shortest", "reference", "ntire", "video", "stored"]
NTIRE_GAMMA = 2.24
STORED = "ahdrnet"
PHOTOGRAPHS = (".jpg", ".jpeg", ".tif", ".tiff", ".png")
HINT = "see hdrcli eval --help for the layouts"


@dataclass(frozen=True)
class Item:
    """One bracket: files darkest first (of a video in order of time), stops, which one decides.

    ``unit`` says what 1.0 in the truth is: the white of the shortest frame or of the reference;
    "ntire" is gamma-encoded relative to the reference, times the number in alignratio.npy; "video"
    is relative to the shortest after division by what exceeds 1; "stored" is "shortest" in the file
    of the frames. ``response`` is the curve of the
    codes, as ``--response`` takes it. ``layout`` names the data set's layout. ``patch``: which of
    the brackets in one HDF5 file, which then stands for all frames; -1 where the file has but one.
    """

    name: str
    layout: str
    frames: tuple[Path, ...]
    evs: tuple[float, ...]
    reference: int
    truth: Path | None
    unit: Unit = "shortest"
    response: str = "gamma2.2"
    patch: int = -1

    @property
    def top(self) -> float:
        """Where the shortest frame clips, 1.0 being the white of the reference."""
        return float(2.0 ** (self.evs[self.reference] - min(self.evs)))


@dataclass(frozen=True)
class Folder:
    """A layout of one folder per bracket: names of its files, the frames in order of exposure."""

    layout: str
    frames: str  # a regular expression of whole names
    exposures: str
    truth: str
    needs_truth: bool = True


TIF = r"\.tiff?"
FOLDERS = (
    Folder("wu", rf"input_\d_aligned{TIF}", "input_exp.txt", "ref_hdr_aligned.hdr"),
    Folder("hu", rf"input_\d_aligned{TIF}", "input_exp.txt", "ref_hdr_aligned_linear.hdr"),
    Folder("hdrgan", rf"input_\d{TIF}", "input_exp.txt", "ref_hdr.hdr", needs_truth=False),
    Folder("patches", rf"\d{TIF}", "exposure.txt", "label.hdr"),
    Folder("tel", rf"input_\d{TIF}", "exposure.txt", "HDRImg.hdr"),
    Folder("kalantari", rf".*{TIF}", "exposure.txt", "HDRImg.hdr"),
)


def items(root: Path) -> list[Item]:
    """Return every bracket under a folder, in the order of names.

    Raises InputError where no layout fits, or a bracket of the one that fits is not complete.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder", hint=HINT)
    for find in LAYOUTS.values():
        found = list(find(root))
        if found:
            return found
    raise InputError(f"{root}: no data set that is known here", hint=HINT)


def frames_of(item: Item) -> tuple[Frame, ...]:
    """Read the frames of a bracket, in its order. Raises FormatError where a file is broken."""
    if item.layout == STORED:
        codes, _ = hdf5.photographs(item.frames[0], item.patch)
        return tuple(
            Frame(np.clip(code, 0, 1) ** np.float32(2.2), name=item.name) for code in codes
        )
    return tuple(_frame(path, item.response) for path in item.frames)


def _frame(path: Path, curve: str) -> Frame:
    frame = formats.read(path)
    known = response.known(curve)
    return frame if known is None or not frame.levels else replace(frame, response=known)


def truth_of(item: Item) -> NDArray[np.float32]:
    """Return the radiance of a bracket, (H, W, 3), 1.0 the white of its reference frame.

    Raises InputError where the data set has none, FormatError where the file is broken.
    """
    if item.truth is None:
        raise InputError(f"{item.name}: its data set gives no truth", hint="merge it instead")
    return UNITS[item.unit](item, item.truth).astype(np.float32)


# -- one folder per bracket ---------------------------------------------------------------------


def _folders(root: Path) -> Iterator[Item]:
    """Brackets of the first folder layout that some folder at or below the root has."""
    places = _below(root)
    for layout in FOLDERS:
        fitting = [place for place in places if _fits(place, layout)]
        if fitting:
            for place in fitting:
                yield _of_folder(root, place, layout)
            return


def _below(root: Path) -> list[Path]:
    """The root and its folders, three deep: Test/PAPER/scene."""
    deep = [root, *root.glob("*/"), *root.glob("*/*/"), *root.glob("*/*/*/")]
    return sorted({place for place in deep if place.is_dir()})


def _fits(place: Path, layout: Folder) -> bool:
    if not (place / layout.exposures).is_file():
        return False
    if layout.needs_truth and not (place / layout.truth).is_file():
        return False
    return bool(_named(place, layout.frames))


def _named(place: Path, pattern: str) -> list[Path]:
    whole = re.compile(pattern, re.IGNORECASE)
    return sorted(path for path in place.iterdir() if whole.fullmatch(path.name))


def _of_folder(root: Path, place: Path, layout: Folder) -> Item:
    frames = _named(place, layout.frames)
    evs = numbers(place / layout.exposures)
    _match(place / layout.exposures, evs, frames)
    truth = place / layout.truth
    return _sorted(
        Item(
            _relative(place, root),
            layout.layout,
            tuple(frames),
            tuple(evs),
            len(frames) // 2,
            truth if truth.is_file() else None,
        )
    )


def _relative(place: Path, root: Path) -> str:
    return place.name if place == root else place.relative_to(root).as_posix()


def _sorted(item: Item) -> Item:
    """The same bracket, darkest first, the middle one deciding."""
    order = sorted(range(len(item.evs)), key=lambda i: item.evs[i])
    return Item(
        item.name,
        item.layout,
        tuple(item.frames[i] for i in order),
        tuple(item.evs[i] for i in order),
        len(order) // 2,
        item.truth,
        item.unit,
        item.response,
    )


def numbers(path: Path) -> list[float]:
    """Read numbers, one per line or by spaces. Raises FormatError for anything else."""
    try:
        found = [float(word) for word in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as err:
        raise FormatError(f"{path}: {err}", hint="one exposure in stops per line") from err
    if not found or not np.isfinite(found).all():
        raise FormatError(f"{path}: no exposures", hint="one exposure in stops per line")
    return found


def _match(told: Path, evs: Sequence[float], frames: Sequence[Path]) -> None:
    if len(evs) != len(frames) or len(frames) < 2:
        raise InputError(
            f"{told}: {len(evs)} exposures for {len(frames)} photographs",
            hint="the folder is not complete; unpack the data set again",
        )


# -- Challenge123: the frames of a bracket lie in three folders ---------------------------------


def _challenge(root: Path) -> Iterator[Item]:
    for middle in sorted(root.glob("*_2/exposure.txt")) + sorted(root.glob("*/*_2/exposure.txt")):
        scene = middle.parent.name.removesuffix("_2")
        truth = middle.parent / "hdr_img.hdr"
        if not truth.is_file():
            continue
        places = [middle.parent.with_name(f"{scene}_{n}") / f"ldr_img_{n}.tif" for n in (1, 2, 3)]
        frames = [path for path in places if path.is_file()]
        evs = numbers(middle)
        _match(middle, evs, frames)
        yield _sorted(Item(scene, "challenge123", tuple(frames), tuple(evs), 1, truth))


# -- NTIRE 2021 ---------------------------------------------------------------------------------


def _ntire(root: Path) -> Iterator[Item]:
    for place in _below(root):
        if (place / "exposures.npy").is_file() and (place / "gt.png").is_file():
            frames = [place / f"{n}.png" for n in (0, 1, 2)]
            yield _of_ntire(
                _relative(place, root), frames, place / "exposures.npy", place / "gt.png"
            )
    for told in sorted(root.rglob("*_exposures.npy")):
        number = told.name.removesuffix("_exposures.npy")
        frames = [told.with_name(f"{number}_{n}.png") for n in ("short", "medium", "long")]
        yield _of_ntire(number, frames, told, told.with_name(f"{number}_gt.png"))


def _of_ntire(name: str, frames: list[Path], told: Path, truth: Path) -> Item:
    missing = [path for path in frames if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: not there", hint="unpack the data set again")
    evs = [float(ev) for ev in array(told).ravel()]
    _match(told, evs, frames)
    known = truth if truth.is_file() else None
    item = Item(name, "ntire", tuple(frames), tuple(evs), 1, known, "ntire", f"gamma{NTIRE_GAMMA}")
    return _sorted(item)


def array(path: Path) -> NDArray[Any]:
    """Read a .npy of numbers. Raises FormatError."""
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as err:
        raise FormatError(f"{path}: {err}") from err
    if found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise FormatError(f"{path}: not an array of finite numbers")
    return found


# -- AHDRNet: patches in HDF5 -------------------------------------------------------------------


def _stored(root: Path) -> Iterator[Item]:
    for path in sorted([*root.rglob("*.h5"), *root.rglob("*.hdf5")]):
        name = path.relative_to(root).with_suffix("").as_posix()
        count = hdf5.count(path)
        for patch in range(count) if count else (-1,):
            evs = hdf5.exposures(path, patch)
            label = name if patch < 0 else f"{name}/{patch}"
            frames = (path,) * len(evs)
            yield Item(label, STORED, frames, evs, 1, path, "stored", patch=patch)


# -- DeepHDRVideo: windows around every frame whose truth is known ------------------------------


def _video(root: Path) -> Iterator[Item]:
    for listed in (root / "scene_all.txt", *sorted(root.glob("scenes_?expo.txt"))):
        if listed.is_file():
            for scene in _lines(listed):
                yield from _of_scene(_scene(root, listed, scene), scene)


def _tog13(root: Path) -> Iterator[Item]:
    """Kalantari et al. (2013) as DeepHDRVideo arranges it: no truth, the camera's own curve."""
    for listed in sorted(root.glob("?Exp_scenes.txt")):
        for scene in _lines(listed):
            for item in _of_scene(_scene(root, listed, scene), scene, needs_truth=False):
                yield replace(item, layout="tog13", truth=None, response="auto")


def _scene(root: Path, listed: Path, scene: str) -> Path:
    suffix = "_" + listed.stem.removeprefix("scenes_")  # _2expo, which some lists leave out
    tried = [root / scene, root / "Images" / scene, root / "Images" / f"{scene}{suffix}"]
    for place in tried:
        if (place / "Exposures.txt").is_file():
            return place
    raise InputError(f"{listed}: names {scene}, which is not there", hint="unpack it again")


def _of_scene(place: Path, name: str, *, needs_truth: bool = True) -> Iterator[Item]:
    period = numbers(place / "Exposures.txt")
    frames = [_photograph(place, line.split()[0]) for line in _lines(place / "img_list.txt")]
    truths = _truths(place, frames) if needs_truth else {}
    reach = len(period) - 1
    for middle in range(reach, len(frames) - reach):
        truth = truths.get(frames[middle].stem)
        if truth is None and needs_truth:
            continue
        window = range(middle - reach, middle + reach + 1)
        yield Item(
            f"{name}/{frames[middle].stem}",
            "deephdrvideo",
            tuple(frames[n] for n in window),
            tuple(period[n % len(period)] for n in window),
            reach,
            truth,
            "video",
        )


def _photograph(place: Path, name: str) -> Path:
    for suffix in ("", *PHOTOGRAPHS):
        path = place / f"{name}{suffix}"
        if path.is_file():
            return path
    raise InputError(f"{place / name}: not there", hint="img_list.txt names it; unpack it again")


def _truths(place: Path, frames: Sequence[Path]) -> dict[str, Path]:
    """Truth by stem of the photograph: as img_hdr_list.txt says, else of the same name."""
    listed = place / "img_hdr_list.txt"
    if listed.is_file():
        pairs = [line.split() for line in _lines(listed)]
        return {Path(p[0]).stem: place / p[1] for p in pairs if len(p) == 2}
    same = {frame.stem: frame.with_suffix(".hdr") for frame in frames}
    return {stem: path for stem, path in same.items() if path.is_file()}


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise FormatError(f"{path}: {err}") from err
    return [line.strip() for line in text.splitlines() if line.strip()]


# -- folders as this program writes them --------------------------------------------------------


def _own(root: Path) -> Iterator[Item]:
    """Folders with meta.json, gt.exr and numbered photographs, darkest first."""
    for place in _below(root):
        about = place / "meta.json"
        if not (about.is_file() and (place / "gt.exr").is_file()):
            continue
        try:
            meta = json.loads(about.read_text(encoding="utf-8"))
            evs, reference = [float(ev) for ev in meta["ev"]], int(meta["ref"])
        except (ValueError, KeyError, TypeError) as err:
            raise FormatError(f"{about}: {err!r}", hint="it must hold ev and ref") from err
        frames = [p for p in _named(place, r"\d+\..*") if p.suffix.lower() in PHOTOGRAPHS]
        _match(about, evs, frames)
        truth = place / "gt.exr"
        yield Item(
            _relative(place, root),
            "hdrcli",
            tuple(sorted(frames, key=lambda path: int(path.stem))),
            tuple(evs),
            reference,
            truth,
            "reference",
            "auto",
        )


LAYOUTS: Mapping[str, Callable[[Path], Iterator[Item]]] = MappingProxyType(
    {
        "hdrcli": _own,
        "deephdrvideo": _video,
        "challenge123": _challenge,
        "ntire": _ntire,
        "folders": _folders,
        "tog13": _tog13,
        STORED: _stored,
    }
)


# -- truth --------------------------------------------------------------------------------------


def _linear(path: Path) -> NDArray[np.float32]:
    return formats.read(path).linear()


def _ntire_truth(item: Item, truth: Path) -> NDArray[np.floating]:
    """(png / alignratio)^2.24, relative to the reference."""
    stem = truth.name.removesuffix("gt.png")
    ratio = float(array(truth.with_name(f"{stem}alignratio.npy")).ravel()[0])
    if ratio <= 0:
        raise FormatError(f"{truth.with_name(f'{stem}alignratio.npy')}: {ratio} is no ratio")
    codes = formats.read(truth).codes.astype(np.float64)
    return np.asarray((codes / ratio) ** NTIRE_GAMMA)


def _video_truth(item: Item, truth: Path) -> NDArray[np.floating]:
    light = _linear(truth)
    return np.asarray(light / max(float(light.max()), 1.0) * item.top)


UNITS: Mapping[str, Callable[[Item, Path], NDArray[np.floating]]] = MappingProxyType(
    {
        "shortest": lambda item, truth: _linear(truth) * item.top,
        "reference": lambda item, truth: _linear(truth),
        "ntire": _ntire_truth,
        "video": _video_truth,
        "stored": lambda item, truth: hdf5.truth(truth, item.patch) * item.top,
    }
)
