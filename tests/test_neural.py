from typing import Any

import numpy as np
import pytest
import torch

from hdrcli import device, weights
from hdrcli.backends import BACKENDS, Settings, arrange, load_backend, neural
from hdrcli.errors import DeviceError, InputError, WeightsError
from hdrcli.frames import Bracket
from hdrcli.motion import Motion, analyse
from hdrcli.nets import pooling
from hdrcli.nets.build import build
from hdrcli.tiling import TileSpec
from tests.scenes import checker, flat, handheld_bracket, photograph, texture, with_disc

SMALL: dict[str, dict[str, Any]] = {
    "psfnet": {"channels": 8, "blocks": 2, "dual_blocks": 1},
    "adnet": {"channels": 8, "growth": 8, "dense_layers": 2, "blocks": 2, "groups": 2},
    "hdrgan": {"channels": 4},
    "apntfusion": {
        "channels": 8,
        "mef_blocks": 2,
        "blocks": 1,
        "reduction": 4,
        "trunk": [4, 8, 8],
        "windows": [1, 1, 4],
    },
    "deephdrvideo": {
        "exposures": 3,
        "flow_channels": 16,
        "levels": 3,
        "weight_channels": 16,
        "weight_tail": 8,
        "channels": 8,
        "groups": 2,
        "extract_blocks": 1,
        "trunk_blocks": 1,
    },
}
NETWORKS = tuple(SMALL)


def random_network(name, arch=None, seed=1):
    """A network whose layers, pools and offsets all say something; flow is short."""
    torch.manual_seed(seed)
    net = build(name, SMALL[name] if arch is None else arch)
    for key, value in net.named_parameters():
        if "offset" in key and key.endswith("weight"):
            torch.nn.init.normal_(value, std=0.02)
        elif value.dim() == 4 and "flow_net" not in key:
            torch.nn.init.kaiming_normal_(value)
    return net


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    for name, arch in SMALL.items():
        facts = {"backend": name, "licence": "MIT", "arch": arch}
        weights.add(path, name, random_network(name).state_dict(), facts)
    return path


@pytest.fixture(autouse=True)
def chosen(folder, monkeypatch):
    monkeypatch.setenv(weights.FOLDER, str(folder))


def settings(**given):
    return Settings(**{"threads": 1, "device": "cpu", "precision": "fp32", **given})


def merge(name, bracket, motion=None, **given):
    found = load_backend(name, settings(**given)).merge(
        bracket, motion or Motion.none(len(bracket.frames))
    )
    assert found.pixels.dtype == (np.float16 if given.get("half") else np.float32)
    assert np.isfinite(found.pixels).all()
    assert found.pixels.min() >= 0
    return found


def mu_law(radiance, top):
    return np.log1p(5000 * np.clip(radiance / top, 0, 1)) / np.log(5001)


# ---- the table -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_says_what_the_networks_say(name):
    net, spec = build(name), BACKENDS[name].network
    assert spec is not None
    assert spec.multiple_of == net.multiple_of
    assert spec.reach == net.reach
    assert spec.pooled == bool(pooling.pools(net))
    assert spec.halo <= spec.reach + 3


# ---- tiles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_tiled_equals_untiled(name):
    spec = BACKENDS[name].network
    assert spec is not None
    tile = 2 * spec.halo + neural.BLEND + 16
    bracket = photograph(2 * texture(64, tile + 44), (-2, 0, 2))
    whole = merge(name, bracket, tile=0)
    tiled = merge(name, bracket, tile=tile)
    assert tiled.info["tile"] < bracket.size[1]
    difference = np.abs(mu_law(whole.pixels, 4) - mu_law(tiled.pixels, 4))
    assert difference.max() < 1e-3


def test_a_process_that_may_hold_less_cuts_smaller_tiles():
    """As video does, whose frames and encoder need memory too."""
    network = BACKENDS["deephdrvideo"].network
    assert network is not None
    net, compute = build("deephdrvideo"), device.Compute("cpu", "fp32")
    most = [neural.most_of(compute, held) for held in (device.held() + 1e9, 1e12)]
    little, much = (
        neural.tile_spec(None, net, network, compute, (4000, 6000), m).size for m in most
    )
    assert most[0] == pytest.approx(1e9, rel=0.1)
    assert little < much


