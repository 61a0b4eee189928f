import errno
import inspect
import io
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import fields
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from hdrcli import __version__, formats
from hdrcli.cli import display, doctor, info, main, options
from hdrcli.cli.lazy import COMMANDS
from hdrcli.cli.merge_options import MERGE_PARAMETERS
from hdrcli.errors import SetupError
from hdrcli.frames import Radiance
from tests import help_texts
from tests.scenes import gradient, photograph, save, texture

HEAVY = "{'torch', 'cv2', 'av', 'distributed', 'scipy', 'numpy', 'imagecodecs', 'OpenEXR'}"


@pytest.fixture
def photos(tmp_path):
    return save(photograph(texture()), tmp_path)


def shell(*args, stdin=b"", **env):
    return subprocess.run(
        [sys.executable, "-m", "hdrcli", *map(str, args)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **env},
        check=False,
    )


# ---- merge -----------------------------------------------------------------------------------


def test_merge_writes_the_files_and_names_them(hdrcli, photos, tmp_path):
    output = tmp_path / "out.exr"
    result = hdrcli("merge", *photos, "-o", output)
    assert result.code == 0, result.err
    preview = tmp_path / "out_preview.jpg"
    assert result.out.split() == [str(output), str(preview)]
    assert formats.read(output).size == formats.read(preview).size == (96, 128)


def test_the_order_of_the_files_changes_nothing(hdrcli, photos, tmp_path, monkeypatch):
    made = []
    for order in ((0, 1, 2), (2, 0, 1)):
        words = ["merge", *(photos[i] for i in order), "-o", tmp_path / "o.exr", "--overwrite"]
        monkeypatch.setattr("sys.argv", ["hdrcli", *map(str, words)])  # it goes into the file
        assert hdrcli(*words).code == 0
        made.append((tmp_path / "o.exr").read_bytes())
    assert made[0] == made[1]


def test_quiet_prints_nothing(hdrcli, photos, tmp_path):
    result = hdrcli("merge", *photos, "-o", tmp_path / "o.exr", "-q", "--no-preview")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_json_is_all_there_is_on_stdout(hdrcli, photos, tmp_path):
    output = tmp_path / "o.hdr"
    result = hdrcli("merge", *photos, "-o", output, "--json", "--no-preview")
    said = json.loads(result.out)
    assert said["outputs"] == [str(output)]
    assert said["backend"]
    assert said["seconds"]
    assert np.allclose(sorted(said["evs"]), [-2, 0, 2], atol=0.01)


def test_verbose_says_what_was_done_on_stderr(hdrcli, photos, tmp_path):
    result = hdrcli("merge", *photos, "-o", tmp_path / "o.exr", "-v", "--no-preview")
    assert "note: backend: " in result.err
    assert "note: seconds: " in result.err
    assert "\x1b" not in result.err


