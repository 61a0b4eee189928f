"""Weights to begin with that make a fresh network a plain merge.

The papers begin at random and spend their first thousands of steps on learning to copy. Here a few
channels carry the reference through the skips that the networks have anyway, and where it is
clipped they add what the short frame has more, in the domain of the output:

    y = r + max(s - r - K max(0.93 - L_r, 0) - K max(Σ(r - s) - ε, 0), 0) + limit(l - r)

with r, s and l the reference, the short and the long frame in that domain, L_r the reference's
code, and Σ over the colours: a short frame that is darker than what clips shows something else,
and would only colour it. limit(x) is x as far as it may be noise, |x| ≤ τ, more in the shadows,
nothing where the long frame is clipped: it puts the long frame's shadows, which are less noisy, in
the reference's place. All other weights stay as they were drawn, those of the last layers smaller,
and all go on learning.

DeepHDRVideo keeps the reference where it is well exposed by its own equations. It begins with the
mean of the neighbours elsewhere, and refines nothing: H^r is the coarse H. Its form without a flow
net is a merge as it is; its last layers begin small.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from hdrcli.nets.adnet import ADNet
from hdrcli.nets.apntfusion import CAB, APNTFusion
from hdrcli.nets.deephdrvideo import DeepHDRVideo, RefineNet, WeightNet
from hdrcli.nets.deform import DeformConv
from hdrcli.nets.forms import MU
from hdrcli.nets.hdrgan import HDRGAN, Merge, Residual
from hdrcli.nets.layers import PCDAlign
from hdrcli.nets.psfnet import PSFB, PSFNet

SMALL = 0.02
CLIPPED = 0.93  # code of the reference above which the short frame may add light
K = 5.0  # how fast it may no more below
LONG_CLIPS = 0.88  # code of the long frame from which it tells nothing
NOISE = {"gamma": 0.005, "mu-law": 0.01}  # τ: what may be noise in these domains
DARKER = {"gamma": 0.03, "mu-law": 0.06, "logit": 0.3, "light": 0.1}  # ε
SHADOW = 0.2  # code of the reference below which noise is more
SHADOW_NOISE = {"gamma": 0.4, "mu-law": 0.8, "logit": 5.0}  # τ more per code below that
LEAST = -3.0  # logit of a weight that hardly counts
LEAK = 0.1  # slope of EDVR's leaky ReLU
COLOURS = range(3)
# The layers that answer.
ANSWERS = frozenset(
    {"post_conv.2", "outputs.0", "outputs.1", "output", "weight_net.head", "refine_net.conv_last"}
)
# Where the straight pieces meet that stand for a curve.
RAMPS = (1.0, 0.8, 0.35, 0.14, 0.055, 0.022, 0.008, 0.003, 0.001)  # light
FAINT = 0.02  # scale of what goes through a sum without being seen
TANH_KNEES = (-0.85, -0.5, 0.5, 0.85)
DARK_KNEES = (0.0, 0.0008, 0.003, 0.01, 0.04, 0.2, 0.7)
LIGHT_KNEES = (0.2, 0.4, 0.75, 0.93)
DARK_RAMPS = (0.03, 0.008, 0.002)

Taps = Mapping[int, float]  # weight by input channel


def begin_at_merge(net: nn.Module) -> dict[str, Tensor]:
    """Change a fresh network in place; one too narrow for it, or of another kind, is left.

    Return, by the parameter's name, which of its numbers carry the merge (bool): all of a row that
    was set, but in the layers that answer only what is not zero there. They are worth more care
    than others: a step of Adam's on every zero that keeps them apart would drown the merge.
    """
    start, drawn = _STARTS.get(type(net)), _copied(net)
    if start is None:
        return {}
    with torch.no_grad():
        start(net)
    return {name: built for name, built in _built(net, drawn).items() if bool(built.any())}


def _copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def _built(net: nn.Module, drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is neither as it was drawn nor only smaller."""
    built = {}
    for name, now in net.named_parameters():
        was = drawn[name]
        built[name] = (now != was) & (now != was * SMALL)
        if name.rpartition(".")[0] in ANSWERS:
            built[name] &= now != 0
    return built


