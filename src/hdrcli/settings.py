"""Settings: what stands for an option that the command line does not give.

From the strongest: the command line, ``--preset NAME``, the environment (``HDRCLI_BACKEND``, or
``HDRCLI_BATCH_JOBS`` for one command), ``hdrcli.toml`` of the project (the folder one works in,
or the nearest above it), ``hdrcli.toml`` of the user, and the program's own default.

    backend = "average"          # for every command that has --backend
    tmo-param = { exposure = 0.5 }

    [batch]                      # for one command
    jobs = 2

    [preset.night]               # for --preset night
    deghost = "high"
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hdrcli.errors import InputError, SetupError

NAME = "hdrcli.toml"
USER_FILE = "HDRCLI_CONFIG"  # names another file for the user's, or none
PRESET = "HDRCLI_PRESET"
PREFIX = "HDRCLI_"
RESERVED = {USER_FILE, PRESET, "HDRCLI_WEIGHTS"}

Value = bool | int | float | str | list[Any] | dict[str, Any]


@dataclass(frozen=True)
class Source:
    """One place where settings come from: its name, and its tables."""

    name: str
    common: Mapping[str, Value] = field(default_factory=dict)
    commands: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """A value and where it is from."""

    value: Value
    source: str


# ---- files -----------------------------------------------------------------------------------


def user_file() -> Path | None:
    """The user's own file, there or not; None where the environment says that there is none."""
    named = os.environ.get(USER_FILE)
    if named is not None:
        return Path(named) if named not in ("", "none") else None
    from platformdirs import user_config_path

    return user_config_path("hdrcli") / NAME


def project_file(folder: Path | None = None) -> Path | None:
    """The file of the working folder, or of the nearest folder above it."""
    start = (folder or Path.cwd()).absolute()
    found = (path / NAME for path in (start, *start.parents))
    mine = user_file()
    return next((path for path in found if path.is_file() and path != mine), None)


def read_file(path: Path, commands: Sequence[str]) -> Source:
    """One file, its tables told apart. Raises InputError for what is not TOML, or in no place."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"{path}: {err.strerror}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise InputError(f"{path}: not TOML ({err})", hint="see hdrcli config --help") from err
    presets = data.pop("preset", {})
    if not isinstance(presets, dict) or not all(isinstance(v, dict) for v in presets.values()):
        raise InputError(f"{path}: presets are tables: [preset.NAME]")
    tables = {name: data.pop(name) for name in commands if isinstance(data.get(name), dict)}
    return Source(str(path), data, tables, presets)


def environment(commands: Sequence[str]) -> Source:
    """HDRCLI_OPTION and HDRCLI_COMMAND_OPTION."""
    common: dict[str, Value] = {}
    tables: dict[str, dict[str, Value]] = {}
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX) or name in RESERVED:
            continue
        key = name.removeprefix(PREFIX).lower().replace("_", "-")
        command = next((c for c in commands if key.startswith(c + "-")), None)
        if command is None:
            common[key] = value
        else:
            tables.setdefault(command, {})[key.removeprefix(command + "-")] = value
    return Source("environment", common, tables)


def sources(commands: Sequence[str]) -> list[Source]:
    """Every source there is, the weakest first."""
    files = [path for path in (user_file(), project_file()) if path is not None]
    found = [read_file(path, commands) for path in files if path.is_file()]
    return [*found, environment(commands)]


# ---- values ----------------------------------------------------------------------------------


def plain(key: str) -> str:
    """``tmo_param``, ``tmo-param`` and ``--tmo-param`` are one key."""
    return key.strip().lstrip("-").replace("_", "-").lower()


def settings_of(command: str, keys: Sequence[str], found: Sequence[Source]) -> dict[str, Setting]:
    """The setting that counts for each of a command's keys, where there is one."""
    chosen: dict[str, Setting] = {}
    for source in found:
        own = source.commands.get(command, {})
        for table in (source.common, own):
            for key, value in table.items():
                if plain(key) in keys:
                    chosen[plain(key)] = Setting(value, source.name)
        _known(own, keys, f"{source.name}: [{command}]")
    return chosen


def preset_of(name: str, keys: Sequence[str], found: Sequence[Source]) -> dict[str, Setting]:
    """The settings of a preset for a command; keys of other commands are passed over."""
    named = {preset: source for source in found for preset in source.presets}
    if name not in named:
        have = ", ".join(named) or "none at all"
        raise InputError(
            f"there is no preset {name}; there are {have}",
            hint="--save-preset NAME makes one of the options of a command",
        )
    source = named[name]
    return {
        plain(key): Setting(value, f"preset {name} in {source.name}")
        for key, value in source.presets[name].items()
        if plain(key) in keys
    }


def check_common(found: Sequence[Source], keys: Sequence[str]) -> None:
    """Keys outside of tables must be options of some command: else InputError names the nearest.

    The environment is left out: other programs may have variables that begin alike.
    """
    for source in found:
        if source.name != "environment":
            _known(source.common, keys, source.name)
            for name, table in source.presets.items():
                _known(table, keys, f"{source.name}: [preset.{name}]")


def _known(table: Mapping[str, Value], keys: Sequence[str], where: str) -> None:
    strange = next((key for key in table if plain(key) not in keys), None)
    if strange is not None and not where.startswith("environment"):
        near = difflib.get_close_matches(plain(strange), keys, 1)
        raise InputError(
            f"{where}: there is no option {strange}", hint=f"{near[0]}?" if near else None
        )


def texts(value: Value, *, many: bool) -> bool | str | list[str]:
    """A value as the command line would have it; ``many`` for options that may be repeated."""
    if isinstance(value, dict):
        return [f"{key}={item}" for key, item in value.items()]
    if isinstance(value, list):
        items = [str(item) for item in value]
        return items if many else ",".join(items)
    if isinstance(value, bool):
        return value
    return [str(value)] if many else str(value)


# ---- presets are written ---------------------------------------------------------------------


def save_preset(name: str, values: Mapping[str, Value]) -> Path:
    """Write a preset into the user's file, in the place of one of this name; the rest stays."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"--save-preset {name}: a name is of letters, digits, - and _")
    path = user_file()
    if path is None:
        raise InputError(f"{USER_FILE} says that there is no user's file to save a preset in")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = [f"[preset.{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    kept = "\n".join(_without(text.splitlines(), f"preset.{name}")).rstrip()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        said = f"{kept}\n\n" * bool(kept) + "\n".join(lines) + "\n"
        temporary.write_text(said, encoding="utf-8")
        temporary.replace(path)
    except OSError as err:
        raise SetupError(
            f"{path}: the preset cannot be saved ({err.strerror})",
            hint=f"{USER_FILE} names another file for it",
        ) from err
    return path


def _without(lines: Sequence[str], table: str) -> Iterator[str]:
    """The lines without one table."""
    inside = False
    for line in lines:
        match = re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(#.*)?", line)
        if match:
            inside = match[1].replace(" ", "") == table
        if not inside:
            yield line


def _toml(value: Value) -> str:
    """A value in TOML, whose strings, numbers and lists are those of JSON."""
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
