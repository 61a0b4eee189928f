"""DeepHDRVideo (Chen, Chen, Guo, Liang, Wong and Zhang, ICCV 2021), two or three exposures.

Letters of the paper: L_i frame i (gamma 2.2, [0, 1]), t_i its exposure, H_i^c the coarse HDR frame
(CoarseNet: flow net and weight net, in the image), H_i^r the refined one (RefineNet, in feature
space), M_i the mask of what is well exposed in L_i (eq. 4, 5), F_i features, Δp offsets (eq. 2).
Exposures are relative to the shortest, so linear light L_i^2.2 / t_i and all H are in [0, 1].

A frame is coarsely rebuilt from a window of 2n - 1 frames, n being the number of exposures; three
coarse frames are refined to one. So five frames (n = 2) or seven (n = 3) give one. A video reuses
coarse frames: call `coarse` and `refine` instead of the whole.

Where paper and published code differ, the code's way is taken, because weights are trained so:
masks are hard unless `soft_masks`; the coarse mask keeps codes from 0.4; the refine net of two
exposures also reads what is not well exposed; pictures are padded as `_padded` says.
"""

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets.forms import tone, untone
from hdrcli.nets.head import Float32Conv2d
from hdrcli.nets.layers import PCDAlign, ResidualBlock, conv3x3, lrelu

GAMMA = 2.2
HIGH = 0.9  # a high exposure is not well exposed above it
LOW_COARSE, LOW = 0.4, 0.15  # a low exposure is not well exposed below it, in stages 1 and 2
# The classical shares of a form without a flow net, in light of a frame's own white: where an
# exposure gives way to the next darker one, and where it says only "dark" (video.cascade).
CLEAR, DARK = (0.60, 0.91), (3e-4, 1.1e-3)
CLIPPED, BOUND = 0.957, 0.92  # light that clips, and the part of the white that it surely exceeds
ALSO = 0.02  # share of what is believed and clear, though a brighter exposure shows it
STOPS = 4.0  # scale of the refine net's map of exposures
DETAIL = 0.1  # scale of differences in the μ-law that the refine net sees, and of what it adds
AROUND = 9  # px, side of the square that they are differences to the mean of
# Pairs of frames of one exposure, by their place in the window; the current frame, in the middle,
# has another. Two exposures: previous and next; three: two before and one after, one and two.
PAIRS = {2: ((0, 2),), 3: ((0, 3), (1, 4))}


