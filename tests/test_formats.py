"""Pixels on disk: what is written is read, and nothing that is damaged is believed."""

import errno
import io
import logging
import os
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import OpenEXR
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from hdrcli import formats
from hdrcli.color import ADOBE_RGB, DISPLAY_P3, PROPHOTO, REC709, REC2020, Primaries
from hdrcli.errors import FormatError, HdrcliError, InputError, ResourceError, SetupError
from hdrcli.exif import read_metadata, write_exif
from hdrcli.formats import WriteOptions, exr, icc, jpeg
from hdrcli.frames import LINEAR, SRGB, Codes, DisplayImage, Frame, Metadata, Radiance

BRACKETS = Path(__file__).parents[1].parent / "shared" / "brackets"
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))


@pytest.fixture
def smooth() -> Codes:
    """A picture that JPEG keeps: (48, 64, 3) uint8, all corners different."""
    y, x = np.mgrid[:48, :64]
    codes = np.empty((48, 64, 3), np.uint8)
    codes[...] = np.stack([x * 4, y * 5, 255 - (x + y) * 2], axis=-1)
    return codes


@pytest.fixture
def light(rng) -> np.ndarray:
    """Radiance over twelve stops, (20, 30, 3)."""
    return np.asarray(np.exp2(rng.uniform(-6, 6, (20, 30, 3))), np.float32)


def saved(path: Path, codes: np.ndarray | Image.Image, **options: Any) -> Path:
    """Written by Pillow, which is not what we test."""
    image = codes if isinstance(codes, Image.Image) else Image.fromarray(codes)
    image.save(path, **options)
    return path


def valid_of(frame: Frame) -> np.ndarray:
    assert frame.valid is not None
    return frame.valid


# --- read after write is identity -------------------------------------------------------------


@settings(max_examples=30)
@given(hnp.arrays(np.float32, sizes, elements=st.floats(-(2.0**90), 2.0**90, width=32)))
def test_float_exr_is_exact(tmp_path_factory, pixels):
    path = tmp_path_factory.getbasetemp() / "float.exr"
    formats.write(path, Radiance(pixels), overwrite=True, options=WriteOptions(exr_type="float"))
    np.testing.assert_array_equal(formats.read(path).codes, pixels)


@settings(max_examples=30)
@given(hnp.arrays(np.float16, sizes, elements=st.floats(-65504, 65504, width=16)))
def test_half_exr_is_exact_and_never_leaves_half(tmp_path_factory, pixels):
    path = tmp_path_factory.getbasetemp() / "half.exr"
    formats.write(path, Radiance(pixels), overwrite=True)
    np.testing.assert_array_equal(formats.read(path).codes, pixels.astype(np.float32))
    with OpenEXR.File(str(path)) as file:
        assert file.channels()["RGB"].pixels.dtype == np.float16


@settings(max_examples=30)
@given(hnp.arrays(np.float32, sizes, elements=st.floats(2**-20, 2**60, width=32)))
def test_hdr_is_within_rgbe(tmp_path_factory, pixels):
    path = tmp_path_factory.getbasetemp() / "x.hdr"
    formats.write(path, Radiance(pixels, exposure=0.25), overwrite=True)
    frame = formats.read(path)
    error = np.abs(frame.codes - pixels) / pixels.max(axis=2, keepdims=True)
    assert error.max() < 0.008
    assert frame.exposure == 0.25


@settings(max_examples=30)
@given(hnp.arrays(np.float32, sizes, elements=st.floats(-(2.0**90), 2.0**90, width=32)))
def test_float_tiff_is_exact(tmp_path_factory, pixels):
    path = tmp_path_factory.getbasetemp() / "float.tif"
    formats.write(path, Radiance(pixels), overwrite=True)
    frame = formats.read(path)
    np.testing.assert_array_equal(frame.codes, pixels)
    assert frame.response is LINEAR


@settings(max_examples=30)
@given(hnp.arrays(np.uint8, sizes))
def test_png8_is_exact(tmp_path_factory, codes):
    path = tmp_path_factory.getbasetemp() / "8.png"
    formats.write(path, DisplayImage(codes / np.float32(255)), overwrite=True)
    np.testing.assert_array_equal(formats.read(path).codes, codes)


@settings(max_examples=30)
@given(hnp.arrays(np.uint16, sizes))
@pytest.mark.parametrize("name", ["16.png", "16.tif"])
def test_sixteen_bits_are_exact(tmp_path_factory, name, codes):
    path = tmp_path_factory.getbasetemp() / name
    formats.write_display_codes(path, codes, overwrite=True)
    frame = formats.read(path)
    assert frame.bits == 16
    np.testing.assert_array_equal(frame.codes, codes)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "none", "zstd"])
def test_every_tiff_compression_round_trips(tmp_path, light, compression):
    path = tmp_path / "a.tif"
    formats.write(path, Radiance(light), options=WriteOptions(tiff_compression=compression))
    np.testing.assert_array_equal(formats.read(path).codes, light)
    np.testing.assert_array_equal(tifffile.imread(path), light)


def test_jpeg_is_near_and_says_srgb(tmp_path, smooth):
    path = tmp_path / "a.jpg"
    formats.write_display_codes(path, smooth)
    frame = formats.read(path)
    assert np.abs(frame.codes.astype(int) - smooth).mean() < 3
    assert frame.response is SRGB
    assert frame.primaries is REC709
    with Image.open(path) as image:  # littleCMS believes it, too
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_display_values_are_rounded_to_nearest(tmp_path):
    path = tmp_path / "a.png"
    values = np.array([0, 0.49, 0.51, 99.4, 99.6, 254.6, 300, -5], np.float32) / np.float32(255)
    formats.write(path, DisplayImage(np.broadcast_to(values[None, :, None], (1, 8, 3)).copy()))
    assert formats.read(path).codes[0, :, 0].tolist() == [0, 0, 1, 99, 100, 255, 255, 0]


