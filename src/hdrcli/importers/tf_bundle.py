"""Read a TensorFlow checkpoint (tensor bundle) without TensorFlow.

`NAME.index` is a LevelDB table, uncompressed, that maps a variable's name to a BundleEntryProto
(dtype, shape, shard, offset, size, crc); `NAME.data-0000i-of-0000n` holds the bytes. Formats:
github.com/google/leveldb, doc/table_format.md; tensorflow/core/protobuf/tensor_bundle.proto.
"""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hdrcli.errors import WeightsError

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes: two block handles, padding, magic
_LARGEST_INDEX = 16 << 20
_LARGEST_TENSOR = 1 << 30
_DT_FLOAT = 1
_HEADER = b""  # the name under which the BundleHeaderProto is kept


class _DamageError(Exception):
    """What is wrong with the bytes."""


@dataclass(frozen=True)
class Entry:
    """Where a variable lies: a BundleEntryProto."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def read_bundle(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """The wanted float32 variables by name, in TensorFlow's layout.

    `path` is the .index file, one of the .data files, or what comes before the dot. Raises
    WeightsError.
    """
    index = _index_of(path)
    try:
        shards, entries = _parse_index(_contents(index, _LARGEST_INDEX))
        return {
            name: _variable(index, shards, entry) for name, entry in entries.items() if wanted(name)
        }
    except _DamageError as error:
        raise WeightsError(
            f"{index}: not a readable TensorFlow checkpoint: {error}",
            hint="keep the .index and all .data files of one checkpoint side by side, "
            "and download them again if they are cut short",
        ) from error


def _index_of(path: Path) -> Path:
    if path.suffix == ".index":
        return path
    stem = path.name.rpartition(".data-")[0] or path.name
    return path.with_name(f"{stem}.index")


def _contents(path: Path, largest: int) -> bytes:
    try:
        if path.stat().st_size > largest:
            raise _DamageError(f"{path.name} has {path.stat().st_size} bytes")
        return path.read_bytes()
    except OSError as error:
        raise _DamageError(f"{path.name}: {error.strerror or error}") from error


# -- the table --------------------------------------------------------------------------------


def _parse_index(data: bytes) -> tuple[int, dict[str, Entry]]:
    """Number of shards, and every variable's entry."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise _DamageError("no LevelDB table")
    footer = Reader(data[-_FOOTER:-8])
    footer.varint(), footer.varint()  # the metaindex, which is empty
    shards, entries = None, {}
    for _, handle in _block(data, footer.varint(), footer.varint()):
        at = Reader(handle)
        for name, value in _block(data, at.varint(), at.varint()):
            if name == _HEADER:
                shards = _shards(value)
            else:
                entries[name.decode("utf-8", "replace")] = _entry(value)
    if shards is None:
        raise _DamageError("no header")
    return shards, entries


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key repeats the start of the one before it."""
    stored = data[offset : offset + size + 5]  # contents, compression, checksum
    if len(stored) < size + 5 or size < 4:
        raise _DamageError("cut short")
    if stored[size] != 0:
        raise _DamageError("compressed, which TensorFlow never does")
    if unmask(struct.unpack("<I", stored[size + 1 :])[0]) != crc32c(stored[: size + 1]):
        raise _DamageError("a checksum is wrong")
    restarts = struct.unpack("<I", stored[size - 4 : size])[0]
    reader, key = Reader(stored[: max(0, size - 4 * (restarts + 1))]), b""
    while not reader.done:
        shared, more, length = reader.varint(), reader.varint(), reader.varint()
        key = key[:shared] + reader.take(more)
        yield key, reader.take(length)


def _shards(value: bytes) -> int:
    """BundleHeaderProto: num_shards = 1, endianness = 2."""
    fields = dict(_fields(value))
    shards, endianness = fields.get(1, 0), fields.get(2, 0)
    if endianness != 0:
        raise _DamageError("big-endian")
    if not isinstance(shards, int) or not 1 <= shards < 100_000:
        raise _DamageError("no shards")
    return shards


def _entry(value: bytes) -> Entry:
    """BundleEntryProto: dtype = 1, shape = 2, shard_id = 3, offset = 4, size = 5."""
    fields = dict(_fields(value))
    numbers = [fields.get(number, 0) for number in (1, 3, 4, 5)]
    shape = fields.get(2, b"")
    if not isinstance(shape, bytes) or not all(isinstance(n, int) for n in numbers):
        raise _DamageError("an entry of the wrong kind")
    dtype, shard, offset, size = (int(n) for n in numbers)
    return Entry(dtype, tuple(_shape(shape)), shard, offset, size)


def _shape(value: bytes) -> Iterator[int]:
    """TensorShapeProto: dim = 2, each with size = 1."""
    for number, dim in _fields(value):
        if number == 2 and isinstance(dim, bytes):
            size = dict(_fields(dim)).get(1, 0)
            if not isinstance(size, int) or size < 0:
                raise _DamageError("an impossible shape")
            yield size


def _fields(value: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protobuf message, unparsed: varints as int, everything else bytes."""
    reader = Reader(value)
    while not reader.done:
        number, kind = divmod(reader.varint(), 8)
        if kind == 0:
            yield number, reader.varint()
        elif kind in _FIXED:
            yield number, reader.take(_FIXED[kind])
        elif kind == 2:
            yield number, reader.take(reader.varint())
        else:
            raise _DamageError("an unknown kind of field")


