"""Noise is told from texture by what differs between two frames."""

from dataclasses import replace

import numpy as np
import pytest

from hdrcli import motion
from hdrcli.backends.noise import FEWEST, bands, halved, observed
from hdrcli.motion import Motion
from hdrcli.sights import Noise
from tests.scenes import Sensor, flat, moved, photograph, shake, texture

SIZE = (192, 256)
SHOT = 4e-4
READ = SHOT * Noise.read / Noise.shot
SENSOR = Sensor(1 / SHOT, read=float(np.sqrt(READ) / SHOT))
GRAIN = np.random.default_rng(5).normal(0, 0.05, (*SIZE, 1)).astype(np.float32)


def still(shot=SHOT, frames=3):
    """Nothing moved, and every frame has the noise of this sensor."""
    return Motion.none(frames, Noise(shot, shot * Noise.read / Noise.shot))


@pytest.mark.parametrize("assumed", [SHOT / 4, SHOT, 4 * SHOT])
def test_the_noise_of_a_known_sensor_is_found(assumed):
    bracket = photograph(flat(*SIZE, 0.1), sensor=SENSOR)
    expected = np.sqrt(SHOT / assumed)
    assert observed(bracket, still(assumed)) == pytest.approx(expected, rel=0.2)


def test_texture_as_fine_as_noise_is_none():
    """What one frame shows too is no noise, though nobody could tell from one frame alone."""
    grainy = np.asarray(flat(*SIZE, 0.1) * (1 + GRAIN), np.float32)
    plain, textured = (
        observed(photograph(scene, sensor=SENSOR), still()) for scene in (flat(*SIZE, 0.1), grainy)
    )
    assert textured == pytest.approx(plain, rel=0.1)


def test_frames_that_had_to_be_moved_tell_the_same():
    scene = texture(*SIZE, stops=2.0)
    steady = photograph(scene, sensor=SENSOR)
    shift = shake(2.4, -1.7, size=SIZE)
    shaken = photograph(moved(scene, shift), sensor=SENSOR)
    other = replace(shaken.frames[2], warp=np.linalg.inv(shift))
    by_hand = replace(steady, frames=(*steady.frames[:2], other))
    assert observed(by_hand, still()) == pytest.approx(observed(steady, still()), rel=0.25)


def test_only_what_is_believed_counts(rng):
    """What a frame shows that is not there passes for noise, but not where it is disbelieved."""
    three = photograph(flat(*SIZE, 0.1), sensor=SENSOR)
    codes = three.frames[2].codes.copy()
    codes[rng.random((SIZE[0] // 4, SIZE[1] // 4)).repeat(4, 0).repeat(4, 1) < 0.5] //= 2
    wrong = replace(three, frames=(three.ref, replace(three.frames[2], codes=codes)), reference=0)
    left = np.zeros(SIZE, np.float32)
    left[:, :128] = 1
    assert (observed(wrong, still(frames=2)) or 0) > 2
    assert observed(wrong, replace(still(frames=2), confidence=(None, 0 * left))) is None
    half = wrong.frames[1].codes.copy()
    half[:, :140] = three.frames[2].codes[:, :140]
    mixed = replace(wrong, frames=(three.ref, replace(wrong.frames[1], codes=half)))
    told = observed(mixed, replace(still(frames=2), confidence=(None, left)))
    assert told == pytest.approx(observed(three, still()), rel=0.1)


def test_where_nothing_can_be_compared_nothing_is_said():
    dark, bright = photograph(flat(*SIZE, 1e-4)), photograph(flat(*SIZE, 40.0))
    assert observed(dark, still()) is None
    assert observed(bright, still()) is None
    assert observed(photograph(flat(4, 4)), still()) is None


def test_real_motion_is_left_out_by_the_analysis():
    """What analysis finds moved does not pass for noise."""
    scene = texture(*SIZE, stops=3.0)
    bracket = photograph(scene, sensor=SENSOR)
    other = photograph(np.where(np.arange(SIZE[1])[:, None] < 80, scene[::-1], scene))
    frames = (bracket.frames[0], bracket.frames[1], other.frames[2])
    mixed = replace(bracket, frames=frames)
    found = motion.analyse(mixed, noise=Noise(SHOT, READ))
    assert observed(mixed, found) == pytest.approx(observed(bracket, still()), rel=0.35)


@pytest.mark.parametrize("size", [(31, 50), (32, 50), (4000, 6000)])
def test_bands_lie_inside_and_are_not_too_many(size):
    rows = list(bands(*size))
    assert all(0 <= band.start < band.stop <= size[0] for band in rows)
    pixels = sum(band.stop - band.start for band in rows) * size[1]
    assert pixels <= 1.5e6
    assert (pixels > FEWEST) == (size[0] >= 32)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 4)])
def test_a_picture_of_any_size_can_be_halved(size):
    plane = np.ones(size, np.float32)
    smaller = tuple(side // 2 for side in size)
    assert halved(plane).shape == (smaller if min(smaller) else size)
    assert (halved(plane) == 1).all()