@pytest.mark.parametrize("name", sorted(exr.COMPRESSIONS))
def test_every_exr_compression_reads_back(tmp_path, light, name):
    path = tmp_path / "a.exr"
    formats.write(path, Radiance(light), options=WriteOptions(exr_compression=name))
    lossy = name.startswith(("b44", "dwa"))
    np.testing.assert_allclose(formats.read(path).codes, light, rtol=0.3 if lossy else 6e-4)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[..., ::-1],
        lambda a: a[::2, ::3],
        lambda a: a[3:17, 5:22],
        lambda a: a.transpose(1, 0, 2),
        np.asfortranarray,
        lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 2, 0)), 0, 2),
    ],
)
@pytest.mark.parametrize("kind", ["a.exr", "a.hdr", "a.tif", "half.exr"])
def test_strided_arrays_are_written_right(tmp_path, light, view, kind):
    """OpenEXR ignores strides without a word: wrong pixels, no error."""
    pixels = view(light.astype(np.float16) if kind == "half.exr" else light)
    layers = {"weight.Y": pixels[..., 0]} if kind.endswith("exr") else {}
    formats.write(tmp_path / kind, Radiance(pixels), layers=layers)
    expected = np.asarray(pixels, np.float32)
    error = np.abs(formats.read(tmp_path / kind).codes - expected) / expected.max(2, keepdims=True)
    assert error.max() < (0.008 if kind == "a.hdr" else 6e-4)
    if layers:
        with OpenEXR.File(str(tmp_path / kind)) as file:
            stored = file.channels()["weight.Y"].pixels
        np.testing.assert_array_equal(stored, pixels[..., 0])


# --- EXR --------------------------------------------------------------------------------------


def test_exr_holds_attributes_and_layers(tmp_path, light, rng):
    path = tmp_path / "a.exr"
    weight = rng.random((20, 30)).astype(np.float32)
    attributes = {
        "expTime": np.float32(0.5),
        "isoSpeed": 200.0,
        "aperture": 8,
        "capDate": "2024:05:06 07:08:09",
        "utcOffset": 7200.0,
        "hdrcli:sources": "a.jpg b.jpg",
        "hdrcli:evs": [-2.0, 0.0],
    }
    image = Radiance(light, primaries=REC2020, exposure=0.125)
    formats.write(path, image, attributes=attributes, layers={"weight.Y": weight})
    with OpenEXR.File(str(path)) as file:
        header = dict(file.header())
        np.testing.assert_array_equal(file.channels()["weight.Y"].pixels, weight)
    assert header["expTime"] == 0.5
    assert header["hdrcli:sources"] == "a.jpg b.jpg"
    assert header["hdrcli:scale"] == 0.125
    np.testing.assert_allclose(header["chromaticities"], REC2020.chromaticities, atol=1e-6)
    frame = formats.read(path)
    assert frame.primaries is REC2020
    meta = frame.metadata
    assert (meta.exposure_time, meta.iso, meta.f_number) == (0.5, 200.0, 8.0)
    assert meta.taken == "2024:05:06 07:08:09"


def test_half_gives_way_to_float_where_the_range_needs_it(tmp_path, light):
    light[3, 4] = 1e6  # half would say infinite
    formats.write(tmp_path / "a.exr", Radiance(light))
    np.testing.assert_array_equal(formats.read(tmp_path / "a.exr").codes, light)


def test_half_asked_for_is_scaled_and_comes_back(tmp_path, light, caplog):
    light[3, 4] = 1e6
    path = tmp_path / "a.exr"
    formats.write(path, Radiance(light), options=WriteOptions(exr_type="half"))
    assert "half_scale" in caplog.text
    with OpenEXR.File(str(path)) as file:
        stored = file.channels()["RGB"].pixels
        assert stored.dtype == np.float16
        assert np.isfinite(stored).all()
    np.testing.assert_allclose(formats.read(path).codes, light, rtol=1e-3)


@settings(max_examples=30)
@given(hnp.arrays(np.uint32, sizes))
def test_half_conversion_is_numpys(bits):
    pixels = bits.view(np.float32)
    with np.errstate(all="ignore"):
        expected = pixels.astype(np.float16)
    np.testing.assert_array_equal(exr.to_half(pixels), expected)


def test_nan_and_infinity_are_not_valid(tmp_path, light, caplog):
    light[0, 0, 1], light[1, 2, 0], light[2, 3, 2] = np.nan, np.inf, -np.inf
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": light}).write(str(tmp_path / "a.exr"))
    tifffile.imwrite(tmp_path / "a.tif", light, photometric="rgb")
    for name in ("a.exr", "a.tif"):
        frame = formats.read(tmp_path / name)
        assert np.argwhere(~valid_of(frame)).tolist() == [[0, 0], [1, 2], [2, 3]]
        assert np.isfinite(frame.codes).all()
        assert f"{name}: 3 pixels are infinite or no numbers" in caplog.text


def test_exr_in_other_layouts(tmp_path, light):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    alpha = np.ones((20, 30), np.float32)
    alpha[:4] = 0
    planes = dict(zip("RGB", (light[..., c].copy() for c in range(3)), strict=True))
    cases = {
        "rgba": {"RGBA": np.dstack([light, alpha])},
        "layer": {f"beauty.{name}": plane for name, plane in planes.items()},
        "mixed": planes | {"R": planes["R"].astype(np.float16)},
        "grey": {"Y": planes["R"]},
    }
    for name, channels in cases.items():
        OpenEXR.File(dict(header), channels).write(str(tmp_path / name))
        frame = formats.read(tmp_path / name)
        expected = light if name != "grey" else np.repeat(light[..., :1], 3, axis=2)
        np.testing.assert_allclose(frame.codes, expected, rtol=6e-4)
        assert (frame.valid is None) == (name != "rgba")
    assert valid_of(formats.read(tmp_path / "rgba")).sum() == 16 * 30
    OpenEXR.File(dict(header), {"Z": alpha, "N": alpha}).write(str(tmp_path / "none"))
    with pytest.raises(FormatError, match="no R, G and B"):
        formats.read(tmp_path / "none")


def test_an_exr_of_a_part_is_placed_on_the_whole(tmp_path, light):
    header = {
        "compression": OpenEXR.NO_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "dataWindow": (np.array([5, 2], np.int32), np.array([34, 21], np.int32)),
        "displayWindow": (np.array([0, 0], np.int32), np.array([30, 50], np.int32)),
    }
    OpenEXR.File(header, {"RGB": light}).write(str(tmp_path / "a.exr"))
    frame = formats.read(tmp_path / "a.exr")
    assert frame.size == (51, 31)
    np.testing.assert_array_equal(frame.codes[2:22, 5:], light[:, :26])
    assert valid_of(frame).sum() == 20 * 26


