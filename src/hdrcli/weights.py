"""Weight files: what there is, where, and that it is what it says.

Every folder of weights has a ``manifest.toml`` with a table per file; this module is its only
reader. The folders are looked through in this order, and the first table of a name counts:

1. the one that HDRCLI_WEIGHTS names, if it is set,
2. the user's own, where ``hdrcli weights import`` writes,
3. the ones that came with hdrcli: ``hdrcli/_weights`` in the wheel, ``weights/`` in a checkout.

Files are safetensors alone, which hold numbers and no code; their sha256 is verified before they
are loaded, once in a process while the file stays the same, and half precision becomes float32.
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdrcli.errors import WeightsError
from hdrcli.formats.save import whole

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "HDRCLI_WEIGHTS"
MANIFEST = "manifest.toml"
_REQUIRED = {"file": str, "sha256": str, "backend": str, "licence": str}
_OPTIONAL: dict[str, type | tuple[type, ...]] = {
    "arch": dict,
    "source": str,
    "trained_on": str,
    "minutes": (int, float),
    "device": str,
    "seed": int,
    "revision": str,
    "scores": dict,
}


@dataclass(frozen=True)
class Entry:
    """One weight file as its manifest tells it.

    ``arch``: the arguments that build the network. ``minutes``, ``device``, ``seed``,
    ``revision``: the training, where it was ours. ``scores``: what it reached, by name.
    ``origin``: "set" by the environment, "imported" by the user, or "shipped".
    """

    name: str
    path: Path
    sha256: str
    backend: str
    licence: str
    origin: str = "shipped"
    arch: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    trained_on: str = ""
    minutes: float | None = None
    device: str = ""
    seed: int | None = None
    revision: str = ""
    scores: Mapping[str, Any] = field(default_factory=dict)

    @property
    def card(self) -> Path | None:
        """The text that describes the weights in words, where there is one."""
        path = self.path.parent / f"{self.name}.md"
        return path if path.is_file() else None


def user_folder() -> Path:
    """Where imported weights go: the user's data folder."""
    from platformdirs import user_data_path

    return user_data_path("hdrcli") / "weights"


def folders() -> list[tuple[str, Path]]:
    """Every folder that has a manifest, with its origin, in the order they count."""
    package = Path(__file__).parent
    wanted = [
        ("imported", user_folder()),
        ("shipped", package / "_weights"),
        ("shipped", package.parents[1] / "weights"),
    ]
    asked = os.environ.get(FOLDER)
    if asked:
        if not (Path(asked) / MANIFEST).is_file():
            raise WeightsError(
                f"{FOLDER}={asked}: there is no {MANIFEST}", hint="name a folder of weights"
            )
        wanted.insert(0, ("set", Path(asked)))
    return [(origin, path) for origin, path in wanted if (path / MANIFEST).is_file()]


def entries() -> list[Entry]:
    """Everything there is, the one that counts of each name, sorted by name."""
    found: dict[str, Entry] = {}
    for origin, folder in folders():
        for entry in read_manifest(folder, origin):
            found.setdefault(entry.name, entry)
    return sorted(found.values(), key=lambda entry: entry.name)


def find(name: str) -> Entry:
    """The entry of this name. Raises WeightsError, naming what there is."""
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        have = ", ".join(known) or "none at all"
        raise WeightsError(
            f"there are no weights called {name}; there are {have}",
            hint=f"hdrcli weights import reads published ones; {FOLDER} names a folder of others",
        )
    return known[name]


def read_manifest(folder: Path, origin: str) -> Iterator[Entry]:
    """The tables of one manifest. Raises WeightsError for one that is not as it must be."""
    path = folder / MANIFEST
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise WeightsError(f"{path}: {err}", hint="restore or remove the file") from err
    for name, table in tables.items():
        yield _entry(path, name, table, origin)


