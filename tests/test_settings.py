import errno
import json
import os
import subprocess
import sys

import pytest

from hdrcli import settings
from hdrcli.cli import lazy
from hdrcli.cli import settings as from_settings
from hdrcli.errors import InputError, SetupError
from tests.scenes import photograph, save, texture


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A user's file and a project of our own, and none of the variables of who runs the tests."""
    for name in list(os.environ):
        if name.startswith("HDRCLI_"):
            monkeypatch.delenv(name)
    user, project = tmp_path / "user" / "hdrcli.toml", tmp_path / "project"
    (project / "deep").mkdir(parents=True)
    monkeypatch.setenv("HDRCLI_CONFIG", str(user))
    monkeypatch.chdir(project / "deep")
    return user, project / "hdrcli.toml"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def shown(hdrcli, *args):
    result = hdrcli("config", "show", *args, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_without_files_everything_is_a_default(hdrcli):
    found = shown(hdrcli)
    assert {entry["from"] for entry in found.values()} == {"default"}
    assert found["deghost"]["value"] == "medium"


def test_the_stronger_place_wins(hdrcli, places, monkeypatch):
    user, project = places
    write(user, 'deghost = "low"\nweight = "hat"\nanchor = "absolute"\ntmo = "linear"\n')
    write(project, 'deghost = "high"\nweight = "flat"\n[merge]\nweight = "gaussian"\n')
    monkeypatch.setenv("HDRCLI_DEGHOST", "none")
    found = shown(hdrcli)
    assert found["deghost"] == {"value": "none", "from": "environment"}
    assert found["weight"] == {"value": "gaussian", "from": str(project)}
    assert found["anchor"] == {"value": "absolute", "from": str(user)}


def test_a_table_is_for_one_command(hdrcli, places, monkeypatch):
    write(places[1], "[batch]\njobs = 2\nbackend = 'robertson'\n")
    monkeypatch.setenv("HDRCLI_BATCH_GAP", "5")
    assert shown(hdrcli)["backend"]["from"] == "default"
    batch = shown(hdrcli, "batch")
    assert (batch["jobs"]["value"], batch["backend"]["value"]) == (2, "robertson")
    assert batch["gap"] == {"value": "5", "from": "environment"}


@pytest.fixture
def merged(hdrcli, tmp_path):
    photos = save(photograph(texture(48, 64)), tmp_path)

    def run(*args):
        out = tmp_path / "o.exr"
        result = hdrcli("merge", *photos, "-o", out, "--json", "--no-preview", "--overwrite", *args)
        return json.loads(result.out) if result.code == 0 else result

    return run


def test_settings_change_what_is_done_and_the_command_line_wins(merged, places):
    write(places[1], 'backend = "debevec"\nev = [-1, 0, 1]\n')
    said = merged()
    assert (said["backend"], said["exposure_source"]) == ("debevec", "--ev")
    assert merged("--backend", "average")["backend"] == "average"


def test_a_preset_wins_over_files_and_loses_to_the_command_line(merged, places):
    write(places[1], 'backend = "debevec"\n[preset.odd]\nbackend = "robertson"\n')
    assert merged("--preset", "odd")["backend"] == "robertson"
    assert merged("--backend", "average", "--preset", "odd")["backend"] == "average"


def test_a_saved_preset_says_the_same_again(merged, places, hdrcli):
    user, _ = places
    write(user, '# mine\ndeghost = "low"\n[preset.night]\nbackend = "mertens"\n')
    merged("--save-preset", "night", "--backend", "robertson", "--ev=-2,0,2", "--crop")
    text = user.read_text(encoding="utf-8")
    assert text.startswith('# mine\ndeghost = "low"\n')
    assert text.count("[preset.night]") == 1
    found = shown(hdrcli, "merge", "--preset", "night")
    assert found["backend"]["value"] == "robertson"
    assert found["crop"]["value"] is True
    assert "night" in found["backend"]["from"]
    again = merged("--preset", "night")
    assert (again["backend"], again["exposure_source"]) == ("robertson", "--ev")
    assert "output" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backend = ", "not TOML"),
        ("bakend = 'average'", "no option bakend"),
        ("[merge]\nbackennd = 'average'", "no option backennd"),
        ("[preset.a]\nbackennd = 'average'", "no option backennd"),
        ("[merge]\njobs = 2", "no option jobs"),
        ("preset = 'night'", "presets are tables"),
    ],
)
def test_a_wrong_file_is_named_with_the_cure(merged, places, text, message):
    write(places[1], text)
    result = merged()
    assert result.code == 3
    assert message in result.err
    assert str(places[1]) in result.err


def test_a_key_of_another_command_is_no_error(merged, places):
    write(places[1], "jobs = 2\n")
    assert merged()["backend"]


def test_an_unknown_preset_lists_those_there_are(merged, places):
    write(places[1], "[preset.night]\ndeghost = 'high'\n")
    result = merged("--preset", "day")
    assert result.code == 3
    assert "night" in result.err


def test_a_wrong_value_is_refused_like_on_the_command_line(merged, places):
    write(places[1], 'deghost = "much"\n')
    result = merged()
    assert result.code == 2
    assert "much" in result.err


def test_every_option_of_a_merge_has_a_key():
    keys = set(from_settings.parameters_of(lazy.load("merge")))
    assert {"backend", "tmo-param", "ev", "crop", "exr-type", "threads"} <= keys


def test_tables_become_what_the_command_line_takes():
    assert settings.texts({"exposure": 0.5}, many=True) == ["exposure=0.5"]
    assert settings.texts([-2, 0, 2], many=False) == "-2,0,2"
    assert settings.texts(True, many=False) is True
    assert settings.texts("jpg", many=True) == ["jpg"]


def test_config_path_and_presets(hdrcli, places):
    user, project = places
    write(project, "[preset.night]\ndeghost = 'high'\n")
    assert hdrcli("config", "path").out.splitlines() == [f"{user} (none)", str(project)]
    assert "deghost=high" in hdrcli("config", "presets").out


def test_a_preset_that_cannot_be_saved_is_a_setup_error(places, monkeypatch):
    def locked(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.mkdir", locked)
    with pytest.raises(SetupError, match="Read-only"):
        settings.save_preset("mine", {"deghost": "high"})


def test_a_preset_needs_a_plain_name(places):
    with pytest.raises(InputError, match="letters"):
        settings.save_preset("a b", {})


def test_settings_leave_help_quick_and_whole():
    quick = subprocess.run(
        [sys.executable, "-m", "hdrcli", "--help"], capture_output=True, check=True
    )
    assert b"config" in quick.stdout
