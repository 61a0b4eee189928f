"""Where merged frames go: video files by codec, and folders of EXR frames.

A file is written under a temporary name and becomes the target when it is whole; an interrupted
run leaves none, or, where asked, one that ends early.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from hdrcli import formats
from hdrcli.errors import FormatError, InputError, ResourceError, SetupError
from hdrcli.formats import WriteOptions
from hdrcli.formats.save import check_target, make_folder, whole
from hdrcli.frames import Radiance
from hdrcli.video import light_level
from hdrcli.video.clip import Clip, Timed, opened
from hdrcli.video.look import TRANSFERS, Grade, HdrLook, Look, SdrLook, Shape
from hdrcli.video.planes import Levels, Planes

EXR_NAME = "frame_{:06d}.exr"
MASTER = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L({peak},1)"
MASTER_AV1 = "G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L({peak},0.0001)"


@dataclass(frozen=True)
class Codec:
    """One encoder, and what hdrcli tells it."""

    name: str
    encoder: str
    summary: str
    bits: tuple[int, ...]
    crf: int | None
    preset: str | None
    suffixes: tuple[str, ...]
    tag: str | None = None
    halved: bool = True  # 4:2:0, else 4:2:2


CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        row.name: row
        for row in (
            Codec("hevc", "libx265", "H.265", (10,), 18, "fast", (".mp4", ".mkv", ".mov"), "hvc1"),
            Codec("h264", "libx264", "H.264", (8,), 18, "medium", (".mp4", ".mkv", ".mov")),
            Codec("av1", "libsvtav1", "AV1", (10,), 28, "8", (".mp4", ".mkv", ".webm")),
            Codec(
                "prores", "prores_ks", "ProRes 422 HQ", (10,), None, None, (".mov",), halved=False
            ),
        )
    }
)
DEFAULT_CODECS = {".mov": "prores", ".webm": "av1"}


@dataclass(frozen=True)
class Target:
    """One output: where, and which kind of picture. ``transfer`` is pq, hlg, sdr or exr."""

    path: Path
    transfer: str = "pq"
    codec: str = "auto"

    @property
    def folder(self) -> bool:
        """Whether it is a folder of EXR frames."""
        return self.transfer == "exr"

    @property
    def chosen(self) -> Codec:
        """The codec, after ``auto``: by suffix, then by the kind of picture."""
        if self.codec != "auto":
            return CODECS[self.codec]
        usual = "h264" if self.transfer == "sdr" else "hevc"
        return CODECS[DEFAULT_CODECS.get(self.path.suffix.lower(), usual)]


@dataclass(frozen=True)
class EncodeOptions:
    """What can be asked of all outputs."""

    crf: int | None = None
    preset: str | None = None
    overwrite: bool = False
    audio: bool = True
    keep_partial: bool = False
    resume: bool = False
    exr_type: str = "half"
    compression: str = "zip"


class Sink(Protocol):
    """Takes frames in order."""

    target: Target

    def take(self, now: Timed, radiance: Radiance) -> None:
        """Write the next frame."""

    def finish(self) -> None:
        """Complete the output; only now does it get its name."""

    def abandon(self) -> None:
        """Leave nothing half written."""

    def facts(self) -> dict[str, Any]:
        """What was measured meanwhile."""


def check(target: Target, clip: Clip, options: EncodeOptions) -> None:
    """All that can be wrong with an output before the first frame."""
    import av

    if target.folder:
        _check_folder(target.path, options)
        return
    if target.transfer not in TRANSFERS:
        raise InputError(f"--transfer {target.transfer}: one of {', '.join(TRANSFERS)}, exr")
    codec = target.chosen
    if target.path.suffix.lower() not in codec.suffixes:
        raise FormatError(
            f"{target.path}: {codec.summary} is not written to "
            f"{target.path.suffix or 'a file without a suffix'}",
            hint=f"use {' '.join(codec.suffixes)}, a folder for EXR frames, or another --codec",
        )
    check_target(target.path, overwrite=options.overwrite)
    if target.path.resolve() == clip.path.resolve():
        raise InputError(f"{target.path} is the clip itself", hint="choose another name")
    if codec.bits == (8,) and target.transfer != "sdr":
        raise InputError(
            f"{target.path}: {codec.summary} has eight bits here, too few for {target.transfer}",
            hint="use --codec hevc or av1, or --transfer sdr",
        )
    try:
        av.codec.Codec(codec.encoder, "w")
    except (ValueError, av.FFmpegError) as err:
        raise ResourceError(
            f"this PyAV has no encoder {codec.encoder} for {codec.summary}",
            hint=f"choose another --codec: {', '.join(CODECS)}; or pip install --upgrade av",
        ) from err


def _check_folder(path: Path, options: EncodeOptions) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: a file, not a folder", hint="EXR frames need a folder")
    written = path.is_dir() and any(path.glob("frame_*.exr"))
    if written and not (options.overwrite or options.resume):
        raise InputError(
            f"{path} holds frames already", hint="--resume continues, --overwrite replaces them"
        )


def open_sink(
    target: Target, clip: Clip, look: Look | None, grade: Grade, options: EncodeOptions
) -> Sink:
    """Open one output."""
    if target.folder:
        return ExrFolder(target, clip, options)
    assert look is not None
    return VideoFile(target, clip, look, grade, options)


def look_for(
    target: Target, grade: Grade, operator: str, params: Mapping[str, float]
) -> Look | None:
    """The look of an output; None for a folder, which holds radiance."""
    if target.folder:
        return None
    kind, codec = TRANSFERS[target.transfer], target.chosen
    shape = Shape(Levels(codec.bits[0]), kind.primaries, kind.topleft, codec.halved)
    if target.transfer == "sdr":
        return SdrLook(shape, operator, params)
    return HdrLook(grade, shape, hlg=target.transfer == "hlg")


# --- video files ------------------------------------------------------------------------------


class VideoFile:
    """A video, with the clip's time stamps and its audio."""

    def __init__(
        self, target: Target, clip: Clip, look: Look, grade: Grade, options: EncodeOptions
    ) -> None:
        self.target, self.clip, self.look, self.options = target, clip, look, options
        self.grade = grade
        self.codec = target.chosen
        self.stack = ExitStack()
        self.first: int | None = None
        self.done = False
        try:
            self.path = self.stack.enter_context(whole(target.path, overwrite=options.overwrite))
            self._open()
        except BaseException:
            self.abandon()
            raise

    def _open(self) -> None:
        import av

        os.environ.setdefault("SVT_LOG", "1")  # errors alone: it writes to stderr by itself
        kind = TRANSFERS[self.target.transfer]
        try:
            self.container = self.stack.enter_context(
                av.open(str(self.path), "w", format=CONTAINERS[self.target.path.suffix.lower()])
            )
            stream: Any = self.container.add_stream(
                self.codec.encoder, rate=self.clip.rate.limit_denominator(100_000)
            )
            self.stream = stream
            height, width = self.clip.size
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = _pixels(self.codec)
            context = stream.codec_context
            context.time_base = self.clip.time_base
            context.color_primaries, context.color_trc, context.colorspace = kind.tags
            context.color_range = 1
            context.options = self._settings()
            if self.codec.tag and self.target.path.suffix.lower() != ".mkv":
                context.codec_tag = self.codec.tag
            self.audio = Audio(self.clip, self.container) if self._with_audio() else None
        except av.FFmpegError as err:
            raise SetupError(f"{self.target.path}: cannot be written ({err.strerror})") from err

    def _with_audio(self) -> bool:
        return self.options.audio and self.clip.has_audio

    def _settings(self) -> dict[str, str]:
        codec, options = self.codec, self.options
        settings = {}
        if codec.crf is not None:
            settings["crf"] = str(codec.crf if options.crf is None else options.crf)
        if codec.preset is not None:
            settings["preset"] = options.preset or codec.preset
        return settings | PRIVATE[codec.name](self.target.transfer, self.grade)

    def take(self, now: Timed, radiance: Radiance) -> None:
        """Encode a frame, and copy the audio up to it."""
        self.first = now.pts if self.first is None else self.first
        seconds = float((now.pts - self.first) * self.clip.time_base)
        planes = self.look.planes(radiance, seconds, now.scene)
        frame = video_frame(planes, _pixels(self.codec))
        frame.pts, frame.time_base = now.pts - self._origin(), self.clip.time_base
        kind = TRANSFERS[self.target.transfer]  # ProRes takes its tags from the frames
        frame.color_primaries, frame.color_trc, frame.colorspace = kind.tags
        frame.color_range = 1
        self._mux(self.stream.encode(frame))
        if self.audio is not None:
            self.audio.until(float(now.pts * self.clip.time_base), self._origin())

    def _origin(self) -> int:
        """The time stamp that becomes 0: that of the first frame written."""
        assert self.first is not None
        return self.first

    def _mux(self, packets: Any) -> None:  # noqa: ANN401
        import av

        try:
            self.container.mux(packets)
        except av.FFmpegError as err:
            raise SetupError(f"{self.target.path}: cannot be written ({err.strerror})") from err

    def finish(self) -> None:
        """Flush, add what is known only now, and give the file its name."""
        if self.first is None:
            self.abandon()
            return
        self._mux(self.stream.encode(None))
        if self.audio is not None:
            self.audio.until(None, self._origin())
            self.audio.close()
        self.container.close()
        if self.target.transfer == "pq":
            self._write_levels()
        self.done = True
        self.stack.close()

    def _write_levels(self) -> None:
        cll, fall = light_level.numbers(self.look.light.content, self.look.light.average)
        if self.codec.name in light_level.MARKS:
            light_level.patch(self.path, self.codec.name, cll, fall)
        if self.target.path.suffix.lower() in (".mp4", ".mov"):
            boxes = light_level.mastering_box(self.grade.peak) + light_level.level_box(cll, fall)
            light_level.add_boxes(self.path, boxes)

    def abandon(self) -> None:
        """Remove what was written; or complete it, where an early end was asked for."""
        if self.done:
            return
        if self.options.keep_partial and self.first is not None:
            self.finish()
            return
        self.done = True
        self.stack.pop_all().__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)

    def facts(self) -> dict[str, Any]:
        """MaxCLL and MaxFALL of PQ."""
        if self.target.transfer != "pq":
            return {}
        cll, fall = light_level.numbers(self.look.light.content, self.look.light.average)
        return {"max_cll": cll, "max_fall": fall}


