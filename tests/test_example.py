import numpy as np
import pytest

from hdrcli import formats
from hdrcli.color import srgb_decode
from hdrcli.example import Example, photograph, truth, write_example
from hdrcli.example import camera as cameras
from hdrcli.example import light as lights
from hdrcli.example.camera import Hand, develop, expose
from hdrcli.example.figures import MOVERS
from hdrcli.example.light import EYE, Box, Capsule, Column, Leaf, Sphere, dot
from hdrcli.example.render import Canvas, render

SMALL = (96, 64)


@pytest.fixture(scope="module")
def still():
    return render(Canvas(*SMALL))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    return write_example(folder, Example(size=SMALL))


# ---- what is written -------------------------------------------------------------------------


def test_the_same_example_gives_the_same_files(written, tmp_path):
    again = write_example(tmp_path, Example(size=SMALL))
    assert [p.name for p in again] == [p.name for p in written]
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in written]


def test_another_seed_gives_other_photographs(still):
    one, other, again = (
        photograph(example, still, example.shots()[0], 0)
        for example in (Example(size=SMALL), Example(size=SMALL, seed=1), Example(size=SMALL))
    )
    assert (one == again).all()
    assert (one != other).mean() > 0.1


def test_the_files_say_how_they_were_exposed(written):
    *photographs, last = (formats.read(path) for path in written)
    assert [p.metadata.exposure_time for p in photographs] == pytest.approx(
        [1 / 480, 1 / 60, 2 / 15]
    )
    assert [p.metadata.bias for p in photographs] == [-3, 0, 3]
    assert {(p.metadata.f_number, p.metadata.iso) for p in photographs} == {(5.6, 200)}
    assert {p.size for p in photographs} == {(64, 96)} == {last.size}
    assert last.metadata.exposure_time == pytest.approx(1 / 60)


def test_the_light_spans_more_than_fourteen_stops(still):
    low, high = np.percentile(still.light.max(axis=2), 0.5), still.light.max()
    assert np.log2(high / low) > 14


def test_photographs_are_the_truth_exposed(still):
    example = Example(size=SMALL, static=True, frames=5, ev_step=2)
    light = truth(example, still)
    for i, shot in enumerate(example.shots()):
        codes = photograph(example, still, shot, i)
        seen = srgb_decode(codes / np.float32(255)) / 2.0**shot.ev
        good = ((codes > 60) & (codes < 240)).all(axis=2)
        assert good.mean() > 0.02, shot
        ratio = seen[good].mean(axis=1) / light[good].mean(axis=1)
        assert abs(np.median(ratio) - 1) < 0.02, shot


@pytest.mark.slow
def test_merging_a_still_example_finds_the_truth(tmp_path):
    from hdrcli.pipeline import MergeOptions, merge_files

    *photographs, last = write_example(tmp_path, Example(size=(240, 160), static=True))
    merged = tmp_path / "merged.exr"
    merge_files(photographs, [merged], MergeOptions(response="srgb", preview=False))
    found, true = formats.read(merged).linear(), formats.read(last).linear()
    exposed = (true > 0.002).all(axis=2) & (true < 7).all(axis=2)
    assert exposed.mean() > 0.8
    error = np.abs(found[exposed] / true[exposed] - 1)
    assert np.median(error) < 0.02


def test_people_move_and_hands_shake_unless_told_not_to(still):
    moving, steady = Example(size=SMALL), Example(size=SMALL, static=True)
    first, _, last = (truth(moving, still, shot) for shot in moving.shots())
    assert (np.abs(np.log2(first / last)) > 0.5).any(axis=2).mean() > 0.03
    first, _, last = (truth(steady, still, shot) for shot in steady.shots())
    assert (first == last).all()


@pytest.mark.parametrize("name", ["IMG_0002.jpg", "truth.exr"])
def test_existing_files_are_kept_and_nothing_is_drawn(hdrcli, tmp_path, monkeypatch, name):
    monkeypatch.setattr("hdrcli.example.render", lambda *_: pytest.fail("drew"))
    (tmp_path / name).write_bytes(b"precious")
    result = hdrcli("example", tmp_path)
    assert (result.code, (tmp_path / name).read_bytes()) == (3, b"precious")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--size", "10x10"], 2, "not a size"),
        (["--frames", "1"], 2, "--frames"),
        (["--frames", "15", "--ev-step", "6"], 3, "the longest exposure would take"),
    ],
)
def test_impossible_examples(hdrcli, tmp_path, words, code, message):
    result = hdrcli("example", tmp_path / "new", *words)
    assert result.code == code
    assert message in result.err


def test_a_folder_that_cannot_be_made(hdrcli, tmp_path):
    (tmp_path / "file").touch()
    assert hdrcli("example", tmp_path / "file" / "folder").code == 3