# --- .hdr -------------------------------------------------------------------------------------


def test_hdr_says_what_it_is_and_opencv_reads_it(tmp_path, light):
    path = tmp_path / "a.hdr"
    formats.write(path, Radiance(light, primaries=DISPLAY_P3, exposure=0.5))
    head = path.read_bytes().split(b"\n\n")[0].decode().splitlines()
    assert head[0] == "#?RADIANCE"
    assert "EXPOSURE=0.5" in head
    assert "FORMAT=32-bit_rle_rgbe" in head
    assert any(line.startswith("SOFTWARE=hdrcli") for line in head)
    assert formats.read(path).primaries is DISPLAY_P3
    theirs = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))[..., ::-1]
    assert (np.abs(theirs - light).max(axis=2) / light.max(axis=2)).max() < 0.008


def test_exposures_of_a_hdr_multiply(tmp_path, light):
    path = tmp_path / "a.hdr"
    cv2.imwrite(str(path), light[..., ::-1])
    assert formats.read(path).exposure is None
    data = path.read_bytes()
    path.write_bytes(data.replace(b"FORMAT=", b"EXPOSURE=2\nEXPOSURE=0.25\nFORMAT=", 1))
    assert formats.read(path).exposure == 0.5


@pytest.mark.parametrize("size", [(5, 4), (3, 7), (6, 40)])
def test_hdr_of_any_width_and_direction(tmp_path, rng, size):
    """Narrow pictures are not run-length coded; scanlines may run in eight directions."""
    mantissa = rng.integers(128, 256, (*size, 3))
    flat = np.dstack([mantissa, np.full(size, 129)]).astype(np.uint8)
    light = mantissa / np.float32(128)
    path = tmp_path / "a.hdr"
    directions = {
        "-Y +X": lambda a: a,
        "+Y +X": lambda a: a[::-1],
        "-Y -X": lambda a: a[:, ::-1],
        "+Y -X": lambda a: a[::-1, ::-1],
        "+X -Y": lambda a: a.transpose(1, 0, 2),
        "+X +Y": lambda a: a[::-1].transpose(1, 0, 2),
        "-X -Y": lambda a: a[:, ::-1].transpose(1, 0, 2),
    }
    for said, turn in directions.items():
        stored = turn(flat)
        first, second = said.split()
        resolution = f"{first} {stored.shape[0]} {second} {stored.shape[1]}"
        head = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n{resolution}\n".encode()
        path.write_bytes(head + np.ascontiguousarray(stored).tobytes())
        np.testing.assert_allclose(formats.read(path).codes, light, rtol=0.01)


# --- depths and kinds -------------------------------------------------------------------------


def test_sixteen_bit_files_keep_their_bits(tmp_path, rng):
    codes = rng.integers(0, 65536, (9, 11, 3), np.uint16)
    alpha = np.full((9, 11, 1), 65535, np.uint16)
    alpha[:2] = 0
    rgba = np.concatenate([codes, alpha], axis=2)
    cv2.imwrite(str(tmp_path / "rgb.png"), codes[..., ::-1])
    cv2.imwrite(str(tmp_path / "rgba.png"), np.concatenate([codes[..., ::-1], alpha], axis=2))
    cv2.imwrite(str(tmp_path / "grey.png"), codes[..., 0])
    tifffile.imwrite(tmp_path / "rgb.tif", codes, photometric="rgb")
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "grey.tif", codes[..., 0], photometric="minisblack")
    planes = np.ascontiguousarray(codes.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "big.tif", codes, photometric="rgb", bigtiff=True, byteorder=">")
    for path in sorted(tmp_path.iterdir()):
        frame = formats.read(path)
        grey = path.stem == "grey"
        expected = np.repeat(codes[..., :1], 3, axis=2) if grey else codes
        np.testing.assert_array_equal(frame.codes, expected, err_msg=path.name)
        assert (frame.levels, frame.bits) == (65536, 16), path.name
        assert (frame.valid is None) == (path.stem != "rgba"), path.name
        assert frame.valid is None or frame.valid.sum() == 7 * 11


def test_palette_grey_alpha_and_bilevel(tmp_path, smooth):
    picture = Image.fromarray(smooth)
    palette = picture.quantize(17)
    shown = np.asarray(palette.convert("RGB"))
    for suffix in ("png", "gif", "tif", "bmp"):
        frame = formats.read(saved(tmp_path / f"p.{suffix}", palette))
        np.testing.assert_array_equal(frame.codes, shown, err_msg=suffix)
    grey = np.asarray(picture.convert("L"))
    for suffix in ("png", "tif", "bmp", "jpg"):
        frame = formats.read(saved(tmp_path / f"l.{suffix}", picture.convert("L")))
        np.testing.assert_allclose(frame.codes, grey[..., None].repeat(3, 2), atol=12)
    rgba = picture.convert("RGBA")
    rgba.putalpha(Image.fromarray(np.where(smooth[..., 1] > 100, 255, 0).astype(np.uint8)))
    for suffix in ("png", "tif", "webp"):
        frame = formats.read(saved(tmp_path / f"a.{suffix}", rgba, lossless=True))
        np.testing.assert_array_equal(frame.valid, smooth[..., 1] > 100, err_msg=suffix)
        np.testing.assert_array_equal(frame.codes[frame.valid], smooth[frame.valid])
    bilevel = picture.convert("1")
    for suffix in ("png", "tif"):
        frame = formats.read(saved(tmp_path / f"1.{suffix}", bilevel))
        np.testing.assert_array_equal(frame.codes[..., 0], np.asarray(bilevel) * np.uint8(255))