CONTAINERS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov", ".webm": "webm"}


def _pixels(codec: Codec) -> str:
    depth = "" if codec.bits[0] == 8 else f"{codec.bits[0]}le"
    return f"yuv42{0 if codec.halved else 2}p{depth}"


def _of_hevc(transfer: str, grade: Grade) -> dict[str, str]:
    said = ["log-level=error", "info=0", "repeat-headers=1"]
    if transfer == "sdr":
        said += ["colorprim=bt709", "transfer=bt709", "colormatrix=bt709"]
    else:
        curve = "smpte2084" if transfer == "pq" else "arib-std-b67"
        said += ["colorprim=bt2020", f"transfer={curve}", "colormatrix=bt2020nc", "chromaloc=2"]
    if transfer == "pq":
        cll, fall = light_level.PLACEHOLDER
        said += ["hdr10=1", "hdr10-opt=1", f"max-cll={cll},{fall}"]
        said += ["master-display=" + MASTER.format(peak=round(grade.peak * 10_000))]
    return {"x265-params": ":".join([*said, "range=limited"])}


def _of_av1(transfer: str, grade: Grade) -> dict[str, str]:
    if transfer != "pq":
        return {}
    cll, fall = light_level.PLACEHOLDER
    master = MASTER_AV1.format(peak=f"{grade.peak:g}")
    return {"svtav1-params": f"mastering-display={master}:content-light={cll},{fall}"}


