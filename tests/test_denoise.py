"""The denoiser: what is measured well stays, the rest moves by two deviations at most."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from hdrcli import motion
from hdrcli.backends import Settings, load_backend
from hdrcli.backends.average import Average
from hdrcli.backends.denoise import (
    MOST_NOISE,
    amount,
    denoised,
    here,
    loaded,
    measured,
    side_by_side,
    there,
    wanted,
)
from hdrcli.frames import CLIP, Radiance
from hdrcli.nets.denoise import KNEE, LEAST_SEEN, REACH, Denoiser, noise_of
from hdrcli.sights import Noise
from tests.scenes import Sensor, disc_bracket, flat, photograph, texture

ONE = Settings(threads=1)
ASSUMED = Noise()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def talkative():
    """A network whose last layer says something everywhere."""
    torch.manual_seed(3)
    net = Denoiser((8, 8, 8)).eval()
    torch.nn.init.normal_(net.last.weight, std=1.0)
    return net


def given(rng, size=(40, 56)):
    light = torch.from_numpy(rng.uniform(0.001, 2.0, (1, 3, *size)).astype(np.float32))
    deviation = torch.from_numpy(rng.uniform(0.0, 0.1, (1, 1, *size)).astype(np.float32))
    return light, deviation, (light.amax(1, keepdim=True) > 0.95).float()


def test_untrained_it_changes_nothing(rng):
    light, deviation, clipped = given(rng)
    assert torch.equal(Denoiser()(light, deviation, clipped), light)


def test_nothing_moves_further_than_its_deviation_allows(rng, talkative):
    light, deviation, clipped = given(rng)
    with torch.inference_mode():
        result = talkative(light, deviation, clipped)
    noise = noise_of(light, deviation)
    v, moved = torch.log1p(light / KNEE), torch.log1p(result / KNEE)
    assert (result >= 0).all()
    assert ((moved - v).abs() <= REACH * noise + 1e-4).all()
    assert torch.equal(result[noise <= LEAST_SEEN], light[noise <= LEAST_SEEN])
    assert ((moved - v).abs() > 1e-3).float().mean() > 0.3


def noisy_merge(light=0.02, size=(96, 128)):
    """A flat dark merge of which the deviation is known, and its bracket."""
    bracket = photograph(flat(size[0], size[1], light), sensor=Sensor(5_000.0))
    image = Average(ONE).merge(bracket, motion.analyse(bracket, "none"))
    pixels = bracket.ref.linear().astype(np.float32)
    deviation = np.full(size, pixels.std(), np.float32)
    return replace(image, pixels=pixels), deviation, bracket


def test_tiles_change_nothing(rng, talkative):
    image, deviation, bracket = noisy_merge()
    whole = denoised(image, deviation, bracket, 1.0, talkative)
    tiled = denoised(image, deviation, bracket, 1.0, talkative, core=32)
    np.testing.assert_allclose(tiled.pixels, whole.pixels, rtol=2e-5, atol=1e-7)
    assert (whole.pixels != image.pixels).mean() > 0.5
    assert whole.info["denoised"]


def threads_of_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_merges_side_by_side_leave_torch_its_threads():
    torch.set_num_threads(3)
    begun, over = ([threading.Event() for _ in range(2)] for _ in range(2))
    seen = []

    def merge(i):
        def work(_tile):
            seen.append(torch.get_num_threads())
            begun[i].set()
            assert over[i].wait(20)

        side_by_side(work, [(0,), (1,)], 2)
        return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(merge, 0)
        assert begun[0].wait(20)
        late = pool.submit(merge, 1)
        assert begun[1].wait(20)
        over[0].set()
        assert early.result() == 3
        over[1].set()
        assert late.result() == 3
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3
    assert set(seen) == {1}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_noise_goes_and_light_stays(dtype):
    image, deviation, bracket = noisy_merge()
    image = replace(image, pixels=image.pixels.astype(dtype))
    clean = denoised(image, deviation, bracket, 1.0, *loaded(ONE)).pixels
    assert clean.dtype == dtype
    before, after = image.pixels.astype(np.float32), clean.astype(np.float32)
    inside = np.s_[8:-8, 8:-8]
    assert after[inside].std() < 0.7 * before[inside].std()
    assert after.mean() == pytest.approx(before.mean(), rel=0.01)


def test_what_clips_is_no_darker_for_it(talkative):
    bracket = photograph(flat(32, 48, 3.0))
    ceiling = np.float32(bracket.ref.response.at(CLIP))
    image = Radiance(np.full((32, 48, 3), 1.001 * ceiling, np.float32))
    deviation = np.full((32, 48), 0.2, np.float32)
    assert (denoised(image, deviation, bracket, 1.0, talkative).pixels >= ceiling).all()


def test_two_frames_tell_how_much_there_is_and_else_the_reference():
    noise = Noise(2e-4)
    bracket = photograph(flat(256, 320, 0.1), sensor=Sensor(1 / 8e-4))
    told = amount(bracket, motion.Motion.none(3, noise))
    assert told == MOST_NOISE, "four times the variance, but no more than may be believed"
    nobody = motion.Motion(
        (None,) * 3, (*[np.zeros((256, 320), np.float32)] * 3,), (noise,) * 3, (None,) * 3
    )
    assert amount(bracket, nobody) == measured(bracket.ref, noise)


def test_kernels_do_what_the_network_does(rng, talkative):
    light, deviation, clipped = given(rng)
    deviation[..., ::7] = 30.0
    picture = np.ascontiguousarray(light[0].permute(1, 2, 0).numpy())
    unsure, clips = deviation[0, 0].numpy(), clipped[0, 0].numpy().astype(np.uint8)
    ceiling = np.float32(0.9)
    with torch.inference_mode():
        far = there(talkative, picture, unsure, clips, ceiling, "cpu")
        near = here(talkative, picture.copy(), unsure, clips, ceiling)
    np.testing.assert_allclose(near, far, rtol=2e-5, atol=2e-6)
    assert (near != picture).mean() > 0.3


def test_what_is_only_bounded_stays(rng, talkative):
    """Light that clips everywhere is not known to a quarter of itself: that is no noise."""
    light, deviation, clipped = given(rng)
    unknown = torch.ones_like(clipped)
    with torch.inference_mode():
        stays = talkative(light, 10 + deviation, unknown)
        moves = talkative(light, 10 + deviation, 1 - unknown)
    torch.testing.assert_close(stays, light, rtol=1e-6, atol=1e-7)
    assert (moves != light).float().mean() > 0.9


def test_only_the_noise_that_there_is_counts():
    """A scene without noise, as after a reduction, is left alone whatever a camera would have."""
    quiet = photograph(texture(256, 320)).ref
    assert measured(quiet, ASSUMED) < 0.5
    loud = photograph(flat(256, 320, 0.1), sensor=Sensor(1 / 8e-4)).ref
    assert measured(loud, ASSUMED) == 1.0
    half = photograph(flat(256, 320, 0.1), sensor=Sensor(1 / 2e-4)).ref
    assert measured(half, Noise(8e-4)) == pytest.approx(0.5, abs=0.15)
    assert measured(photograph(flat(4, 4)).ref, ASSUMED) == 0, "nothing can be measured"


def test_flowmerge_does_so_if_it_is_asked_to():
    bracket, _ = disc_bracket(sensor=Sensor(1_000.0))
    found = motion.analyse(bracket, keep_views=True)

    def merged(**options):
        return load_backend("flowmerge", Settings(threads=1, options=options)).merge(bracket, found)

    plain, clean = merged(), merged(denoise=True)
    assert clean.info["denoised"]
    assert "denoised" not in plain.info
    assert (plain.pixels != clean.pixels).any()
    hat = {"weight": "hat", "denoise": True}
    assert not wanted(Settings(options=hat)), "its weights do not follow the noise"