def set_row(conv: nn.Module, row: int, taps: Taps, bias: float = 0.0) -> None:
    """Let an output channel be a weighted sum of input channels at the same place."""
    weight, biases = conv.weight, _biases(conv)
    assert isinstance(weight, Tensor)
    middle = weight.shape[-1] // 2
    weight[row] = 0
    for channel, value in taps.items():
        weight[row, channel, middle, middle] = value
    biases[row] = bias


def _biases(conv: nn.Module) -> Tensor:
    biases = conv.bias
    assert isinstance(biases, Tensor)
    return biases


def shrink(conv: nn.Module, rows: Sequence[int] = ()) -> None:
    """Make what a convolution adds small, and nothing for the given output channels."""
    weight, biases = conv.weight, _biases(conv)
    assert isinstance(weight, Tensor)
    weight.mul_(SMALL)
    biases.mul_(SMALL)
    for row in rows:
        weight[row], biases[row] = 0, 0


def hinges(
    x: Tensor, aim: Tensor, knees: Sequence[float], matters: Tensor, *, constant: bool = True
) -> list[float]:
    """Weights of max(x - knee, 0), then of the constant, that are least wrong about ``aim``.

    ``matters`` says how much what is shown changes with the aim, at each x.
    """
    columns = [torch.relu(x - knee) for knee in knees]
    if constant:
        columns.append(torch.ones_like(x))
    return fitted(torch.stack(columns, 1), aim, matters)


def fitted(basis: Tensor, aim: Tensor, matters: Tensor) -> list[float]:
    """Least-squares weights of the columns of a basis (n, m), in double precision."""
    left, right = (basis * matters[:, None]).double(), (aim * matters)[:, None].double()
    found: list[float] = torch.linalg.lstsq(left, right).solution[:, 0].tolist()
    return found


def shown(light: Tensor) -> Tensor:
    """The slope of the μ-law over the logit of light."""
    return MU * light * (1 - light) / (1 + MU * light)


# -- ADNet: in the gamma domain of the output all is a sum -------------------------------------


def _adnet(net: nn.Module) -> None:
    assert isinstance(net, ADNet)
    align, pyramid = net.align_module, net.pyramid_feats
    if not (isinstance(align, PCDAlign) and pyramid and net.attention and net.output == "relu"):
        return
    channels, growth = net.conv1.out_channels, net.RDB[0].get_parameter("conv_1x1.weight").shape[1]
    if min(channels, growth - channels) < 16 or len(dense_layers(net)) < 2:
        return
    for k in COLOURS:
        set_row(pyramid.conv1.get_submodule("0"), k, {k: 1})
        _keep(align.L1_dcnpack, k)
        set_row(align.L1_fea_conv, k, {k: 1})
        _keep(align.cas_dcnpack, k)
        set_row(net.feat_extract, 3 + k, {k: -1}, CLIPPED)
        set_row(net.feat_extract, 6 + k, {k: 1}, -LONG_CLIPS)
        set_row(net.feat_extract, 9 + k, {k: -1}, SHADOW)
    shrink(pyramid.feature_extraction.get_submodule("0.conv2"), COLOURS)
    _adnet_fusion(net, channels)


def dense_layers(net: ADNet) -> list[nn.Module]:
    """The convolutions of the first block."""
    return list(net.RDB[0].get_submodule("dense_layers").children())