def _of_prores(_transfer: str, _grade: Grade) -> dict[str, str]:
    return {"profile": "3", "vendor": "apl0"}


def _of_h264(_transfer: str, _grade: Grade) -> dict[str, str]:
    return {}


PRIVATE = {"hevc": _of_hevc, "h264": _of_h264, "av1": _of_av1, "prores": _of_prores}


def video_frame(planes: Planes, pixels: str) -> Any:  # noqa: ANN401  av.VideoFrame
    """A frame of these planes, for an encoder."""
    import av

    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixels)
    for plane, codes in zip(frame.planes, planes, strict=True):
        kind = codes.dtype
        rows = np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // kind.itemsize)
        rows[: codes.shape[0], : codes.shape[1]] = codes
    return frame


class Audio:
    """Copies the clip's audio packets, as they are, between the frames."""

    def __init__(self, clip: Clip, container: Any) -> None:  # noqa: ANN401
        import av

        self.clip, self.output = clip, container
        self.source = opened(clip.path)
        try:
            self.streams = {
                stream.index: container.add_stream_from_template(stream)
                for stream in self.source.streams.audio
            }
        except (ValueError, av.FFmpegError) as err:
            self.source.close()
            raise InputError(
                f"{clip.path}: its audio cannot be copied into this kind of file ({err})",
                hint="write .mkv or .mov, or use --no-audio",
            ) from err
        self.packets: Iterator[Any] = iter(self.source.demux(*self.source.streams.audio))
        self.waiting: Any = None

    def until(self, seconds: float | None, origin: int) -> None:
        """Copy what begins before a time of the clip; all that is left for None."""
        start = origin * self.clip.time_base
        while (packet := self._next()) is not None:
            begins = packet.pts * packet.time_base
            if seconds is not None and begins > seconds:
                return
            self.waiting = None
            if begins + (packet.duration or 0) * packet.time_base <= start and start > 0:
                continue
            shift = Fraction(start) / packet.time_base
            stream = self.streams[packet.stream.index]
            packet.pts -= round(shift)
            packet.dts = packet.pts if packet.dts is None else packet.dts - round(shift)
            packet.stream = stream
            self.output.mux(packet)

    def _next(self) -> Any:  # noqa: ANN401
        while self.waiting is None:
            packet = next(self.packets, None)
            if packet is None:
                return None
            if packet.pts is not None:
                self.waiting = packet
        return self.waiting

    def close(self) -> None:
        """Close the clip again."""
        self.source.close()