# ---- the camera ------------------------------------------------------------------------------


def test_a_long_exposure_is_the_mean_of_its_halves(still, monkeypatch):
    hand = Hand(3)
    monkeypatch.setattr(cameras, "MOST_MOMENTS", 6)
    whole = expose(still, MOVERS, hand, 0.0, 2.0)
    monkeypatch.setattr(cameras, "MOST_MOMENTS", 3)
    halves = [expose(still, MOVERS, hand, start, 1.0) for start in (0.0, 1.0)]
    assert np.allclose(whole, np.mean(halves, axis=0), rtol=1e-4)


def test_the_hand_is_smooth_small_and_still_at_the_reference():
    hand = Hand(5)
    path = np.array([hand.angles(t) for t in np.arange(0, 6, 0.002)])
    assert np.abs(path).max() < 0.012  # radians: inside the margin of the canvas
    assert np.abs(np.diff(path, axis=0)).max() < 2e-4
    assert (Hand(5, steady=True).angles(3.0) == 0).all()


def test_noise_is_that_of_photons(rng):
    light = np.full((200, 200, 3), 0.25, np.float32)
    seen = srgb_decode(develop(light, 1.0, rng) / np.float32(255))
    photons = 0.25 * cameras.FULL_WELL
    rounding = (0.25 / 137 * 2) / np.sqrt(12)  # a code's width at 0.25 is about 2 / 137 of it
    expected = np.hypot(
        np.hypot(np.sqrt(photons), cameras.READ_NOISE) / cameras.FULL_WELL, rounding
    )
    assert seen.mean() == pytest.approx(0.25, rel=2e-3)
    assert seen.std() == pytest.approx(expected, rel=0.1)


# ---- geometry --------------------------------------------------------------------------------

SOLIDS = [
    Box((-1, 0.5, 4), (1, 2, 5)),
    Sphere((0, 1.5, 5), 0.8),
    Column(0.0, 5.0, 0.7, 0.5, 2.5),
    Capsule((-0.7, 1, 5), (0.8, 2, 4.5), 0.4),
    Leaf((0.0, 1.5, 5.0), (0.9, 0.1, 0.2), (0.0, 0.6, -0.3)),
]


def _distance(solid, p):
    """From the surface, for points near it."""
    match solid:
        case Box(low, high):
            middle, half = np.add(low, high) / 2, np.subtract(high, low) / 2
            return np.abs(np.abs(p - middle) - half).min(axis=1)
        case Sphere(centre, radius):
            return np.abs(np.linalg.norm(p - centre, axis=1) - radius)
        case Column(x, z, radius):
            return np.abs(np.hypot(p[:, 0] - x, p[:, 2] - z) - radius)
        case Capsule(start, end, radius):
            axis = np.subtract(end, start)
            at = np.clip((p - start) @ axis / (axis @ axis), 0, 1)
            return np.abs(np.linalg.norm(p - start - at[:, None] * axis, axis=1) - radius)
        case Leaf(centre, along, across):
            normal = np.cross(along, across)
            return np.abs((p - centre) @ normal / np.linalg.norm(normal))


@pytest.mark.parametrize("solid", SOLIDS, ids=lambda s: type(s).__name__)
def test_rays_end_on_the_surface_they_hit(solid, rng):
    toward = np.concatenate([rng.uniform(-0.3, 0.3, (4000, 2)), np.ones((4000, 1))], axis=1)
    steps = solid.hit(EYE, toward.astype(np.float32))
    hit = np.isfinite(steps)
    assert 0.03 < hit.mean() < 0.97
    points = EYE + steps[hit, None] * toward[hit]
    assert _distance(solid, points).max() < 2e-3
    normals = solid.normal(points.astype(np.float32))
    assert np.linalg.norm(normals, axis=1) == pytest.approx(1, abs=1e-2)
    if not isinstance(solid, Box):  # at a box's edge the nearest face may be another
        assert (dot(normals, toward[hit]) < 1e-2).all()
    for test in (lights.in_view(solid, toward), lights.crosses(solid, EYE[None], toward[0])):
        assert test.dtype == np.intp
    assert set(np.flatnonzero(hit)) <= set(lights.in_view(solid, toward.astype(np.float32)))


def test_light_comes_through_the_glass_alone():
    behind = np.array([[-0.6, 1.0, 6.0], [2.5, 1.0, 6.0]], np.float32)
    assert list(lights.sunlight(behind) > 0) == [True, False]
    blocked = lights.sunlight(behind, (Sphere((-0.6 - 0.06, 1.09, 6.5), 0.3),))
    assert list(blocked) == [0, 0]