def test_white_is_zero_and_odd_depths_fill_the_range(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tifffile.imwrite(tmp_path / "inverted.tif", ramp, photometric="miniswhite")
    np.testing.assert_array_equal(formats.read(tmp_path / "inverted.tif").codes[..., 0], 255 - ramp)
    twelve = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    data = imagecodecs.jpeg8_encode(np.repeat(twelve[..., None], 3, 2), level=100, bitspersample=12)
    (tmp_path / "twelve.jpg").write_bytes(data)
    frame = formats.read(tmp_path / "twelve.jpg")
    assert frame.bits == 12
    np.testing.assert_allclose(frame.codes[..., 0], twelve * (65535 / 4095), atol=300)


def test_the_content_decides_not_the_name(tmp_path, smooth):
    path = saved(tmp_path / "really.png", smooth)
    liar = path.rename(tmp_path / "liar.jpg")
    assert formats.sniff(liar) == "png"
    np.testing.assert_array_equal(formats.read(liar).codes, smooth)
    assert formats.read(liar).name == str(liar)


def test_names_with_spaces_accents_and_percent(tmp_path, smooth, light):
    for name in ("ein Bild %20.png", "été – 夏.png"):
        np.testing.assert_array_equal(formats.read(saved(tmp_path / name, smooth)).codes, smooth)
    for name in ("größe 100 %.exr", "夏.hdr", "a b.tif"):
        formats.write(tmp_path / name, Radiance(light))
        assert formats.read(tmp_path / name).size == (20, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_orientation_is_applied_once(tmp_path, smooth, orientation, kind):
    """Eight ways to store one picture give the same upright pixels. Exif 2.32, 4.6.4 A."""
    stored_as = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }
    stored = np.ascontiguousarray(stored_as[orientation](smooth))
    tag = Image.Exif()
    tag[0x0112] = orientation
    best: dict[str, dict[str, Any]] = {
        "jpg": {"quality": 100, "subsampling": 0},
        "webp": {"lossless": True},
    }
    path = saved(tmp_path / f"a.{kind}", stored, exif=tag, **best.get(kind, {}))
    frame = formats.read(path)
    assert frame.size == (48, 64)
    assert frame.codes.flags.c_contiguous
    assert frame.metadata.orientation == orientation
    np.testing.assert_allclose(frame.codes.astype(int), smooth, atol=4 if kind == "jpg" else 0)


def test_outputs_are_upright_and_keep_the_exposure(tmp_path, smooth):
    exif = write_exif(Metadata(exposure_time=0.02, make="x", orientation=6))
    for name in ("a.jpg", "a.png"):
        formats.write_display_codes(tmp_path / name, smooth, exif=exif)
        meta = formats.read(tmp_path / name).metadata
        assert (meta.orientation, meta.make) == (1, "x")
        assert meta.exposure_time == pytest.approx(0.02)
        with Image.open(tmp_path / name) as image:
            assert image.getexif()[0x0112] == 1


# --- colour -----------------------------------------------------------------------------------


def oracle_profile(primaries: Primaries, **options: Any) -> bytes:
    """A profile made by littleCMS."""
    return bytes(
        imagecodecs.cms_profile(
            "rgb",
            whitepoint=[*primaries.white, 1.0],
            primaries=[
                v for xy in (primaries.red, primaries.green, primaries.blue) for v in (*xy, 1.0)
            ],
            **options,
        )
    )


@pytest.mark.parametrize("primaries", [REC709, DISPLAY_P3, ADOBE_RGB, PROPHOTO, REC2020], ids=str)
def test_profiles_of_littlecms_are_understood(tmp_path, smooth, primaries):
    profile = oracle_profile(primaries, gamma=1.8)
    path = saved(tmp_path / "a.png", smooth, icc_profile=profile)
    frame = formats.read(path)
    assert frame.primaries is primaries
    np.testing.assert_allclose(frame.table[:, 1], np.linspace(0, 1, 256) ** 1.8, atol=1e-3)


def test_unknown_primaries_come_from_the_profile():
    odd = Primaries("odd", (0.60, 0.35), (0.28, 0.62), (0.16, 0.08), (0.3127, 0.3290))
    meaning = icc.meaning(oracle_profile(odd, gamma=2.2))
    assert meaning is not None
    np.testing.assert_allclose(meaning.primaries.chromaticities, odd.chromaticities, atol=2e-3)


@pytest.mark.parametrize("primaries", [REC709, DISPLAY_P3, ADOBE_RGB, PROPHOTO, REC2020], ids=str)
@pytest.mark.parametrize("linear", [False, True])
def test_our_profiles_are_understood_by_us_and_by_littlecms(primaries, linear):
    profile = icc.profile_of(primaries, linear=linear)
    meaning = icc.meaning(profile)
    assert meaning is not None
    assert meaning.primaries is primaries
    assert meaning.response is (LINEAR if linear else SRGB)
    assert icc.profile_of(primaries, linear=linear) == profile  # no date in it
    ours = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    theirs = ImageCms.ImageCmsProfile(io.BytesIO(icc.profile_of(REC709)))
    grey = Image.new("RGB", (1, 1), (128, 128, 128))
    turned = ImageCms.profileToProfile(grey, ours, theirs)
    shown = np.asarray(turned)[0, 0].astype(int)
    assert max(shown) - min(shown) <= 1  # neutral stays neutral
    assert shown[1] == (pytest.approx(188, abs=1) if linear else pytest.approx(128, abs=1))


def test_littlecms_and_we_agree_on_colour(smooth):
    """Adobe RGB to sRGB, theirs and ours, inside the gamut."""
    from hdrcli.color import convert, srgb_encode

    muted = (smooth // 3 + 80).astype(np.uint8)
    profile = oracle_profile(ADOBE_RGB, gamma=563 / 256)
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    theirs = ImageCms.profileToProfile(
        Image.fromarray(muted), source, ImageCms.createProfile("sRGB")
    )
    meaning = icc.meaning(profile)
    assert meaning is not None
    frame = Frame(muted, meaning.response, meaning.primaries)
    linear = convert(frame.linear(), meaning.primaries, REC709)
    inside = (linear > 0).all(axis=2) & (linear < 1).all(axis=2)
    assert inside.mean() > 0.9
    ours = srgb_encode(linear) * 255
    np.testing.assert_allclose(ours[inside], np.asarray(theirs, float)[inside], atol=1.5)


@pytest.mark.parametrize(
    ("kind", "numbers", "function"),
    [
        (0, (2.2,), lambda x: x**2.2),
        (1, (2.0, 2.0, -0.5), lambda x: np.maximum(2 * x - 0.5, 0) ** 2 / 2.25),
        (2, (2.0, 0.8, 0.0, 0.1), lambda x: (0.8 * x) ** 2 + 0.1),
        (3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045), None),
        (4, (2.0, 0.9, 0.05, 0.5, 0.2, 0.02, 0.0), None),
    ],
)
def test_parametric_curves(kind, numbers, function):
    tag = b"para\0\0\0\0" + struct.pack(">HH", kind, 0)
    tag += b"".join(struct.pack(">i", round(v * 65536)) for v in numbers)
    x = np.linspace(0, 1, 65536)
    curve = icc._curve(tag)
    if kind == 1:
        expected = np.maximum(2 * x - 0.5, 0) ** 2
    elif kind == 4:
        expected = np.where(x >= 0.2, (0.9 * x + 0.05) ** 2 + 0.02, 0.5 * x)
    elif kind == 3:
        expected = SRGB.samples[:, 0]
    else:
        expected = function(x)
    np.testing.assert_allclose(curve, expected, atol=1e-4)


def test_a_profile_of_tables_warns_and_is_taken_as_srgb(tmp_path, smooth, caplog):
    profile = bytearray(icc.profile_of(ADOBE_RGB))
    for name in (b"rXYZ", b"rTRC"):
        at = profile.index(name)
        profile[at : at + 4] = b"A2B0"
    frame = formats.read(saved(tmp_path / "a.png", smooth, icc_profile=bytes(profile)))
    assert frame.primaries is REC709
    assert frame.response is SRGB
    assert "taken as sRGB" in caplog.text


@settings(max_examples=40)
@given(st.data())
def test_damaged_profiles_give_a_meaning_or_none(data):
    profile = bytearray(icc.profile_of(DISPLAY_P3))
    for _ in range(data.draw(st.integers(1, 6))):
        profile[data.draw(st.integers(128, len(profile) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(profile)))
    for damaged in (bytes(profile), bytes(profile[:cut])):
        meaning = icc.meaning(damaged)
        assert meaning is None or np.isfinite(meaning.response.samples).all()


def test_cameras_say_adobe_rgb_without_a_profile(tmp_path, smooth):
    interop = struct.pack("<H", 1) + struct.pack("<HHI4s", 1, 2, 4, b"R03\0") + b"\0\0\0\0"
    inner = struct.pack("<HHHIII", 1, 0xA005, 4, 1, 44, 0)
    block = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0) + inner + interop
    path = saved(tmp_path / "_MG_1.JPG", smooth, exif=b"Exif\0\0" + block)
    frame = formats.read(path)
    assert frame.primaries is ADOBE_RGB
    np.testing.assert_allclose(frame.table[128], (128 / 255) ** (563 / 256), atol=1e-4)


def test_png_chunks_say_gamma_and_primaries(tmp_path, smooth):
    path = saved(tmp_path / "a.png", smooth)
    data = path.read_bytes()

    def with_chunk(name: bytes, body: bytes) -> Frame:
        chunk = struct.pack(">I", len(body)) + name + body
        path.write_bytes(data[:33] + chunk + struct.pack(">I", zlib.crc32(name + body)) + data[33:])
        return formats.read(path)

    assert with_chunk(b"gAMA", struct.pack(">I", 100000)).response is LINEAR
    assert with_chunk(b"gAMA", struct.pack(">I", 45455)).response is SRGB
    power = with_chunk(b"gAMA", struct.pack(">I", 55556)).table[100, 0]
    assert power == pytest.approx((100 / 255) ** 1.8, rel=1e-3)
    chrm = [31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000]
    assert with_chunk(b"cHRM", struct.pack(">8I", *chrm)).primaries is DISPLAY_P3
    assert with_chunk(b"cICP", bytes((12, 13, 0, 1))).primaries is DISPLAY_P3


def test_a_gain_map_is_left_out_and_said(tmp_path, smooth, caplog):
    path = saved(tmp_path / "phone.jpg", smooth, xmp=b"http://ns.adobe.com/hdr-gain-map/1.0/")
    assert formats.read(path).size == (48, 64)
    assert "phone.jpg" in caplog.text
    assert "gain map" in caplog.text


def test_mixed_profiles_warn(tmp_path, smooth, caplog):
    a = saved(tmp_path / "a.png", smooth)
    b = saved(tmp_path / "b.png", smooth, icc_profile=icc.profile_of(DISPLAY_P3))
    with caplog.at_level(logging.WARNING, "hdrcli"):
        formats.read_all([a, a])
        assert not caplog.records
        formats.read_all([a, b])
    assert "differ in colour profile" in caplog.text


def cmyk_profile() -> bytes:
    """A small printing profile: Lab of the sixteen overprints, as of coated paper. ICC.1 10.10."""
    paper, y, m, c = (100, 0, 0), (89, -5, 93), (48, 74, -3), (55, -37, -50)
    inks = (paper, y, m, (47, 68, 48), c, (50, -68, 33), (24, 17, -46), (23, 0, 0))
    nodes = [lab for ink in inks for lab in (ink, (ink[0] // 8, 0, 0))]  # without and with black
    table = bytes(v for lab in nodes for v in (lab[0] * 255 // 100, lab[1] + 128, lab[2] + 128))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + bytes(range(256)) * 4
    lut += table + bytes(range(256)) * 3
    head = b"\0\0\0\0\x02\x40\0\0prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    body = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut
    return struct.pack(">I", 128 + len(body)) + head + body


def test_cmyk_goes_through_its_profile_or_not_at_all(tmp_path):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, 8:] = (0, 255, 255, 0)  # magenta and yellow: red
    picture = Image.fromarray(inks, "CMYK")
    for suffix in ("jpg", "tif"):
        path = saved(tmp_path / f"bare.{suffix}", picture)
        with pytest.raises(FormatError, match=r"bare.*CMYK without") as caught:
            formats.read(path)
        assert caught.value.hint
        path = saved(tmp_path / f"rgb.{suffix}", picture, icc_profile=icc.profile_of(REC709))
        with pytest.raises(FormatError, match=r"rgb\."):  # an RGB profile does not fit inks
            formats.read(path)


def test_cmyk_with_a_profile_shows_its_colours(tmp_path):
    profile = cmyk_profile()
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, 8:] = (0, 255, 255, 0)
    for suffix in ("jpg", "tif"):
        path = saved(tmp_path / f"a.{suffix}", Image.fromarray(inks, "CMYK"), icc_profile=profile)
        codes = formats.read(path).codes
        assert codes[8, 2].min() > 230  # paper
        red, green, blue = codes[8, 13].astype(int)
        assert red > 180
        assert max(green, blue) < 90


# --- what is damaged is refused ---------------------------------------------------------------


@cache
def sample(kind: str) -> bytes:
    """A file of that kind, (40, 56) pixels of noise."""
    codes = np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8)
    stream = io.BytesIO()
    if kind in ("exr", "hdr"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"a.{kind}")
            formats.write(path, Radiance(codes.astype(np.float32)))
            return path.read_bytes()
    if kind == "tiff":
        tifffile.imwrite(stream, codes, photometric="rgb", rowsperstrip=8)
    elif kind == "tiff-zlib":
        tifffile.imwrite(stream, codes, photometric="rgb", rowsperstrip=8, compression="zlib")
    elif kind == "progressive":
        Image.fromarray(codes).save(stream, "JPEG", progressive=True)
    else:
        Image.fromarray(codes).save(stream, kind)
    return stream.getvalue()


KINDS = ("jpeg", "progressive", "png", "tiff", "tiff-zlib", "exr", "hdr", "webp", "bmp", "gif")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.02, 0.2, 0.5, 0.9, 0.99, -1])
def test_a_file_cut_short_is_refused_by_name(tmp_path, kind, keep, capfd):
    data = sample(kind)
    path = tmp_path / "cut short.img"
    path.write_bytes(data[: keep if keep < 0 else round(len(data) * keep)])
    if kind == "gif" and keep in (0.99, -1):
        pytest.skip("a GIF that lacks its last bytes lacks no pixel")
    with pytest.raises(FormatError, match=r"cut short\.img") as caught:
        formats.read(path)
    assert caught.value.hint
    assert not capfd.readouterr().out  # stdout is data


def flipped(data, at):
    broken = bytearray(data)
    broken[at // 8] ^= 1 << at % 8
    return bytes(broken)


# what libjpeg is told, and the least share of flipped bits, of those that are seen, to be found
JPEG_KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "baseline": ({}, 0.6),
    "optimised": ({"optimize": True}, 0.15),
    "whole colour": ({"subsampling": 0}, 0.7),
    "restart in every row": ({"restart_marker_rows": 1}, 0.6),
    "restart in every eighth block": ({"restart_marker_blocks": 8}, 0.6),
    "progressive": ({"progressive": True}, 0.5),
    "progressive with restarts": ({"progressive": True, "restart_marker_rows": 1}, 0.5),
}


@cache
def photo_like(kind):
    small = np.random.default_rng(2).integers(0, 256, (96, 128, 3), np.uint8)
    picture = Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90, **JPEG_KINDS[kind][0])
    return stream.getvalue()