# --- EXR frames -------------------------------------------------------------------------------


class ExrFolder:
    """One EXR per frame, named by the frame's number; each is whole or not there."""

    def __init__(self, target: Target, clip: Clip, options: EncodeOptions) -> None:
        self.target, self.clip, self.options = target, clip, options
        self.written = 0
        make_folder(target.path)
        self.store = WriteOptions(exr_type=options.exr_type, exr_compression=options.compression)

    def path_of(self, index: int) -> Path:
        """The file of a frame."""
        return self.target.path / EXR_NAME.format(index)

    def has(self, index: int) -> bool:
        """Whether a frame need not be made again."""
        return self.options.resume and self.path_of(index).is_file()

    def take(self, now: Timed, radiance: Radiance) -> None:
        """Write a frame."""
        if self.has(now.index):
            return
        attributes = {
            "framesPerSecond": f"{self.clip.rate.numerator}/{self.clip.rate.denominator}",
            "imageCounter": now.index,
            "hdrcli:seconds": float(now.pts * self.clip.time_base),
            "hdrcli:scale": float(radiance.exposure),
            "hdrcli:frame_exposure": float(now.frame.exposure or 0),
            "hdrcli:source": str(self.clip.path.resolve()),
        }
        formats.write(
            self.path_of(now.index),
            replace(radiance, pixels=np.asarray(radiance.pixels)),
            overwrite=self.options.overwrite,
            options=self.store,
            attributes=attributes,
        )
        self.written += 1

    def finish(self) -> None:
        """Nothing is left to do."""

    def abandon(self) -> None:
        """The frames that are whole stay, for --resume."""

    def facts(self) -> dict[str, Any]:
        """How many frames were written now."""
        return {"exr_frames": self.written}
