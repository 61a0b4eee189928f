"""Training: it learns, resumes to the same bits, starts as a merge, and survives bad numbers."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hdrcli.errors import FormatError, InputError
from hdrcli.nets import forms
from hdrcli.nets.apntfusion import MatchingTrunk
from hdrcli.nets.build import NETWORKS, build
from hdrcli.nets.deephdrvideo import DeepHDRVideo
from hdrcli.train import checkpoint, session, validation
from hdrcli.train.batches import Ahead, Sample, lacking, material, turned
from hdrcli.train.config import PRESETS, Preset, Stage
from hdrcli.train.loop import (
    BEST,
    LAST,
    MOST_BAD_STEPS,
    SCHEDULES,
    TRAINING,
    Plan,
    Training,
    plain,
    run,
)
from hdrcli.train.scenes import Scenes
from hdrcli.train.start import begin_at_merge

TINY = Preset(
    "psfnet",
    (Stage("whole", 1, 3e-3),),
    {"channels": 8, "blocks": 1, "dual_blocks": 0},
    patch=16,
    batch=2,
    decay=1e-4,
    clip=1.0,
    average=0.5,
)
GAN = Preset(
    "hdrgan",
    (Stage("whole", 1, 1e-3),),
    {"channels": 4, "scales": 2, "spectral": True},
    patch=56,
    batch=1,
    loss="hybrid",
    adversarial=1e-3,
    discriminator=4,
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import OpenEXR

    folder = tmp_path_factory.mktemp("hdri")
    dice = np.random.default_rng(0)
    for index in range(6):
        coarse = dice.lognormal(-2, 1.5, (6, 8, 3))
        light = np.kron(coarse, np.ones((12, 12, 1))).astype(np.float32)
        channels = {"RGB": light}
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, channels) as file:
            file.write(str(folder / f"{index}.exr"))
    return folder


@pytest.fixture(scope="module")
def scenes(folder):
    return Scenes(folder)


@pytest.fixture(scope="module")
def sample(scenes):
    return material(scenes, TINY, 0, 3)


def training(tmp_path, scenes, preset=TINY, **plan):
    source = partial(material, scenes, preset)
    return Training(preset, Plan(tmp_path, **({"steps": 8} | plan)), source)


def small_validation(scenes, preset=TINY, frames=3):
    sample = validation.generated(scenes, preset, frames=frames, size=(32, 48), count=1)
    return validation.Validation(sample)


def test_the_loss_falls(tmp_path, scenes, sample):
    learning = training(tmp_path, scenes, steps=25)
    losses = [learning.step(sample) for _ in range(25)]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_resuming_gives_the_same_bits(tmp_path, scenes):
    whole = training(tmp_path / "whole", scenes)
    for step in range(8):
        whole.step(material(scenes, TINY, step, 3))
    first = training(tmp_path / "parts", scenes)
    for step in range(5):
        first.step(material(scenes, TINY, step, 3))
    first.save()
    second = training(tmp_path / "parts", scenes)
    second.resume()
    assert second.progress.step == 5
    for step in range(5, 8):
        second.step(material(scenes, TINY, step, 3))
    for mine, theirs in ((whole.net, second.net), (whole.average, second.average)):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


def test_resuming_brings_the_adversary_back(tmp_path, scenes):
    first = training(tmp_path, scenes, GAN)
    first.step(material(scenes, GAN, 0, 3))
    first.save()
    second = training(tmp_path, scenes, GAN)
    second.resume()
    for one in (first, second):
        one.step(material(scenes, GAN, 1, 3))
    for name, value in first.adversary.state_dict().items():
        assert torch.equal(value, second.adversary.state_dict()[name]), name


def test_the_adversary_learns_only_when_its_time_has_come(tmp_path, scenes):
    late = replace(GAN, adversarial_from=0.5)
    learning = training(tmp_path, scenes, late, steps=4)
    before = {k: v.clone() for k, v in learning.adversary.named_parameters()}

    def moved():
        return any(not torch.equal(v, before[k]) for k, v in learning.adversary.named_parameters())

    for step in range(2):
        learning.step(material(scenes, GAN, step, 3))
    assert not moved()
    learning.step(material(scenes, GAN, 2, 3))
    assert moved()


def test_resuming_another_network_is_refused(tmp_path, scenes):
    training(tmp_path, scenes).save()
    with pytest.raises(InputError, match="a training of psfnet"):
        training(tmp_path, scenes, replace(TINY, arch={"channels": 16})).resume()


def test_a_damaged_checkpoint_is_named(tmp_path, scenes):
    (tmp_path / TRAINING).write_bytes(b"not at all")
    with pytest.raises(FormatError, match=r"training\.safetensors"):
        training(tmp_path, scenes).resume()


def test_a_step_of_nan_changes_nothing_and_many_end_the_training(tmp_path, scenes, sample):
    learning = training(tmp_path, scenes)
    before = {k: v.clone() for k, v in learning.net.state_dict().items()}
    bad = Sample(sample.linear, sample.ratios, torch.full_like(sample.truth, float("nan")))
    for _ in range(MOST_BAD_STEPS - 1):
        learning.step(bad)
    for name, value in learning.net.state_dict().items():
        assert torch.equal(value, before[name]), name
    with pytest.raises(InputError, match="without a finite gradient"):
        learning.step(bad)


def test_a_run_leaves_weights_a_log_and_pictures(tmp_path, scenes):
    learning = training(tmp_path, scenes, steps=3)
    lines: list[str] = []
    run(learning, small_validation(scenes), lines.append)
    for name in (BEST, LAST, TRAINING, "curve.png", "sheet.png"):
        assert (tmp_path / name).stat().st_size > 0
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [0, 3]
    assert len(lines) == 2
    assert not list(tmp_path.glob("*.part"))
    tensors, about = checkpoint.load(tmp_path / BEST)
    build(about["backend"], about["arch"]).load_state_dict(tensors)
    assert about["scores"]["psnr_mu"] == max(line["psnr_mu"] for line in log)


def test_saved_tensors_come_back_the_same(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(7)}
    checkpoint.save(tmp_path / "x.safetensors", tensors, {"k": [1, 2.5, None]})
    found, about = checkpoint.load(tmp_path / "x.safetensors")
    assert about == {"k": [1, 2.5, None]}
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_half_keeps_integers():
    found = checkpoint.half({"a": torch.ones(2), "n": torch.tensor(3)})
    assert found["a"].dtype == torch.float16
    assert found["n"].dtype == torch.int64


def test_spectral_norms_are_folded_into_what_is_shipped(tmp_path, scenes):
    learning = training(tmp_path, scenes, GAN)
    learning.step(material(scenes, GAN, 0, 3))
    shipped = build("hdrgan", {"channels": 4, "scales": 2})
    shipped.load_state_dict(plain(learning.average))
    x = [torch.rand(1, 6, 24, 24) for _ in range(3)]
    with torch.no_grad():
        torch.testing.assert_close(shipped(*x)[-1], learning.average(*x)[-1])


def test_rates_follow_their_schedules():
    preset = replace(TINY, floor=0.1, drops=(0.3, 0.6), factor=0.5)
    assert SCHEDULES["cosine"](preset, 0.0) == pytest.approx(1)
    assert SCHEDULES["cosine"](preset, 1.0) == pytest.approx(0.1)
    assert [SCHEDULES["steps"](preset, part) for part in (0.2, 0.4, 0.9)] == [1, 0.5, 0.25]
    assert SCHEDULES["flat"](preset, 0.9) == 1


def test_stages_take_their_shares(tmp_path, scenes):
    two = replace(TINY, stages=(Stage("coarse", 0.25, 1.0), Stage("refine", 0.75, 0.5)))
    learning = training(tmp_path, scenes, two, steps=8)
    seen = []
    for step in range(9):
        learning.progress.step = step
        seen.append(learning.stage()[0].name)
    assert seen == ["coarse"] * 2 + ["refine"] * 7


# -- samples ------------------------------------------------------------------------------------


def test_samples_ahead_are_those_of_their_steps(scenes):
    with Ahead(partial(material, scenes, TINY)) as ahead:
        for step in (0, 1, 5, 6):
            found, expected = ahead.sample(step, 3), material(scenes, TINY, step, 3)
            assert torch.equal(found.linear, expected.linear)
            assert torch.equal(found.truth, expected.truth)


def test_one_generated_batch_serves_several_steps_differently(scenes):
    often = replace(TINY, reuse=4)
    means = [material(scenes, often, step, 3).truth.mean() for step in range(5)]
    pictures = [material(scenes, often, step, 3).truth for step in range(4)]
    for mean in means[1:4]:
        torch.testing.assert_close(mean, means[0])
    assert not torch.allclose(means[4], means[0])
    assert any(not torch.equal(pictures[0], picture) for picture in pictures[1:])


def test_turning_keeps_frames_and_truth_together(sample):
    static = Sample(sample.truth[:, None].clamp(0, 1), sample.ratios[:, 1:2], sample.truth)
    for seed in range(6):
        found = turned(static, torch.Generator().manual_seed(seed))
        assert torch.equal(found.linear[:, 0], found.truth.clamp(0, 1))


def test_a_lacking_frame_is_the_reference_and_ratios_start_at_one(sample):
    found = lacking(sample, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(found.ratios.amin(1), torch.ones(len(found.ratios)))
    for linear, ratios in zip(found.linear, found.ratios, strict=True):
        same = [i for i in (0, 2) if torch.equal(linear[i], linear[1])]
        assert same
        assert all(ratios[i] == ratios[1] for i in same)


# -- beginning as a merge -----------------------------------------------------------------------


def clipped_scene():
    """A static bracket 2 EV apart whose reference clips in half of the picture."""
    dice = torch.Generator().manual_seed(3)
    light = 0.01 + 0.6 * torch.rand(1, 3, 48, 64, generator=dice) ** 2
    light[..., 32:] = 0.3 + 0.6 * torch.rand(1, 3, 48, 32, generator=dice)
    ratios = torch.tensor([[1.0, 4.0, 16.0]])
    linear = (light[:, None] * ratios[:, :, None, None, None]).clamp(0, 1)
    return light, Sample(linear, ratios, light * 4)


@pytest.mark.parametrize("backend", ["psfnet", "hdrgan", "adnet", "apntfusion"])
def test_a_fresh_network_fills_what_the_reference_clips(backend):
    light, sample = clipped_scene()
    torch.manual_seed(0)
    preset = PRESETS[backend, "cpu"]
    net = build(backend, preset.arch)
    begin_at_merge(net)
    form = forms.form_of(backend)
    with torch.no_grad():
        answer = net.eval()(*forms.inputs(form, sample.linear, sample.ratios))
    found = forms.light(form, forms.answer(answer), sample.ratios).clamp(0, 1)
    mine, _ = validation.psnrs(found, light)
    alone, _ = validation.psnrs(validation.reference(sample), light)
    assert mine > alone + 8


def fresh_video_network(exposures):
    torch.manual_seed(0)
    preset = PRESETS["deephdrvideo", "cpu" if exposures == 2 else "cpu3"]
    net = build("deephdrvideo", preset.arch).eval()
    assert isinstance(net, DeepHDRVideo)
    begin_at_merge(net)
    return net


def static_window(net, light, belief=1.0):
    """What a network without a flow net is called with for a clip in which nothing moves."""
    steps = [(n - net.frames // 2) % net.exposures for n in range(net.frames)]
    ratios = torch.tensor([[float(4**step) for step in steps]])
    linear = (light[:, None] * ratios[:, :, None, None, None]).clamp(0, 1)
    known = torch.full_like(linear[:, :, :1], belief)
    known[:, net.frames // 2] = 1
    return forms.inputs(forms.FORMS["deephdrvideo"], torch.cat((linear, known), 2), ratios)


@pytest.mark.parametrize("exposures", [2, 3])
def test_a_fresh_video_network_refines_nothing(exposures):
    net = fresh_video_network(exposures)
    light, _ = clipped_scene()
    fed = static_window(net, light)
    middle = slice(1, -1)
    with torch.no_grad():
        coarse = net.coarse(*(part[:, middle] for part in fed))
        refined = net(*fed)
    assert validation.psnrs(coarse, light)[0] > 60
    assert validation.psnrs(refined, coarse)[0] > 45


@pytest.mark.parametrize("exposures", [2, 3])
def test_a_fresh_video_network_leaves_out_what_has_moved(exposures):
    net = fresh_video_network(exposures)
    light = 0.02 + 0.01 * torch.rand(1, 3, 64, 64)
    codes, ratios, belief = static_window(net, light)
    moved = codes.clone()
    others = torch.arange(net.frames) != net.frames // 2
    moved[:, others, :, 20:44, 20:44] *= 1.5
    belief[:, others, :, 20:44, 20:44] = 0
    with torch.no_grad():
        same, left_out = (net(x, ratios, belief) for x in (codes, moved))
    torch.testing.assert_close(same, light, rtol=0.02, atol=1e-6)
    torch.testing.assert_close(left_out, light, rtol=0.02, atol=1e-6)


def test_what_carries_the_merge_is_held():
    preset = replace(PRESETS["hdrgan", "cpu"], held=0.0, warmup=0)
    sample = clipped_scene()[1]
    training = Training(preset, Plan(Path("unused"), steps=4), lambda step, frames: sample)
    before = {name: p.detach().clone() for name, p in training.net.named_parameters()}
    training.step(sample)
    after = dict(training.net.named_parameters())
    assert training.built
    for name, built in training.built.items():
        assert torch.equal(after[name][built], before[name][built])
    assert any(not torch.equal(after[name], was) for name, was in before.items())


def test_a_narrow_network_is_left_alone():
    torch.manual_seed(0)
    net = build("psfnet", TINY.arch)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    begin_at_merge(net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# -- validation, presets, orders ----------------------------------------------------------------


def test_validation_shares_no_picture_with_training(scenes):
    mine, theirs = validation.divided(scenes)
    names = [{picture.name for picture in part.pictures} for part in (mine, theirs)]
    assert names[0].isdisjoint(names[1])
    assert len(names[0] | names[1]) == len(scenes.pictures)


def test_the_plain_merge_of_a_static_bracket_is_exact():
    light, sample = clipped_scene()
    torch.testing.assert_close(validation.merged(sample), light, rtol=1e-4, atol=1e-6)
    assert validation.psnrs(light, light) == (100.0, 100.0)


def test_every_network_has_a_paper_and_a_cpu_preset():
    for backend in sorted(
        set(NETWORKS) - {"flowmerge", "denoise"}
    ):  # which have a loop of their own
        for name in ("paper", "cpu"):
            preset = PRESETS[backend, name]
            assert preset.backend == backend
            assert sum(stage.share for stage in preset.stages) == pytest.approx(1)
            build(backend, preset.arch)


def test_video_windows_alternate_with_the_period(tmp_path, scenes):
    preset = replace(
        PRESETS["deephdrvideo", "cpu3"],
        stages=PRESETS["deephdrvideo", "paper3"].stages,
        followed=False,
        patch=32,
        batch=1,
        arch={
            "exposures": 3,
            "flow_channels": 8,
            "levels": 2,
            "weight_channels": 16,
            "weight_tail": 8,
            "channels": 8,
            "groups": 1,
            "extract_blocks": 1,
            "trunk_blocks": 1,
        },
    )
    learning = training(tmp_path, scenes, preset, steps=4)
    assert learning.frames() == 5
    assert np.isfinite(learning.step(material(scenes, preset, 0, 5)))
    learning.progress.step = 3
    assert learning.frames() == 7
    sample = material(scenes, preset, 3, 7)
    # Told exposures are wrong by up to 0.1 EV, so the fourth is only about the first.
    assert float((sample.ratios[0, 0] / sample.ratios[0, 3]).log2().abs()) < 0.3
    before = {k: v.clone() for k, v in learning.net.flow_net.state_dict().items()}
    assert np.isfinite(learning.step(sample))
    for name, value in learning.net.flow_net.state_dict().items():
        assert torch.equal(value, before[name]), "stage 2 leaves the coarse network as it is"


VIDEO = replace(
    PRESETS["deephdrvideo", "paper"],
    patch=32,
    batch=1,
    arch={
        "exposures": 2,
        "flow": False,
        "weight_channels": 8,
        "weight_tail": 2,
        "batch_norm": False,
        "channels": 8,
        "groups": 1,
        "extract_blocks": 1,
        "trunk_blocks": 1,
    },
)


def test_the_refinement_is_compared_by_vggs_features_too(scenes):
    """A trunk that sees twice as much costs twice as much, in the second stage alone."""
    sample = material(scenes, VIDEO, 0, 5)

    def loss(step, trunk):
        learning = Training(VIDEO, Plan(Path("unused"), steps=10), lambda *_: sample, trunk)
        learning.progress.step = step
        return learning.loss([sample.truth * 0.5], sample, None).item()

    trunk = MatchingTrunk((4, 4, 4))
    assert loss(1, trunk) == loss(1, None)
    assert loss(9, trunk) > loss(9, None)


def test_vgg_is_read_from_torchvisions_file_and_asked_for_again(tmp_path, folder, monkeypatch):
    torch.save(MatchingTrunk((4, 4, 4)).state_dict(), tmp_path / "vgg19.pth")
    monkeypatch.setattr(session, "PRESETS", {("deephdrvideo", "tiny"): VIDEO})
    monkeypatch.setattr(session, "generated", partial(validation.generated, size=(32, 48), count=1))
    order = session.Order(
        "deephdrvideo", "tiny", f"scenes:{folder}", tmp_path / "out", steps=2, device="cpu",
        threads=1, vgg=tmp_path / "vgg19.pth",
    )  # fmt: skip
    assert session.train(order) == tmp_path / "out" / BEST
    assert checkpoint.load(tmp_path / "out" / BEST)[1]["vgg"] == "vgg19.pth"
    with pytest.raises(InputError, match="was trained with VGG"):
        session.train(replace(order, resume=True, vgg=None, steps=3))


def test_an_order_is_carried_out_and_not_twice(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(session, "PRESETS", {("psfnet", "tiny"): TINY})
    small = partial(validation.generated, size=(32, 48), count=1)
    monkeypatch.setattr(session, "generated", small)
    order = session.Order(
        "psfnet", "tiny", f"scenes:{folder}", tmp_path, steps=2, device="cpu", threads=1
    )
    assert session.train(order) == tmp_path / BEST
    with pytest.raises(InputError, match="holds a training already"):
        session.train(order)
    session.train(replace(order, resume=True, steps=3))
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "vgg"}, "no such network"),
        ({"preset": "fast"}, "no recipe"),
        ({"data": "/nowhere/at/all"}, "no such folder"),
        ({"vgg": Path("vgg19.pth")}, "psfnet cpu has no perceptual term"),
        ({"backend": "flowmerge", "vgg": Path("vgg19.pth")}, "flowmerge cpu has no perceptual"),
        ({"data": "scenes:/nowhere/at/all"}, "no .exr, .hdr or .npy"),
    ],
)
def test_wrong_orders_are_refused(tmp_path, change, message):
    order = session.Order("psfnet", "cpu", "scenes:hdri", tmp_path, steps=1, device="cpu")
    with pytest.raises(InputError, match=message):
        session.train(replace(order, **change))


def test_scores_are_kept_with_the_best(tmp_path, scenes):
    learning = training(tmp_path, scenes)
    good = validation.Scores(40.0, 30.0, 1.0, 1.0, 1.0, 1.0)
    learning.keep_best(good)
    learning.keep_best(replace(good, psnr_mu=39.0))
    assert learning.progress.best == 40.0
    assert checkpoint.load(tmp_path / BEST)[1]["scores"] == asdict(good)


def test_a_sheet_shows_what_is_seen(tmp_path, folder, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(session, "PRESETS", {("psfnet", "tiny"): TINY})
    png = session.draw("psfnet", "tiny", f"scenes:{folder}", 0, tmp_path / "sheet.png")
    picture = np.asarray(Image.open(png))
    assert picture.shape == (2 * 16, 4 * 16, 3)
    brightness = [picture[:, x : x + 16].mean() for x in (0, 16, 32)]
    assert brightness == sorted(brightness)