def test_without_context_tiles_would_show(monkeypatch):
    bracket = photograph(2 * texture(64, 100), (-2, 0, 2))
    whole = merge("psfnet", bracket, tile=0).pixels
    spec = TileSpec(64, 0, 1)
    monkeypatch.setattr(neural, "tile_spec", lambda *_: spec)
    tiled = merge("psfnet", bracket).pixels
    assert np.abs(mu_law(whole, 4) - mu_law(tiled, 4)).max() > 1e-3


def test_statistics_of_every_tile_are_those_of_the_whole_picture(monkeypatch):
    """Half dark, half bright: tiles that pooled themselves would disagree."""
    scene = np.concatenate([flat(64, 96, 0.01), texture(64, 96)], axis=1)
    bracket = photograph(scene, (-2, 0, 2))
    whole = merge("psfnet", bracket, tile=0).pixels
    tiled = merge("psfnet", bracket, tile=100).pixels
    assert np.abs(mu_law(whole, 4) - mu_law(tiled, 4)).max() < 1e-4
    monkeypatch.setattr(neural.Runner, "measure", lambda *_: None)
    pooled = merge("psfnet", bracket, tile=100).pixels
    assert np.abs(mu_law(whole, 4) - mu_law(pooled, 4)).max() > 1e-3


def test_large_pictures_are_measured_reduced():
    bracket = photograph(texture(300, 400), (-2, 0, 2))
    stack = arrange.Stack(bracket, (0, 1, 2), Motion.none(3))
    small = stack.reduced(10_000)
    assert small.shape == (3, 87, 115, 3)
    assert small.mean() == pytest.approx(stack.reduced(1 << 20).mean(), rel=0.02)


@pytest.mark.parametrize("size", [(33, 70), (5, 9)])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_size_of_picture(name, size):
    bracket = photograph(texture(96, 128)[: size[0], : size[1]], (-2, 0, 2))
    assert merge(name, bracket).pixels.shape == (*size, 3)


def test_tiles_halve_when_memory_runs_out(monkeypatch):
    bracket = photograph(texture(64, 180), (-2, 0, 2))
    expected = merge("psfnet", bracket, tile=0).pixels
    run = neural.Runner.radiance
    shapes = []

    def short_of_memory(self, light):
        shapes.append(light.shape[1:3])
        if light.shape[2] > 110:
            raise MemoryError
        return run(self, light)

    monkeypatch.setattr(neural.Runner, "radiance", short_of_memory)
    found = merge("psfnet", bracket, tile=0)
    assert max(shapes[-1]) <= 110
    np.testing.assert_allclose(found.pixels, expected, atol=1e-4)


def test_no_memory_at_all_is_an_error_with_a_cure(monkeypatch):
    def never(self, light):
        raise MemoryError

    monkeypatch.setattr(neural.Runner, "radiance", never)
    bracket = photograph(texture(96, 96), (-2, 0, 2))
    with pytest.raises(DeviceError, match="no memory") as caught:
        merge("psfnet", bracket)
    assert "average" in str(caught.value.hint)


def test_auto_goes_on_on_the_cpu_when_a_device_is_full(monkeypatch, caplog):
    run = neural.Neural.attempt
    tried = []

    def attempt(self, net, form, stack, compute):
        tried.append(compute.device)
        if compute.device == "cuda:0":
            raise MemoryError
        return run(self, net, form, stack, compute)

    monkeypatch.setattr(neural.Neural, "attempt", attempt)
    backend = load_backend("psfnet", settings(device="auto"))
    assert isinstance(backend, neural.Neural)
    backend.compute = device.Compute("cuda:0", "fp16", chosen=True)
    bracket = photograph(texture(48, 48), (-2, 0, 2))
    found = backend.merge(bracket, Motion.none(3))
    assert tried == ["cuda:0", "cpu"]
    assert found.info["device"] == "cpu"
    assert "on the CPU instead" in caplog.text


def test_a_device_that_was_asked_for_is_not_replaced(monkeypatch):
    def full(self, net, form, stack, compute):
        raise MemoryError

    monkeypatch.setattr(neural.Neural, "attempt", full)
    backend = load_backend("psfnet", settings())
    assert isinstance(backend, neural.Neural)
    backend.compute = device.Compute("cuda:0", "fp16", chosen=False)
    with pytest.raises(DeviceError):
        backend.merge(photograph(texture(48, 48), (-2, 0, 2)), Motion.none(3))


