"""What photographs say of themselves, and what they must not be believed."""

import io
import logging
import struct
import time
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from hdrcli import exif
from hdrcli.exif import exif_for_output, rational, read_metadata, write_exif
from hdrcli.frames import Metadata

TIME, FNUMBER, ISO, SHUTTER_APEX, APERTURE_APEX = 0x829A, 0x829D, 0x8827, 0x9201, 0x9202


def block(inner: Mapping[int, Any], first: Mapping[int, Any] | None = None) -> bytes:
    """An EXIF block made by Pillow, which is not what we test."""
    made = Image.Exif()
    made.update(first or {})
    made.get_ifd(0x8769).update(inner)
    return made.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/60", 1 / 60),
        ("2", 2.0),
        ("5.6", 5.6),
        (" 28/5 ", 5.6),
        ("-2/3", -2 / 3),
        ("1/0", None),
        ("0/0", None),
        ("0", 0.0),
        ("", None),
        (None, None),
        ("inf", None),
        ("nan", None),
        ("1e400", None),
        ("__import__('os').getcwd()", None),
        ("1/60/2", None),
        ("9" * 5000, None),
    ],
)
def test_a_rational_is_a_number_or_nothing(text, value):
    assert rational(text) == (None if value is None else pytest.approx(value))


@given(st.text(max_size=30))
def test_any_text_gives_a_finite_number_or_nothing(text):
    value = rational(text)
    assert value is None or np.isfinite(value)


def test_exposure_comes_from_the_plain_tags():
    meta = read_metadata(block({TIME: IFDRational(1, 250), FNUMBER: IFDRational(28, 5), ISO: 400}))
    assert (meta.exposure_time, meta.f_number, meta.iso) == pytest.approx((1 / 250, 5.6, 400))


def test_exposure_comes_from_apex_where_the_plain_tags_are_missing():
    apex = {SHUTTER_APEX: IFDRational(6, 1), APERTURE_APEX: IFDRational(4, 1)}
    meta = read_metadata(block(apex))
    assert meta.exposure_time == pytest.approx(1 / 64)  # Tv 6
    assert meta.f_number == pytest.approx(4.0)  # Av 4


@pytest.mark.parametrize("bad", [(0, 1), (1, 0), (0, 0), (7200, 1)])
def test_impossible_exposure_times_are_left_out_and_said(bad, caplog):
    with caplog.at_level(logging.WARNING, "hdrcli"):
        meta = read_metadata(_with_rational(TIME, *bad), name="IMG_1.JPG")
    assert meta.exposure_time is None
    assert "IMG_1.JPG" in caplog.text
    assert "exposure time" in caplog.text


def test_a_manual_lens_has_no_f_number_and_that_is_no_fault(caplog):
    assert read_metadata(_with_rational(FNUMBER, 0, 1)).f_number is None
    assert not caplog.records


def _with_rational(tag, over, under):
    inner = (tag, 5, 1, struct.pack("<II", over, under))
    return exif._block("<", {}, {inner[0]: inner[1:]}, {})


def test_an_overflowing_iso_is_read_from_the_other_tag():
    meta = read_metadata(block({ISO: 65535, 0x8832: 102400}))
    assert meta.iso == 102400
    assert read_metadata(block({ISO: 65535})).iso == 65535


def test_times_have_their_fractions_and_zones():
    tags = {0x9003: "2024:05:06 07:08:09", 0x9291: "25", 0x9011: "+02:00"}
    meta = read_metadata(block(tags))
    assert (meta.taken, meta.subsecond, meta.utc_offset) == ("2024:05:06 07:08:09", 0.25, "+02:00")