def _adnet_fusion(net: ADNet, channels: int) -> None:
    """conv1 subtracts; the first dense layer cuts off; the rest hands it on."""
    short, reference, long = 0, 2 * channels, 4 * channels  # aligned; codes follow each
    first = net.RDB[0]
    dense, second = dense_layers(net)[:2]
    dense_width = dense.get_parameter("weight").shape[0]
    darker = {short + k: -1.0 for k in COLOURS} | {reference + k: 1.0 for k in COLOURS}
    set_row(net.conv1, 15, darker, -DARKER["gamma"])
    set_row(dense, 15, {15: 1})
    shrink(net.conv2[1])
    shrink(net.post_conv[2])
    for block in net.RDB:
        shrink(block.get_submodule("conv_1x1"), COLOURS)
    for k in COLOURS:
        below, clipped = reference + channels + 3 + k, long + channels + 6 + k
        set_row(net.conv1, k, {short + k: 1, reference + k: -1, below: -K})
        shadow = {reference + channels + 9 + k: -SHADOW_NOISE["gamma"]}
        more = {long + k: 1, reference + k: -1, clipped: -K}
        less = {long + k: -1, reference + k: 1, clipped: -K}
        for row, taps in enumerate((more, more | shadow, less, less | shadow), start=1):
            set_row(net.conv1, 3 * row + k, taps, 0.0 if row % 2 else -NOISE["gamma"])
            set_row(dense, 3 * row + k, {3 * row + k: 1})
        set_row(second, k, {k: 1, channels + 15: -K})
        kept = {dense_width + k: 1, 3 + k: 1, 6 + k: -1, 9 + k: -1, 12 + k: 1}
        rows = {k: -1.0} | {channels + row: sign for row, sign in kept.items()}
        set_row(first.get_submodule("conv_1x1"), k, rows)
        set_row(net.conv2[0], k, {k: 1})
        set_row(net.conv2[1], k, {k: 1})
        set_row(net.post_conv[0], k, {k: 1})
        set_row(net.post_conv[2], k, {k: 1})


def _keep(deform: DeformConv, row: int) -> None:
    """Hand a channel on; the modulation of an untrained layer is 1/2."""
    set_row(deform, row, {row: 2})


# -- HDR-GAN: T + 1 is above 0 for the ReLUs; hinges undo the tanh ----------------------------


def _hdrgan(net: nn.Module) -> None:
    assert isinstance(net, HDRGAN)
    merge = net.merge[0]
    channels = net.outputs[0].get_parameter("weight").shape[1]
    if channels < 16 or not isinstance(merge, Merge):
        return
    if not isinstance(merge.bottleneck, nn.Identity):
        return
    blocks = [encoder.get_submodule("blocks.0") for encoder in net.encoders]
    for k in COLOURS:
        for block in blocks:
            _through(block, k, {3 + k: 1}, 1.0)
        _through(blocks[1], 3 + k, {k: -1}, 2 * CLIPPED - 1)
        _through(blocks[1], 6 + k, {k: -0.5}, SHADOW - 0.5)
        _through(blocks[2], 3 + k, {k: 1}, 1 - 2 * LONG_CLIPS)
        _merge(merge, k, channels)
    for level, output in enumerate(net.outputs, start=1):
        _untanh(net.decoders[f"{level}0"], output, channels)


def _merge(merge: Merge, k: int, channels: int) -> None:
    """Subtract, limit, hand on, add to the reference."""
    first, *between, last = merge.convs
    reference, long = channels, 2 * channels
    clipped, shadow = long + 3 + k, {reference + 6 + k: -SHADOW_NOISE["mu-law"]}
    more = {long + k: 1, reference + k: -1, clipped: -K}
    less = {long + k: -1, reference + k: 1, clipped: -K}
    set_row(first, k, {k: 1, reference + k: -1, reference + 3 + k: -K})
    for row, taps in enumerate((more, more | shadow, less, less | shadow), start=1):
        set_row(first, 3 * row + k, taps, 0.0 if row % 2 else -NOISE["mu-law"])
    darker = dict.fromkeys(COLOURS, -1.0) | {reference + j: 1.0 for j in COLOURS}
    set_row(first, 15, darker, -DARKER["mu-law"])
    for conv in between:
        for row in range(k, 15, 3):
            set_row(conv, row, {row: 1})
    set_row(between[0], k, {k: 1, 15: -K})
    set_row(last, k, {k: 1, 3 + k: 1, 6 + k: -1, 9 + k: -1, 12 + k: 1})


def _through(block: nn.Module, row: int, taps: Taps, bias: float) -> None:
    """Let a block's output channel be what its skip makes of the input."""
    assert isinstance(block, Residual)
    set_row(block.skip, row, taps, bias)
    set_row(block.conv2, row, {})


