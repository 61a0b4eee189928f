"""Layouts of real data sets, on small copies made here."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hdrcli import formats
from hdrcli.errors import FormatError, InputError
from hdrcli.frames import Radiance
from hdrcli.train.config import Preset, Stage
from hdrcli.train.data import Item, frames_of, items, truth_of
from hdrcli.train.recorded import Recorded

SHARED = Path(__file__).parents[2].parent / "shared"
SIZE = (12, 16)
EVS = (0.0, 2.0, 4.0)


def light(seed=0):
    """H in [0, 1] relative to the shortest frame."""
    dice = np.random.default_rng(seed)
    return dice.uniform(0.01, 1.0, (*SIZE, 3)).astype(np.float32) ** 2


def tif(path, ev, seed=0, gamma=2.2):
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    codes = np.clip(light(seed) * 2.0**ev, 0, 1) ** (1 / gamma)
    tifffile.imwrite(path, np.round(codes * 65535).astype(np.uint16), photometric="rgb")


def png(path, codes):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(codes).save(path)


def hdr(path, seed=0, factor=1.0):
    formats.write(path, Radiance(light(seed) * np.float32(factor)), overwrite=True)


def text(path, *lines):
    path.write_text("\n".join(str(line) for line in lines) + "\n", encoding="utf-8")


def folder_of(root, frames, exposures, truth, evs=EVS):
    for name, ev in zip(frames, evs, strict=True):
        tif(root / name, ev)
    text(root / exposures, *evs)
    hdr(root / truth)


FOLDERS = {
    "kalantari": (["262A0898.tif", "262A0899.tif", "262A0900.tif"], "exposure.txt", "HDRImg.hdr"),
    "tel": (["input_1.tif", "input_2.tif", "input_3.tif"], "exposure.txt", "HDRImg.hdr"),
    "wu": ([f"input_{n}_aligned.tif" for n in (1, 2, 3)], "input_exp.txt", "ref_hdr_aligned.hdr"),
    "hu": (
        [f"input_{n}_aligned.tif" for n in (1, 2, 3)],
        "input_exp.txt",
        "ref_hdr_aligned_linear.hdr",
    ),
    "hdrgan": ([f"input_{n}.tif" for n in (1, 2, 3)], "input_exp.txt", "ref_hdr.hdr"),
    "patches": (["0.tif", "1.tif", "2.tif"], "exposure.txt", "label.hdr"),
}


@pytest.mark.parametrize("layout", FOLDERS)
def test_folders_are_told_apart(tmp_path, layout):
    for scene in ("001", "002"):
        folder_of(tmp_path / scene, *FOLDERS[layout])
    found = items(tmp_path)
    assert [item.name for item in found] == ["001", "002"]
    assert {item.layout for item in found} == {layout}
    assert [path.name for path in found[0].frames] == FOLDERS[layout][0]
    assert found[0].evs == EVS
    assert (found[0].reference, found[0].top) == (1, 4.0)


def test_a_single_scene_and_nested_ones_are_found(tmp_path):
    folder_of(tmp_path / "Test" / "PAPER" / "BarbequeDay", *FOLDERS["kalantari"])
    assert items(tmp_path)[0].name == "Test/PAPER/BarbequeDay"
    assert items(tmp_path / "Test" / "PAPER" / "BarbequeDay")[0].name == "BarbequeDay"


def test_truth_is_relative_to_the_reference(tmp_path):
    folder_of(tmp_path / "001", *FOLDERS["kalantari"])
    truth = truth_of(items(tmp_path)[0])
    np.testing.assert_allclose(truth, light() * 4, rtol=0.02, atol=0.02)


def test_frames_are_sorted_by_exposure(tmp_path):
    folder_of(tmp_path / "001", *FOLDERS["tel"], evs=(4.0, 0.0, 2.0))
    item = items(tmp_path)[0]
    assert item.evs == EVS
    assert [path.name for path in item.frames] == ["input_2.tif", "input_3.tif", "input_1.tif"]


def test_hdrgan_may_lack_truth_and_says_so(tmp_path):
    folder_of(tmp_path / "001", *FOLDERS["hdrgan"])
    (tmp_path / "001" / "ref_hdr.hdr").unlink()
    item = items(tmp_path)[0]
    assert item.truth is None
    with pytest.raises(InputError, match="gives no truth"):
        truth_of(item)


def test_a_missing_photograph_is_reported(tmp_path):
    folder_of(tmp_path / "001", *FOLDERS["kalantari"])
    (tmp_path / "001" / "262A0900.tif").unlink()
    with pytest.raises(InputError, match="3 exposures for 2 photographs"):
        items(tmp_path)


@pytest.mark.parametrize("words", ["0 two 4", "", "0 nan 4"])
def test_broken_exposures_are_reported(tmp_path, words):
    folder_of(tmp_path / "001", *FOLDERS["kalantari"])
    text(tmp_path / "001" / "exposure.txt", words)
    with pytest.raises(FormatError, match=r"exposure\.txt"):
        items(tmp_path)


def test_challenge123(tmp_path):
    for n, ev in zip((1, 2, 3), EVS, strict=True):
        for moment in (1, 2, 3):
            tif(tmp_path / f"scene_{moment}" / f"ldr_img_{n}.tif", ev)
    text(tmp_path / "scene_2" / "exposure.txt", *EVS)
    hdr(tmp_path / "scene_2" / "hdr_img.hdr")
    (item,) = items(tmp_path)
    assert item.layout == "challenge123"
    places = [path.relative_to(tmp_path).as_posix() for path in item.frames]
    assert places == [
        "scene_1/ldr_img_1.tif",
        "scene_2/ldr_img_2.tif",
        "scene_3/ldr_img_3.tif",
    ]


def ntire(folder, names, ratio=6000.0, prefix=""):
    codes = np.full((*SIZE, 3), 100, np.uint8)
    for name in names:
        png(folder / name, codes)
    np.save(folder / f"{prefix}exposures.npy", np.array([-3, -1, 1]))
    np.save(folder / f"{prefix}alignratio.npy", np.array(ratio))


def gt16(path, value=3000):
    import imagecodecs

    codes = np.full((*SIZE, 3), value, np.uint16)
    path.write_bytes(imagecodecs.png_encode(codes))


def test_ntire_training(tmp_path):
    ntire(tmp_path / "000000", ["0.png", "1.png", "2.png"])
    gt16(tmp_path / "000000" / "gt.png")
    (item,) = items(tmp_path)
    assert (item.layout, item.evs, item.top) == ("ntire", (-3.0, -1.0, 1.0), 4.0)
    np.testing.assert_allclose(truth_of(item), 0.5**2.24, rtol=1e-5)


def test_ntire_validation(tmp_path):
    for number in ("0001", "0002"):
        names = [f"{number}_{n}.png" for n in ("short", "medium", "long")]
        ntire(tmp_path, names, prefix=f"{number}_")
        gt16(tmp_path / f"{number}_gt.png")
    found = items(tmp_path)
    assert [item.name for item in found] == ["0001", "0002"]
    assert found[0].frames[0].name == "0001_short.png"
    np.testing.assert_allclose(truth_of(found[1]), 0.5**2.24, rtol=1e-5)


def test_ntire_without_a_photograph_is_reported(tmp_path):
    ntire(tmp_path, ["0001_short.png", "0001_long.png"], prefix="0001_")
    with pytest.raises(InputError, match=r"0001_medium\.png: not there"):
        items(tmp_path)


def test_a_pickled_array_is_refused(tmp_path):
    ntire(tmp_path / "0", ["0.png", "1.png", "2.png"])
    gt16(tmp_path / "0" / "gt.png")
    np.save(tmp_path / "0" / "exposures.npy", np.array([{}, {}, {}]), allow_pickle=True)
    with pytest.raises(FormatError, match=r"exposures\.npy"):
        items(tmp_path)


def video(place, period, count, truths, extension=".tif", listed=""):
    for n in range(count):
        tif(place / f"img_{n:02d}{extension}", period[n % len(period)])
    text(place / "img_list.txt", *[f"img_{n:02d}{listed}" for n in range(count)])
    text(place / "Exposures.txt", *period)
    for n, name in truths.items():
        hdr(place / name, factor=0.5)
        with (place / "img_hdr_list.txt").open("a", encoding="utf-8") as file:
            file.write(f"img_{n:02d}{extension} {name}\n")


def test_deephdrvideo_real(tmp_path):
    text(tmp_path / "scene_all.txt", "scene_000_ref_high_step1")
    video(tmp_path / "scene_000_ref_high_step1", (0, 2), 5, {2: "s.hdr"}, listed=".tif")
    (item,) = items(tmp_path)
    assert item.name == "scene_000_ref_high_step1/img_02"
    assert [path.stem for path in item.frames] == ["img_01", "img_02", "img_03"]
    assert (item.evs, item.reference, item.top) == ((2.0, 0.0, 2.0), 1, 1.0)
    np.testing.assert_allclose(truth_of(item), light() * 0.5, rtol=0.02, atol=0.01)


def test_deephdrvideo_three_exposures_take_five_frames(tmp_path):
    text(tmp_path / "scene_all.txt", "a")
    video(tmp_path / "a", (0, 2, 4), 7, {3: "s.hdr", 4: "t.hdr"}, listed=".tif")
    found = items(tmp_path)
    assert [item.name for item in found] == ["a/img_03", "a/img_04"]
    assert found[1].evs == (4.0, 0.0, 2.0, 4.0, 0.0)
    assert found[1].top == 4.0


def test_deephdrvideo_synthetic(tmp_path):
    text(tmp_path / "scenes_2expo.txt", "POKER")
    place = tmp_path / "Images" / "POKER_2expo"
    video(place, (0, 3), 4, {})
    for n in range(4):
        hdr(place / f"img_{n:02d}.hdr")
    assert [item.name for item in items(tmp_path)] == ["POKER/img_01", "POKER/img_02"]


@pytest.mark.parametrize(("listed", "period"), [("2Exp", (0, 3)), ("3Exp", (0, 2, 4))])
def test_tog13_has_windows_without_truth(tmp_path, listed, period):
    text(tmp_path / f"{listed}_scenes.txt", "ThrowingTowel")
    video(tmp_path / "ThrowingTowel", period, 7, {3: "unused.hdr"}, listed=".tif")
    found = items(tmp_path)
    reach = len(period) - 1
    assert [item.reference for item in found] == [reach] * (7 - 2 * reach)
    assert {(item.layout, item.response, item.truth) for item in found} == {("tog13", "auto", None)}
    assert found[0].evs == tuple(
        float((0, *period[1:])[n % len(period)]) for n in range(2 * reach + 1)
    )
    with pytest.raises(InputError, match="gives no truth"):
        truth_of(found[0])


def h5(path, *, many=0, matlab=False, **instead):
    """AHDRNet's file: codes of three frames, their light, and the truth."""
    h5py = pytest.importorskip("h5py", reason="HDF5 needs h5py")
    codes = [np.clip(light() * 2.0**ev, 0, 1) ** (1 / 2.2) for ev in EVS]
    lights = [code**2.2 / 2.0**ev for code, ev in zip(codes, EVS, strict=True)]
    data = {"IN": np.concatenate([*codes, *lights], axis=2), "GT": light(), **instead}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, found in data.items():
            found = found.T if matlab else found
            file[key] = np.stack([found] * many) if many else found


