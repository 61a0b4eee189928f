"""Laws of FlowMerge: it starts as the classical merge, and never leaves its bounds."""

from dataclasses import replace

import pytest
import torch

from hdrcli.nets.flowmerge import (
    CERTAIN,
    DEPTH,
    STEPS,
    Evidence,
    FlowMerge,
    corrected,
    fill_in,
    merge,
    pair_features,
    photon_weight,
    spread_out,
    warp,
)

BOUND, FADE = 0.95, 0.83
SMALL = {"widths": (8, 8, 8, 8), "fill_widths": (8, 8, 8, 8, 8)}


def evidence(frames=3, reference=1, size=(32, 48), seed=0):
    """A bracket of a scene that stands still, 2 EV apart, clipped where it must be."""
    rng = torch.Generator().manual_seed(seed)
    scene = torch.exp(2 * torch.randn(1, 3, *size, generator=rng) - 1)
    ratio = 4.0 ** (torch.arange(frames) - reference)[None]
    light = (scene[:, None] * ratio[..., None, None, None]).clamp_max(1)
    maps = torch.ones(1, frames, 1, *size)
    fade, bound = torch.tensor([FADE]), torch.tensor([BOUND])
    return Evidence(
        light=light,
        weight=photon_weight(light, ratio, fade, bound),
        clipped=(light.amax(2, keepdim=True) >= BOUND).float(),
        belief=maps,
        valid=maps,
        disagreement=0 * maps,
        ratio=ratio,
        reference=torch.tensor([reference]),
        fade=fade,
        bound=bound,
        dark=torch.tensor([0.0024]),
    ), scene


def shaken(net):
    """The same network with last layers that say something."""
    rng = torch.Generator().manual_seed(1)
    for layer in (net.logit, net.flow, net.level):
        torch.nn.init.normal_(layer.weight, std=0.3, generator=rng)
    return net


def test_it_has_the_size_it_should():
    count = sum(p.numel() for p in FlowMerge().parameters())
    assert 400_000 < count < 1_600_000


@pytest.mark.parametrize(("frames", "reference"), [(2, 0), (2, 1), (3, 1), (5, 0), (7, 3), (9, 8)])
def test_it_starts_as_the_explicit_merge(frames, reference):
    given, _ = evidence(frames, reference)
    certain = corrected(given, torch.zeros_like(given.belief))
    merged = merge(given, certain)
    classical, bound = merged.radiance, given.bound[:, None, None, None]
    whole = FlowMerge(**SMALL)(given)
    clips = given.of_reference(given.light) >= bound
    expected = torch.where(clips & (given.ratio < 1).any(), classical.maximum(bound), classical)
    assert (merged.belief <= 1).all()
    torch.testing.assert_close(whole, expected, rtol=2e-3, atol=2e-5)  # warp rounds positions


def test_a_scene_that_stands_still_is_recovered():
    given, scene = evidence()
    whole = FlowMerge(**SMALL)(given)
    known = scene.amax(1, keepdim=True) < 3.3  # the shortest frame does not clip
    error = (whole / scene - 1).abs()[known.expand_as(scene)]
    assert error.median() < 1e-5
    assert error.quantile(0.99) < 0.02


def test_confidence_of_the_reference_is_never_touched():
    given, _ = evidence()
    for logit in (-20.0, 20.0):
        confidence = corrected(given, torch.full_like(given.belief, logit))
        assert (confidence[:, 1] == 1).all()
        others = confidence[:, [0, 2]]
        assert (others < 1e-4).all() if logit < 0 else (others > CERTAIN).all()


def test_invalid_pixels_are_never_believed():
    given, _ = evidence()
    given = replace(given, valid=given.valid.clone().index_fill(1, torch.tensor([2]), 0))
    assert (corrected(given, torch.full_like(given.belief, 20.0))[:, 2] == 0).all()


def test_light_that_clips_in_the_reference_is_never_below_its_clipping():
    given, _ = evidence()
    doubted = replace(given, belief=0 * given.belief)
    merged = merge(doubted, corrected(doubted, torch.zeros_like(doubted.belief)))
    radiance = merged.radiance
    clips = given.of_reference(given.light) >= BOUND
    for guess in (-9.0, 0.0, 1.0):
        filled = fill_in(merged, doubted, torch.full_like(radiance, guess))
        assert (filled[clips] >= BOUND * (1 - 1e-6)).all()
        assert torch.equal(filled[~clips], radiance[~clips])


