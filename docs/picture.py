"""Make docs/example.jpg, the picture of the README: ``python docs/picture.py``.

Above the photographs of ``hdrcli example``, below their plain weighted mean and the merge.
"""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hdrcli import formats
from hdrcli.example import Example, write_example
from hdrcli.pipeline import MergeOptions, merge_files

WIDTH = 1200
GAP = 8
HERE = Path(__file__).parent
NAIVE = MergeOptions(align="none", deghost="none", response="srgb", overwrite=True)
OURS = MergeOptions(overwrite=True)

Picture = NDArray[np.uint8]


def main() -> None:
    """Render, merge twice, and put all on one sheet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        *photographs, _ = write_example(folder, Example())
        for stem, options in (("naive", NAIVE), ("ours", OURS)):
            merge_files(photographs, [folder / f"{stem}.png"], options)
        above = [formats.read(path).codes for path in photographs]
        below = [formats.read(folder / f"{stem}.png").codes for stem in ("naive", "ours")]
    captions = (("-3 EV", "0 EV", "+3 EV"), ("weighted mean", "hdrcli merge"))
    sheet = np.vstack([_row(above, captions[0]), _gap(GAP, WIDTH), _row(below, captions[1])])
    Image.fromarray(sheet).save(HERE / "example.jpg", quality=90, subsampling=0, optimize=True)


def _row(pictures: list[Picture], captions: tuple[str, ...]) -> Picture:
    width = (WIDTH - GAP * (len(pictures) - 1)) // len(pictures)
    parts: list[Picture] = []
    for picture, caption in zip(pictures, captions, strict=True):
        height = round(picture.shape[0] * width / picture.shape[1])
        small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        parts += [_captioned(small, caption), _gap(height, GAP)]
    row = np.hstack(parts[:-1])
    return np.hstack([row, _gap(row.shape[0], WIDTH - row.shape[1])])


def _captioned(picture: Image.Image, caption: str) -> Picture:
    draw = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.load_default(15)
    box = draw.textbbox((10, picture.height - 28), caption, font=font)
    draw.rectangle((box[0] - 5, box[1] - 4, box[2] + 5, box[3] + 4), fill=(0, 0, 0, 150))
    draw.text((10, picture.height - 28), caption, font=font, fill="white")
    return np.asarray(picture.convert("RGB"))


def _gap(height: int, width: int) -> Picture:
    return np.full((height, width, 3), 255, np.uint8)


if __name__ == "__main__":
    main()