def _entry(manifest: Path, name: str, table: object, origin: str) -> Entry:
    if not isinstance(table, dict):
        raise _wrong(manifest, f"{name} is not a table")
    types = {**_REQUIRED, **_OPTIONAL}
    for key, kind in types.items():
        if key in table and not isinstance(table[key], kind):
            raise _wrong(manifest, f"{name}.{key} has the wrong type")
    missing = [key for key in _REQUIRED if key not in table]
    unknown = [key for key in table if key not in types]
    if missing or unknown:
        raise _wrong(manifest, f"[{name}] lacks {missing}, does not know {unknown}")
    values = dict(table)
    file = values.pop("file")
    if Path(file).name != file or not file.endswith(".safetensors"):
        raise _wrong(manifest, f"{name}.file must be a .safetensors file beside it")
    return Entry(name=name, path=manifest.parent / file, origin=origin, **values)


def _wrong(manifest: Path, what: str) -> WeightsError:
    return WeightsError(f"{manifest}: {what}", hint="restore or remove the file")


# ---- files -----------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal; read once while size and time of the file stay."""
    try:
        known = path.stat()
        return _digest(path, known.st_size, known.st_mtime_ns, known.st_ino)
    except OSError as err:
        raise WeightsError(
            f"{path}: {err.strerror}", hint="hdrcli weights list shows where files are expected"
        ) from err


@cache
def _digest(path: Path, *_state: int) -> str:
    """A worker of a batch loads the same weights for every set."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(entry: Entry) -> None:
    """Check that the file is the one the manifest speaks of. Raises WeightsError."""
    found = digest(entry.path)
    if found != entry.sha256:
        raise WeightsError(
            f"{entry.path}: the sha256 is {found[:12]}…, not {entry.sha256[:12]}… of the manifest",
            hint="the file is damaged or another one: install or import it again",
        )


def load(weights: str | Entry) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read the tensors of a verified file, floats as float32, and the network's arguments.

    Raises WeightsError for weights that are absent, damaged, or no finite numbers.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    entry = find(weights) if isinstance(weights, str) else weights
    verify(entry)
    try:
        tensors = load_file(entry.path)
    except (SafetensorError, OSError, ValueError) as err:
        raise WeightsError(
            f"{entry.path}: {err}", hint="weights are safetensors; import others"
        ) from err
    wide = {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    broken = [n for n, t in wide.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise WeightsError(f"{entry.path}: {broken[0]} holds something else than finite numbers")
    return wide, dict(entry.arch)


def add(
    folder: Path,
    name: str,
    tensors: Mapping[str, "Tensor"],
    facts: Mapping[str, Any],
) -> Entry:
    """Write tensors and their table into a folder, replacing the name's older ones.

    ``facts`` are the manifest's keys but ``file`` and ``sha256``. The file's name carries the
    start of its sha256, so that a half-done replacement never mixes old and new.
    """
    from safetensors.torch import save

    data = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    sha256 = hashlib.sha256(data).hexdigest()
    path = folder / f"{name}-{sha256[:8]}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path, overwrite=True) as part:
            part.write_bytes(data)
    except OSError as err:
        raise WeightsError(f"{folder}: {err.strerror}", hint="make the folder writable") from err
    tables = _tables(folder)
    older = tables.pop(name, {}).get("file")
    tables[name] = {"file": path.name, "sha256": sha256, **facts}
    _write_manifest(folder, tables)
    if older and older != path.name:
        (folder / older).unlink(missing_ok=True)
    return next(entry for entry in read_manifest(folder, "imported") if entry.name == name)


def _tables(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    for _ in read_manifest(folder, "imported"):
        pass  # checks it
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _write_manifest(folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    lines = ["# One table per file in this folder; hdrcli.weights is the only reader."]
    for name, table in tables.items():
        lines += ["", f"[{_key(name)}]"]
        lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items()]
    with whole(folder / MANIFEST, overwrite=True) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _key(name: str) -> str:
    plain = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    return name if plain else json.dumps(name)


def _value(value: Any) -> str:  # noqa: ANN401
    """A value as TOML: what JSON and TOML share, and inline tables."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