def is_refused(data):
    try:
        jpeg.decode(data)
    except FormatError:
        return True
    return False


def is_seen(data, whole):
    """Whether more than one pixel in a thousand is off by over 24 codes."""
    try:
        codes = imagecodecs.jpeg8_decode(data)
    except RuntimeError:
        return True
    return (np.abs(codes.astype(int) - whole).max(axis=2) > 24).mean() > 0.001


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_a_jpeg_damaged_in_the_middle_is_refused(kind):
    """Bits flipped one by one: most of those that are seen; the whole file never."""
    data = photo_like(kind)
    whole = jpeg.decode(data).codes
    start, stop = 8 * (data.index(b"\xff\xda") + 20), 8 * (len(data) - 40)
    broken = [flipped(data, at) for at in np.random.default_rng(3).integers(start, stop, 70)]
    seen = [each for each in broken if is_seen(each, whole)]
    assert len(seen) >= 10
    assert np.mean([is_refused(each) for each in seen]) >= JPEG_KINDS[kind][1]


def test_restart_markers_that_are_missing_or_out_of_order_are_damage(tmp_path):
    data = photo_like("restart in every row")
    path = tmp_path / "IMG_7.jpg"
    for old, new in ((b"\xff\xd3", b""), (b"\xff\xd3", b"\xff\xd5")):
        path.write_bytes(data.replace(old, new, 1))
        with pytest.raises(FormatError, match=r"IMG_7\.jpg.*damaged"):
            formats.read(path)


