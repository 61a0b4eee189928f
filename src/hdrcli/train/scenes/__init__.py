"""Synthetic brackets of known radiance, made in batches on any torch device.

    scenes = Scenes(Path("hdri"))
    batch = bracket_batch(scenes, seed=1, size=(256, 256), batch=8, frames=3)

The seed decides everything: step k of a training takes seed k.
"""

from hdrcli.train.scenes.brackets import Batch, bracket_batch, video_windows
from hdrcli.train.scenes.folders import Example, validation_set, write_bracket
from hdrcli.train.scenes.material import Scenes
from hdrcli.train.scenes.recipe import Recipe
from hdrcli.train.scenes.sheet import contact_sheet

__all__ = [
    "Batch",
    "Example",
    "Recipe",
    "Scenes",
    "bracket_batch",
    "contact_sheet",
    "validation_set",
    "video_windows",
    "write_bracket",
]