def test_tiles_smaller_than_their_margins_are_refused():
    bracket = photograph(texture(96, 128), (-2, 0, 2))
    with pytest.raises(InputError, match="--tile 20") as caught:
        merge("psfnet", bracket, tile=20)
    assert "--tile" in str(caught.value.hint)


# ---- precision -------------------------------------------------------------------------------


def test_what_overflows_in_half_is_computed_again_in_fp32(monkeypatch, caplog):
    answer = neural.Runner.answer

    def overflows(self, linear):
        found = answer(self, linear)
        return found if self.compute.precision == "fp32" else found * float("inf")

    bracket = photograph(texture(48, 48), (-2, 0, 2))
    expected = merge("psfnet", bracket).pixels
    monkeypatch.setattr(neural.Runner, "answer", overflows)
    found = merge("psfnet", bracket, precision="bf16")
    assert found.info["precision"] == "fp32"
    assert "again in fp32" in caplog.text
    np.testing.assert_array_equal(found.pixels, expected)


def test_weights_that_answer_nonsense_are_an_error(monkeypatch):
    monkeypatch.setattr(neural.Runner, "answer", lambda self, x: x[:, 0] * float("nan"))
    with pytest.raises(WeightsError, match="infinities"):
        merge("psfnet", photograph(texture(48, 48), (-2, 0, 2)))


@pytest.mark.parametrize("name", ["psfnet", "adnet"])
def test_bf16_is_near_fp32(name):
    bracket = photograph(texture(48, 64), (-2, 0, 2))
    exact = merge(name, bracket).pixels
    rough = merge(name, bracket, precision="bf16").pixels
    difference = np.abs(mu_law(exact, 4) - mu_law(rough, 4))
    assert 0 < difference.mean() < 0.01


# ---- turning ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "psfnet",
        "hdrgan",
        pytest.param("adnet", marks=pytest.mark.slow),
        pytest.param("apntfusion", marks=pytest.mark.slow),
        pytest.param("deephdrvideo", marks=pytest.mark.slow),
    ],
)
def test_the_ensemble_turns_with_the_picture(name):
    """Mirrored input, mirrored output: true of the average over the mirrors, not of one."""
    scene = 2 * texture(48, 48)
    plain, mirrored = (photograph(s, (-2, 0, 2)) for s in (scene, scene[:, ::-1].copy()))

    def asymmetry(**given):
        one, other = (merge(name, b, **given).pixels for b in (plain, mirrored))
        return float(np.abs(mu_law(one, 4) - mu_law(other[:, ::-1], 4)).mean())

    single, four = asymmetry(), asymmetry(ensemble=True)
    assert four < single


def test_symmetries_undo_themselves():
    picture = torch.rand(1, 3, 5, 7)
    for symmetry in neural.SYMMETRIES:
        torch.testing.assert_close(symmetry(symmetry(picture)), picture)


# ---- frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [2, 5, 9])
def test_any_number_of_frames(name, count):
    evs = tuple(np.linspace(-4, 4, count)) if count > 2 else (0, 2)
    bracket = photograph(texture(40, 48), evs)
    assert merge(name, bracket, analyse(bracket)).pixels.shape == (40, 48, 3)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("reference", [0, 1, 2])
def test_any_frame_as_reference(name, reference):
    bracket = photograph(texture(40, 48), (-2, 0, 2), reference=reference)
    found = merge(name, bracket, analyse(bracket))
    assert bracket.ref.name in found.info["network_frames"]


def test_the_order_of_the_files_changes_nothing():
    bracket = photograph(texture(48, 64), (-3, -1, 1, 3))
    other = Bracket.of(reversed(bracket.frames), bracket.ref)
    first, second = (merge("psfnet", b, analyse(b)).pixels for b in (bracket, other))
    np.testing.assert_array_equal(first, second)


def names(bracket, places):
    return [float(np.round(bracket.evs[i], 2)) for i in places]


def test_the_triple_holds_the_highlights_and_the_shadows():
    evs = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
    modest = photograph(texture(stops=2.0), evs)  # fits one frame: neighbours will do
    assert names(modest, arrange.triple(modest)) == [-1, 0, 1]
    bright = texture(stops=2.0) * 8
    deep = photograph(bright, evs)  # clips until the third darker one
    short, reference, _ = arrange.triple(deep)
    assert (deep.frames[short].codes.max(axis=2) >= 250).mean() <= arrange.CLIPPED
    assert (deep.frames[short + 1].codes.max(axis=2) >= 250).mean() > arrange.CLIPPED
    assert names(deep, [reference]) == [0]


