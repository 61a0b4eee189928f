"""Clips: a video file, or a folder of pictures, as frames in order of time.

A frame keeps its time stamp, in units of the clip's time base. Frames are decoded one after the
other; nothing here depends on how many there are.
"""

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hdrcli import formats
from hdrcli.bracket.sidecar import SUFFIXES, natural
from hdrcli.color import (
    DISPLAY_P3,
    REC709,
    REC2020,
    Primaries,
    hlg_decode,
    pq_decode,
    rec709_decode,
)
from hdrcli.errors import FormatError, HdrcliError, InputError, ResourceError
from hdrcli.frames import LINEAR, SRGB, Codes, Frame, Response, sampled
from hdrcli.video.planes import Levels, into_rgb

if TYPE_CHECKING:
    import av

log = logging.getLogger("hdrcli")

BT709 = sampled("BT.709", rec709_decode)
PQ = sampled("PQ", lambda code: pq_decode(code) / np.float32(10_000))
HLG = sampled("HLG", hlg_decode)

# ITU-T H.273, transfer characteristics and colour primaries; 2 is "unspecified".
TRANSFERS: dict[int, Response] = {
    4: sampled("gamma 2.2", lambda code: np.asarray(code**2.2)),
    5: sampled("gamma 2.8", lambda code: np.asarray(code**2.8)),
    8: LINEAR,
    9: sampled("log 100:1", lambda code: np.asarray(np.where(code > 0, 100 ** (code - 1), 0))),
    10: sampled("log 316:1", lambda code: np.asarray(np.where(code > 0, 316.2 ** (code - 1), 0))),
    13: SRGB,
    16: PQ,
    18: HLG,
}
PRIMARIES: dict[int, Primaries] = {9: REC2020, 11: DISPLAY_P3, 12: DISPLAY_P3}
BT2020_MATRICES = (9, 10)
HD_ROWS = 720  # from here on an untagged clip is BT.709, below BT.601
PLANAR = re.compile(r"yuvj?4[24][024]p(9|10|12|14|16)?(le)?$")
LARGEST = 16_384 * 16_384  # pixels
FEW_ERRORS = 16  # damaged packets in a row that are passed over


@dataclass(frozen=True, eq=False)
class Timed:
    """A frame at its place in the clip. ``pts`` counts time bases; ``key`` is its exposure's
    place in the pattern, once that is known, and ``scene`` counts the cuts before it. What
    windows share of a frame is kept in ``memo``."""

    frame: Frame
    index: int
    pts: int
    key: int = 0
    scene: int = 0
    dark: float = 5 / 255  # codes of 1 up to which it says only "dark"
    memo: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Clip:
    """What is known of a clip before its frames are decoded."""

    path: Path
    size: tuple[int, int]  # height and width, upright
    time_base: Fraction
    rate: Fraction  # frames per second, mean
    count: int | None  # frames, as the container says or estimates
    response: Response
    primaries: Primaries
    bits: int
    tags: dict[str, Any]  # colour tags, codec and the like, to be shown
    files: tuple[Path, ...] = ()  # of a folder of pictures
    has_audio: bool = False

    def frames(self, start: float = 0.0, duration: float | None = None) -> Iterator[Timed]:
        """Decode the frames whose time, in seconds from the first, lies in the interval."""
        first: int | None = None
        index = 0
        for frame, pts in _pictures(self, start) if self.files else _decoded(self, start):
            first = self._origin(pts) if first is None else first
            seconds = float((pts - first) * self.time_base)
            if duration is not None and seconds >= start + duration - 1e-6:
                return
            if seconds >= start - 1e-6:
                yield Timed(frame, index, pts)
                index += 1

    def _origin(self, pts: int) -> int:
        begins = self.tags.get("start_pts")
        return pts if begins is None else min(pts, int(begins))


def open_clip(source: str | Path, *, rate: Fraction = Fraction(25)) -> Clip:
    """Look at a video file, a folder of pictures, or a pattern such as frames/%04d.png.

    ``rate`` is that of pictures, which have none. Raises InputError for what is not there,
    FormatError for what is no video.
    """
    path = Path(source)
    files = picture_files(str(source))
    if files is not None:
        return _of_pictures(path, files, rate)
    if not path.exists():
        raise InputError(f"{path}: there is no such file", hint="name a video, or a folder")
    return _of_video(path)


# --- pictures ---------------------------------------------------------------------------------


def picture_files(source: str) -> list[Path] | None:
    """The pictures that a folder or a pattern stands for; None where it is neither."""
    path = Path(source)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
        found = [p for p in found if not p.name.startswith(".")]
    elif re.search(r"%0?\d*d", path.name):
        rule = re.sub(r"%0?\d*d", "\0", path.name)
        expression = re.compile(r"\d+".join(map(re.escape, rule.split("\0"))) + "$")
        within = path.parent.iterdir() if path.parent.is_dir() else iter(())
        found = [p for p in within if expression.match(p.name)]
    elif glob.has_magic(source) and not path.exists():
        found = [Path(name) for name in glob.glob(source)]  # noqa: PTH207  may be absolute
    else:
        return None
    if not found:
        raise InputError(f"{source}: there are no pictures", hint="JPEG, PNG, TIFF or EXR frames")
    return sorted(found, key=lambda p: natural(p.name))