@pytest.mark.parametrize("size", [(64, 96), (61, 83)])
def test_light_spreads_into_what_is_not_known(size):
    """A lamp behind a figure: the light beside it, level where it is level, in each colour."""
    colour = torch.tensor([4.0, 2.0, 1.5]).view(1, 3, 1, 1).expand(1, 3, *size)
    hole = torch.zeros(1, 1, *size, dtype=torch.bool)
    hole[..., 20:44, 30:50] = True
    radiance = torch.where(hole, torch.ones_like(colour), colour)
    clips = torch.ones_like(colour, dtype=torch.bool)
    known = spread_out(radiance, clips, (~hole).float(), torch.tensor(1.0))
    torch.testing.assert_close(known.rise, torch.log(colour / radiance), rtol=0, atol=1e-4)
    assert (known.distance[~hole.expand_as(colour)] == 0).all()
    assert (known.distance[hole.expand_as(colour)] > 0).all()
    assert known.distance[0, 0, 32, 40] > known.distance[0, 0, 21, 40]


def test_light_spreads_evenly_between_two_lamps():
    radiance, belief = torch.ones(1, 3, 32, 128), torch.zeros(1, 1, 32, 128)
    radiance[..., :32], radiance[..., 96:] = 2.0, 8.0
    belief[..., :32] = belief[..., 96:] = 1
    rise = spread_out(radiance, radiance > 0, belief, torch.tensor(1.0)).rise[0, 0, 16, 32:96]
    assert (rise.diff() >= -1e-3).all()
    assert rise.exp().min() >= 2 - 1e-3
    assert rise.exp().max() <= 8 + 1e-3
    assert rise[31:33].mean().exp() == pytest.approx(4, rel=0.1)


def test_only_clipped_and_believed_light_spreads():
    radiance = torch.full((1, 3, 32, 32), 3.0)
    sure, bound = torch.ones(1, 1, 32, 32), torch.tensor(1.0)
    for clips, belief in ((radiance > 9, sure), (radiance > 0, 0 * sure)):
        found = spread_out(radiance, clips, belief, bound)
        torch.testing.assert_close(found.rise, (bound / radiance).log())
        torch.testing.assert_close(found.distance, torch.full_like(radiance, STEPS + 1))
    faint = spread_out(radiance * 1e3, radiance > 9, sure, bound)
    assert (faint.rise == -DEPTH).all()


def test_where_nothing_is_believed_the_reference_remains():
    given, _ = evidence()
    confidence = corrected(given, torch.full_like(given.belief, -30.0))
    radiance = merge(given, confidence).radiance
    own = given.of_reference(given.light)
    whole = own.amax(1, keepdim=True) < FADE
    inside = whole.expand_as(own) & (own > 1e-3)
    torch.testing.assert_close(radiance[inside], own[inside], rtol=1e-3, atol=0)


def test_every_frame_is_seen_by_itself_beside_the_reference():
    """Leaving a frame out changes nothing of what is said about the others."""
    net = shaken(FlowMerge(**SMALL)).eval()
    five, _ = evidence(5, 2)
    kept = [0, 2, 3]
    three = replace(
        five,
        reference=torch.tensor([1]),
        **{
            name: getattr(five, name)[:, kept]
            for name in ("light", "weight", "clipped", "belief", "valid", "disagreement", "ratio")
        },
    )
    with torch.no_grad():
        whole, part = net.correct(five), net.correct(three)
    torch.testing.assert_close(whole.logit[:, kept], part.logit)
    torch.testing.assert_close(whole.flow[:, kept], part.flow)
    assert part.logit[:, 1].abs().max() == 0


def test_black_and_far_frames_keep_their_prior():
    net = shaken(FlowMerge(**SMALL)).eval()
    given, _ = evidence()
    with torch.no_grad():
        lit = net.correct(given).logit.abs().amax()
        black = net.correct(replace(given, light=0.001 * given.light)).logit.abs().amax()
        far = net.correct(replace(given, ratio=given.ratio**4)).logit.abs().amax()
    assert lit > 0
    assert black == 0
    assert far == 0


def test_features_are_finite_in_black_and_in_white():
    given, _ = evidence()
    for level in (0.0, 1.0):
        flat = replace(given, light=torch.full_like(given.light, level))
        assert pair_features(flat, flat.others()).isfinite().all()


def test_every_weight_learns():
    net = shaken(FlowMerge(**SMALL))
    given, scene = evidence()
    given = replace(given, belief=0.5 * given.belief)
    (net(given) - 1.1 * scene).abs().mean().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not dead


def test_warp_takes_the_pixel_that_the_flow_points_at():
    x = torch.arange(20.0).reshape(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 1, 2
    torch.testing.assert_close(warp(x, flow)[0, 0, 0, 0], x[0, 0, 2, 1])
    torch.testing.assert_close(warp(x, flow)[0, 0, 3, 4], x[0, 0, 3, 4])  # held at the border
