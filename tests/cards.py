"""Cards full of tiny photographs, with the sets that are on them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from hdrcli import formats
from hdrcli.exif import write_exif
from hdrcli.frames import Metadata
from tests.scenes import photograph, texture

START = datetime(2025, 6, 21, 9)
BASE = Metadata(f_number=8.0, iso=100.0, make="Canon", model="EOS R5", focal_length=24.0)


def stamped(seconds: float) -> tuple[str, float]:
    """Seconds since the card's morning as EXIF has them."""
    when = START + timedelta(seconds=seconds)
    return when.strftime("%Y:%m:%d %H:%M:%S"), round(when.microsecond / 1e6, 2)


def write_set(
    folder: Path,
    first: int,
    begin: float,
    evs: Sequence[float] = (0, -2, 2),
    *,
    shutter: float = 1 / 64,
    size: tuple[int, int] = (48, 64),
    seed: int = 0,
    pause: float = 0.3,
    camera: Metadata = BASE,
) -> list[Path]:
    """A bracket of a textured scene with true exposures: IMG_<first>.jpg and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    bracket = photograph(texture(*size, seed=seed), sorted(evs))
    codes = {ev: f.codes for ev, f in zip(sorted(evs), bracket.frames, strict=True)}
    paths, now = [], begin
    for i, ev in enumerate(evs):
        taken, subsecond = stamped(now)
        seconds = shutter * 2.0**ev
        metadata = replace(
            camera, exposure_time=seconds, bias=float(ev), taken=taken, subsecond=subsecond
        )
        paths.append(folder / f"IMG_{first + i:04d}.jpg")
        formats.write_display_codes(paths[-1], codes[ev], exif=write_exif(metadata))
        now += seconds + pause
    return paths


# ---- a whole card ----------------------------------------------------------------------------

CAMERAS = (
    replace(BASE, serial="0421"),
    replace(BASE, make="SONY", model="ILCE-7M4", serial="77"),
)


@dataclass
class Camera:
    """One camera's state while the card fills."""

    metadata: Metadata
    prefix: str
    number: int
    clock: float
    subseconds: bool
    dark: bool  # takes a dark frame after long exposures
    behind: float = 0.0  # how far its clock has been set back


@dataclass
class Card:
    """A made-up card: the files' names with what they say, and which belong together."""

    files: dict[str, Metadata] = field(default_factory=dict)
    sets: set[frozenset[str]] = field(default_factory=set)

    def write(self, folder: Path) -> None:
        """As JPEG files of 8 by 6 pixels."""
        folder.mkdir(parents=True, exist_ok=True)
        codes = np.full((6, 8, 3), 99, np.uint8)
        for name, metadata in self.files.items():
            formats.write_display_codes(folder / name, codes, exif=write_exif(metadata))


def make_card(seed: int, count: int = 300, *, tags: bool = True) -> Card:
    """Brackets of two cameras among single photographs.

    Sets of 3 to 9 in all usual orders, with long exposures up to 16 s, photographs taken twice,
    bursts of one exposure, pauses from 4 s, clocks set back, numbers that wrap at 9999.
    ``tags``: exposure bias is written.
    """
    dice = random.Random(seed)
    cameras = [
        Camera(CAMERAS[0], "IMG_", dice.choice([1, 4200, 9950]), 0.0, True, dice.random() < 0.4),
        Camera(CAMERAS[1], "DSC0", 100, 500.0, dice.random() < 0.5, dice.random() < 0.4),
    ]
    card = Card()
    while len(card.files) < count:
        camera = dice.choice([cameras[0], cameras[0], cameras[1]])
        evs = _evs(dice)
        base = 2.0 ** (round(3 * dice.uniform(-9, min(1, 4.4 - max(evs)))) / 3)
        if dice.random() < 0.04:
            camera.behind += 3600.0
        names = [_shoot(card, camera, dice, base, ev, tags) for ev in evs]
        if len(set(evs)) > 1:
            card.sets.add(frozenset(names))
        camera.clock += dice.choice(
            [dice.uniform(4, 9), dice.uniform(5, 60), dice.uniform(60, 900)]
        )
    return card


def _evs(dice: random.Random) -> list[float]:
    """Stops of the photographs of one place, in the order of taking."""
    kind = dice.random()
    if kind < 0.25:
        return [0.0] * (1 if kind < 0.2 else dice.randint(2, 5))
    step = dice.choice([1, 2, 2, 2, 3, 0.7])
    frames = dice.choice([3, 5] if step == 3 else [3, 3, 3, 5, 7, 9])
    ladder = [float((i - frames // 2) * step) for i in range(frames)]
    order = dice.choice(["metered first", "up", "down"])
    ladder.sort(reverse=order == "down")
    evs = sorted(ladder, key=abs) if order == "metered first" else ladder
    if dice.random() < 0.12:
        again = dice.randrange(len(evs))
        evs.insert(again, evs[again])
    return evs


def _shoot(
    card: Card, camera: Camera, dice: random.Random, base: float, ev: float, tags: bool
) -> str:
    seconds = base * 2.0**ev
    taken, subsecond = stamped(camera.clock - camera.behind)
    name = f"{camera.prefix}{(camera.number - 1) % 9999 + 1:04d}.JPG"
    card.files[name] = replace(
        camera.metadata,
        exposure_time=seconds,
        bias=ev if tags else None,
        taken=taken,
        subsecond=subsecond if camera.subseconds else 0.0,
    )
    camera.number += 1
    dark = seconds if camera.dark and seconds >= 1 else 0.0
    camera.clock += seconds + dark + dice.uniform(0.1, 0.6)
    return name