def _of_pictures(path: Path, files: list[Path], rate: Fraction) -> Clip:
    first = formats.read(files[0])
    return Clip(
        path=path,
        size=first.size,
        time_base=1 / rate,
        rate=rate,
        count=len(files),
        response=first.response,
        primaries=first.primaries,
        bits=first.bits,
        tags={"kind": "pictures", "transfer": first.response.name},
        files=tuple(files),
    )


def _pictures(clip: Clip, start: float) -> Iterator[tuple[Frame, int]]:
    skipped = max(0, int(start * clip.rate) - 1)
    for number, path in enumerate(clip.files):
        if number and number < skipped:
            continue
        frame = formats.read(path)
        if frame.size != clip.size:
            high, wide = clip.size
            raise InputError(
                f"{path} is {frame.size[1]}x{frame.size[0]}, the first frame {wide}x{high}",
                hint="all frames of a clip have one size",
            )
        yield frame, number


# --- video files ------------------------------------------------------------------------------


@contextmanager
def video_errors(path: Path) -> Iterator[None]:
    """Translate what FFmpeg says of a file into the user's words."""
    try:
        import av
    except ImportError as err:
        raise ResourceError("PyAV is not installed", hint="pip install 'hdrcli[video]'") from err
    try:
        yield
    except av.FFmpegError as err:
        reason = (err.strerror or str(err)).lower()
        raise FormatError(f"{path}: not a video that can be read ({reason})") from err
    except (IsADirectoryError, PermissionError) as err:
        raise InputError(f"{path}: {err.strerror}") from err


def opened(path: Path) -> "av.container.InputContainer":
    """Open a video for reading; errors are FFmpeg's own."""
    import av

    # titles need not be text; PyAV takes that as it is since 19, where the option is gone
    renewed = int(av.__version__.split(".")[0]) >= 19
    asked: dict[str, Any] = {} if renewed else {"metadata_errors": "replace"}
    container: av.container.InputContainer = av.open(str(path), **asked)
    return container


def _of_video(path: Path) -> Clip:
    with video_errors(path), opened(path) as container:
        stream = _video_stream(container, path)
        first = next(iter(container.decode(stream)), None)
        if first is None:
            raise FormatError(f"{path}: the video has no frame that can be decoded")
        context = stream.codec_context
        turned = first.rotation % 180 != 0
        high, wide = (first.width, first.height) if turned else (first.height, first.width)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        assert stream.time_base is not None
        transfer, primaries = int(first.color_trc), int(first.color_primaries)
        return Clip(
            path=path,
            size=(high, wide),
            time_base=stream.time_base,
            rate=Fraction(rate),
            count=_count(container, stream, Fraction(rate)),
            response=TRANSFERS.get(transfer, BT709),
            primaries=PRIMARIES.get(primaries, REC709),
            bits=_bits(first),
            tags={
                "kind": "video",
                "codec": context.name,
                "pixels": first.format.name,
                "transfer": TAG_TRANSFERS.get(transfer, "unspecified"),
                "primaries": TAG_PRIMARIES.get(primaries, "unspecified"),
                "matrix": TAG_MATRICES.get(int(first.colorspace), "unspecified"),
                "range": "full" if _is_full(first) else "limited",
                "rotation": int(first.rotation),
                "start_pts": first.pts,
            },
            has_audio=bool(container.streams.audio),
        )


TAG_TRANSFERS = {
    1: "BT.709", 4: "gamma 2.2", 5: "gamma 2.8", 6: "SMPTE 170M", 7: "SMPTE 240M", 8: "linear",
    9: "log 100:1", 10: "log 316:1", 11: "xvYCC", 13: "sRGB", 14: "BT.2020 10 bit",
    15: "BT.2020 12 bit", 16: "PQ", 17: "SMPTE 428", 18: "HLG",
}  # fmt: skip
TAG_PRIMARIES = {
    1: "BT.709", 4: "BT.470M", 5: "BT.470BG", 6: "SMPTE 170M", 7: "SMPTE 240M", 8: "film",
    9: "BT.2020", 10: "XYZ", 11: "DCI-P3", 12: "Display P3",
}  # fmt: skip
TAG_MATRICES = {
    0: "RGB", 1: "BT.709", 5: "BT.470BG", 6: "SMPTE 170M", 7: "SMPTE 240M", 9: "BT.2020",
    10: "BT.2020 CL",
}  # fmt: skip


def _video_stream(container: Any, path: Path) -> Any:  # noqa: ANN401  PyAV's classes
    streams = [s for s in container.streams.video if not s.disposition.value & 0x400]  # covers
    if not streams:
        raise FormatError(f"{path}: there is no video in it")
    stream = streams[0]
    stream.thread_type = "AUTO"
    if stream.width * stream.height > LARGEST:
        raise FormatError(f"{path}: {stream.width}x{stream.height} is too large")
    return stream