@pytest.mark.parametrize("ev", [("--ev", "-2,0,+2"), ("--ev=-2,0,2",), ("--ev", " -2, 0, 4/2 ")])
def test_stops_are_read_whatever_their_sign(hdrcli, tmp_path, ev):
    photos = save(photograph(texture()), tmp_path, exif=False)
    result = hdrcli("merge", *photos, "-o", tmp_path / "o.exr", "--json", *ev)
    assert result.code == 0, result.err
    assert np.allclose(json.loads(result.out)["evs"], [-2, 0, 2])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--ev", "fast"], 2, "not a list of stops"),
        (["--ev", "1/0,2"], 2, "not a list of stops"),
        (["--exposure-times", "1/60,0,1"], 2, "longer than zero"),
        (["--exposure-times", "1/60,,1"], 2, "not a list of seconds"),
        (["--backend", "magic"], 2, "not one of"),
        (["--tmo", "magic"], 2, "not one of"),
        (["--tmo-param", "key"], 2, "there is no ="),
        (["--tmo-param", "key=big"], 2, "the value is not a number"),
        (["--deghost", "much"], 2, "medium"),
        (["--exr-typ", "half"], 2, "--exr-type"),
        (["--threads", "0"], 2, "--threads"),
        (["--ev", "1,2"], 3, "2 values for 3 files"),
        (["--ev", "0,1,2", "--exposure-times", "1,2,4"], 3, "one of them"),
        (["--tmo-param", "nonsense=1"], 3, "no parameter 'nonsense'"),
        (["--reference", "9"], 3, "9"),
        (["-o", "out.docx"], 3, "cannot write .docx"),
        (["-o", "no/such/folder/out.exr"], 3, "there is no folder"),
    ],
)
def test_exit_codes(hdrcli, photos, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    before = set(tmp_path.iterdir())
    result = hdrcli("merge", *photos, "-o", "out.exr", *words)
    assert (result.code, result.out) == (code, ""), result.err
    assert message in result.err
    assert "Traceback" not in result.err
    assert set(tmp_path.iterdir()) == before


def test_an_existing_file_is_replaced_only_when_asked(hdrcli, photos, tmp_path):
    output = tmp_path / "out.exr"
    output.write_bytes(b"precious")
    refused = hdrcli("merge", *photos, "-o", output)
    assert (refused.code, output.read_bytes()) == (3, b"precious")
    assert "hint: --overwrite" in refused.err
    assert hdrcli("merge", *photos, "-o", output, "--overwrite").code == 0
    assert formats.read(output).size == (96, 128)


def test_brackets_in_a_file_name_are_not_markup(hdrcli, tmp_path):
    photo = tmp_path / "img[red]1[/red].jpg"
    result = hdrcli("merge", photo, tmp_path / "b.jpg", "-o", tmp_path / "o.exr")
    assert result.code == 3
    assert str(photo) in result.err.replace("\n", "")


@pytest.mark.parametrize("failure", [SetupError("the disk is full"), KeyboardInterrupt()])
def test_where_one_file_cannot_be_written_none_stays(
    hdrcli, photos, tmp_path, monkeypatch, failure
):
    """A preview without its light would be in the way of the next try."""
    preview = tmp_path / "o_preview.jpg"

    def failing(*_, **__):
        while not preview.exists():
            time.sleep(0.01)
        raise failure

    (tmp_path / "old.jpg").write_bytes(b"old")
    words = ("merge", *photos, "-o", tmp_path / "o.exr", "--backend", "average")
    with monkeypatch.context() as patched:
        patched.setattr("hdrcli.formats.exr.write", failing)
        assert hdrcli(*words).code != 0
        assert not preview.exists()
        result = hdrcli(*words, "-o", preview, "-o", tmp_path / "old.jpg", "--overwrite")
        assert result.code != 0
        assert (tmp_path / "old.jpg").exists()
    assert hdrcli(*words).code == 0


def test_a_bug_keeps_its_traceback(hdrcli, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("hdrcli.pipeline.merge_files", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hdrcli("merge", *photos, "-o", tmp_path / "o.exr")


def test_interruption_is_130(hdrcli, photos, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hdrcli.pipeline.merge_files", interrupted)
    assert hdrcli("merge", *photos, "-o", tmp_path / "o.exr").code == 130


@pytest.mark.skipif(os.name == "nt", reason="signals are a matter of POSIX")
def test_control_c_leaves_nothing_half_done(tmp_path):
    folder = tmp_path / "new"
    command = [sys.executable, "-m", "hdrcli", "example", folder, "--size", "480x320"]
    # who runs the tests in the background has Ctrl-C ignored, and children inherit that
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=heeded) as run:
        while not folder.exists() and run.poll() is None:
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)  # it draws now, for a second
        _, said = run.communicate()
    assert (run.returncode, said, list(folder.iterdir())) == (130, b"", [])


@pytest.mark.skipif(os.name == "nt", reason="signals are a matter of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_kill_and_a_closed_terminal_end_like_control_c(tmp_path, number):
    """As the test above, while a file is being written."""
    program = """
        import sys, time
        from pathlib import Path
        from hdrcli.cli import main
        from hdrcli.formats.save import whole

        def merge_files(paths, outputs, *_):
            with whole(outputs[0], overwrite=False):
                print("begun", flush=True)
                time.sleep(60)

        sys.modules["hdrcli.pipeline"].merge_files = merge_files
        main(["merge", "a.jpg", "b.jpg", "-o", sys.argv[1]])
    """
    program = "import hdrcli.pipeline\n" + inspect.cleandoc(program)
    heeded = partial(signal.signal, number, signal.SIG_DFL)
    command = [sys.executable, "-c", program, tmp_path / "o.exr"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=heeded) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begun\n"
        assert len(list(tmp_path.iterdir())) == 1
        run.send_signal(number)
        run.communicate()
    assert (run.returncode, list(tmp_path.iterdir())) == (130, [])


def test_the_options_of_a_merge_are_the_pipelines():
    from hdrcli.pipeline import MergeOptions

    ours = {name: p.default for name, p in MERGE_PARAMETERS.items()}
    ours["tmo_params"] = {}  # a list on the command line, a mapping in the library
    default = MergeOptions()
    assert ours == {f.name: getattr(default, f.name) for f in fields(MergeOptions)}


def _choices(name):
    literal = get_args(MERGE_PARAMETERS[name].annotation)[0]
    return set(get_args(literal))


def test_the_choices_offered_are_those_the_library_takes():
    from hdrcli.align import Method
    from hdrcli.bracket.exposures import Mode
    from hdrcli.formats import exr
    from hdrcli.motion import STRENGTHS

    assert _choices("align") == set(get_args(Method))
    assert _choices("exposures") == set(get_args(Mode))
    assert _choices("deghost") == set(STRENGTHS)
    assert _choices("exr_type") == set(exr.TYPES)
    assert _choices("compression") <= set(exr.COMPRESSIONS)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("weight", "hdrcli.backends:WEIGHT_NAMES"),
        ("primaries", "hdrcli.color:PRIMARIES"),
        ("response", "hdrcli.response:METHODS"),
        ("response", "hdrcli.response:NAMED"),
    ],
)
def test_help_names_what_may_be_chosen(name, table):
    module, _, attribute = table.partition(":")
    known = getattr(__import__(module, fromlist=[attribute]), attribute)
    text = get_args(MERGE_PARAMETERS[name].annotation)[1].help
    assert [word for word in known if word not in text] == []


# ---- how text becomes values -----------------------------------------------------------------


@given(st.lists(st.fractions(-20, 20), min_size=1, max_size=9))
def test_stops_survive_being_written(values):
    text = ",".join(f"{v.numerator}/{v.denominator}" for v in values)
    assert options.parse_evs(text) == tuple(float(v) for v in values)


@given(st.lists(st.fractions(Fraction(1, 9999), 3600), min_size=1, max_size=9))
def test_seconds_survive_being_written(values):
    text = ", ".join(f"{v.numerator}/{v.denominator}s" for v in values)
    assert options.parse_times(text) == tuple(float(v) for v in values)


@given(st.text(max_size=20))
def test_any_text_is_a_value_or_a_usage_error(text):
    for parse in (
        options.parse_evs,
        options.parse_times,
        options.parse_parameter,
        options.parse_size,
    ):
        with suppress(typer.BadParameter):
            assert np.isfinite(np.array(tuple(parse(text))[-1], float))


@pytest.mark.parametrize("text", ["1e999", "9" * 400, "nan", "inf"])
def test_numbers_are_finite(text):
    for parse in (options.parse_evs, options.parse_times):
        with pytest.raises(typer.BadParameter):
            parse(text)


def test_lists_of_files(tmp_path, monkeypatch):
    names = ["a b.jpg", "ü.jpg", "100%.jpg"]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names) + "\n\n")
    assert options.expand([f"@{listed}"]) == [Path(name) for name in names]
    assert options.expand(["x.jpg"], str(listed)) == [Path(n) for n in ["x.jpg", *names]]
    odd = "two\nlines.jpg"
    for data in (f"{names[0]}\0{odd}\0", f"{names[0]}\0{odd}"):
        stdin = SimpleNamespace(buffer=io.BytesIO(data.encode()))
        monkeypatch.setattr("sys.stdin", stdin)
        assert options.expand(["-"]) == [Path(names[0]), Path(odd)]
    assert options.expand(["./@file.jpg"]) == [Path("@file.jpg")]