_FIXED = {1: 8, 5: 4}  # bytes of protobuf's fixed-width kinds


class Reader:
    """A place in bytes that moves on and does not pass the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def done(self) -> bool:
        """Nothing is left."""
        return self.at >= len(self.data)

    def take(self, count: int) -> bytes:
        """The next bytes."""
        taken = self.data[self.at : self.at + count]
        if len(taken) < count:
            raise _DamageError("cut short")
        self.at += count
        return taken

    def varint(self) -> int:
        """The next number: seven bits a byte, lowest first, the eighth says that more follow."""
        number = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise _DamageError("an endless number")


# -- the data ---------------------------------------------------------------------------------


def _variable(index: Path, shards: int, entry: Entry) -> Tensor:
    if entry.dtype != _DT_FLOAT:
        raise _DamageError(f"a variable of type {entry.dtype}, not float32")
    size = 4 * math.prod(entry.shape)
    if size != entry.size or size > _LARGEST_TENSOR:
        raise _DamageError(f"{entry.size} bytes for a variable of shape {entry.shape}")
    path = index.with_suffix(f".data-{entry.shard:05d}-of-{shards:05d}")
    try:
        with path.open("rb") as file:
            file.seek(entry.offset)
            data = file.read(size)
    except (OSError, OverflowError, ValueError) as error:
        raise _DamageError(f"{path.name}: {error}") from error
    if len(data) < size:
        raise _DamageError(f"{path.name} is cut short")
    return torch.from_numpy(np.frombuffer(data, "<f4").reshape(entry.shape).astype(np.float32))


# -- Castagnoli's checksum --------------------------------------------------------------------


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C, as LevelDB computes it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def unmask(stored: int) -> int:
    """The checksum behind the one that LevelDB stores: rotated by 15 bits, plus a constant."""
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


# -- spectral normalisation -------------------------------------------------------------------


def fold_spectral_norm(kernel: Tensor, u: Tensor) -> Tensor:
    """The kernel divided by its largest singular value, as the graph does at every run.

    kernel (kh, kw, cin, cout), u (1, cout) as stored. One step of the power iteration:
    w = kernel as (kh·kw·cin, cout), v = u wᵀ / |·|, u' = v w / |·|, σ = v w u'ᵀ.
    """
    w = kernel.double().flatten(0, 2)
    v = torch.nn.functional.normalize(u.double() @ w.T, eps=1e-12)
    u = torch.nn.functional.normalize(v @ w, eps=1e-12)
    sigma = (v @ w @ u.T).squeeze()
    return (kernel.double() / sigma).float()