@pytest.mark.parametrize(
    "spare",
    [b"\xff\0", b"\0\0\0\0", bytes(70), b"\xff" * 9, b"\x5a\xc3"],
    ids=["ones", "four zeros", "zeros", "fill", "two bytes"],
)
@pytest.mark.parametrize("kind", ["baseline", "restart in every row", "progressive"])
def test_what_an_encoder_leaves_behind_the_last_block_is_no_damage(kind, spare):
    data = photo_like(kind)
    assert np.array_equal(jpeg.decode(data[:-2] + spare + data[-2:]).codes, jpeg.decode(data).codes)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_that_the_strict_decoder_cannot_take_is_decoded_all_the_same(monkeypatch, channels):
    stream = io.BytesIO()
    picture = Image.fromarray(imagecodecs.jpeg8_decode(photo_like("baseline")))
    picture.convert("L" if channels == 1 else "RGB").save(stream, "JPEG")
    strict = jpeg.decode(stream.getvalue()).codes

    def refuses(*_, **__):
        raise ValueError("Could not determine subsampling level of JPEG image")

    monkeypatch.setattr("simplejpeg.decode_jpeg", refuses)
    assert np.array_equal(jpeg.decode(stream.getvalue()).codes, strict)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"a list of files\n\xc3\xa9\n", "text"),
        (b"%PDF-1.7\n\x80", "a PDF"),
        (b"PK\x03\x04" + bytes(30), "an archive"),
        (b"\0\0\0\x18ftypmp42" + bytes(20), "a video"),
        (b"\0\0\0\x18ftypcrx " + bytes(20), "raw"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(20), "raw"),
        (b"\x93NUMPY\x01\0" + bytes(60), "not a picture"),
        (bytes(500), "not a picture"),
        (os.urandom(5) * 100 + b"\xff\xfe", "wrong.jpg"),
    ],
)
def test_what_is_no_photograph_is_named(tmp_path, content, said):
    path = tmp_path / "wrong.jpg"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"wrong\.jpg") as caught:
        formats.read(path)
    assert said in str(caught.value)
    assert caught.value.hint