def test_a_list_may_begin_as_windows_editors_begin_it(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.jpg\r\nb.jpg\r\n")
    assert options.expand([f"@{tmp_path / 'list.txt'}"]) == [Path("a.jpg"), Path("b.jpg")]


def test_no_files_is_a_usage_error(hdrcli, tmp_path):
    assert hdrcli("merge", "-o", tmp_path / "o.exr").code == 2
    assert hdrcli("info", f"@{tmp_path / 'absent.txt'}").code == 2


def test_file_names_come_through_a_pipe(photos):
    names = b"\0".join(bytes(path) for path in photos)
    piped = shell("info", "--files-from", "-", "--json", stdin=names)
    assert piped.returncode == 0, piped.stderr
    assert [Path(f["file"]) for f in json.loads(piped.stdout)["frames"]] == photos


# ---- the other commands ----------------------------------------------------------------------


def test_info_shows_exposures_by_exif_and_by_pixels(hdrcli, photos):
    result = hdrcli("info", *photos)
    assert result.code == 0, result.err
    heading, *rows = result.out.splitlines()
    assert re.split(r"\s{2,}", heading)[0] == "file"
    assert len(rows) == 3
    assert "1.png*" in rows[1]
    assert "-2.00" in rows[0]
    assert "128x96" in rows[0]
    said = json.loads(hdrcli("info", "--json", *photos).out)["frames"]
    assert [frame["exif_ev"] for frame in said] == pytest.approx([-2, 0, 2])
    assert [frame["pixel_ev"] for frame in said] == pytest.approx([-2, 0, 2], abs=0.2)
    assert [frame["reference"] for frame in said] == [False, True, False]


def test_info_of_one_photograph(hdrcli, photos):
    said = json.loads(hdrcli("info", "--json", photos[0]).out)["frames"]
    assert [frame["exposure_time"] for frame in said] == [0.25]


def test_info_of_photographs_that_make_no_bracket(hdrcli, photos, tmp_path):
    (other,) = save(photograph(gradient(), (0, 1)), tmp_path, ".jpg")[:1]
    result = hdrcli("info", photos[0], other)
    assert result.code == 0
    assert "warning: not one bracket" in result.err
    assert len(result.out.splitlines()) == 3


@pytest.mark.parametrize("clipped", [0.0, 0.25, 1.0])
def test_clipped_is_counted_in_any_channel(clipped):
    frame = photograph(np.full((8, 8, 3), 0.5, np.float32), (0.0, 0.5)).frames[0]
    frame.codes[: int(8 * clipped), :, 1] = 251  # the white of some cameras
    assert info.clipped_percent(frame) == 100 * clipped


def test_tonemap_makes_a_picture_of_radiance(hdrcli, photos, tmp_path):
    hdr, picture = tmp_path / "o.exr", tmp_path / "o.png"
    hdrcli("merge", *photos, "-o", hdr, "--no-preview")
    result = hdrcli("tonemap", hdr, "-o", picture, "--tmo", "reinhard02", "--size", 64)
    assert (result.code, result.out) == (0, f"{picture}\n"), result.err
    codes = formats.read(picture).codes
    assert codes.shape == (48, 64, 3)
    assert np.ptp(codes) > 100
    assert hdrcli("tonemap", hdr, "-o", picture).code == 3
    assert hdrcli("tonemap", hdr, "-o", tmp_path / "o.hdr").code == 3


def test_tonemap_never_replaces_what_it_reads(hdrcli, tmp_path):
    light = tmp_path / "light.tif"
    formats.write(light, Radiance(texture()))
    before = light.read_bytes()
    (tmp_path / "link.tif").symlink_to(light)
    for name in ("light.tif", "link.tif"):
        result = hdrcli("tonemap", light, "-o", tmp_path / name, "--overwrite")
        assert result.code == 3
        assert "is the image itself" in result.err
    assert light.read_bytes() == before


def test_tonemap_lists_the_operators(hdrcli):
    from hdrcli.tonemap import OPERATORS

    result = hdrcli("tonemap", "--list")
    assert result.code == 0
    assert [name for name in OPERATORS if f"{name}: " not in result.out] == []


def test_align_writes_frames_that_merge_again(hdrcli, photos, tmp_path):
    folder = tmp_path / "aligned"
    result = hdrcli("align", *photos, "-o", folder)
    assert result.code == 0, result.err
    written = [Path(line) for line in result.out.splitlines()]
    assert [path.name for path in written] == [f"{i}_aligned.png" for i in range(3)]
    for path, photo in zip(written, photos, strict=True):
        one, other = formats.read(path), formats.read(photo)
        assert one.metadata.exposure_time == other.metadata.exposure_time
        assert (one.codes == other.codes).all()  # they lay on each other already
    assert hdrcli("align", *photos, "-o", folder).code == 3
    assert hdrcli("merge", *written, "-o", tmp_path / "o.exr").code == 0


def test_backends_are_listed(hdrcli):
    from hdrcli.backends import BACKENDS

    assert [line.split()[0] for line in hdrcli("backends").out.splitlines()[1:]] == list(BACKENDS)
    assert [b["name"] for b in json.loads(hdrcli("backends", "--json").out)] == list(BACKENDS)


def test_what_was_measured_of_backends_is_shown(hdrcli, monkeypatch):
    from hdrcli.backends import measured

    one = measured.Measured({"3 frames": (38.2, 30.1)}, 7.5, 1.25, 12.0)
    monkeypatch.setattr(measured, "measurements", lambda: {"average": one})
    said = hdrcli("backends")
    line = next(line for line in said.out.splitlines() if line.startswith("average"))
    assert re.search(r"MIT +38\.2 / 30\.1 +7\.5 +1\.[23] ", line)
    assert json.loads(hdrcli("backends", "--json").out)[0]["measured"]["memory_gb"] == 1.25


def test_what_is_shipped_of_measurements_can_be_read():
    from hdrcli.backends import BACKENDS
    from hdrcli.backends.measured import measurements

    known = measurements()
    assert set(known) <= set(BACKENDS)
    for name, one in known.items():
        assert bool(one.scores) == (BACKENDS[name].produces == "radiance"), name
        assert all(10 < mu < 100 and 10 < linear < 100 for mu, linear in one.scores.values()), name


def test_doctor_says_versions_and_devices(hdrcli):
    said = json.loads(hdrcli("doctor", "--json").out)
    assert said["hdrcli"] == __version__
    assert said["devices"][0] == "cpu"
    versions = {row["name"]: row["version"] for row in said["packages"]}
    assert versions["numpy"] == np.__version__
    assert "numpy" in hdrcli("doctor").out


def test_doctor_names_the_cure_for_what_is_missing():
    row = doctor.package("no-such-thing", "no_such_thing", "nothing", "video")
    assert (row["version"], row["problem"]) == (None, "not installed")
    assert "hdrcli[video]" in doctor._lack(row)


# ---- the program as a whole ------------------------------------------------------------------


def test_version_and_help(hdrcli):
    assert hdrcli("--version").out == f"hdrcli {__version__}\n"
    text = hdrcli("--help").out
    positions = [text.index(f" {name} ") for name in COMMANDS]
    assert [c for c in COMMANDS.values() if c.summary[:30] not in text] == []
    assert positions == sorted(positions)
    assert hdrcli("merg").code == 2


def test_help_imports_nothing_heavy():
    commands = [["--help"], ["merge", "--help"], ["--version"], ["merg"]]
    code = (
        "import sys\nfrom hdrcli.cli import main\n"
        f"for words in {commands!r}:\n"
        "    try: main(words)\n    except SystemExit: pass\n"
        f"    heavy = {HEAVY} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _cpu_seconds(*command):
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


@pytest.mark.slow
def test_help_is_quick():
    # 0.4 s where Typer alone takes 0.1; other machines, and busy ones, by the same factor
    assert _cpu_seconds("-m", "hdrcli", "--help") < 4 * _cpu_seconds("-c", "import typer")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("hdrcli ba", [name for name in COMMANDS if name.startswith("ba")]),
        ("hdrcli merge --deg", ["--deghost"]),
        ("hdrcli merge --tmo drag", ["drago"]),
    ],
)
def test_commands_and_options_complete_in_the_shell(hdrcli, monkeypatch, words, found):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    for name, value in {"_HDRCLI_COMPLETE": "complete_bash", **asked}.items():
        monkeypatch.setenv(name, value)
    assert hdrcli().out.split() == found