@pytest.mark.parametrize("matlab", [False, True])
@pytest.mark.parametrize("many", [0, 2])
def test_patches_in_hdf5(tmp_path, many, matlab):
    h5(tmp_path / "train" / "a.h5", many=many, matlab=matlab)
    found = items(tmp_path)
    assert [item.name for item in found] == (["train/a/0", "train/a/1"] if many else ["train/a"])
    assert found[-1].evs == pytest.approx(EVS, abs=0.01)
    np.testing.assert_allclose(truth_of(found[-1]), light() * found[-1].top, rtol=1e-5)
    frames = frames_of(found[-1])
    for frame, ev in zip(frames, EVS, strict=True):
        expected = np.clip(light() * 2.0**ev, 0, 1)
        np.testing.assert_allclose(frame.linear(), expected, rtol=1e-4, atol=1e-6)


def test_a_network_trains_on_hdf5(tmp_path):
    h5(tmp_path / "a.h5", many=2)
    sample = Recorded.of(tmp_path, SMALL)(0, 3)
    assert sample.ratios[0].tolist() == pytest.approx([1, 4, 16], rel=0.01)
    short = (sample.linear[:, 0] * 4).numpy()
    np.testing.assert_allclose(short, sample.truth.numpy(), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        ({"IN": np.zeros((*SIZE, 17))}, "18 channels"),
        ({"IN": np.zeros(5)}, "no pictures called IN"),
        ({"IN": np.zeros((*SIZE, 18))}, "no well exposed pixel"),
        ({"GT": np.full((*SIZE, 3), np.nan)}, "no picture of 3 channels"),
    ],
)
def test_broken_hdf5_is_reported(tmp_path, instead, why):
    h5(tmp_path / "a.h5", **instead)
    with pytest.raises(FormatError, match=rf"a\.h5.*{why}"):
        truth_of(items(tmp_path)[0])


