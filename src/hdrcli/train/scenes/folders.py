"""Sets of larger brackets in folders, for measuring and tuning without training pixels' help.

A folder holds one folder per bracket: 0.jpg, 1.jpg, … darkest first with their exposure
times in EXIF, gt.exr with the radiance of the reference frame (1.0 = its clipping level),
and meta.json: scene, n, ev, ref, shake, speed, noise, curve.
"""

import dataclasses
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from hdrcli.train.scenes.brackets import Batch, photograph, timeline_of
from hdrcli.train.scenes.dice import Dice
from hdrcli.train.scenes.material import Picture, Scenes, expose, plain_crop
from hdrcli.train.scenes.recipe import Recipe
from hdrcli.train.scenes.staging import margin_of, stage

_REFERENCE_TIME = Fraction(1, 60)  # seconds
_ISO, _F_NUMBER = 100, 5.6
# Frames, EV between them and curve of each bracket of a set, in turn.
_PLANS: tuple[tuple[int, float, str], ...] = (
    *((3, 2.0, "tone" if i in (2, 5, 8) else "srgb") for i in range(9)),
    (5, 1.5, "srgb"),
    (5, 1.5, "srgb"),
    (7, 1.0, "tone"),
    (2, 3.0, "srgb"),
    (3, 3.0, "srgb"),
)


@dataclass(frozen=True)
class Example:
    """One large bracket and what is known of it; `batch` holds it alone."""

    name: str
    batch: Batch
    meta: dict[str, object]


def validation_set(
    scenes: Scenes, seed: int, count: int = 14, size: tuple[int, int] = (320, 448)
) -> list[Example]:
    """Return brackets of hand-held photographs of walking figures, (height, width) each.

    Nine in fourteen have three frames 2 EV apart, the others 2 to 7 frames 1 to 3 EV apart;
    four are taken through an S-curve. Every bracket is of another picture, while they last.
    """
    order = Dice(seed).permutation(len(scenes.pictures))
    return [
        _example(scenes, scenes.pictures[order[i % len(order)]], i, seed + i, size)
        for i in range(count)
    ]


def _example(
    scenes: Scenes, picture: Picture, index: int, seed: int, size: tuple[int, int]
) -> Example:
    frames, step, curve = _PLANS[index % len(_PLANS)]
    dice = Dice(seed)
    shake, speed = dice.pick([0.0, 1.5, 1.5, 3.0, 3.0]), dice.log_uniform(10.0, 60.0)
    recipe = _walkers(shake, speed, curve)
    reference = (frames - 1) // 2
    evs = [step * (n - reference) for n in range(frames)]
    timeline = timeline_of(dice, [2.0**ev for ev in evs], reference)
    timeline = dataclasses.replace(timeline, moments=[float(n - reference) for n in range(frames)])
    margin = 2 * margin_of(size)
    canvas = plain_crop(picture, dice, size[0] + margin, size[1] + margin, (0.7, 1.4), 0.0)
    canvas = expose(canvas, dice.uniform(0.01, 0.3), median=0.04)
    item = stage(scenes, dice, canvas, size, timeline, recipe)
    batch = photograph([item], dice, recipe)
    meta = {
        "scene": picture.name,
        "n": frames,
        "ev": evs,
        "ref": reference,
        "shake": shake,
        "speed": speed,
        "noise": batch.noise[0].tolist(),
        "curve": curve,
    }
    label = f"{step:g}".replace(".", "p")
    return Example(f"{index:02d}-{picture.name.lower()}-{frames}x{label}", batch, meta)


def _walkers(shake: float, speed: float, curve: str) -> Recipe:
    return Recipe(
        exposure_error_ev=0.0,
        static=0.0,
        shakes={(shake, shake): 1.0},
        movers=(2, 3),
        shapes={"figure": 1.0},
        sizes=(0.15, 0.3),
        heights=(0.4, 0.8),
        speeds=(speed, speed),
        soft=0.15,
        glowing=0.0,
        parallax=0.0,
        moving_light=0.0,
        camera_blur=0.0,
        photon_noise=(1e-4, 1e-3),
        read_noise=(1e-7, 2e-6),
        curves={curve: 1.0},
        told_srgb=1.0,
        jpeg=0.0,  # write_bracket compresses
        unquantised=0.0,
    )


def write_bracket(folder: Path, example: Example, *, quality: int = 96) -> Path:
    """Write a bracket as JPEG with EXIF, gt.exr and meta.json in a new folder; return it."""
    target = Path(folder) / example.name
    target.mkdir(parents=True)
    evs = np.log2(example.batch.true_exposures[0].double().cpu().numpy()).tolist()
    for n, (codes, ev) in enumerate(zip(example.batch.codes[0], evs, strict=True)):
        pixels = codes.permute(1, 2, 0).contiguous().cpu().numpy()
        _write_jpeg(target / f"{n}.jpg", pixels, n, ev, quality)
    _write_exr(target / "gt.exr", example.batch.radiance[0])
    (target / "meta.json").write_text(json.dumps(example.meta))
    return target


def _write_jpeg(path: Path, pixels: np.ndarray, number: int, ev: float, quality: int) -> None:
    from PIL import Image
    from PIL.TiffImagePlugin import IFDRational

    seconds = (_REFERENCE_TIME * Fraction(2.0**ev)).limit_denominator(1_000_000)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "hdrcli", "synthetic"
    exif.get_ifd(0x8769).update(
        {
            0x829A: IFDRational(seconds.numerator, seconds.denominator),
            0x829D: IFDRational(round(_F_NUMBER * 10), 10),
            0x8827: _ISO,
            0x9003: f"2026:01:02 03:04:{number:02d}",
        }
    )
    # 4:4:4, so that what is measured is the merge and not the colour of thin things.
    Image.fromarray(pixels).save(path, quality=quality, subsampling=0, exif=exif)


def _write_exr(path: Path, radiance: torch.Tensor) -> None:
    import OpenEXR

    half = radiance.clamp(0.0, 65504.0).half().cpu().numpy()
    header = {"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage}
    channels = {name: np.ascontiguousarray(half[i]) for i, name in enumerate("RGB")}
    with OpenEXR.File(header, channels) as file:
        file.write(str(path))