def _untanh(decoder: nn.Module, output: nn.Module, source: int) -> None:
    """atanh(T) of M_0's first channels, which hold T + 1."""
    signed = torch.linspace(-0.98, 0.98, 99)
    *bends, slope, constant = hinges(
        signed, torch.atanh(signed), (*TANH_KNEES, -1.0), 1 - signed.square()
    )
    assert isinstance(decoder, Residual)
    shrink(output)
    for k in COLOURS:
        _through(decoder, k, {source + k: 1}, 0.0)
        sums = {k: slope}
        for step, (knee, bend) in enumerate(zip(TANH_KNEES, bends, strict=True), start=1):
            row = 3 * step + k
            sums[row] = bend
            set_row(decoder.conv1, row, {source + k: 1}, -(knee + 1))
            set_row(decoder.conv2, row, {row: 1})
            set_row(decoder.skip, row, {})
        set_row(output, k, sums, constant)


# -- PSFNet: the logit of light as ramps max(1 - H / knee, 0), which are all in [0, 1] ---------


def _psfnet(net: nn.Module) -> None:
    """Rows of every layer: the ramps, what is below clipping, the shadows, free ones for the sum.

    Through the skips the rows of the reference come again behind ``reduce`` and are added to what
    it finds: 0.93 - L, scaled down so that it does not show, to the light of the short frame, and
    τ to max(x - τ, 0), from which limit(x) = max(x + τ, 0) - max(x - τ, 0) - τ is made.
    """
    assert isinstance(net, PSFNet)
    channels, knees = net.extract.out_channels, len(RAMPS)
    free = 3 * knees + 6
    rows, darker = range(free + 6), range(free + 3, free + 6)
    if not (net.global_skip and net.local_skip) or channels < len(rows):
        return
    for conv in (net.reduce, net.output):
        shrink(conv)
    shrink(net.after_dual, rows)
    for block in net.psfbs:
        assert isinstance(block, PSFB)
        shrink(block.conv2, rows)
    *weights, constant = ramps()
    for k in COLOURS:
        below, shadow, raised = 3 * knees + k, 3 * knees + 3 + k, free + k
        mine = range(k * knees, (k + 1) * knees)
        for row, knee in zip(mine, RAMPS, strict=True):
            set_row(net.extract, row, {3 + k: -1 / knee}, 1.0)
            net.reduce.weight[row] *= SMALL
            _biases(net.reduce)[row] *= SMALL
        set_row(net.extract, below, {k: -FAINT}, FAINT * CLIPPED)
        tau = SHADOW_NOISE["logit"]
        set_row(net.extract, shadow, {k: -tau}, tau * SHADOW)
        net.extract.weight[raised] *= SMALL
        _biases(net.extract)[raised] = 0
        for row in (*mine, below, shadow, raised):
            set_row(net.before_output, row, {row: 1})
        net.extract.weight[darker[k]] *= SMALL
        _biases(net.extract)[darker[k]] = 0
        set_row(net.before_output, below, {below: 1} | dict.fromkeys(darker, -K))
        set_row(net.before_output, darker[k], {darker[k]: 1})
        level = dict(zip(mine, weights, strict=True))
        minus = {channels + row: -weight for row, weight in level.items()}
        long = {2 * channels + row: weight for row, weight in level.items()}
        own = channels + shadow  # of the reference, τ
        set_row(net.reduce, below, level | minus | {channels + below: -8 * K / FAINT})
        less = {row: -weight for row, weight in level.items()}
        less |= {channels + row: weight for row, weight in level.items()}
        set_row(net.reduce, darker[k], less, -DARKER["logit"])
        set_row(net.reduce, raised, long | minus | {own: 1})
        set_row(net.reduce, shadow, long | minus | {own: -1})
        set_row(net.output, k, level | {below: 1, raised: 1, shadow: -1}, constant)