def test_missing_files_and_folders_are_input_errors(tmp_path):
    for path in (tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(InputError, match=path.name):
            formats.read(path)


def test_a_camera_raw_in_tiff_clothing_is_refused(tmp_path):
    path = tmp_path / "a.nef"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint8), photometric="rgb", subfiletype=1)
    with pytest.raises(FormatError, match="raw"):
        formats.read(path)
    dng = [(50706, "B", 4, (1, 4, 0, 0), True)]
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16), photometric="minisblack", extratags=dng)
    with pytest.raises(FormatError, match="raw"):
        formats.read(path)


def test_headers_that_lie_about_the_size_are_refused_before_any_allocation(tmp_path, smooth):
    jpeg = bytearray(sample("jpeg"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65000, 65000)
    png = bytearray(sample("png"))
    png[16:24] = struct.pack(">II", 900_000, 900_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    hdr = sample("hdr").replace(b"-Y 40 +X 56", b"-Y 900000 +X 900000")
    exr_ = bytearray(sample("exr"))
    at = exr_.index(b"dataWindow\0box2i\0") + 21
    exr_[at : at + 16] = struct.pack("<4i", 0, 0, 900_000, 900_000)
    tiff = bytearray(sample("tiff"))
    for tag in (256, 257):
        at = tiff.index(struct.pack("<HH", tag, 4)) if struct.pack("<HH", tag, 4) in tiff else -1
        size = 4 if at >= 0 else 3
        at = tiff.index(struct.pack("<HH", tag, size))
        tiff[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 900_000)
    for name, data in {"jpeg": jpeg, "png": png, "hdr": hdr, "exr": exr_, "tiff": tiff}.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises((FormatError, ResourceError), match=name):
            formats.read(path)


def test_a_picture_larger_than_the_memory_is_a_resource_error(tmp_path, smooth, monkeypatch):
    path = saved(tmp_path / "a.png", smooth)
    monkeypatch.setattr("hdrcli.formats.decoded.free_memory", lambda: 1000)
    with pytest.raises(ResourceError, match=r"a\.png.*GiB"):
        formats.read(path)


def assert_read_or_refused(path: Path) -> None:
    said = ""
    try:
        frame = formats.read(path)
    except HdrcliError as err:
        said = str(err)
    assert path.name in said or frame.codes.size > 0


heads = st.sampled_from([sample(kind)[:n] for kind in KINDS for n in (4, 12, 40, 200, 600)])


@settings(max_examples=60)
@given(heads, st.binary(max_size=300))
def test_any_bytes_give_pixels_or_an_error_of_ours(tmp_path_factory, head, body):
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(head + body)
    assert_read_or_refused(path)


@settings(max_examples=60)
@given(st.sampled_from(KINDS), st.data())
def test_flipped_bytes_give_pixels_or_an_error_of_ours(tmp_path_factory, kind, data):
    content = bytearray(sample(kind))
    limit = min(len(content), 700) if data.draw(st.booleans()) else len(content)
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(content)
    assert_read_or_refused(path)


def test_heif_needs_its_package_or_works(tmp_path, smooth):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    path = tmp_path / "a.heic"
    heif.from_pillow(Image.fromarray(smooth)).save(path, quality=95)
    frame = formats.read(path)
    assert frame.size == (48, 64)
    assert np.abs(frame.codes.astype(int) // (257 if frame.levels > 256 else 1) - smooth).mean() < 4


def test_heif_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    with pytest.raises(ResourceError, match="pillow-heif") as caught:
        formats.read(path)
    assert "pip install" in str(caught.value.hint)


# --- several at once --------------------------------------------------------------------------


def test_files_are_read_in_order_and_errors_name_theirs(tmp_path):
    paths = []
    for level in range(12):
        codes = np.full((30, 40, 3), level * 20, np.uint8)
        paths.append(saved(tmp_path / f"{level}.png", codes))
    frames = formats.read_all(paths, threads=4)
    assert [int(frame.codes[0, 0, 0]) for frame in frames] == [level * 20 for level in range(12)]
    paths[7].write_bytes(paths[7].read_bytes()[:50])
    paths[9].write_text("text")
    with pytest.raises(FormatError, match=r"7\.png"):
        formats.read_all(paths, threads=4)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_work_that_follows_reading_is_done_by_any_number_of_threads(tmp_path, threads):
    codes = np.full((30, 40, 3), 9, np.uint8)
    paths = [saved(tmp_path / f"{i}.png", codes * i) for i in range(5)]

    def follow(pool, pending):
        sums = [pool.submit(lambda one: int(one.result().codes.sum()), one) for one in pending]
        return pool.submit(lambda: [future.result() for future in sums])

    frames, followed = formats.read_with(paths, follow, threads)
    assert followed.done()
    assert followed.result() == [int(frame.codes.sum()) for frame in frames]
    paths[2].write_text("text")
    paths[4].write_text("text")
    with pytest.raises(FormatError, match=r"2\.png"):
        formats.read_with(paths, follow, threads)


# --- writing whole or not at all --------------------------------------------------------------


def test_existing_files_are_not_touched_unless_asked(tmp_path, light):
    path = tmp_path / "a.exr"
    formats.write(path, Radiance(light))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"a\.exr.*exists") as caught:
        formats.write(path, Radiance(light * 2))
    assert "--overwrite" in str(caught.value.hint)
    assert path.read_bytes() == before
    formats.write(path, Radiance(light * 2), overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize("name", ["a.exr", "a.hdr", "a.tif", "a.jpg", "a.png"])
@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, name, failing):
    path = tmp_path / name
    path.write_bytes(b"the old file")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failing, full)
    linear = formats.for_output(path).linear
    pixels = np.ones((4, 4, 3), np.float32)
    with pytest.raises(ResourceError, match="disk is full"):
        formats.write(path, Radiance(pixels) if linear else DisplayImage(pixels), overwrite=True)
    assert path.read_bytes() == b"the old file"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch, light):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hdrcli.formats.exr.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        formats.write(tmp_path / "a.exr", Radiance(light))
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_fails_names_the_file(tmp_path, monkeypatch, light):
    def failing(*_, **__):
        raise RuntimeError("File.write: no")

    monkeypatch.setattr("OpenEXR.File.write", failing)
    with pytest.raises(SetupError, match=r"a\.exr"):
        formats.write(tmp_path / "a.exr", Radiance(light))
    assert not list(tmp_path.iterdir())