def test_frames_too_far_away_are_taken_only_where_none_is_nearer():
    scene = texture() * 40  # clips in all
    near = photograph(scene, (-9, -3, 0))
    assert names(near, arrange.triple(near)) == [-3, 0, 0]
    far = photograph(scene, (-9, 0, 2))
    assert names(far, arrange.triple(far))[0] == -9


def test_the_reference_stands_in_where_a_side_has_no_frame():
    assert arrange.triple(photograph(texture(), (0, 2), reference=0)) == (0, 0, 1)
    assert arrange.triple(photograph(texture(), (-2, 0), reference=1)) == (0, 1, 1)
    assert arrange.triple(photograph(texture(), (0, 0.1, -0.1), reference=1)) == (2, 2, 2)


def test_windows_of_a_video_alternate_around_the_reference():
    bracket = photograph(texture(), (-2, 0, 2))
    assert arrange.window(bracket, 3, 7) == (1, 2, 0, 1, 2, 0, 1)
    assert arrange.window(bracket, 3, 5) == (2, 0, 1, 2, 0)
    assert arrange.window(bracket, 2, 3) in ((0, 1, 0), (2, 1, 2))
    clipping = photograph(texture() * 8, (-2, 0, 2))
    assert arrange.window(clipping, 2, 5) == (1, 0, 1, 0, 1)
    no_short = photograph(texture() * 8, (0, 2), reference=0)
    assert arrange.window(no_short, 2, 3) == (1, 0, 1)


def test_three_exposures_have_weights_of_their_own(folder, tmp_path, monkeypatch):
    for name, exposures in (("deephdrvideo", 2), ("deephdrvideo-3", 3)):
        arch = {**SMALL["deephdrvideo"], "exposures": exposures}
        state = random_network("deephdrvideo", arch).state_dict()
        facts = {"backend": "deephdrvideo", "licence": "MIT", "arch": arch}
        weights.add(tmp_path, name, state, facts)
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    three = merge("deephdrvideo", photograph(texture(48, 64), (-2, 0, 2)))
    assert three.info["weights"].startswith("deephdrvideo-3 ")
    assert len(three.info["network_frames"]) == 7
    two = merge("deephdrvideo", photograph(texture(48, 64), (0, 2)))
    assert two.info["weights"].startswith("deephdrvideo ")
    assert len(two.info["network_frames"]) == 5


# ---- light -----------------------------------------------------------------------------------


class Oracle(torch.nn.Module):
    """Stands for a network that returns what the long-exposed half of its input says: H_2."""

    multiple_of = 1
    reach = 0

    def forward(self, X_1, X_2, X_3):
        return X_2[:, 3:]


@pytest.fixture
def oracle(monkeypatch):
    """PSFNet's form around a network that returns the reference."""
    real = neural.network

    def fake(name, state, arch):
        return Oracle(), real(name, state, arch)[1]

    monkeypatch.setattr(neural, "network", fake)


@pytest.mark.parametrize("evs", [(-2, 0, 2), (-3, 0, 1), (0, 2), (-2, 0)])
def test_radiance_is_one_at_the_white_of_the_reference(oracle, evs):
    scene = texture(48, 64, stops=2.0)
    bracket = photograph(scene, evs)
    found = merge("psfnet", bracket).pixels
    np.testing.assert_allclose(found, bracket.ref.linear(), atol=2e-3)


def test_twice_the_exposure_is_half_the_radiance():
    """All exposures times two, the same codes: the same radiance per white."""
    from dataclasses import replace

    bracket = photograph(texture(48, 64), (-2, 0, 2))
    exposures = [frame.exposure or 0.0 for frame in bracket.frames]
    doubled = bracket.with_frames(
        replace(f, exposure=2 * e) for f, e in zip(bracket.frames, exposures, strict=True)
    )
    first, second = merge("psfnet", bracket), merge("psfnet", doubled)
    np.testing.assert_allclose(second.absolute().pixels, first.absolute().pixels / 2, rtol=1e-6)