def test_a_reader_that_goes_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        run = subprocess.run(
            [sys.executable, "-m", "hdrcli", "backends", "--json"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (run.returncode, run.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["backends"], ["backends", "--json"]])
def test_a_stdout_that_takes_nothing_is_no_bug(words):
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "hdrcli", *words]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert run.returncode == 4
    assert run.stderr.startswith(b"error: stdout cannot be written to")


@pytest.mark.skipif(os.name == "nt", reason="handles are inherited otherwise")
def test_closed_streams_are_no_bug(photos, tmp_path):
    """As cron and services start programs; nothing may be written into what has their numbers."""
    command = [sys.executable, "-m", "hdrcli", "merge", *photos, "-o", tmp_path / "o.exr"]
    run = subprocess.run(command, preexec_fn=lambda: os.closerange(0, 3), check=False)
    assert run.returncode == 0
    assert formats.read(tmp_path / "o.exr").codes.shape == (96, 128, 3)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_no_text_are_listed(photos):
    odd = [os.fsencode(path.rename(f"{path}{os.fsdecode(bytes([0xE9]))}.jpg")) for path in photos]
    command = [os.fsencode(word) for word in (sys.executable, "-m", "hdrcli", "info")] + odd
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    shown = subprocess.run(command, capture_output=True, env=strict, check=True).stdout
    assert all(name.rpartition(b"/")[2] in shown for name in odd)
    told = subprocess.run([*command, "--json"], capture_output=True, env=strict, check=True).stdout
    frames = json.loads(told.decode("utf-8"))["frames"]
    assert sorted(frame["file"] for frame in frames) == sorted(map(os.fsdecode, odd))


