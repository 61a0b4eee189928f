"""What moved: doubt counts where it changes the merge, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest

from hdrcli import motion, stakes
from hdrcli.backends import Settings, choice, load_backend
from tests.scenes import FILM_CURVE, NOISY, Sensor, flat, photograph, texture, with_disc

SIZE = (128, 160)
WIDE = (-7.0, -5.0, -2.0, 0.0, 2.0, 4.0, 6.0)
GRAIN = Sensor(6_000.0, read=6.0)


def wide_scene():
    """A dark room with a lamp, 14 stops, and shadows that only the longest frames show."""
    room = 0.02 * texture(*SIZE, seed=3, stops=6.0)
    room[:, 100:] *= np.float32(0.05)
    return with_disc(room, (40, 40), 18, 60.0)


def test_a_static_bracket_of_fourteen_stops_is_merged_by_the_mean():
    bracket = photograph(wide_scene(), WIDE, sensor=GRAIN, curve=FILM_CURVE)
    found = motion.analyse(bracket)
    doubted = [c for c in found.confidence if c is not None]
    assert doubted, "the case is that some frames are not believed"
    assert found.moved <= choice.A_LITTLE
    assert choice.choose("auto", bracket, found)[0] == choice.STILL


@pytest.mark.parametrize("light", [0.05, 0.3, 40.0])
def test_what_moves_counts_dark_and_bright(light):
    scene = wide_scene()
    frames = [with_disc(scene, (88, 40 + 8 * i), 9, light) for i in range(len(WIDE))]
    bracket = photograph(frames, WIDE, sensor=NOISY)
    assert motion.analyse(bracket).moved > choice.A_LITTLE


def test_doubt_in_a_frame_without_weight_costs_nothing():
    """The shortest of three is doubted in the shadows, where it says next to nothing."""
    views = motion.analyse(photograph(flat(64, 64, 0.1), (-4.0, 0.0, 2.0)), keep_views=True).views
    for doubted, moved in ((0, False), (2, True)):
        found = stakes.Stakes((64, 64), (2e-4, 1e-6))
        for i, view in enumerate(views):
            belief = np.zeros((64, 64), np.float32) if i == doubted else None
            light = view.light * np.float32(2.0 if i == doubted else 1.0)
            other = replace(view, light=light)
            found.add(other, other, belief, (0.83, 0.96), shortest=i == 0)
        assert found.moved().any() == moved
        assert found.moved().all() == moved


def test_thin_edges_do_not_count():
    bracket = photograph(flat(64, 64, 0.2), (0.0, 2.0), reference=0)
    views = motion.analyse(bracket, keep_views=True).views
    for width, moved in ((3, False), (12, True)):
        found = stakes.Stakes((64, 64), (2e-4, 1e-6))
        light = views[1].light.copy()
        light[:, 30 : 30 + width] *= 2
        belief = (light == views[1].light).all(axis=2).astype(np.float32)
        other = replace(views[1], light=light)
        found.add(views[0], views[0], None, None, shortest=True)
        found.add(other, other, belief, None, shortest=False)
        assert found.moved().any() == moved


@pytest.mark.parametrize("belief", [0.0, 0.3, 0.6, 0.95])
def test_what_the_reference_shows_bright_gets_no_dark_specks(belief):
    """A car's lamp passes in the reference; the darker frame shows the road, half believed."""
    lamp, road = flat(32, 32, 0.93), flat(32, 32, 0.02)
    bracket = photograph([road, lamp], (-2.0, 0.0))
    assert bracket.ref.codes.max() > 235
    half = np.full((32, 32), belief, np.float32)
    found = replace(motion.Motion.none(2), confidence=(half, None))
    light = load_backend("average", Settings(threads=1)).merge(bracket, found)
    own = bracket.ref.linear()
    bright = bracket.ref.codes > 0.75 * 255
    assert (np.asarray(light.pixels)[bright] > 0.65 * own[bright]).all()
