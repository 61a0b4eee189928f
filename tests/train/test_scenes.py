"""Synthetic brackets: the laws of light, time and files that they must keep."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from hdrcli.errors import FormatError, InputError
from hdrcli.nets import forms
from hdrcli.nets.deephdrvideo import warp
from hdrcli.train.batches import material
from hdrcli.train.config import PRESETS, VIDEO
from hdrcli.train.scenes import (
    Recipe,
    Scenes,
    bracket_batch,
    camera,
    contact_sheet,
    motion,
    silhouettes,
    validation_set,
    video_windows,
    write_bracket,
)
from hdrcli.train.scenes.dice import Dice

SIZE = (64, 80)
CLEAN = Recipe(
    photon_noise=(1e-12, 1.1e-12),
    read_noise=(1e-12, 1.1e-12),
    jpeg=0.0,
    unquantised=0.0,
    exposure_error_ev=0.0,
    curves={"srgb": 1.0},
)
STILL = dataclasses.replace(
    CLEAN, static=1.0, told_srgb=0.0, curves={"srgb": 1.0, "gamma": 1.0, "style": 1.0}
)


def write_exr(path, pixels):
    import OpenEXR

    channels = {name: np.ascontiguousarray(pixels[..., i]) for i, name in enumerate("RGB")}
    with OpenEXR.File({"type": OpenEXR.scanlineimage}, channels) as file:
        file.write(str(path))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three made-up pictures: two panoramas and a photograph, lights of 500 among shades."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("hdri")
    rng = np.random.default_rng(0)
    for name, (height, width) in {"a": (128, 256), "b": (128, 256), "c": (150, 200)}.items():
        coarse = rng.normal(size=(height // 8 + 1, width // 8 + 1, 3))
        smooth = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
        pixels = np.exp(smooth + 0.3 * rng.normal(size=smooth.shape)).astype(np.float16)
        pixels[20:28, 30:40] = 500.0
        write_exr(folder / f"{name}.exr", pixels)
    return Scenes(folder)


def test_same_seed_gives_same_bits(scenes):
    first, again = (bracket_batch(scenes, 7, size=SIZE, batch=3) for _ in range(2))
    for name, tensor in vars(first).items():
        assert torch.equal(tensor, getattr(again, name)), name
    other = bracket_batch(scenes, 8, size=SIZE, batch=3, frames=first.codes.shape[1])
    assert not torch.equal(first.codes, other.codes)


def test_shapes_and_ranges(scenes):
    batch = bracket_batch(scenes, 1, size=SIZE, batch=4, frames=5)
    assert batch.codes.shape == batch.linear.shape == (4, 5, 3, *SIZE)
    assert batch.codes.dtype == torch.uint8
    assert batch.radiance.shape == (4, 3, *SIZE)
    assert batch.moving.shape == (4, 1, *SIZE)
    assert batch.decode.shape == batch.told_decode.shape == (4, 256, 3)
    assert torch.isfinite(batch.radiance).all()
    assert batch.radiance.min() >= 0
    assert batch.linear.min() >= 0
    assert batch.linear.max() <= 1
    assert 0 <= batch.moving.min() <= batch.moving.max() <= 1


def test_static_noise_free_frames_decode_to_the_radiance(scenes):
    batch = bracket_batch(scenes, 3, size=SIZE, batch=6, frames=3, recipe=STILL)
    # One code more or less, in radiance: the step of the table there.
    step = torch.gradient(batch.decode, dim=1)[0]
    for b in range(6):
        for n in range(3):
            codes = batch.codes[b, n].long()
            open_ = (codes > 3) & (codes < 250)
            assert open_.float().mean() > 0.01 or n != int(batch.reference[b])
            for c in range(3):
                here = open_[c]
                seen = batch.decode[b, codes[c][here], c] / batch.exposures[b, n]
                slack = step[b, codes[c][here], c] / batch.exposures[b, n]
                assert ((seen - batch.radiance[b, c][here]).abs() <= 0.75 * slack + 1e-6).all()


def test_linear_is_what_the_merger_is_told(scenes):
    recipe = dataclasses.replace(STILL, curves={"style": 1.0}, told_srgb=1.0)
    batch = bracket_batch(scenes, 3, size=SIZE, batch=2, frames=2, recipe=recipe)
    assert not torch.allclose(batch.decode, batch.told_decode, atol=0.02)
    code = batch.codes[1, 0, 2].long()
    assert torch.equal(batch.linear[1, 0, 2], batch.told_decode[1, code, 2])


def test_unquantised_frames_lie_within_half_a_code(scenes):
    recipe = dataclasses.replace(STILL, unquantised=1.0)
    batch = bracket_batch(scenes, 5, size=SIZE, batch=2, frames=2, recipe=recipe)
    coarse = camera.linearise(batch.codes, batch.told_decode)
    assert not torch.equal(batch.linear, coarse)
    step = torch.gradient(batch.told_decode, dim=1)[0].amax()
    assert (batch.linear - coarse).abs().max() <= step


def test_frames_are_darkest_first_and_the_reference_is_one(scenes):
    for seed in range(6):
        batch = bracket_batch(scenes, seed, size=(32, 32), batch=4)
        rows = torch.arange(4)
        assert (batch.true_exposures.diff(dim=1) > 0).all()
        assert torch.equal(batch.true_exposures[rows, batch.reference], torch.ones(4))
        assert torch.equal(batch.exposures[rows, batch.reference], torch.ones(4))
        told = torch.log2(batch.exposures / batch.true_exposures).abs()
        assert told.max() <= Recipe().exposure_error_ev + 1e-5


def test_number_of_frames_steps_and_references_cover_their_ranges(scenes):
    counts, steps, references, errors = set(), [], set(), []
    recipe = Recipe(movers=(0, 0))
    for seed in range(40):
        batch = bracket_batch(scenes, seed, size=(16, 16), batch=3, recipe=recipe)
        counts.add(batch.codes.shape[1])
        evs = torch.log2(batch.true_exposures)
        assert (evs.diff(dim=1).amax(1) - evs.diff(dim=1).amin(1)).max() < 1e-4
        steps += evs.diff(dim=1)[:, 0].tolist()
        errors += (batch.exposures / batch.true_exposures - 1).abs().amax(1).tolist()
        references |= {(batch.codes.shape[1], int(r)) for r in batch.reference}
    assert counts == {2, 3, 4, 5, 7}
    assert 0.999 <= min(steps) < 1.3
    assert 3.3 < max(steps) <= 4.001
    assert {(3, 0), (3, 1), (3, 2), (2, 0), (2, 1)} <= references
    assert 0.2 < np.mean(np.array(errors) > 1e-6) < 0.8


def test_saturation_of_the_reference_goes_from_none_to_half(scenes):
    clipped = torch.cat(
        [
            (bracket_batch(scenes, s, size=(32, 32), batch=8).radiance.amax(1) > 1).float()
            .mean((1, 2))
            for s in range(4)
        ]
    )  # fmt: skip
    assert clipped.min() < 0.01
    assert (clipped > 0.3).any()
    assert 0.05 < clipped.mean() < 0.4


def test_moving_mask_covers_where_frames_disagree(scenes):
    recipe = dataclasses.replace(CLEAN, static=0.0, shakes={(0.0, 0.0): 1.0})
    seen = 0.0
    for seed in range(4):
        batch = bracket_batch(scenes, seed, size=SIZE, batch=4, frames=3, recipe=recipe)
        light = batch.linear / batch.true_exposures[:, :, None, None, None]
        valid = (batch.codes > 20) & (batch.codes < 245)
        for n in range(3):
            both = (valid[:, n] & _reference(valid, batch)).all(1)
            ratio = (light[:, n] / _reference(light, batch).clamp_min(1e-6)).log().abs().amax(1)
            apart = both & (ratio > 0.4)
            assert (batch.moving[:, 0][apart] > 0).all()
            seen += float(apart.float().mean())
    assert seen > 0.01  # there was motion to find


def _reference(stack, batch):
    return stack[torch.arange(stack.shape[0]), batch.reference]


def test_reference_is_not_displaced(scenes):
    recipe = dataclasses.replace(CLEAN, static=0.0, shakes={(6.0, 8.0): 1.0})
    batch = bracket_batch(scenes, 2, size=SIZE, batch=4, frames=3, recipe=recipe)
    codes, radiance = _reference(batch.codes, batch), batch.radiance
    open_ = (codes > 20) & (codes < 245)
    error = (_reference(batch.linear, batch) / radiance.clamp_min(1e-6)).log().abs()
    assert error[open_].max() < 0.1
    others = batch.linear[:, 0] / batch.true_exposures[:, 0, None, None, None]
    moved = (others / radiance.clamp_min(1e-6)).log().abs()[open_ & (batch.codes[:, 0] > 20)]
    assert moved.mean() > 4 * error[open_].mean()  # the others are


def test_noise_has_the_variance_it_says(scenes):
    light = torch.full((1, 1, 3, 300, 300), 0.25)
    noise = torch.tensor([[1e-3, 1e-5]])
    signal = camera.sensor(light, noise, Dice(0))
    assert abs(float(signal.mean()) - 0.25) < 1e-3
    assert float(signal.var()) == pytest.approx(0.25e-3 + 1e-5, rel=0.02)


@pytest.mark.parametrize("kind", ["srgb", "gamma", "tone", "style"])
def test_responses_rise_and_invert(kind):
    for seed in range(8):
        curve = camera.response(Dice(seed), kind)
        assert (curve.encode.diff(dim=1) >= 0).all()
        assert (curve.decode.diff(dim=0) > 0).all()
        assert torch.allclose(curve.decode[[0, -1]], torch.tensor([[0.0] * 3, [1.0] * 3]))
        codes = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 1, 3, 1, 256)
        back = camera.develop(camera.linearise(codes, curve.decode[None]), curve.encode[None])
        assert (back * 255 - codes).abs().max() < 0.5


def test_jpeg_keeps_smooth_pictures(scenes):
    ramp = torch.linspace(40, 200, 64).expand(1, 3, 64, 64).round().to(torch.uint8)
    back = camera.through_jpeg(ramp, 95, full_colour=False)
    assert back.shape == ramp.shape
    assert (back.int() - ramp.int()).abs().max() <= 3
    red = ramp * torch.tensor([1, 0, 0], dtype=torch.uint8)[:, None, None]
    back = camera.through_jpeg(red, 95, full_colour=True)
    assert back[0, 0].float().mean() > 100 > 10 > back[0, 2].float().mean()


def test_blur_grows_with_exposure_and_keeps_light():
    dot = torch.zeros(3, 1, 41, 41)
    dot[:, :, 20, 20] = 1.0
    travel = torch.tensor([[2.0, 0.0], [8.0, 0.0], [0.0, 16.0]])
    smeared = motion.streak(dot, travel)
    assert smeared.sum((1, 2, 3)).allclose(torch.ones(3), atol=1e-4)
    x = torch.arange(41.0) - 20
    spread = (smeared[:2, 0].sum(1) * x * x).sum(1)
    assert 4 * spread[0] < spread[1]
    assert (smeared[:, 0] * x).sum((1, 2)).abs().max() < 1e-3  # centred
    assert smeared[2, 0].sum(1).gt(1e-3).sum() > smeared[2, 0].sum(0).gt(1e-3).sum()


@pytest.mark.parametrize("shape", ["blob", "polygon", "figure", "branches"])
def test_silhouettes_stay_within_their_reach(shape):
    axis = torch.arange(-80.0, 81.0)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    for seed in range(10):
        outline = getattr(silhouettes, shape)(Dice(seed), 25.0)
        distance, part = outline.distance(x, y, [0.0, 1.0])
        inside = distance > 0
        assert inside[0].any()
        assert torch.hypot(x, y).expand_as(distance)[inside].max() <= outline.reach + 1.0
        assert part.min() >= 0


def test_panorama_is_seamless_and_views_are_true(scenes):
    picture = scenes.pictures[0]
    assert picture.panorama
    rows = torch.full((1, 9), 64.5)
    across = torch.linspace(-2.0, 2.0, 9)[None]
    there, around = (picture.sample(across + turn, rows, 1.0) for turn in (0.0, 256.0))
    assert torch.allclose(there, around)
    exact = picture.sample(torch.tensor([[10.5]]), torch.tensor([[20.5]]), 1.0)
    assert torch.allclose(exact[:, 0, 0], picture.levels[0][:, 20, 11].float(), rtol=1e-3)


def test_video_windows_alternate_in_order_of_time(scenes):
    for period in (2, 3):
        batch = video_windows(scenes, 4, size=(32, 40), batch=6, frames=2 * period + 1,
                              period=period)  # fmt: skip
        exposures = batch.true_exposures
        assert torch.equal(batch.reference, torch.full((6,), period))
        assert torch.equal(exposures[:, :-period], exposures[:, period:])
        assert torch.equal(exposures[:, period], torch.ones(6))
        assert len({round(float(e), 4) for e in exposures[0]}) == period


def test_a_clip_is_metered_whichever_frame_is_the_present_one(scenes):
    for period in (2, 3):
        batch = video_windows(scenes, 4, size=(32, 40), batch=24, frames=2 * period + 1,
                              period=period)  # fmt: skip
        rows = torch.arange(24)
        places = {"dark": batch.true_exposures.argmin(1), "bright": batch.true_exposures.argmax(1)}
        clips = {name: (batch.linear[rows, place].amax(1) > 0.99).float().mean((1, 2))
                 for name, place in places.items()}  # fmt: skip
        assert clips["dark"].median() < 0.05 < clips["bright"].median() < 0.6
        shown, true = batch.linear[:, period], batch.radiance.clamp(max=1)  # the present one
        assert (shown - true).abs().mean((1, 2, 3)).median() < 0.02


def test_contact_sheet_shows_every_frame(scenes):
    batch = bracket_batch(scenes, 0, size=(32, 40), batch=2, frames=3)
    sheet = contact_sheet(batch)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 34, 5 * 42, 3)
    assert np.array_equal(sheet[4:32, :40], batch.codes[0, 0, :, 4:].permute(1, 2, 0).numpy())


def test_written_brackets_read_back(scenes, tmp_path):
    import cv2
    import OpenEXR
    from PIL import Image

    example = validation_set(scenes, 5, 13, size=(48, 64))[12]
    folder = write_bracket(tmp_path, example)
    meta = json.loads((folder / "meta.json").read_text())
    assert folder.name.endswith("-2x3")
    assert meta["ev"] == [0.0, 3.0]
    assert meta["ref"] == 0
    assert meta["curve"] == "srgb"
    times = []
    for n in range(meta["n"]):
        with Image.open(folder / f"{n}.jpg") as image:
            times.append(float(image.getexif().get_ifd(0x8769)[0x829A]))
        pixels = np.asarray(cv2.imread(str(folder / f"{n}.jpg")))[..., ::-1].astype(int)
        true = example.batch.codes[0, n].permute(1, 2, 0).numpy()
        assert np.abs(pixels - true).mean() < 4
    assert times[1] / times[0] == pytest.approx(8.0, rel=1e-3)
    with OpenEXR.File(str(folder / "gt.exr"), separate_channels=True) as file:
        red = file.channels()["R"].pixels
    assert np.allclose(red, example.batch.radiance[0, 0].numpy(), rtol=1e-3, atol=1e-6)


def test_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no \.exr, \.hdr or \.npy"):
        Scenes(tmp_path)
    (tmp_path / "broken.exr").write_bytes(b"not an EXR")
    with pytest.raises(FormatError, match=r"broken\.exr"):
        Scenes(tmp_path)


def test_arrays_are_pictures_or_the_middle_of_many(tmp_path):
    pixels = np.full((3, 64, 80, 3), 2.0, np.float32)
    pixels[1, ..., 0] = 8.0
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "b.npy", pixels[0])
    middle, alone = Scenes(tmp_path).pictures
    assert middle.levels[0][0].min() > 7.9
    assert alone.levels[0].max() < 2.1
    np.save(tmp_path / "c.npy", np.zeros((4, 5)))
    with pytest.raises(FormatError, match=r"c\.npy.*no picture"):
        Scenes(tmp_path)


def test_radiance_pictures_are_read_in_the_right_order(tmp_path):
    import cv2

    pixels = np.zeros((64, 80, 3), np.float32)
    pixels[..., 2] = 8.0  # red, as OpenCV orders it
    cv2.imwrite(str(tmp_path / "a.hdr"), pixels)
    picture = Scenes(tmp_path).pictures[0]
    assert picture.levels[0][0].min() > 7.9
    assert picture.levels[0][2].max() < 0.1


@pytest.mark.parametrize("still", [0.0, 1.0])
def test_the_true_flow_leads_to_the_same_light(scenes, still):
    preset = dataclasses.replace(
        PRESETS["deephdrvideo", "cpu3"],
        followed=False,
        stills=still,
        recipe=dataclasses.replace(
            VIDEO,
            parallax=0.0,
            moving_light=0.0,
            static=0.0,
            movers=(0, 0),
            shakes={(4.0, 8.0): 1.0},
            camera_blur=0.0,
            photon_noise=(1e-9, 1e-8),
            read_noise=(1e-12, 1e-11),
            unquantised=1.0,
            jpeg=0.0,
            told_srgb=0.0,
            exposure_error_ev=0.0,
        ),
    )
    sample = material(scenes, preset, 3, 5)
    assert sample.flow is not None
    light = sample.linear / sample.ratios[:, :, None, None, None]
    clear = (sample.linear > 0.001) & (sample.linear < 0.95)
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    for n in (0, 1, 3, 4):
        seen = warp(light[:, n], sample.flow[:, n])
        both = (clear[:, n] & clear[:, 2])[inside]
        moved = (seen / light[:, 2] - 1).abs()[inside][both].median()
        unmoved = (light[:, n] / light[:, 2] - 1).abs()[inside][both].median()
        assert moved < 0.5 * unmoved


@pytest.mark.parametrize(("still", "name"), [(0.0, "cpu"), (1.0, "cpu"), (0.0, "cpu3")])
def test_what_is_followed_is_nearer_to_the_truth(scenes, still, name):
    recipe = dataclasses.replace(VIDEO, static=0.0, shakes={(8.0, 12.0): 1.0}, camera_blur=0.0)
    preset = dataclasses.replace(PRESETS["deephdrvideo", name], stills=still, recipe=recipe)
    count = 2 * preset.period + 1
    before = material(scenes, dataclasses.replace(preset, followed=False), 9, count)
    after = material(scenes, preset, 9, count)
    assert torch.equal(after.truth, before.truth)
    belief = after.linear[:, :, 3]
    assert 0 <= float(belief.min()) <= float(belief.max()) <= 1
    assert (belief[:, count // 2] == 1).all()
    assert belief.mean() > 0.3

    def off(sample, n):
        light = sample.linear[:, n, :3] / sample.ratios[:, n].view(-1, 1, 1, 1)
        truth = sample.truth / sample.ratios[:, count // 2].view(-1, 1, 1, 1)
        clear = (sample.linear[:, n, :3] < 0.9) & (sample.linear[:, n, :3] > 0.002)
        wrong = (forms.tone(light) - forms.tone(truth.clamp(0, 1))).abs() * clear
        return float((wrong * belief[:, n, None]).mean())

    near = [count // 2 - 1, count // 2 + 1]
    assert sum(off(after, n) for n in near) < sum(off(before, n) for n in near)
