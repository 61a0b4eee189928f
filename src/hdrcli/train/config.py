"""How each network is trained: the papers' recipes, and ours for hours on a processor.

Sources of ``paper``: PSFNet section 4.1, HDR-GAN section IV-A, ADNet section 4.2, APNT-Fusion
section III-E, DeepHDRVideo section 5; where a paper and its published code differ, the code.
``cpu`` is for minutes on a processor: smaller networks that begin as a plain merge
(``train.start``), whose weights are held while the free ones learn; AdamW, patches just larger than
the motion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from hdrcli.train.scenes import Recipe

BRACKET = Recipe(
    frames={3: 1.0},
    middle_reference=1.0,
    exposure_error_ev=0.1,
    shakes={(0.0, 0.0): 0.3, (0.2, 1.5): 0.55, (1.5, 4.0): 0.15},  # what alignment leaves
    told_srgb=0.15,
    curves={"srgb": 0.7, "gamma": 0.1, "tone": 0.1, "style": 0.1},
)
VIDEO = replace(BRACKET, step_ev=(1.5, 5.5))


@dataclass(frozen=True)
class Stage:
    """A part of a training: what runs, for which share of the time, from which rate."""

    name: Literal["whole", "coarse", "refine"]
    share: float
    rate: float


@dataclass(frozen=True)
class Preset:
    """One recipe. Rates are those of Adam; shares and ``*_from`` are parts of the whole training.

    schedule: "cosine" falls to ``floor`` × the rate in every stage, "flat" does not fall,
    "steps" multiplies by ``factor`` at the ``drops``. loss: a name of ``train.loss.LOSSES``.
    period: 0 for brackets, else that of a video's exposures. reuse: steps that see one generated
    batch, each time turned, mirrored and recoloured. doubled: probability that a bracket lacks its
    short or its long frame, the reference standing in for it. stills: share of a video's samples
    that are windows made of brackets, as the backend makes them. followed: frames come moved to the
    middle one by the classical motion, with the belief in each (``train.windows``). perceptual:
    while refining, the loss has VGG's features too, where ``hdrcli train --vgg`` gives its weights.
    """

    backend: str
    stages: tuple[Stage, ...]
    arch: Mapping[str, Any] = field(default_factory=dict)
    patch: int = 256
    batch: int = 8
    period: int = 0
    loss: str = "mu-law"
    schedule: Literal["cosine", "flat", "steps"] = "cosine"
    floor: float = 0.01
    drops: tuple[float, ...] = ()
    factor: float = 0.1
    warmup: int = 0  # steps
    decay: float = 0.0  # AdamW's; 0 is Adam
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 0.0  # norm of the gradient; 0 is unlimited
    average: float = 0.999  # decay of the weights' moving average
    adversarial: float = 0.0  # λ of HDR-GAN
    adversarial_from: float = 0.0
    discriminator: int = 64  # its width
    matching: float = 0.0  # weight of the matching trunk's own loss (APNT-Fusion)
    matching_every: int = 1  # steps
    from_merge: bool = False  # begin with weights that merge already (train.start)
    held: float = 1.0  # rate of the numbers that carry that merge, as a part of the others'
    reuse: int = 1
    doubled: float = 0.0
    stills: float = 0.0
    followed: bool = False
    perceptual: bool = False
    recipe: Recipe = BRACKET


_CPU: Mapping[str, Any] = MappingProxyType(
    {
        "patch": 64,
        "batch": 4,
        "warmup": 10,
        "decay": 1e-4,
        "betas": (0.9, 0.99),
        "clip": 0.5,
        "average": 0.985,
        "from_merge": True,
        "held": 0.003,
        "reuse": 3,
        "doubled": 0.1,
    }
)

_VIDEO: Mapping[str, Any] = MappingProxyType(
    {
        "stages": (Stage("coarse", 0.4, 1e-4), Stage("refine", 0.6, 1e-4)),
        "period": 2,
        "loss": "masked",
        "schedule": "steps",
        "drops": (0.33, 0.67),
        "factor": 0.5,
        "perceptual": True,
        "recipe": VIDEO,
    }
)
_SMALL_VIDEO: Mapping[str, Any] = MappingProxyType(
    {
        "flow": False,
        "weight_channels": 96,
        "weight_tail": 24,
        "batch_norm": False,
        "channels": 24,
        "deformable": False,
        "extract_blocks": 1,
        "trunk_blocks": 3,
    }
)
_VIDEO_CPU: Mapping[str, Any] = MappingProxyType(
    {
        **_CPU,
        "stages": (Stage("coarse", 0.35, 6e-4), Stage("refine", 0.65, 2e-3)),
        "batch": 8,
        "patch": 56,
        "loss": "log-squares",
        "clip": 20.0,
        "average": 0.995,
        "doubled": 0.0,
        "stills": 0.35,
        "followed": True,
        "recipe": VIDEO,
    }
)

PRESETS: Mapping[tuple[str, str], Preset] = MappingProxyType(
    {
        ("psfnet", "paper"): Preset("psfnet", (Stage("whole", 1, 1e-4),), {}),
        ("psfnet", "cpu"): Preset(
            "psfnet",
            (Stage("whole", 1, 4e-4),),
            {"channels": 48, "blocks": 2, "dual_blocks": 1},
            **_CPU,
        ),
        ("hdrgan", "paper"): Preset(
            "hdrgan",
            (Stage("whole", 1, 1e-4),),
            {"spectral": True},
            patch=512,
            batch=2,
            loss="hybrid",
            schedule="steps",
            drops=(0.094, 0.581),
            adversarial=1.0,
        ),
        ("hdrgan", "cpu"): Preset(
            "hdrgan",
            (Stage("whole", 1, 6e-4),),
            {"channels": 24},
            loss="hybrid",
            adversarial=1e-3,
            adversarial_from=0.75,
            discriminator=16,
            **{**_CPU, "held": 0.03},
        ),
        ("adnet", "paper"): Preset(
            "adnet",
            (Stage("whole", 1, 1e-4),),
            {},
            batch=4,
            loss="tanh-mu-law",
            schedule="steps",
            drops=(0.5,),
        ),
        ("adnet", "cpu"): Preset(
            "adnet",
            (Stage("whole", 1, 6e-4),),
            {"channels": 16, "growth": 16, "dense_layers": 3, "blocks": 2, "groups": 2},
            **{**_CPU, "held": 0.03},
        ),
        ("apntfusion", "paper"): Preset(
            "apntfusion", (Stage("whole", 1, 1e-5),), {}, batch=1, schedule="flat", matching=0.1
        ),
        ("apntfusion", "cpu"): Preset(
            "apntfusion",
            (Stage("whole", 1, 2e-4),),
            {
                "channels": 24,
                "mef_blocks": 3,
                "blocks": 1,
                "reduction": 4,
                "trunk": (8, 16, 32),
                "windows": (1, 1, 6),
            },
            matching=0.02,
            matching_every=8,
            **_CPU,
        ),
        ("deephdrvideo", "paper"): Preset("deephdrvideo", arch={"exposures": 2}, **_VIDEO),
        ("deephdrvideo", "paper3"): Preset(
            "deephdrvideo", arch={"exposures": 3}, **{**_VIDEO, "period": 3}
        ),
        ("deephdrvideo", "cpu"): Preset(
            "deephdrvideo", arch={"exposures": 2, **_SMALL_VIDEO}, period=2, **_VIDEO_CPU
        ),
        ("deephdrvideo", "cpu3"): Preset(
            "deephdrvideo", arch={"exposures": 3, **_SMALL_VIDEO}, period=3, **_VIDEO_CPU
        ),
    }
)
