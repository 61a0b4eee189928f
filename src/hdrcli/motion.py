"""What moved: dense flow to the reference, and how far each frame can be believed.

The frames are compared with a *guide*, which starts as the reference. The comparison is
one-sided where a code clips: a clipped code says "at least this", and contradicts nothing that
is brighter. The tolerance grows with the noise that the amplification of the darker of the two
brings, with the light itself (the response is never known exactly), and with the gradient (a
fifth of a pixel of misregistration is not motion).

The frames are taken outward from the reference, first the darker ones, then the brighter. What
a darker frame says extends the guide where it clipped so far, so that the next one has
something to agree with.

All this happens on a picture of at most ``MAX_PIXELS``; strips.py brings the maps to full size.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hdrcli import strips
from hdrcli.frames import Bracket, Frame
from hdrcli.stakes import Stakes, ends_of

Floats = NDArray[np.float32]

MAX_PIXELS = 1_600_000  # of the pictures that motion is estimated on
CLIP = 250 / 255  # JPEG pushes clipped codes a little down: from here on a code is a lower bound
NOISE_SIGMAS = 3.0  # standard deviations of noise within one tolerance
QUANTUM = 4 / 12 / 255**2  # variance of eight-bit codes over light, for a gamma near two
MISREGISTRATION = 0.2  # px of the reduced picture that are not motion
SCALES = (0.6, 1.6)  # px, Gaussians over which differences are averaged before they are judged
DARK = 5 / 255  # codes up to here are an upper bound: black is crushed, and the curve is unsure
PART_CLIPPED, PART_DARK = 0.02, 0.5  # of a reduced pixel from which all of it counts as such
DARK_BOUND = 8 / 255  # the code whose light that bound is
TOLERATED_EV = 0.05  # photometric mismatch that the tolerances cover, and chance can show
SPREAD_EV = 0.3  # spread of the mismatch at one brightness from which it is rather motion
MISMATCH_EV = 0.7  # the largest photometric mismatch that is taken for an error of the exposures
FEWEST = 60  # pixels in a step of brightness that say something of the mismatch
NOISE_BLOCK = 8  # px, side of the blocks that noise is measured in
NOISE_STEPS = tuple(0.0025 * 2**k for k in range(8))  # light, lower ends of steps of brightness
QUIETEST = 1.35  # the mean over the tenth quantile of an 8 x 8 block's variance, for white noise
MOST_SHOT = 3e-3  # of the noise that is believed: ISO 25600
ZERO, ENDLESS = np.float32(0), np.float32(np.inf)
GAMMA = 1 / 2.2  # of the pictures that flow is computed on


@dataclass(frozen=True)
class Noise:
    """Poisson-Gaussian noise of a frame, in linear light with the frame's own white at 1.0.

    variance = shot * light + read (Foi et al., "Practical Poissonian-Gaussian noise modeling
    and fitting for single-image raw-data", 2008).
    """

    shot: float = 2e-4
    read: float = 1e-6


@dataclass(frozen=True)
class Strength:
    """How easily a difference counts as motion; one row of the --deghost table."""

    relative: float  # tolerated difference, as a fraction of the light
    floor: float  # tolerated difference, as a fraction of the reference's white
    start: float  # tolerances at which belief begins to fall
    end: float  # tolerances at which it has gone
    grow: int  # px by which a disbelieved region is grown, on the reduced picture


STRENGTHS: dict[str, Strength | None] = {
    "none": None,
    "low": Strength(relative=0.16, floor=0.008, start=2.0, end=4.0, grow=1),
    "medium": Strength(relative=0.08, floor=0.004, start=1.3, end=2.8, grow=2),
    "high": Strength(relative=0.05, floor=0.002, start=1.0, end=2.0, grow=4),
}


@dataclass(frozen=True, eq=False)
class Motion:
    """Maps on the reduced picture, one entry per frame of the bracket; None means 'none needed'.

    ``flows``: (h, w, 2) float32, pixels of the reduced picture, x then y: where the reference's
    pixel lies in the frame, before the frame's homography. ``confidence``: (h, w) float32 in
    [0, 1]. ``disagreement``: (h, w) float32, the difference left, in tolerances. ``scale`` is
    reduced over full size, along x and y.
    """

    flows: tuple[Floats | None, ...]
    confidence: tuple[Floats | None, ...]
    noise: tuple[Noise, ...]
    disagreement: tuple[Floats | None, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)
    views: tuple["View", ...] = ()  # what was compared, after flow; kept only where asked for
    moved: float = 0.0  # fraction of the picture where it matters what is believed: stakes.py

    @classmethod
    def none(cls, frames: int, noise: Noise | None = None) -> "Motion":
        """No flow, and full belief in everything."""
        nothing = (None,) * frames
        return cls(nothing, nothing, (noise or Noise(),) * frames, nothing)


@dataclass(frozen=True, eq=False)
class View:
    """One frame on the reduced picture, in the reference's geometry."""

    light: Floats  # (h, w, 3), the frame's own white at 1.0
    clipped: NDArray[np.bool_]  # (h, w), some channel is only a lower bound
    dark: NDArray[np.bool_]  # (h, w), all channels are only upper bounds
    valid: NDArray[np.bool_]  # (h, w)
    ratio: float  # exposure over the reference's
    floor: float  # light that dark pixels do not exceed

    @property
    def radiance(self) -> Floats:
        """(h, w, 3), the reference's white at 1.0."""
        return self.light / np.float32(self.ratio)

    def variance(self, noise: Noise) -> Floats:
        """Variance of the radiance, (h, w, 3)."""
        import cv2

        smooth = cv2.GaussianBlur(self.light, (0, 0), 1.0)
        quantum = np.float32(QUANTUM) * np.maximum(smooth, 0.002)
        variance = np.float32(noise.shot) * smooth + np.float32(noise.read) + quantum
        return np.asarray(variance / np.float32(self.ratio**2), np.float32)


@dataclass(frozen=True, eq=False)
class Guide:
    """What is known of the light so far, the reference's white at 1.0."""

    radiance: Floats  # (h, w, 3)
    variance: Floats  # (h, w, 3)
    clipped: NDArray[np.bool_]  # (h, w), the radiance is a lower bound
    dark: NDArray[np.bool_]  # (h, w), the radiance is at most ``floor``
    floor: float

    @classmethod
    def of(cls, view: View, noise: Noise) -> "Guide":
        """The reference alone."""
        return cls(view.radiance, view.variance(noise), view.clipped, view.dark, view.floor)

    def extended(
        self, view: View, radiance: Floats, belief: Floats | None, noise: Noise
    ) -> "Guide":
        """The guide with a frame's light where it clipped, or was too dark, so far."""
        if view.ratio < 1:
            where = self.clipped & view.valid
            light = np.maximum(radiance, self.radiance)
            known = replace(self, clipped=self.clipped & (view.clipped | ~view.valid))
        else:
            where = self.dark & view.valid & ~view.dark
            where &= True if belief is None else belief > 0.5
            light = radiance
            known = replace(self, dark=self.dark & ~where)
        return replace(
            known,
            radiance=np.where(where[..., None], light, self.radiance),
            variance=np.where(where[..., None], view.variance(noise), self.variance),
        )


def analyse(
    bracket: Bracket,
    strength: str = "medium",
    noise: Noise | None = None,
    *,
    keep_views: bool = False,
) -> Motion:
    """Estimate flow and confidence of every frame against the reference."""
    setting = STRENGTHS[strength]
    count = len(bracket.frames)
    if setting is None:
        return Motion.none(count, noise)
    size, scale = reduced_size(bracket.size)
    found = [Compared(None, None, None)] * count
    reference = look(bracket.ref, 1.0, size)
    model = noise or measured_noise(reference)
    guide = Guide.of(reference, model)
    views = [reference] * count
    stakes = Stakes(size, (model.shot, model.read))
    stakes.add(reference, reference, None, ends_of(bracket.ref), shortest=bracket.reference == 0)
    for i in outward(count, bracket.reference):
        view = look(bracket.frames[i], float(bracket.ratios[i]), size)
        found[i], moved = compare(guide, view, setting, model)
        views[i] = moved
        stakes.add(view, moved, found[i].belief, ends_of(bracket.frames[i]), shortest=i == 0)
        guide = guide.extended(moved, moved.radiance, found[i].belief, model)
    return Motion(
        flows=tuple(one.flow for one in found),
        confidence=tuple(one.belief for one in found),
        noise=(model,) * count,
        disagreement=tuple(one.judged for one in found),
        scale=scale,
        views=tuple(views) if keep_views else (),
        moved=float(stakes.moved().mean()),
    )


@dataclass(frozen=True, eq=False)
class Compared:
    """What comparing one frame with the guide gave; None where nothing moved."""

    flow: Floats | None
    belief: Floats | None
    judged: Floats | None


def measured_noise(view: View) -> Noise:
    """The noise of a view: what is left of its flattest blocks when their planes are taken out.

    Immerkær's mask ("Fast noise variance estimation", 1996) block by block; of the blocks of
    like brightness the quietest tenth has no texture. Never below the default: JPEG hides
    noise, and blocks that clip have none.
    """
    import cv2

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    grey = np.ascontiguousarray(view.light[..., 1])
    height, width = (side // NOISE_BLOCK for side in grey.shape)
    if min(height, width) < 2:
        return Noise()
    tiles = (width, height)
    spread = cv2.resize(cv2.filter2D(grey, -1, mask) ** 2, tiles, interpolation=cv2.INTER_AREA)
    light = cv2.resize(grey, tiles, interpolation=cv2.INTER_AREA)
    whole = cv2.resize(view.clipped.astype(np.float32), tiles, interpolation=cv2.INTER_AREA) == 0
    shots = []
    for low in NOISE_STEPS:
        here = spread[whole & (light >= low) & (light < 2 * low)]
        if len(here) >= FEWEST:
            quiet = float(np.quantile(here, 0.1)) * QUIETEST
            shots.append(max(quiet - Noise.read, 0) / (1.4 * low))
    shot = float(np.clip(np.median(shots), Noise.shot, MOST_SHOT)) if shots else Noise.shot
    return Noise(shot, Noise.read * shot / Noise.shot)


def outward(count: int, reference: int) -> Iterator[int]:
    """The other frames: darker ones from the reference down, then brighter ones up."""
    yield from range(reference - 1, -1, -1)
    yield from range(reference + 1, count)


def reduced_size(size: tuple[int, int]) -> tuple[tuple[int, int], tuple[float, float]]:
    """Height and width of the reduced picture, and its scale along x and y."""
    height, width = size
    shrink = min(1.0, (MAX_PIXELS / (height * width)) ** 0.5)
    small = max(1, round(height * shrink)), max(1, round(width * shrink))
    return small, (small[1] / width, small[0] / height)


def look(frame: Frame, ratio: float, size: tuple[int, int]) -> View:
    """Reduce a frame to ``size`` (height, width) in the reference's geometry."""
    import cv2

    height, width = size
    small = strips.reduced(frame, size, CLIP, DARK)
    planes = [small.light, small.clipped, small.dark]
    valid = np.ones(size, np.uint8)
    if frame.valid is not None:
        valid = cv2.resize(
            frame.valid.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )
    if frame.warp is not None:
        matrix = reduced_warp(frame.warp, (width / frame.size[1], height / frame.size[0]))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        planes = [
            cv2.warpPerspective(
                plane, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
            for plane in planes
        ]
        valid = cv2.warpPerspective(
            valid, matrix, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        )
    light, clipped, dark = planes
    return View(
        light,
        clipped > PART_CLIPPED,
        dark > PART_DARK,
        valid.astype(bool),
        ratio,
        frame.response.at(DARK_BOUND) if frame.levels else 0.0,
    )


def reduced_warp(warp: NDArray[np.float64], scale: tuple[float, float]) -> NDArray[np.float64]:
    """The same homography between the reduced pictures; pixel centres are at integers."""
    sx, sy = scale
    shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
    return np.asarray(shrink @ warp @ np.linalg.inv(shrink))


def light_of(codes: NDArray[np.generic], frame: Frame) -> Floats:
    """Linear light of codes of this frame, its own white at 1.0."""
    import cv2

    if codes.dtype == np.uint8:
        return np.asarray(cv2.LUT(codes, frame.table[None]))
    if codes.dtype == np.uint16:
        return np.stack(
            [np.take(frame.table[:, c], np.asarray(codes[..., c], np.uint16)) for c in range(3)],
            axis=-1,
        )
    return np.nan_to_num(np.asarray(codes, np.float32), nan=0, posinf=0, neginf=0)


def three(plane: NDArray[np.generic]) -> Floats:
    """A plane as three equal channels, float32: numpy is slow where it must broadcast them."""
    import cv2

    plane = np.asarray(plane, np.float32)
    return np.asarray(cv2.merge([plane, plane, plane]))


def total(picture: Floats) -> Floats:
    """The sum of the channels, (h, w)."""
    import cv2

    return np.asarray(cv2.transform(picture, np.ones((1, 3), np.float32)))


def compare(guide: Guide, view: View, strength: Strength, noise: Noise) -> tuple[Compared, View]:
    """Flow and belief of one frame, and the frame as the flow brings it to the guide."""
    fitted = photometric(guide, view)
    allowed = tolerances(guide, view.ratio, strength, noise)
    still = disagreement(guide, fitted, allowed)
    if still.max() < strength.start and view.valid.all():
        return Compared(None, None, None), view
    flow = dense_flow(guide, fitted)
    there = warped(fitted, flow)
    helped = disagreement(guide, there, allowed)
    helped = np.where(there.valid, helped, still)  # what leaves the picture only seems to agree
    flow = where_it_helps(flow, still, helped)
    there = warped(fitted, flow)
    judged = disagreement(guide, there, allowed)
    moved = there if fitted is view else warped(view, flow)
    return Compared(flow, believe(judged, moved.valid, strength), judged), moved


def photometric(guide: Guide, view: View) -> View:
    """The view with its brightness fitted to the guide's, for comparing alone.

    Exposures and responses are never known exactly, and an error of a tenth of a stop must not
    pass for motion. The fit is one smooth curve of brightness, from medians, so that what moved
    does not bend it.
    """
    every = (slice(None, None, 2), slice(None, None, 2))
    usable = ~(guide.clipped | guide.dark | view.clipped | view.dark)[every]
    usable &= view.valid[every]
    ours = np.log2(np.maximum(total(guide.radiance[every])[usable] / 3, 1e-6))
    theirs = np.log2(np.maximum(total(view.light[every])[usable] / (3 * view.ratio), 1e-6))
    middle, gap = (ours + theirs) / 2, theirs - ours
    steps = np.arange(-14.0, 10.0)
    step = np.digitize(middle, steps)
    enough = max(FEWEST, len(step) // 50)
    seen = [k for k in range(1, len(steps)) if np.count_nonzero(step == k) >= enough]
    if not seen:
        return view
    at = np.array([np.median(middle[step == k]) for k in seen])
    error = np.array([agreed(gap[step == k]) for k in seen])
    error = np.clip(np.convolve(np.pad(error, 1, "edge"), (0.25, 0.5, 0.25), "valid"), -1, 1)
    beyond = np.clip(np.abs(error) - TOLERATED_EV, 0, MISMATCH_EV)
    error = np.sign(error) * beyond
    if not error.any():
        return view
    brightness = np.log2(np.maximum(total(view.light) / np.float32(3 * view.ratio), 1e-6))
    gain = np.exp2(-np.interp(brightness, at + error / 2, error))
    return replace(view, light=view.light * three(gain))


def agreed(gaps: NDArray[np.floating]) -> float:
    """The median, shrunk towards zero as far as the gaps do not agree on it."""
    median = float(np.median(gaps))
    spread = 1.5 * float(np.median(np.abs(gaps - median)))
    return median / (1 + (spread / SPREAD_EV) ** 2)


def tolerances(guide: Guide, ratio: float, strength: Strength, noise: Noise) -> list[Floats]:
    """One over the squared tolerance at each of SCALES, (h, w, 3): what is not motion.

    A part of the light, for the response is never known exactly; a part of the gradient, for
    frames are never aligned exactly; and the noise of both, as far as the scale averages it.
    """
    import cv2

    level = np.maximum(cv2.GaussianBlur(guide.radiance, (0, 0), 1.0), 0)
    own = level * np.float32(noise.shot / ratio) + np.float32(noise.read / ratio**2)
    own += np.maximum(level * np.float32(ratio), 0.002) * np.float32(QUANTUM / ratio**2)
    variance = own + guide.variance
    steady = (np.float32(strength.relative) * level + np.float32(strength.floor)) ** 2
    steady += np.float32(MISREGISTRATION**2) * gradient_squared(guide.radiance)
    return [1 / (steady + np.float32(NOISE_SIGMAS**2 * averaged(s)) * variance) for s in SCALES]


def averaged(sigma: float) -> float:
    """What a Gaussian leaves of the variance of white noise."""
    return min(1.0, 1 / (4 * np.pi * sigma**2))


def disagreement(guide: Guide, view: View, allowed: list[Floats]) -> Floats:
    """Difference from the guide in tolerances, (h, w): 1 is what noise and errors explain."""
    import cv2

    difference = one_sided(guide, view)
    worst = np.zeros(difference.shape[:2], np.float32)
    for sigma, inverse in zip(SCALES, allowed, strict=True):
        smooth = cv2.GaussianBlur(difference, (0, 0), sigma)
        np.multiply(smooth, smooth, out=smooth)
        np.multiply(smooth, inverse, out=smooth)
        np.maximum(worst, total(smooth), out=worst)
    return np.asarray(np.sqrt(worst))


def one_sided(guide: Guide, view: View) -> Floats:
    """View minus guide, (h, w, 3), where neither bound explains the difference; else zero."""
    radiance = view.radiance
    difference = radiance - guide.radiance
    if guide.clipped.any():
        np.minimum(difference, three(np.where(guide.clipped, ZERO, ENDLESS)), out=difference)
    if view.clipped.any():
        np.maximum(difference, three(np.where(view.clipped, ZERO, -ENDLESS)), out=difference)
    if guide.dark.any():
        difference[guide.dark] = np.maximum(radiance[guide.dark] - np.float32(guide.floor), 0)
    if view.dark.any():
        low = np.float32(view.floor / view.ratio)
        difference[view.dark] = np.minimum(low - guide.radiance[view.dark], 0)
        difference[view.dark & guide.dark] = 0
    if not view.valid.all():
        difference *= three(view.valid)
    return np.asarray(difference, np.float32)


def gradient_squared(picture: Floats) -> Floats:
    """Squared length of the gradient per pixel and channel, (h, w, 3)."""
    import cv2

    dx = cv2.Scharr(picture, cv2.CV_32F, 1, 0, scale=1 / 32)
    dy = cv2.Scharr(picture, cv2.CV_32F, 0, 1, scale=1 / 32)
    return np.asarray(cv2.GaussianBlur(dx * dx + dy * dy, (0, 0), 1.0), np.float32)


def dense_flow(guide: Guide, view: View) -> Floats:
    """DIS flow (Kroeger et al., ECCV 2016) from the guide to the view, on the matched pair."""
    import cv2

    exposure = max(view.ratio, 1.0)
    ceiling = CLIP_LIGHT * min(1.0, exposure)
    first = matched(guide.radiance, exposure, ceiling)
    second = matched(view.radiance, exposure, ceiling)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dis.calc(first, second, None), np.float32)


CLIP_LIGHT = 0.95  # of white: what CLIP means in light, for any response near sRGB


def matched(radiance: Floats, exposure: float, ceiling: float) -> NDArray[np.uint8]:
    """A picture of the light at one exposure, clipped at ``ceiling``, gamma-encoded, grey."""
    import cv2

    light = np.clip(radiance * np.float32(exposure / ceiling), 0, 1)
    grey = cv2.cvtColor(light, cv2.COLOR_RGB2GRAY)
    return np.asarray(np.rint(255 * grey ** np.float32(GAMMA)), np.uint8)


def warped(view: View, flow: Floats) -> View:
    """The view moved by a flow to the guide's geometry."""
    import cv2

    height, width = view.clipped.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x + flow[..., 0], y + flow[..., 1]
    light = cv2.remap(view.light, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    clipped = cv2.remap(view.clipped.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.25
    dark = cv2.remap(view.dark.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.5
    inside = (x >= -0.5) & (y >= -0.5) & (x <= width - 0.5) & (y <= height - 0.5)
    known = cv2.remap(view.valid.astype(np.uint8), x, y, cv2.INTER_NEAREST).astype(bool)
    return replace(view, light=light, clipped=clipped, dark=dark, valid=known & inside)


def compose(shift: Floats, flow: Floats | None) -> Floats:
    """One flow for two steps: first ``shift``, then ``flow`` at the place it leads to."""
    import cv2

    if flow is None:
        return shift
    height, width = shift.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = x + shift[..., 0], y + shift[..., 1]
    there = cv2.remap(flow, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shift + there, np.float32)


def where_it_helps(flow: Floats, still: Floats, helped: Floats) -> Floats:
    """The flow where it lowers the disagreement, else zero, with soft borders."""
    import cv2

    gain = cv2.GaussianBlur(still, (0, 0), 2.0) - cv2.GaussianBlur(helped, (0, 0), 2.0)
    use = cv2.dilate((gain > 0.1).astype(np.float32), np.ones((7, 7), np.uint8))
    use = cv2.GaussianBlur(use, (0, 0), 1.5)
    return np.asarray(flow * use[..., None], np.float32)


def believe(judged: Floats, valid: NDArray[np.bool_], strength: Strength) -> Floats:
    """Confidence in [0, 1] from a disagreement in tolerances."""
    import cv2

    belief = np.clip((strength.end - judged) / (strength.end - strength.start), 0, 1)
    belief *= valid
    size = 2 * strength.grow + 1
    belief = cv2.erode(belief, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    return np.asarray(cv2.GaussianBlur(belief, (0, 0), 0.5 + strength.grow / 2), np.float32)