def test_folders_missing_and_folders_as_files_are_input_errors(tmp_path, light):
    with pytest.raises(InputError, match="no folder") as caught:
        formats.write(tmp_path / "missing" / "a.exr", Radiance(light))
    assert "mkdir" in str(caught.value.hint)
    (tmp_path / "folder.exr").mkdir()
    with pytest.raises(InputError, match="folder"):
        formats.write(tmp_path / "folder.exr", Radiance(light), overwrite=True)


def test_a_folder_that_may_not_be_written_is_a_setup_error(tmp_path, light, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", denied)
    with pytest.raises(SetupError, match="Permission denied"):
        formats.write(tmp_path / "a.exr", Radiance(light))


def test_a_folder_without_rights_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SetupError, match="may not be written to"):
        formats.check_output(tmp_path / "a.exr")


def test_a_disk_that_takes_nothing_is_a_setup_error(tmp_path, light, monkeypatch):
    """A card whose lock is on refuses even to remove the file that was never made."""

    def locked(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", locked)
    monkeypatch.setattr("pathlib.Path.unlink", locked)
    with pytest.raises(SetupError, match="Read-only file system"):
        formats.write(tmp_path / "a.exr", Radiance(light))


@pytest.mark.parametrize("name", ["a" * 251, "é" * 120, "☃" * 83], ids=["a", "e", "snow"])
def test_any_name_that_the_disk_takes_can_be_written(tmp_path, light, name):
    """255 bytes, on most disks; the temporary file's name must not be longer."""
    formats.write(tmp_path / f"{name}.exr", Radiance(light))
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.exr"]


def test_names_that_lead_nowhere_are_setup_errors(tmp_path, light):
    (tmp_path / "circle.exr").symlink_to(tmp_path / "circle.exr")
    for name in ("circle.exr", "a" * 300 + ".exr"):
        with pytest.raises(SetupError, match="cannot be written"):
            formats.check_output(tmp_path / name, overwrite=True)
    (tmp_path / "link.exr").symlink_to(tmp_path / "missing" / "a.exr")
    with pytest.raises(InputError, match=r"no folder .*missing"):
        formats.check_output(tmp_path / "link.exr")


@pytest.mark.skipif(os.name == "nt", reason="devices are files on POSIX only")
def test_a_device_is_never_replaced(tmp_path):
    (tmp_path / "null.exr").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("null.exr", "pipe.jpg"):
        with pytest.raises(InputError, match="device or a pipe"):
            formats.check_output(tmp_path / name, overwrite=True)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
@pytest.mark.parametrize("suffix", [".exr", ".hdr", ".tif"])
def test_names_need_not_be_text(tmp_path, light, suffix):
    path = tmp_path / (os.fsdecode(b"caf\xe9") + suffix)
    formats.write(path, Radiance(light), attributes={"hdrcli:sources": str(path)})
    np.testing.assert_allclose(formats.read(path).codes, light, rtol=1e-2, atol=0.3)


def test_new_files_have_the_rights_of_the_umask_and_links_stay_links(tmp_path, light):
    old = os.umask(0o027)
    try:
        formats.write(tmp_path / "a.exr", Radiance(light))
    finally:
        os.umask(old)
    assert (tmp_path / "a.exr").stat().st_mode & 0o777 == 0o640
    (tmp_path / "link.exr").symlink_to(tmp_path / "a.exr")
    formats.write(tmp_path / "link.exr", Radiance(light * 2), overwrite=True)
    assert (tmp_path / "link.exr").is_symlink()
    np.testing.assert_allclose(formats.read(tmp_path / "a.exr").codes, light * 2, rtol=1e-3)


def test_kinds_of_images_stay_apart(tmp_path, light):
    display = DisplayImage(np.ones((4, 4, 3), np.float32))
    for name in ("a.jpg", "a.png"):
        with pytest.raises(FormatError, match="scene-linear"):
            formats.write(tmp_path / name, Radiance(light))
    for name in ("a.exr", "a.hdr"):
        with pytest.raises(FormatError, match="screen"):
            formats.write(tmp_path / name, display)
    for name in ("a.webp", "a", "a.exr.bak"):
        with pytest.raises(FormatError, match="cannot write") as caught:
            formats.write(tmp_path / name, display)
        assert ".exr" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"exr_compression": "zipp"},
        {"exr_type": "double"},
        {"png_bits": 12},
        {"jpeg_quality": 0},
        {"tiff_compression": "jpeg"},
    ],
)
def test_unknown_options_list_the_known_ones(options):
    with pytest.raises(FormatError) as caught:
        WriteOptions(**options)
    assert "choose one of" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["a.exr", "a.hdr", "a.tif"])
def test_equal_pictures_are_equal_files(tmp_path, light, name):
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
        formats.write(tmp_path / folder / name, Radiance(light), attributes={"hdrcli:version": "1"})
    assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


# --- real photographs -------------------------------------------------------------------------

SIZES = {
    "arch-4": (2112, 2816),
    "basement-24mp": (4000, 6000),
    "canal-handheld": (1080, 720),
    "garden-people": (754, 1024),
    "hall-people": (600, 900),
    "library-gt": (2448, 3264),
    "market-noexif": (324, 484),
    "ntire-format-000000": (256, 256),
    "room-7": (427, 640),
    "town-3": (800, 1067),
    "window-12": (1200, 1600),
    "window-9": (683, 1024),
}


LARGE = ("arch-4", "basement-24mp", "library-gt", "window-12")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in sorted(SIZES)],
)
def test_real_brackets_are_read(name):
    if not BRACKETS.is_dir():
        pytest.skip("the shared photographs are not here")
    paths = sorted(p for p in (BRACKETS / name).iterdir() if p.suffix not in (".txt", ".npy"))
    frames = formats.read_all(paths, threads=1)
    assert {frame.size for frame in frames} == {SIZES[name]}
    with Image.open(paths[0]) as theirs:
        if theirs.mode == "RGB" and frames[0].bits == 8 and theirs.size[0] < 2000:
            difference = np.asarray(theirs, int) - frames[0].codes
            assert np.abs(difference).max() <= 2
    if name not in ("market-noexif", "ntire-format-000000"):
        assert all(frame.metadata.exposure_time for frame in frames)
        assert read_metadata(frames[0].metadata.exif or b"").model == frames[0].metadata.model