class DeepHDRVideo(nn.Module):
    """Frames of alternating exposure to the HDR frame in their middle.

    exposures: 2 or 3. flow_channels, levels: flow net. weight_channels, weight_tail: weight net,
    at an eighth of the size and at half of it. channels, groups, extract_blocks, trunk_blocks:
    refine net; groups divides channels. batch_norm (weight net) and exposedness (refine net reads
    what is not well exposed): as in the published weights, True for two exposures only.
    flow=False is a form of ours, without a flow net: the frames come aligned by another flow, with
    the belief in each, and both stages correct a classical merge instead of making one. Its shares
    (``shares``: the brightest exposure that shows a pixel clearly and is believed) take the place
    of the masks and multiply what the weight net says, so that a frame that is not believed counts
    nothing; the refine net adds to the coarse frame, in the μ-law, everywhere. Untrained last
    layers leave the classical merge as it is. The weight net sees the neighbours' codes as the
    current frame's exposure would have them, with their shares, beliefs and clarity, and hands the
    features of the way down to the way up, for which weight_tail is a quarter of weight_channels.
    The refine net sees the coarse frames in the μ-law as differences to a local mean of the middle
    one, beside the brightness of that mean and the exposure that the light was taken from.
    Ablations (table 5): refine=False is "CNet", coarse=False "RefineNet†", which reads frames
    instead of coarse HDR; deformable=False is "w/o DA", attention=False "w/o TAF".
    """

    multiple_of = 16  # of tiles, so that all see the same pyramid; pictures may have any size
    reach = 424  # by convolutions, 288 of them to estimate flow; how far flow points comes on top

    def __init__(
        self,
        *,
        exposures: int = 2,
        flow_channels: int = 100,
        levels: int = 5,
        weight_channels: int = 256,
        weight_tail: int = 128,
        batch_norm: bool | None = None,
        channels: int = 64,
        groups: int = 8,
        extract_blocks: int = 5,
        trunk_blocks: int = 10,
        exposedness: bool | None = None,
        soft_masks: bool = False,
        flow: bool = True,
        coarse: bool = True,
        refine: bool = True,
        deformable: bool = True,
        attention: bool = True,
    ) -> None:
        super().__init__()
        if exposures not in PAIRS or not (coarse or refine):
            raise ValueError(f"no such DeepHDRVideo: {exposures=}, {coarse=}, {refine=}")
        self.channels = channels
        self.exposures, self.soft_masks = exposures, soft_masks
        self.exposedness = (exposures == 2 if exposedness is None else exposedness) and coarse
        self.exposedness &= flow
        self.flow_net: FlowNet | None = None
        self.weight_net: WeightNet | None = None
        self.refine_net: RefineNet | None = None
        self.corrects = coarse and not flow
        if coarse:
            pairs = len(PAIRS[exposures])
            self.flow_net = FlowNet(pairs, flow_channels, levels) if flow else None
            self.weight_net = WeightNet(
                (4 if flow else 2) * pairs + 1,
                weight_channels,
                weight_tail,
                batch_norm=exposures == 2 if batch_norm is None else batch_norm,
                skips=self.corrects,
            )
        if refine:
            whole = self.exposedness or not coarse
            self.refine_net = RefineNet(
                5 if self.corrects else 6 if whole else 3,
                channels,
                groups=groups if deformable else 0,
                blocks=(extract_blocks, trunk_blocks),
                attention=attention,
                adds=self.corrects,
            )

    @property
    def window(self) -> int:
        """Frames that `coarse` takes: 3 for two exposures, 5 for three."""
        return 2 * self.exposures - 1

    @property
    def frames(self) -> int:
        """Frames that the whole takes: 5 for two exposures, 7 for three."""
        return self.window + (2 if self.refine_net is not None else 0)

    def forward(self, L: Tensor, t: Tensor, belief: Tensor | None = None) -> Tensor:
        """The HDR frame in the middle, linear, in [0, 1]: (B, 3, H, W).

        L (B, frames, 3, H, W) in order of time, RGB, gamma 2.2, [0, 1]; t (B, frames) exposures
        relative to the shortest one, alternating with period `exposures`. belief (B, frames, 1,
        H, W) in [0, 1], of the form without a flow net: how far each frame shows what the current
        one does; all of it, if none is given.
        """
        if self.refine_net is None:
            return self.coarse(L, t, belief)
        middle = slice(L.shape[1] // 2 - 1, L.shape[1] // 2 + 2)
        if self.weight_net is None:
            return self.refine(linear(L[:, middle], t[:, middle]), L[:, middle], t[:, middle])
        return self.refine(self.coarse_frames(L, t, belief), L[:, middle], t[:, middle])

    def coarse_frames(self, L: Tensor, t: Tensor, belief: Tensor | None = None) -> Tensor:
        """What `refine` wants of the three frames in the middle: (B, 3, 3, H, W), H^c of each.

        Without a flow net (B, 3, 4, H, W): the fourth channel is `exposure_used`.
        """
        windows = [slice(s, s + self.window) for s in range(3)]
        if not self.corrects:
            return torch.stack([self.coarse(L[:, w], t[:, w]) for w in windows], 1)
        belief = torch.ones_like(L[:, :, :1]) if belief is None else belief
        light = L.clamp(0, 1) ** GAMMA
        found = [self.corrected(L[:, w], light[:, w], t[:, w], belief[:, w]) for w in windows]
        return torch.stack(found, 1)

    def coarse(self, L: Tensor, t: Tensor, belief: Tensor | None = None) -> Tensor:
        """Stage 1, H^c of the frame in the middle: (B, 3, H, W).

        L (B, window, 3, H, W), t (B, window), belief (B, window, 1, H, W), as for the whole. Where
        the reference is well exposed it is kept; elsewhere frames and warped frames are blended.
        """
        if self.corrects:
            belief = torch.ones_like(L[:, :, :1]) if belief is None else belief
            return self.corrected(L, L.clamp(0, 1) ** GAMMA, t, belief)[:, :3]
        middle = self.window // 2
        reference = linear(L[:, middle], t[:, middle])
        M = well_exposed(L[:, middle], t[:, middle], t, LOW_COARSE, soft=self.soft_masks)
        return torch.lerp(self.blend(L, t), reference, M)

    def corrected(self, L: Tensor, light: Tensor, t: Tensor, belief: Tensor) -> Tensor:
        """Stage 1 without a flow net: H^c and `exposure_used`, (B, 4, H, W); light is L^2.2."""
        assert self.weight_net is not None
        order = [self.window // 2, *self.neighbours]
        light, t, belief = light[:, order], t[:, order], belief[:, order]
        P, clear = shares(light, t, belief)
        alike = [_re_exposed(L[:, k], t[:, i], t[:, 0]) for i, k in enumerate(order)]
        x = torch.cat((torch.stack(alike, 1), P, belief, clear), 2).flatten(1, 2)
        del alike
        w = self.weight_net(x).view_as(light)
        w = w * (P + ALSO * belief * clear)
        H_c = (w * (light / t[..., None, None, None])).sum(1) / (w.sum(1) + 1e-8)
        bound = BOUND / t[:, :1, None, None] * (t[:, :1] > t.amin(1, keepdim=True))[..., None, None]
        H_c = torch.maximum(H_c, bound * (light[:, 0] >= CLIPPED))
        return torch.cat((H_c, exposure_used(P, t)), 1)

    @property
    def neighbours(self) -> list[int]:
        """Places in the window of what is warped to the current frame, pair by pair."""
        return [frame for pair in PAIRS[self.exposures] for frame in pair]

    def flows(self, L: Tensor, t: Tensor) -> Tensor:
        """Where the current frame's pixels are in each neighbour: (B, 2·neighbours, H, W)."""
        assert self.flow_net is not None
        current, t_current = L[:, self.window // 2], t[:, self.window // 2]
        pairs = PAIRS[self.exposures]
        alike = [_re_exposed(current, t_current, t[:, before]) for before, _ in pairs]
        found: Tensor = self.flow_net([L[:, frame] for frame in self.neighbours], alike)
        return found

    def blend(self, L: Tensor, t: Tensor) -> Tensor:
        """Stage 1 before the mask: the weighted mean of the window's frames, warped and not."""
        assert self.weight_net is not None
        order, middle = self.neighbours, self.window // 2
        near, flows = [L[:, frame] for frame in order], torch.split(self.flows(L, t), 2, 1)
        warped = [warp(image, flow) for image, flow in zip(near, flows, strict=True)]
        images = torch.stack([L[:, middle], *warped, *near], 1)  # (B, images, 3, H, W)
        H = linear(images, t[:, [middle, *order, *order]])
        if self.exposures == 2:  # the published weights of two exposures read all H, then all L
            x = torch.cat((H, images), 1)
        else:  # those of three read L and H of one frame after the other
            x = torch.stack((images, H), 2)
        w: Tensor = self.weight_net(x.flatten(1, -3)).view_as(H)
        return (w * H).sum(1) / (w.sum(1) + 1e-8)

    def refine(self, H_c: Tensor, L: Tensor, t: Tensor) -> Tensor:
        """Stage 2, H of the frame in the middle (eq. 4): (B, 3, H, W).

        H_c coarse HDR frames, L the frames, both (B, 3, 3, H, W); t (B, 3). Without a flow net
        H_c is what `coarse_frames` gives, and there is no mask.
        """
        if self.corrects:
            return self.refined(H_c, L, t)
        M = well_exposed(L[:, 1], t[:, 1], t, LOW, soft=self.soft_masks)
        return torch.lerp(self.refined(H_c, L, t), H_c[:, 1], M)

    def refined(self, H_c: Tensor, L: Tensor, t: Tensor) -> Tensor:
        """Stage 2 before the mask: H^r."""
        assert self.refine_net is not None
        if self.corrects:
            codes = tone(H_c[:, :, :3])
            level = _local_mean(codes[:, 1])
            brightness = level.mean(1, keepdim=True)[:, None].expand(-1, 3, -1, -1, -1)
            detail = (codes - level[:, None]) / DETAIL
            added = DETAIL * self.refine_net(torch.cat((detail, brightness, H_c[:, :, 3:]), 2))
            return untone(codes[:, 1] + added).clamp(min=0)
        if self.exposedness:
            bad = [_badly_exposed(L[:, i], t[:, i], t, LOW) for i in range(3)]
            H_c = torch.cat((torch.stack(bad, 1), H_c), 2)
        elif self.weight_net is None:
            H_c = torch.cat((L, H_c), 2)
        refined: Tensor = self.refine_net(H_c)
        return refined


# -- light ------------------------------------------------------------------------------------


def linear(L: Tensor, t: Tensor) -> Tensor:
    """Linear light relative to the shortest exposure: L^2.2 / t, (…, 3, H, W) with t (…)."""
    return L.clamp(0, 1) ** GAMMA / t[..., None, None, None]


def _re_exposed(L: Tensor, t: Tensor, t_other: Tensor) -> Tensor:
    """The frame as it would be at another exposure, clipped: (B, 3, H, W)."""
    return (L * (t_other / t)[:, None, None, None] ** (1 / GAMMA)).clamp(0, 1)


def well_exposed(L: Tensor, t: Tensor, around: Tensor, low: float, *, soft: bool = False) -> Tensor:
    """M: 1 where the frame is to be kept, 0 where it is noisy or clipped. (B, 1, H, W).

    L (B, 3, H, W) and its exposure t (B,); `around` (B, n) all exposures near it. The lowest of
    them is distrusted where every channel is below `low`, the highest where any channel is above
    0.9, one between them in both cases. `soft` falls off with the square instead (eq. 5, fig. 5).
    """
    brightest = L.amax(1, keepdim=True)
    if soft:
        dark, bright = (brightest / low).square(), ((1 - brightest) / (1 - HIGH)).square()
    else:
        dark = bright = torch.zeros_like(brightest)
    one = torch.ones_like(brightest)
    may_be_dark, may_be_bright = _distrust(t, around)
    M_low = torch.where((brightest < low) & may_be_dark, dark, one)
    M_high = torch.where((brightest > HIGH) & may_be_bright, bright, one)
    return torch.minimum(M_low, M_high)


def _badly_exposed(L: Tensor, t: Tensor, around: Tensor, low: float) -> Tensor:
    """1 in every channel that is below `low` or above 0.9, as far as its exposure allows it."""
    may_be_dark, may_be_bright = _distrust(t, around)
    return ((L.lt(low) & may_be_dark) | (L.gt(HIGH) & may_be_bright)).to(L.dtype)


def _distrust(t: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
    """Which frames of the batch may be too dark, and which too bright; both (B, 1, 1, 1)."""
    t = t[:, None, None, None]
    lowest, highest = around.amin(1), around.amax(1)
    return t < highest[:, None, None, None] * 0.999, t > lowest[:, None, None, None] * 1.001


def shares(light: Tensor, t: Tensor, belief: Tensor) -> tuple[Tensor, Tensor]:
    """What each frame contributes to the classical merge, summing to 1, and how clearly it shows.

    Both (B, N, 1, H, W) in [0, 1]. light (B, N, 3, H, W) of each frame's own white, t (B, N) and
    belief (B, N, 1, H, W): the current frame, then pairs of one exposure. A pixel comes from the
    brightest exposure that shows it clearly and is believed, and the next darker one takes over
    smoothly: `video.cascade` says why. What neither shows clearly is taken from another moment.
    """
    pairs = [(i, i + 1) for i in range(1, light.shape[1], 2)]
    mixed = [torch.ones_like(belief[:, :1])]
    for one, two in pairs:
        both = belief[:, one : two + 1] + 1e-3
        mixed += (both / both.sum(1, keepdim=True)).unsqueeze(1).unbind(2)
    mix = torch.cat(mixed, 1)  # of each frame in its exposure
    groups = [(0,), *pairs]
    seen = torch.stack([(mix[:, g] * light[:, g]).sum(1) for g in map(list, groups)], 1)
    trust = torch.stack([belief[:, list(g)].amax(1) for g in groups], 1)
    order = torch.argsort(t[:, [g[0] for g in groups]], dim=1, descending=True, stable=True)
    rows = torch.arange(len(t), device=t.device)[:, None]
    weights, clarity = _cascade(seen[rows, order], trust[rows, order])
    back = torch.argsort(order, dim=1)
    place = [k for k, g in enumerate(groups) for _ in g]
    return weights[rows, back][:, place] * mix, clarity[rows, back][:, place]


def _cascade(light: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """Shares and clarity of exposures, brightest first; both (B, G, 1, H, W).

    light (B, G, 3, H, W) of each one's own white, trust (B, G, 1, H, W).
    """
    last = light.shape[1] - 1
    below = (CLEAR[1] - light.amax(2, keepdim=True)) / (CLEAR[1] - CLEAR[0])
    rise = ((light.mean(2, keepdim=True) - DARK[0]) / (DARK[1] - DARK[0])).clamp(0, 1)
    below, lit = below.clamp(0, 1), rise * rise * (3 - 2 * rise)
    clear = [
        (below[:, i] if i < last else 1) * (lit[:, i] if i > 0 else torch.ones_like(lit[:, i]))
        for i in range(last + 1)
    ]
    left, weights = torch.ones_like(trust[:, 0]), list[Tensor]()
    for i, part in enumerate(clear):
        weights.append(left * part * trust[:, i])
        left = left - weights[i]
    for i, part in enumerate(clear):  # what no exposure shows clearly that is believed
        more = left * part
        weights[i] = weights[i] + more
        left = left - more
    weights[max(0, last - 1)] = weights[max(0, last - 1)] + left
    return torch.stack(weights, 1), torch.stack(clear, 1)


def _local_mean(x: Tensor) -> Tensor:
    """The mean of AROUND² pixels, fewer at the borders; the shape stays."""
    half = AROUND // 2
    x = F.avg_pool2d(x, (AROUND, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, AROUND), 1, (0, half), count_include_pad=False)


def exposure_used(P: Tensor, t: Tensor) -> Tensor:
    """How much brighter than the darkest frame those are that are used: stops / STOPS, from 0.

    (B, 1, H, W), for shares P (B, N, 1, H, W) and exposures t (B, N). With the light, which is
    relative to the darkest frame too, it tells the codes that the light came from: its noise.
    """
    used = (P * (t / t.amin(1, keepdim=True))[:, :, None, None, None]).sum(1)
    return torch.log2(used.clamp(min=1)) / STOPS


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """The image (B, C, H, W) read bilinearly at x + flow, zero outside. Flow (B, 2, H, W): x, y."""
    h, w = image.shape[2:]
    rows = torch.arange(h, device=flow.device, dtype=flow.dtype)
    columns = torch.arange(w, device=flow.device, dtype=flow.dtype)
    at = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1) + flow.permute(0, 2, 3, 1)
    # With align_corners=False pixel p has its centre at (2p + 1) / n - 1, also for n = 1.
    at = (2 * at + 1) / at.new_tensor((w, h)) - 1
    return F.grid_sample(image, at, align_corners=False)


def _padded(x: Tensor, k: int = 8) -> Tensor:
    """Replicate at right and bottom until a multiple of k.

    If one side is not, the published code pads both, so the other gains k more; its weights are
    used to that.
    """
    h, w = x.shape[-2:]
    if h % k == 0 and w % k == 0:
        return x
    return F.pad(x, (0, k - w % k, 0, k - h % k), mode="replicate")


# -- CoarseNet --------------------------------------------------------------------------------


class FlowNet(nn.Module):
    """Flow from the current frame to its neighbours, from coarse to fine (SPyNet for triples)."""

    def __init__(self, pairs: int, channels: int, levels: int) -> None:
        super().__init__()
        widths = (9 * pairs, channels, channels // 2, channels // 4)
        self.levels = nn.ModuleList(_flow_level(widths, 4 * pairs) for _ in range(levels))

    def forward(self, near: list[Tensor], alike: list[Tensor]) -> Tensor:
        """Flow in pixels, x then y, for every neighbour: (B, 2·neighbours, H, W), float32.

        near: the neighbours, pair by pair; alike: the current frame exposed like each pair; all
        (B, 3, H, W). Other sizes than multiples of 2^(levels - 1) are stretched to one.
        """
        h, w = near[0].shape[2:]
        k = 1 << (len(self.levels) - 1)
        size = (-(-h // k) * k, -(-w // k) * k)
        x = _resized(torch.cat((*near, *alike), 1), size)
        pyramid = [x]
        for _ in self.levels[1:]:
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        flow = x.new_zeros(x.shape[0], 2 * len(near), *pyramid[-1].shape[2:])
        for i, level in enumerate(self.levels):
            if i > 0:
                flow = 2 * F.interpolate(
                    flow, scale_factor=2.0, mode="bilinear", align_corners=True
                )
            flow = (flow + level(_flow_input(pyramid[-1 - i], flow))).clamp(-320, 320)
        scale = flow.new_tensor((w / size[1], h / size[0])).repeat(len(near))
        return _resized(flow, (h, w)).clamp(-200, 200) * scale[:, None, None]


def _flow_level(widths: tuple[int, ...], out: int) -> nn.Sequential:
    """5 × 5 convolutions with ReLU between them; the flow itself in float32."""
    layers: list[nn.Module] = []
    for i, cin in enumerate(widths[:-1]):
        layers += [nn.Conv2d(cin, widths[i + 1], 5, padding=2), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, Float32Conv2d(widths[-1], out, 5, padding=2))


def _flow_input(x: Tensor, flow: Tensor) -> Tensor:
    """Pair by pair: one neighbour warped, current frame exposed alike, other neighbour warped."""
    images, flows = torch.split(x, 3, 1), torch.split(flow, 2, 1)
    near, alike = images[: len(flows)], images[len(flows) :]
    warped = [warp(image, to) for image, to in zip(near, flows, strict=True)]
    return torch.cat(
        [
            image
            for i, current in enumerate(alike)
            for image in (warped[2 * i], current, warped[2 * i + 1])
        ],
        1,
    )


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class WeightNet(nn.Module):
    """Blending weights, RGB, in (0, 1), of all images; an hourglass down to an eighth.

    skips: features at a quarter and at half the size are added again on the way up.
    """

    def __init__(
        self, images: int, channels: int, tail: int, *, batch_norm: bool, skips: bool = False
    ) -> None:
        super().__init__()
        if skips and tail != channels // 4:
            raise ValueError(f"no skips of {channels // 4} channels to {tail}")
        self.images, self.skips, c = images, skips, channels
        down = (
            (6 * images, c // 4),
            (c // 4, c // 4),
            (c // 4, c // 2),
            (c // 2, c // 2),
            (c // 2, c),
            (c, c),
        )
        self.down = nn.ModuleList(
            _layer(nn.Conv2d(cin, cout, 3, 2 - i % 2, 1), batch_norm=batch_norm)
            for i, (cin, cout) in enumerate(down)
        )
        widths = (c, c // 2, c // 2, tail, tail, tail)
        up = [
            nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False) if i % 2 == 0 else conv3x3(cin, cout)
            for i, (cin, cout) in enumerate(pairwise(widths))
        ]
        self.up = nn.ModuleList(_layer(layer, batch_norm=batch_norm) for layer in up)
        self.head = Float32Conv2d(tail, 3 * images, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 6·images, H, W) to (B, 3·images, H, W), float32."""
        h, w = x.shape[2:]
        x, kept = _padded(x), list[Tensor]()
        for layer in self.down:
            x = lrelu(layer(x))
            kept.append(x)
        for i, layer in enumerate(self.up):
            x = layer(x)
            x = lrelu(x + kept[3 - i] if self.skips and i in (0, 2) else x)
        return torch.sigmoid(self.head(x)[..., :h, :w])


def _layer(layer: nn.Module, *, batch_norm: bool) -> nn.Sequential:
    if not batch_norm:
        return nn.Sequential(layer)
    cout = cast("nn.Conv2d | nn.ConvTranspose2d", layer).out_channels
    return nn.Sequential(layer, nn.BatchNorm2d(cout))


# -- RefineNet --------------------------------------------------------------------------------


class RefineNet(nn.Module):
    """Three coarse frames to H^r of the one in the middle, mostly at half the size.

    groups: deformable groups of the alignment, 0 for none. blocks: residual blocks before and
    after it. adds: what it says is to be added, and may have any size and sign.
    """

    def __init__(
        self,
        cin: int,
        channels: int,
        *,
        groups: int,
        blocks: tuple[int, int],
        attention: bool,
        adds: bool = False,
    ) -> None:
        super().__init__()
        c = channels
        self.adds = adds
        self.conv_first_1 = conv3x3(cin, c)
        self.conv_first_2 = conv3x3(c, c, stride=2)
        self.feature_extraction = nn.Sequential(*(ResidualBlock(c) for _ in range(blocks[0])))
        self.pcd_align = PCDAlign(c, groups=groups) if groups else None
        if groups:
            self.fea_L2_conv1 = conv3x3(c, c, stride=2)
            self.fea_L2_conv2 = conv3x3(c, c)
            self.fea_L3_conv1 = conv3x3(c, c, stride=2)
            self.fea_L3_conv2 = conv3x3(c, c)
        self.ta_fusion = TemporalAttention(c, attention=attention)
        self.recon_trunk = nn.Sequential(*(ResidualBlock(c) for _ in range(blocks[1])))
        self.deconv1 = nn.ConvTranspose2d(2 * c, c, 4, 2, 1)
        self.HRconv = conv3x3(2 * c, c)
        self.conv_last = Float32Conv2d(c, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, cin, H, W), in order of time, to (B, 3, H, W), float32, in (0, 1) or added."""
        h, w = x.shape[-2:]
        full, half = x[:, 1], list[Tensor]()
        for i, frame in enumerate(x.unbind(1)):
            f = lrelu(self.conv_first_1(_padded(frame)))
            half.append(lrelu(self.conv_first_2(f)))
            full = f if i == 1 else full
        y = self.recon_trunk(self.ta_fusion(self.align([self.feature_extraction(f) for f in half])))
        y = self.deconv1(torch.cat((half[1], y), 1))
        y = lrelu(self.HRconv(torch.cat((full, y), 1)))
        y = self.conv_last(y)[..., :h, :w]
        return y if self.adds else torch.sigmoid(y)

    def align(self, features: list[Tensor]) -> list[Tensor]:
        """DConv(F_i, Δp_i), Δp_i = f([F_i, F_middle]) (eq. 2, 3); the middle frame included."""
        if self.pcd_align is None:
            return features
        pyramids = [self.pyramid(f) for f in features]
        return [self.pcd_align(pyramid, pyramids[1]) for pyramid in pyramids]

    def pyramid(self, F_1: Tensor) -> list[Tensor]:
        """Features at half, a quarter and an eighth of the picture's size."""
        F_2 = lrelu(self.fea_L2_conv2(lrelu(self.fea_L2_conv1(F_1))))
        F_3 = lrelu(self.fea_L3_conv2(lrelu(self.fea_L3_conv1(F_2))))
        return [F_1, F_2, F_3]


class TemporalAttention(nn.Module):
    """Fusion of three aligned features (figure 4b). Attention is not squashed, as in the code."""

    def __init__(self, channels: int, *, attention: bool) -> None:
        super().__init__()
        self.attention = attention
        if attention:
            self.tAtt_1 = conv3x3(2 * channels, channels)
            self.tAtt_2 = conv3x3(channels, channels)
        self.fea_fusion = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Three times (B, C, h, w) to (B, C, h, w)."""
        if self.attention:
            features = [f * self.weigh(features[1], f) for f in features]
        return lrelu(self.fea_fusion(torch.cat(features, 1)))

    def weigh(self, reference: Tensor, feature: Tensor) -> Tensor:
        """How much of a feature to keep, next to the reference's."""
        return cast("Tensor", self.tAtt_2(lrelu(self.tAtt_1(torch.cat((reference, feature), 1)))))