def test_a_file_that_is_no_hdf5_is_reported(tmp_path):
    pytest.importorskip("h5py", reason="HDF5 needs h5py")
    (tmp_path / "a.h5").write_bytes(b"no")
    with pytest.raises(FormatError, match=r"a\.h5"):
        items(tmp_path)


def test_hdf5_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"no")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="needs h5py") as caught:
        items(tmp_path)
    assert "hdrcli[hdf5]" in str(caught.value.hint)


def test_a_scene_that_is_not_there_is_reported(tmp_path):
    text(tmp_path / "scene_all.txt", "nowhere")
    with pytest.raises(InputError, match="names nowhere"):
        items(tmp_path)


def test_light_above_one_is_divided_out_of_video_truth(tmp_path):
    text(tmp_path / "scene_all.txt", "a")
    video(tmp_path / "a", (0, 2), 3, {1: "s.hdr"}, listed=".tif")
    hdr(tmp_path / "a" / "s.hdr", factor=8.0)
    (item,) = items(tmp_path)
    assert truth_of(item).max() == pytest.approx(item.top, rel=0.01)


def own(place, evs=(-2.0, 0.0, 2.0), reference=1):
    for n, ev in enumerate(evs):
        codes = np.round(np.clip(light() * 2.0 ** (ev + 2), 0, 1) ** (1 / 2.2) * 255)
        png(place / f"{n}.png", codes.astype(np.uint8))
    formats.write(place / "gt.exr", Radiance(light() * 4))
    (place / "meta.json").write_text(json.dumps({"ev": list(evs), "ref": reference}))