@given(st.binary(max_size=200))
@example(b"II*\0\x08\0\0\0\xff\xff")
@example(b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08")  # points at itself
def test_any_bytes_give_metadata(body):
    for head in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert isinstance(read_metadata(head + body), Metadata)
        assert isinstance(exif_for_output(head + body), bytes)


def test_a_file_that_is_no_picture_gives_empty_metadata(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("no picture")
    assert read_metadata(path, "jpeg") == Metadata()
    assert read_metadata(tmp_path / "missing.jpg", "jpeg") == Metadata()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_every_container_is_read(tmp_path, kind):
    path = tmp_path / "a"
    made = b"Exif\0\0" + block({TIME: IFDRational(1, 8)}, {0x010F: "Canon"})
    Image.new("RGB", (8, 8)).save(path, kind, exif=made)
    meta = read_metadata(path, kind)
    assert (meta.make, meta.exposure_time) == ("Canon", 0.125)


def test_a_tiff_is_its_own_container(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(block({TIME: IFDRational(1, 8)}, {0x010F: "Canon"}))
    meta = read_metadata(path, "tiff")
    assert (meta.make, meta.exposure_time) == ("Canon", 0.125)


def test_a_directory_that_points_at_itself_takes_no_time():
    count = 60000
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    body = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entry * count
    begun = time.process_time()
    assert read_metadata(body + struct.pack("<I", 8)) is not None
    assert time.process_time() - begun < 5


def test_what_is_written_is_read():
    meant = Metadata(
        exposure_time=1 / 60,
        f_number=5.6,
        iso=200.0,
        bias=-2 / 3,
        taken="2024:05:06 07:08:09",
        subsecond=0.25,
        utc_offset="+02:00",
        make="hdrcli",
        model="synthetic camera",
        serial="7",
        lens="pinhole",
        focal_length=35.0,
        orientation=6,
    )
    read = read_metadata(write_exif(meant))
    assert read.exposure_time == pytest.approx(meant.exposure_time, rel=1e-9)
    assert read.bias == pytest.approx(meant.bias, rel=1e-5)
    for name in ("f_number", "iso", "taken", "subsecond", "utc_offset", "make", "model", "serial"):
        assert getattr(read, name) == getattr(meant, name), name
    assert (read.lens, read.focal_length, read.orientation) == ("pinhole", 35.0, 6)


@given(st.floats(1 / 32000, 3600))
def test_any_exposure_time_survives_writing(seconds):
    read = read_metadata(write_exif(Metadata(exposure_time=seconds)))
    assert read.exposure_time == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1 / 250, "1/250"), (2.5, "5/2"), (30, "30"), (0.3, "3/10")]
)
def test_fractions_are_those_a_photographer_writes(seconds, text):
    written = write_exif(Metadata(exposure_time=seconds))
    inner = Image.open(io.BytesIO(_jpeg_of(written))).getexif().get_ifd(0x8769)
    assert Fraction(text) == Fraction(inner[TIME].numerator, inner[TIME].denominator)


def _jpeg_of(exif_block):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=b"Exif\0\0" + exif_block)
    return stream.getvalue()


def test_what_is_made_of_a_bracket_says_so_and_nothing_else_does():
    photograph = write_exif(Metadata(exposure_time=0.25, make="Acme", model="One"))
    copy = exif_for_output(photograph)
    made = exif_for_output(photograph, merged=True)
    said = read_metadata(made)
    assert (said.merged, said.exposure_time, said.model) == (True, 0.25, "One")
    assert exif_for_output(made, merged=True) == made
    assert not read_metadata(photograph).merged  # of an example, which is of this program, too
    assert not read_metadata(copy).merged
    camera = made.replace(b"hdrcli\0", b"17.1\0\0\0")  # telephones make every picture of several
    assert not read_metadata(camera).merged


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_copy_for_outputs_is_upright_small_and_still_says_the_exposure(order):
    first = {0x0112: (3, 1, struct.pack(order + "H", 6)), 0x010F: (2, 6, b"Canon\0")}
    inner = {
        TIME: (5, 1, struct.pack(order + "II", 1, 30)),
        0x927C: (7, 50000, b"m" * 50000),  # the maker note
        0x9286: (7, 20000, b"c" * 20000),  # a bomb of a comment
    }
    place = {1: (2, 2, b"N\0"), 2: (5, 3, struct.pack(order + "6I", 47, 1, 22, 1, 0, 1))}
    original = exif._block(order, first, inner, place)
    copy = exif_for_output(original)
    meta = read_metadata(copy)
    assert (meta.orientation, meta.make) == (1, "Canon")
    assert meta.exposure_time == pytest.approx(1 / 30)
    assert len(copy) < 400
    tags = Image.open(io.BytesIO(_jpeg_of(copy))).getexif().get_ifd(0x8825)
    assert [float(v) for v in tags[2]] == [47, 22, 0]


def test_copying_twice_changes_nothing():
    once = exif_for_output(
        write_exif(Metadata(exposure_time=0.5, make="x", taken="2024:01:01 00:00:00"))
    )
    assert exif_for_output(once) == once


def test_bracketing_is_noted_where_the_camera_says_it():
    meta = read_metadata(block({0xA402: 2}))
    assert ("EXIF ExposureMode", "2") in meta.bracket_tags  # 2: auto bracket