def test_frames_left_over_extend_the_range(oracle):
    """The network returns the reference, which clips; the darkest frame knows better."""
    scene = with_disc(texture(64, 64, stops=2.0), (32, 32), 14, (30.0, 20.0, 10.0))
    bracket = photograph(scene, (-6, -2, 0, 2))
    assert 0 not in arrange.triple(bracket)
    found = merge("psfnet", bracket, analyse(bracket)).pixels
    inside = found[28:36, 28:36].mean(axis=(0, 1))
    np.testing.assert_allclose(inside, (30.0, 20.0, 10.0), rtol=0.05)


def test_what_clips_in_all_frames_is_white_and_counted(oracle):
    scene = with_disc(texture(64, 64, stops=2.0), (32, 32), 10, (90.0, 60.0, 40.0))
    bracket = photograph(scene, (-2, 0, 2))
    found = merge("psfnet", bracket)
    inside = found.pixels[28:36, 28:36]
    np.testing.assert_allclose(inside, 4.0, rtol=1e-5)
    disc = np.pi * 10**2 / 64**2
    assert found.clipped == pytest.approx(disc, rel=0.15)


def test_nothing_clips_in_a_scene_that_fits():
    assert merge("psfnet", photograph(texture(48, 48, stops=2.0), (-2, 0, 2))).clipped == 0


def test_where_a_frame_shows_nothing_the_reference_stands_in():
    bracket, hands = handheld_bracket((-2, 0, 2), pixels=8.0)
    from dataclasses import replace

    placed = bracket.with_frames(
        replace(f, warp=hand) for f, hand in zip(bracket.frames, hands, strict=True)
    )
    stack = arrange.Stack(placed, (0, 1, 2), Motion.none(3))
    light = stack.light(slice(None), slice(None))
    reference = placed.ref.linear()
    for i in (0, 2):
        expected = np.clip(reference * placed.ratios[i], 0, 1)
        assert np.median(np.abs(light[i] - expected)) < 0.01
        assert np.abs(light[i][:3] - expected[:3]).mean() < 0.02  # partly outside the frame


@pytest.mark.parametrize("bits", [8, 16])
def test_codes_of_any_depth(bits):
    bracket = photograph(checker(48, 48), (-2, 0, 2), bits=bits)
    assert merge("adnet", bracket).pixels.shape == (48, 48, 3)


def test_half_floats_for_outputs_that_store_half():
    bracket = photograph(texture(48, 48), (-2, 0, 2))
    half, full = merge("hdrgan", bracket, half=True), merge("hdrgan", bracket)
    np.testing.assert_allclose(half.pixels, full.pixels, rtol=2e-3, atol=1e-5)


# ---- telling ---------------------------------------------------------------------------------


def test_progress_and_facts(caplog):
    seen = []
    bracket = photograph(texture(64, 200), (-2, 0, 2))
    with caplog.at_level("INFO", "hdrcli"):
        found = merge("psfnet", bracket, tile=128, progress=lambda *a: seen.append(a))
    assert {stage for stage, _ in seen} == {"network"}
    done = [fraction for _, fraction in seen]
    assert done == sorted(done)
    assert done[-1] == 1
    assert len(done) > 2
    assert "cpu in fp32, tiles of 128 px" in caplog.text
    assert found.info["tile"] == 128
    assert found.info["weights"].startswith("psfnet ")


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    facts = {"backend": "adnet", "licence": "MIT", "arch": SMALL["psfnet"]}
    weights.add(tmp_path, "adnet", random_network("psfnet").state_dict(), facts)
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    with pytest.raises(WeightsError, match="not weights of adnet"):
        merge("adnet", photograph(texture(48, 48), (-2, 0, 2)))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--backend", "hdrgan"), "no weights called hdrgan"),
        (("--device", "gpu"), "no such device"),
        pytest.param(
            ("--device", "cuda"),
            "no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_what_is_missing_is_said_before_the_photographs_are_read(
    hdrcli, tmp_path, monkeypatch, words, reason
):
    (tmp_path / weights.MANIFEST).touch()
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    monkeypatch.setattr(weights, "folders", lambda: [("set", tmp_path)])
    nowhere = tmp_path / "nowhere.jpg"
    result = hdrcli("merge", nowhere, nowhere, "-o", tmp_path / "x.exr", *words)
    assert result.code == 4
    assert reason in result.err