def test_own_folders(tmp_path):
    own(tmp_path / "00-lab")
    (item,) = items(tmp_path)
    assert (item.layout, item.response, item.reference) == ("hdrcli", "auto", 1)
    np.testing.assert_allclose(truth_of(item), light() * 4, rtol=1e-3)


def test_more_than_nine_frames_stay_in_order(tmp_path):
    own(tmp_path / "a", tuple(float(n) for n in range(11)), 5)
    assert [path.stem for path in items(tmp_path)[0].frames] == [str(n) for n in range(11)]


def test_a_meta_file_without_exposures_is_reported(tmp_path):
    own(tmp_path / "a")
    (tmp_path / "a" / "meta.json").write_text("{}")
    with pytest.raises(FormatError, match=r"meta\.json"):
        items(tmp_path)


@pytest.mark.parametrize("name", ["", "nothing-here"])
def test_no_data_set_is_an_error(tmp_path, name):
    with pytest.raises(InputError, match=r"no data set|no such folder"):
        items(tmp_path / name)


def test_the_real_ntire_sample():
    folder = SHARED / "brackets" / "ntire-format-000000"
    if not folder.is_dir():
        pytest.skip("needs ../shared/brackets")
    (item,) = items(folder)
    truth = truth_of(item)
    assert truth.shape == (256, 256, 3)
    assert np.isfinite(truth).all()
    # Where the reference is well exposed its own light is the truth, but for noise and rounding.
    reference = formats.read(item.frames[1]).codes / 255.0
    lit = (reference > 0.3) & (reference < 0.9)
    assert isinstance(item, Item)
    assert np.median(truth[lit] / reference[lit] ** 2.24) == pytest.approx(1, abs=0.1)


# -- training on them ---------------------------------------------------------------------------

SMALL = Preset("psfnet", (Stage("whole", 1, 1e-3),), patch=8, batch=3)


def test_patches_of_a_static_bracket_show_one_scene(tmp_path):
    for scene in ("001", "002"):
        folder_of(tmp_path / scene, *FOLDERS["kalantari"])
    source = Recorded.of(tmp_path, SMALL)
    sample = source(0, 3)
    assert sample.linear.shape == (3, 3, 3, 8, 8)
    assert sample.ratios.tolist() == [[1, 4, 16]] * 3
    short = (sample.linear[:, 0] * 4).numpy()
    np.testing.assert_allclose(short, sample.truth.numpy(), rtol=0.02, atol=0.02)
    assert np.array_equal(source(0, 3).linear, sample.linear)
    assert not np.array_equal(source(1, 3).linear, sample.linear)


def test_validation_takes_the_middle_of_other_brackets(tmp_path):
    for scene in range(11):
        folder_of(tmp_path / f"{scene:03d}", *FOLDERS["kalantari"])
    source = Recorded.of(tmp_path, SMALL)
    assert [item.name for item in source.held_out] == ["000", "010"]
    assert {item.name for item in source.training} == {f"{n:03d}" for n in range(1, 10)}
    sample = source.validation(3)
    assert sample.truth.shape == (2, 3, 8, 16)
    middle = light()[2:10] * 4
    np.testing.assert_allclose(
        sample.truth[0].permute(1, 2, 0).numpy(), middle, rtol=0.02, atol=0.02
    )


def test_a_network_of_five_frames_is_refused_three(tmp_path):
    folder_of(tmp_path / "001", *FOLDERS["kalantari"])
    with pytest.raises(InputError, match="the network takes 5"):
        Recorded.of(tmp_path, SMALL)(0, 5)


def test_data_without_truth_cannot_be_trained_on(tmp_path):
    folder_of(tmp_path / "001", *FOLDERS["hdrgan"])
    (tmp_path / "001" / "ref_hdr.hdr").unlink()
    with pytest.raises(InputError, match="no bracket with truth"):
        Recorded.of(tmp_path, SMALL)