def test_warnings_appear_once_and_not_under_quiet(capsys):
    log = logging.getLogger("hdrcli")
    display.start()
    log.warning("the sun is %s", "clipped")
    log.warning("the sun is clipped")
    log.info("a note")
    assert capsys.readouterr().err == "warning: the sun is clipped\n"
    display.talk(verbose=1)
    log.info("a note")
    assert capsys.readouterr().err == "note: a note\n"
    display.talk(quiet=True)
    log.warning("the moon is clipped")
    assert capsys.readouterr().err == ""
    display.talk()


def test_colour_only_on_a_terminal_and_not_under_no_color(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    seen = {}
    for no_color in ("", "1"):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", no_color)
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        display.error("broken", "mend it")
        seen[no_color] = terminal.getvalue()
    assert "\x1b[31m" in seen[""]
    assert "\x1b[31m" not in seen["1"]


def test_progress_shows_on_a_terminal_alone(monkeypatch, capsys):
    with display.progress() as nobody:
        assert nobody is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with display.progress(quiet=True) as hushed:
        assert hushed is None
    with display.progress() as shown:
        assert shown is not None
        shown("align", 0.5)
    assert capsys.readouterr().out == ""


def test_tables_are_never_cut_in_a_pipe(capsys):
    display.table(("a", ">b"), [("x" * 300, "1"), ("[y]", "22")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "x" * 300 + "   1"
    assert lines[2].startswith("[y] ")


def test_json_of_paths_and_numpy(capsys):
    display.as_json({"path": Path("a"), "n": np.float32(0.5), "v": np.arange(2)})
    assert json.loads(capsys.readouterr().out) == {"path": "a", "n": 0.5, "v": [0, 1]}


def test_every_command_keeps_its_help_in_docs():
    if help_texts.TYPER.read_text().strip() != help_texts.typer_version():
        pytest.skip("docs/help was written with another version of Typer")
    written = {
        path.name: path.read_text(encoding="utf-8")
        for path in help_texts.FOLDER.glob("hdrcli*.txt")
    }
    assert written == help_texts.texts(), "run: make help-texts"


def test_main_always_ends_the_process():
    assert inspect.signature(main).return_annotation.__name__ == "NoReturn"
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("train", "psfnet", "--data", "scenes:x", "--out", "run", "--steps", 1),
        ("train", "--list"),
        ("weights", "import", "psfnet", "a.pth"),
        ("weights", "verify"),
    ],
)
def test_what_needs_pytorch_says_so(hdrcli, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hdrcli.device.has_torch", lambda: False)
    result = hdrcli(*words)
    assert result.code == 4
    assert "needs PyTorch, which is not installed" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("align", "a.png", "b.png", "-o"), "out"),
        (("example",), "out"),
        (("batch", ".", "-o"), "out"),
        (("merge", "a.png", "b.png", "--ev", "0,2", "-o", "o.exr", "--debug-dir"), "out"),
    ],
)
def test_folders_that_cannot_be_made_are_the_disks_fault_or_the_names(
    hdrcli, tmp_path, monkeypatch, words, name
):
    monkeypatch.chdir(tmp_path)
    for part, frame in zip("ab", photograph(texture(), (0.0, 2.0)).frames, strict=True):
        formats.write_display_codes(tmp_path / f"{part}.png", frame.codes)
    (tmp_path / name).write_text("mine")
    result = hdrcli(*words, name)
    assert result.code == 3, result.err
    assert name in result.err
    (tmp_path / name).unlink()

    def full(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", full)
    result = hdrcli(*words, name)
    assert result.code == 4, result.err
    assert "Read-only file system" in result.err
    assert name in result.err


def test_a_folder_for_maps_is_looked_at_before_the_merge(hdrcli, photos, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    access = os.access
    monkeypatch.setattr("os.access", lambda p, m: Path(p).name != "out" and access(p, m))
    words = "merge", *photos, "-o", tmp_path / "o.exr", "--debug-dir"
    for folder in (tmp_path / "out" / "maps", photos[0] / "maps", tmp_path / ("x" * 300)):
        result = hdrcli(*words, folder)
        assert result.code == (3 if folder.parent == photos[0] else 4), result.err
        assert str(folder) in result.err.replace("\n", "")
        assert not (tmp_path / "o.exr").exists()
