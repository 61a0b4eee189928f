"""An example to try hdrcli with: a bracket of a rendered room, and the light that was there.

The scene (light, texture, garden, room) is drawn once, what moves (figures, moment) is drawn
into it for every moment a shutter is open, and the camera makes photographs of that.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hdrcli import formats
from hdrcli.errors import InputError
from hdrcli.example.camera import Hand, develop, expose
from hdrcli.example.figures import MOVERS
from hdrcli.example.light import Floats
from hdrcli.example.render import Canvas, Still, render
from hdrcli.exif import write_exif
from hdrcli.formats import WriteOptions
from hdrcli.formats.save import make_folder
from hdrcli.frames import Metadata, Radiance

Progress = Callable[[str, float], None]

SHUTTER = 1 / 60  # seconds, of the photograph in the middle
PAUSE = 0.42  # seconds from the end of an exposure to the start of the next
LONGEST = 30.0  # seconds
CAMERA = Metadata(
    f_number=5.6,
    iso=200,
    make="hdrcli",
    model="Example",
    lens="25mm f/5.6",
    focal_length=25.0,
    taken="2025:06:21 19:40:00",
    utc_offset="+02:00",
)
TRUTH = "truth.exr"


@dataclass(frozen=True)
class Shot:
    """One photograph of the plan: when the shutter opens, and how long it stays so."""

    name: str
    opened: float  # seconds since 19:40:00
    shutter: float  # seconds
    ev: float  # stops above the reference

    @property
    def metadata(self) -> Metadata:
        """What the camera writes into the file."""
        return replace(CAMERA, exposure_time=self.shutter, bias=self.ev, subsecond=self.opened % 1)


@dataclass(frozen=True)
class Example:
    """What to photograph, and how."""

    frames: int = 3
    ev_step: float = 3.0
    size: tuple[int, int] = (960, 640)  # width, height
    seed: int = 0
    static: bool = False  # nothing moves, and the camera stands on a tripod

    def shots(self) -> tuple[Shot, ...]:
        """All photographs, darkest first; the middle one is the reference, at 0 EV."""
        middle = self.frames // 2
        now, shots = 0.0, []
        for i in range(self.frames):
            ev = (i - middle) * self.ev_step
            shutter = SHUTTER * 2**ev
            shots.append(Shot(f"IMG_{i + 1:04d}.jpg", now, shutter, ev))
            now += shutter + PAUSE
        if shots[-1].shutter > LONGEST:
            raise InputError(
                f"the longest exposure would take {shots[-1].shutter:.0f} s",
                hint="choose fewer frames or a smaller step",
            )
        return tuple(shots)

    @property
    def reference(self) -> Shot:
        """The photograph in the middle, whose light is the truth."""
        return self.shots()[self.frames // 2]


def write_example(
    folder: Path,
    example: Example,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the photographs, then truth.exr: the light behind the reference, free of noise.

    1.0 in the truth is the reference's white. The same example gives the same files. Returns
    the paths, the truth last. Raises InputError for files that exist, before anything is drawn.
    """
    say = progress or (lambda _stage, _done: None)
    shots = example.shots()
    paths = [folder / shot.name for shot in shots] + [folder / TRUTH]
    make_folder(folder)
    for path in paths:
        formats.check_output(path, overwrite=overwrite)
    still = render(Canvas(*example.size), lambda done: say("scene", done / 2))
    for i, (shot, path) in enumerate(zip(shots, paths[:-1], strict=True)):
        say("photographs", 0.5 + 0.5 * i / (len(shots) + 1))
        codes = photograph(example, still, shot, seed=i)
        _write_photograph(path, codes, shot, overwrite=overwrite)
    say("truth", 0.5 + 0.5 * len(shots) / (len(shots) + 1))
    _write_truth(paths[-1], truth(example, still), example.reference, overwrite=overwrite)
    return paths


def truth(example: Example, still: Still, shot: Shot | None = None) -> Floats:
    """Light on the sensor during a shot (the reference's), (H, W, 3): 1.0 is its white at 0 EV."""
    shot = shot or example.reference
    centre = example.reference.opened + SHUTTER / 2
    movers = () if example.static else MOVERS
    hand = Hand(example.seed, steady=example.static)
    return expose(still, movers, hand, shot.opened, shot.shutter, level=centre)


def photograph(example: Example, still: Still, shot: Shot, seed: int) -> np.ndarray:
    """The codes of one photograph, (H, W, 3) uint8, sRGB."""
    rng = np.random.default_rng([example.seed, 2, seed])
    return develop(truth(example, still, shot), 2.0**shot.ev, rng)


def _write_photograph(path: Path, codes: np.ndarray, shot: Shot, *, overwrite: bool) -> None:
    formats.write_display_codes(
        path,
        codes,
        overwrite=overwrite,
        options=WriteOptions(jpeg_quality=96),
        exif=write_exif(shot.metadata),
    )


def _write_truth(path: Path, light: Floats, reference: Shot, *, overwrite: bool) -> None:
    assert CAMERA.iso is not None
    assert CAMERA.f_number is not None
    exposure = reference.shutter * CAMERA.iso / 100 / CAMERA.f_number**2
    formats.write(
        path,
        Radiance(light, exposure=exposure),
        overwrite=overwrite,
        options=WriteOptions(exr_type="float"),
        attributes={
            "expTime": reference.shutter,
            "isoSpeed": CAMERA.iso,
            "aperture": CAMERA.f_number,
            "comments": "true light of the reference photograph; 1.0 is its white",
        },
    )