def ramps() -> list[float]:
    """Weights of the ramps, and the constant, that give the logit of light."""
    light = torch.cat([torch.logspace(-4.5, -0.1, 300), torch.linspace(0.8, 0.985, 60)])
    columns = [torch.relu(1 - light / knee) for knee in RAMPS]
    basis = torch.stack([*columns, torch.ones_like(light)], 1)
    return fitted(basis, torch.logit(light), shown(light))


# -- APNT-Fusion: equation 14 has the logit of the medium; light is added to it ----------------


def _apntfusion(net: nn.Module) -> None:
    """F's first channels: light above LIGHT_KNEES[0] as logits, shadows as -log, how dark, how dim.

    N_mef subtracts, its first block limits, and the last convolution adds the sum to the medium.
    """
    assert isinstance(net, APNTFusion)
    channels, bright, dark = net.output.in_channels, len(LIGHT_KNEES), len(DARK_RAMPS)
    if (
        net.F_mt_s is None
        or net.F_mt_l is None
        or net.mef_blocks < 2
        or channels < 3 * (bright + dark + 1)
    ):
        return
    light = torch.linspace(LIGHT_KNEES[0], 0.985, 200)
    aim = torch.logit(light) - torch.logit(light[:1])
    above = hinges(light, aim, LIGHT_KNEES, shown(light), constant=False)
    light = torch.logspace(-3.7, math.log10(DARK_RAMPS[0]), 200)
    columns = torch.stack([torch.relu(1 - light / knee) for knee in DARK_RAMPS], 1)
    under = fitted(columns, -torch.log(light / DARK_RAMPS[0]), shown(light))
    shrink(net.output)
    nn.init.constant_(net.F_wgt.get_parameter("2.bias"), -6.0)
    for k in COLOURS:
        rows = range(k * bright, (k + 1) * bright)
        for row, knee in zip(rows, LIGHT_KNEES, strict=True):
            set_row(net.F_ex[0], row, {k: 1}, -knee)
        set_row(net.F_ex[2], k, dict(zip(rows, above, strict=True)))
        rows = range(3 * bright + k * dark, 3 * bright + (k + 1) * dark)
        for row, knee in zip(rows, DARK_RAMPS, strict=True):
            set_row(net.F_ex[0], row, {k: -1 / knee}, 1.0)
        set_row(net.F_ex[2], 3 + k, dict(zip(rows, under, strict=True)))
        set_row(net.F_ex[2], 6 + k, {rows[1]: 1})
        unclipped = 3 * (bright + dark) + k
        set_row(net.F_ex[0], unclipped, {k: -1 / LIGHT_KNEES[0]}, 1.0)
        set_row(net.F_ex[2], 9 + k, {unclipped: 1})
        set_row(net.F_mt_s[2], k, {}, 6.0)
        set_row(net.F_mt_l[2], 3 + k, {}, 6.0)
        _apntfusion_sum(net, k, channels)


def _apntfusion_sum(net: APNTFusion, k: int, channels: int) -> None:
    """Rows k of N_mef: the sum; 3 + k: long less medium, as logits; 6 + k: the medium's shadows;
    9 + k: short less medium, but far below 0 where the medium is below LIGHT_KNEES[0].
    """
    tau = SHADOW_NOISE["logit"] * SHADOW
    first, *blocks = net.N_mef
    medium, short, long = (n * channels for n in (3, 4, 5))
    set_row(first, k, {medium + 6 + k: -tau})
    set_row(first, 9 + k, {medium + k: -1, short + k: 1, medium + 9 + k: -5 * K})
    set_row(first, 3 + k, {medium + 3 + k: 1, long + 3 + k: -1})
    set_row(first, 6 + k, {medium + 6 + k: 1})
    set_row(first, 12 + k, {medium + k: 1, short + k: -1}, -DARKER["light"])
    for place, block in enumerate(blocks):
        assert isinstance(block, CAB)
        for row in (k, 3 + k, 6 + k, 9 + k, 12 + k):
            set_row(block.body[2], row, {})
            set_row(block.excite, row, {})  # its sigmoid is 1/2
        if place == 0:
            set_row(block.body[0], k, {3 + k: 1, 6 + k: tau})
            set_row(block.body[0], 3 + k, {3 + k: 1, 6 + k: -tau})
            set_row(block.body[2], k, {k: 2, 3 + k: -2})
            set_row(block.body[0], 6 + k, {12 + k: -1})  # v + max(-v, 0) is max(v, 0)
            set_row(block.body[2], 12 + k, {6 + k: 2})
        if place == 1:
            set_row(block.body[0], k, {9 + k: 1, 12: -K, 13: -K, 14: -K})
            set_row(block.body[2], k, {k: 2})
    set_row(net.output, k, {k: 1})


