"""The names a script may import from hdrcli, and what the README promises of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hdrcli
from hdrcli import formats
from tests.scenes import photograph, save, texture

README = Path(__file__).parents[1] / "README.md"


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    paths = save(photograph(texture()), tmp_path, ".jpg")
    for path, name in zip(paths, "abc", strict=True):
        path.rename(tmp_path / f"{name}.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert formats.read(tmp_path / "out.exr").size == (96, 128)


def test_every_promised_name_exists():
    assert [name for name in hdrcli.__all__ if getattr(hdrcli, name, None) is None] == []
    assert set(hdrcli.__all__) == {*hdrcli._HOMES, "__version__"}
    assert dir(hdrcli) == sorted(hdrcli.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        hdrcli.nonsense  # noqa: B018


def test_importing_hdrcli_imports_nothing_heavy():
    code = "import sys, hdrcli; sys.exit(bool({'numpy', 'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_errors_are_one_family():
    from hdrcli.errors import FormatError

    assert issubclass(FormatError, hdrcli.HdrcliError)