def _count(container: Any, stream: Any, rate: Fraction) -> int | None:  # noqa: ANN401
    if stream.frames:
        return int(stream.frames)
    if stream.duration and stream.time_base:
        return max(1, round(float(stream.duration * stream.time_base * rate)))
    if container.duration:
        return max(1, round(float(container.duration / 1_000_000 * rate)))
    return None


def _bits(frame: Any) -> int:  # noqa: ANN401
    return int(max(component.bits for component in frame.format.components))


def _is_full(frame: Any) -> bool:  # noqa: ANN401
    return int(frame.color_range) == 2 or "yuvj" in frame.format.name or frame.format.is_rgb


def _decoded(clip: Clip, start: float) -> Iterator[tuple[Frame, int]]:
    """Frames with their time stamps, from the keyframe before ``start`` on."""
    with video_errors(clip.path), opened(clip.path) as container:
        stream = _video_stream(container, clip.path)
        if start > 0:
            origin = int(clip.tags.get("start_pts") or 0)
            container.seek(origin + int(start / clip.time_base), stream=stream, backward=True)
        last: int | None = None
        for frame in _survivors(container, stream, clip.path):
            pts = frame.pts if frame.pts is not None else frame.dts
            step = max(1, round(1 / (clip.rate * clip.time_base)))
            if pts is None or (last is not None and pts <= last):
                pts = 0 if last is None else last + step
            last = pts
            yield _frame(clip, frame, pts), pts


def _survivors(container: Any, stream: Any, path: Path) -> Iterator[Any]:  # noqa: ANN401
    """Decoded frames, passing over damaged packets; a clip that breaks off ends there."""
    import av

    errors = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            decoded = packet.decode()
        except StopIteration:
            return
        except (av.error.InvalidDataError, av.error.EOFError) as err:
            errors += 1
            log.warning("%s: damaged here and there (%s)", path, err.strerror)
            if errors > FEW_ERRORS:
                raise
            continue
        yield from decoded


def _frame(clip: Clip, picture: Any, pts: int) -> Frame:  # noqa: ANN401
    codes = upright(rgb_codes(picture, clip.path), int(picture.rotation))
    if codes.shape[:2] != clip.size:
        high, wide = clip.size
        raise FormatError(
            f"{clip.path}: the size changes from {wide}x{high} to {codes.shape[1]}x{codes.shape[0]}"
        )
    return Frame(
        codes, clip.response, clip.primaries, name=f"{clip.path.name}:{pts}", bits=clip.bits
    )


def upright(codes: Codes, rotation: int) -> Codes:
    """Turn the codes counterclockwise by ``rotation`` degrees, as the display matrix asks."""
    return np.ascontiguousarray(np.rot90(codes, rotation // 90 % 4))


def rgb_codes(picture: Any, path: Path) -> Codes:  # noqa: ANN401
    """R'G'B' codes, (H, W, 3), of a decoded frame: uint8 for eight bits, uint16 for more."""
    name = picture.format.name
    if name in ("nv12", "nv16", "nv21", "p010le", "p016le", "p210le"):
        target = "yuv420p" if name in ("nv12", "nv21") else "yuv422p" if name == "nv16" else None
        picture = picture.reformat(
            format=target or name.replace("p0", "yuv420p").replace("p2", "yuv422p")
        )
        name = picture.format.name
    match = PLANAR.match(name)
    if match is None:
        return _by_swscale(picture, path)
    bits = int(match[1] or 8)
    matrix = int(picture.colorspace)
    if matrix not in (1, 5, 6, 9, 10):
        matrix = 1 if picture.height >= HD_ROWS else 6
    planes = tuple(_plane(plane, bits) for plane in picture.planes[:3])
    levels = Levels(bits, _is_full(picture))
    return into_rgb(planes, matrix, levels, topleft=False)  # type: ignore[arg-type]


def _plane(plane: Any, bits: int) -> Codes:  # noqa: ANN401
    kind = np.uint8 if bits == 8 else np.uint16
    size = np.dtype(kind).itemsize
    rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // size)
    return rows[: plane.height, : plane.width]


def _by_swscale(picture: Any, path: Path) -> Codes:  # noqa: ANN401
    """RGB, grey and what else there is; full range where it is no Y'CbCr."""
    deep = _bits(picture) > 8
    try:
        return np.asarray(picture.to_ndarray(format="rgb48le" if deep else "rgb24"))
    except (ValueError, HdrcliError) as err:
        raise FormatError(f"{path}: pixels of the kind {picture.format.name}") from err


def keyed(frames: Sequence[Timed], keys: Sequence[int]) -> list[Timed]:
    """The frames with their exposures' places in the pattern."""
    return [replace(frame, key=key) for frame, key in zip(frames, keys, strict=True)]