# -- DeepHDRVideo: the coarse frame as a sum of hinges, through the skip at full size ----------


def _deephdrvideo(net: nn.Module) -> None:
    assert isinstance(net, DeepHDRVideo)
    if net.corrects:  # its own equations are a merge; it has only to say little
        assert net.weight_net is not None
        answers = [net.weight_net.head, *([net.refine_net.conv_last] if net.refine_net else [])]
        for answer in answers:
            shrink(answer)
        return
    if net.flow_net is not None:
        for level in net.flow_net.levels:
            shrink(level.get_submodule("6"))  # no flow is a better guess than any
    if net.weight_net is not None:
        first = 3 * net.weight_net.images if net.exposures == 2 else 0
        _weights(net.weight_net, {first + k: 10 / 3 for k in COLOURS})
    if net.refine_net is not None:
        _refine(net.refine_net)


def _weights(net: WeightNet, codes: Taps) -> None:
    """The frame itself, but where it is clipped, as an eighth of the size shows, its neighbours.

    Channel 0 of every layer carries how far the codes are above CLIPPED. ``codes`` are taps that
    make three times the largest of them, about.
    """
    shrink(net.head)
    layers = [layer.get_submodule("0") for layer in (*net.down, *net.up)]
    set_row(layers[0], 0, codes, -10 * CLIPPED)
    for conv in layers[1:]:
        _carry(conv)
    for row in range(net.head.out_channels):
        _biases(net.head)[row] = -LEAST if row < len(COLOURS) else LEAST
    for k in COLOURS:
        set_row(net.head, k, {0: -40}, -LEAST)


def _carry(conv: nn.Module) -> None:
    """Hand channel 0 on; twice the size in one layer."""
    weight = conv.weight
    assert isinstance(weight, Tensor)
    if isinstance(conv, nn.ConvTranspose2d):
        weight[:, 0] = 0
        weight[0, 0] = 1 / 4  # four of its taps reach every pixel
    else:
        set_row(conv, 0, {0: 1})


def _refine(net: RefineNet) -> None:
    channels, rows = net.conv_first_1.out_channels, 3 * len(DARK_KNEES)
    if channels < rows:
        return
    source = net.conv_first_1.in_channels - 3  # the light is the last that it reads
    light = torch.logspace(-4.5, -0.004, 300)
    bent = [torch.where(light > k, light - k, LEAK**2 * (light - k)) for k in DARK_KNEES]
    basis = torch.stack([*bent, torch.ones_like(light)], 1)
    weights = fitted(basis, torch.logit(light), shown(light))
    shrink(net.conv_last)
    for k in COLOURS:
        mine = range(k * len(DARK_KNEES), (k + 1) * len(DARK_KNEES))
        scale = [abs(w) ** (1 / 3) for w in weights]
        for row, knee, by in zip(mine, DARK_KNEES, scale, strict=False):
            set_row(net.conv_first_1, row, {source + k: by}, -knee * by)
            set_row(net.HRconv, row, {row: by})
        ends = {row: w / by**2 for row, w, by in zip(mine, weights, scale, strict=False)}
        set_row(net.conv_last, k, ends, weights[-1])


_STARTS: Mapping[type[nn.Module], Callable[[nn.Module], None]] = MappingProxyType(
    {
        ADNet: _adnet,
        HDRGAN: _hdrgan,
        PSFNet: _psfnet,
        APNTFusion: _apntfusion,
        DeepHDRVideo: _deephdrvideo,
    }
)
