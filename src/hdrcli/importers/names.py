"""The names of published weights and ours, as data: prefix of a published name → prefix of ours.

The first prefix that a name starts with counts. A name that starts with none of them is not part
of the network: it is left out, or refused, as `IGNORED` says.
"""

from collections.abc import Mapping

_LAYERS = range(16)  # more than any published network has of anything


ADNET: Mapping[str, str] = {
    "feat_exract.0.": "feat_extract.",  # the authors' spelling
    "pyramid_feats.downsample1.": "pyramid_feats.downsample.0.",
    "pyramid_feats.downsample2.": "pyramid_feats.downsample.1.",
    **{
        f"RDB{block + 1}.dense_layers.{layer}.conv.": f"RDB.{block}.dense_layers.{layer}."
        for block in _LAYERS
        for layer in _LAYERS
    },
    **{f"RDB{block + 1}.": f"RDB.{block}." for block in _LAYERS},
    **{
        name: name
        for name in (
            "pyramid_feats.",
            "align_module.",
            "att_module_",
            "conv1.",
            "conv2.",
            "post_conv.",
        )
    },
}

# flow_net.pth, weight_net.pth and refine_net.pth, told apart by their names.
DEEPHDRVIDEO: Mapping[str, str] = {
    **{f"moduleBasic.{level}.moduleBasic.": f"flow_net.levels.{level}." for level in _LAYERS},
    "downsample.layers.": "weight_net.down.",
    "upsample.layers.5.0.": "weight_net.head.",
    "upsample.layers.": "weight_net.up.",
    **{
        name: f"refine_net.{name}"
        for name in (
            "conv_first_",
            "feature_extraction.",
            "fea_L",
            "pcd_align.",
            "ta_fusion.",
            "recon_trunk.",
            "deconv1.",
            "HRconv.",
            "conv_last.",
        )
    },
}

_GENERATOR = "UnetppGeneratorS/"
_RESIDUAL = {"cov_0": "conv1", "cov_1": "conv2", "cov_btn": "skip"}
_SCALES = range(4)

# Layers of the TensorFlow bundle; each has a kernel, a bias and, if normalised, u.
HDRGAN: Mapping[str, str] = {
    **{
        f"{_GENERATOR}backbone_{frame}/SR_{s}/{theirs}/": f"encoders.{frame}.blocks.{s}.{ours}."
        for frame in range(3)
        for s in _SCALES
        for theirs, ours in _RESIDUAL.items()
    },
    **{
        f"{_GENERATOR}backbone_{frame}/down_{s}/": f"encoders.{frame}.down.{s}."
        for frame in range(3)
        for s in _SCALES
    },
    **{
        f"{_GENERATOR}merge/merge_net_{s}/{theirs}/": f"merge.{s}.convs.{conv}."
        for s in _SCALES
        for conv, theirs in enumerate(("cov_1", "cov_2", "cov_3", "cov4"))  # sic
    },
    **{f"{_GENERATOR}merge/up_{s + 1}/": f"up.1{s}.conv." for s in _SCALES},
    **{
        f"{_GENERATOR}decoders/up_{i - 1}{s + 1}/": f"up.{i}{s}.conv."
        for i in _SCALES[2:]
        for s in _SCALES
    },
    **{
        f"{_GENERATOR}decoders/SR_{i}{s}/{theirs}/": f"decoders.{i}{s}.{ours}."
        for i in _SCALES[1:]
        for s in _SCALES
        for theirs, ours in _RESIDUAL.items()
    },
    **{f"{_GENERATOR}output_{i}/": f"outputs.{i - 1}." for i in _SCALES[1:]},
}

# torchvision's VGG19 up to conv3_1: the matching trunk Ψ of APNT-Fusion.
APNTFUSION: Mapping[str, str] = {
    f"features.{layer}.": f"Psi.features.{layer}." for layer in (0, 2, 5, 7, 10)
}

NAMES: Mapping[str, Mapping[str, str]] = {
    "adnet": ADNET,
    "apntfusion": APNTFUSION,
    "deephdrvideo": DEEPHDRVIDEO,
    "hdrgan": HDRGAN,
}

# What published files hold besides the network: prefixes of names.
IGNORED: Mapping[str, tuple[str, ...]] = {
    "adnet": (),
    "apntfusion": ("features.", "classifier."),
    "deephdrvideo": (),
    "hdrgan": ("",),  # Adam's slots, the discriminator, counters
}


def rename(name: str, table: Mapping[str, str]) -> str | None:
    """Our name for a published one, or None where the table has none."""
    for theirs, ours in table.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return None
