"""Write a TensorFlow checkpoint: a LevelDB table of two blocks, and the bytes of the variables."""

import struct

import numpy as np

from hdrcli.importers.tf_bundle import crc32c

MAGIC = 0xDB4775248B80FB57


def write_bundle(prefix, variables, shards=1):
    """PREFIX.index and PREFIX.data-…; variables are float32 (or int64) arrays by name."""
    data = [b""] * shards
    entries = {b"": field(1, shards) + field(3, field(1, 1))}
    for i, (name, array) in enumerate(sorted(variables.items())):
        shard = i % shards
        raw = array.tobytes()
        entries[name.encode()] = entry(array, shard, len(data[shard]), len(raw))
        data[shard] += raw
    prefix.with_suffix(".index").write_bytes(table(entries))
    for shard, raw in enumerate(data):
        prefix.with_suffix(f".data-{shard:05d}-of-{shards:05d}").write_bytes(raw)
    return prefix.with_suffix(".index")


def entry(array, shard, offset, size):
    kind = {"float32": 1, "int64": 9, "int32": 3}[array.dtype.name]
    shape = b"".join(field(2, field(1, side)) for side in array.shape)
    numbers = field(3, shard) + field(4, offset) + field(5, size)
    return field(1, kind) + field(2, shape) + numbers + varint(6 << 3 | 5) + b"\0\0\0\0"


def table(entries):
    items = sorted(entries.items())
    half = len(items) // 2
    blocks, at, index = b"", 0, []
    for part in (items[:half], items[half:]):
        if part:
            contents = block(part)
            index.append((part[-1][0] + b"~", varint(at) + varint(len(contents) - 5)))
            blocks += contents
            at = len(blocks)
    meta = block([])
    directory = block(index)
    handles = varint(at) + varint(len(meta) - 5)
    handles += varint(at + len(meta)) + varint(len(directory) - 5)
    return blocks + meta + directory + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def block(items):
    """Keys share their start with the one before, as in LevelDB; one restart."""
    contents, previous = b"", b""
    for key, value in items:
        shared = 0
        while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
            shared += 1
        contents += varint(shared) + varint(len(key) - shared) + varint(len(value))
        contents += key[shared:] + value
        previous = key
    contents += struct.pack("<II", 0, 1) + b"\0"
    crc = crc32c(contents)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return contents + struct.pack("<I", masked)


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value) if value else b""


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def random_generator(channels=2, seed=0):
    """Variables of a small HDR-GAN generator under the names of the published ones."""
    rng = np.random.default_rng(seed)
    c = [channels << s for s in range(3)]
    found = {}

    def layer(name, cin, cout, size=3, u=True):
        found[f"UnetppGeneratorS/{name}/kernel"] = rng.standard_normal((size, size, cin, cout))
        found[f"UnetppGeneratorS/{name}/bias"] = rng.standard_normal(cout)
        if u:
            found[f"UnetppGeneratorS/{name}/u"] = rng.standard_normal((1, cout))

    def residual(name, cin, cout):
        layer(f"{name}/cov_0", cin, cout)
        layer(f"{name}/cov_1", cout, cout)
        layer(f"{name}/cov_btn", cin, cout, size=1)

    for frame in range(3):
        for s in range(3):
            residual(f"backbone_{frame}/SR_{s}", c[s - 1] if s else 6, c[s])
            if s < 2:
                layer(f"backbone_{frame}/down_{s}", c[s], c[s])
    for s in range(3):
        for i, conv in enumerate(("cov_1", "cov_2", "cov_3", "cov4")):
            layer(f"merge/merge_net_{s}/{conv}", c[s] * (1 if i else 3), c[s])
    layer("merge/up_1", c[1], c[0], u=False)
    layer("merge/up_2", c[2], c[1], u=False)
    layer("decoders/up_11", c[1], c[0], u=False)
    residual("decoders/SR_10", 3 * c[0], c[0])
    residual("decoders/SR_11", 3 * c[1], c[1])
    residual("decoders/SR_20", 4 * c[0], c[0])
    layer("output_1", c[0], 3, size=1)
    layer("output_2", c[0], 3, size=1)
    return {name: value.astype(np.float32) for name, value in found.items()}


def around(variables):
    """What a training run leaves beside the generator."""
    adam = {f"{name}/Adam": value * 0 + 9 for name, value in variables.items()}
    return {
        **variables,
        **adam,
        "PatchDiscriminator/dis_cov1/kernel": np.zeros((4, 4, 3, 64), np.float32),
        "lr/val": np.array([1e-4], np.float32),
        "tensorkit/tk_global_step": np.array([12], np.int64),
    }
