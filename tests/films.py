"""Films of known light: a wall and a thing that walks, in alternating exposures."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from hdrcli.color import rec709_encode, srgb_encode
from hdrcli.frames import Frame
from hdrcli.video.clip import Timed
from hdrcli.video.encode import video_frame
from hdrcli.video.example import planes_of
from hdrcli.video.planes import Levels

CURVES = {"srgb": (srgb_encode, 13), "bt709": (rec709_encode, 1)}


def wall(height=96, width=144, seed=0):
    """Smooth light from 0.004 to 8, (H, W, 3)."""
    import cv2

    rng = np.random.default_rng(seed)
    rough = rng.uniform(-1, 1, (height // 12, width // 12, 1)).astype(np.float32)
    stops = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    ramp = np.linspace(-6.5, 2.5, width, dtype=np.float32)
    light = np.exp2(np.clip(stops + ramp, -8, 3))[..., None]
    return (light * np.array([1.0, 0.9, 0.75], np.float32)).astype(np.float32)


def light_at(index, *, height=96, width=144, speed=0.0):
    """True light of a frame; with a speed, a disc walks by."""
    light = wall(height, width).copy()
    if speed:
        y, x = np.mgrid[:height, :width]
        centre = 20 + speed * index
        disc = (x - centre) ** 2 + (y - height / 2) ** 2 < (height / 6) ** 2
        texture = 0.5 + 0.3 * np.sin((x - centre) / 2) * np.sin(y / 3)
        light[disc] = texture[disc][:, None] * np.array([0.9, 0.3, 0.2], np.float32)
    return light


def codes_of(light, ev, rng=None, curve="srgb", noise=0.002):
    """Eight-bit codes of light exposed by ev stops."""
    exposed = light * np.float32(2.0**ev)
    if rng is not None:
        exposed = exposed + rng.normal(0, noise, light.shape) * np.sqrt(np.clip(exposed, 0.01, 1))
    return np.rint(255 * CURVES[curve][0](np.clip(exposed, 0, 1))).astype(np.uint8)


def film(count, evs=(0.0, 3.0), *, speed=0.0, seed=0, curve="srgb", **size):
    """Codes of every frame, and its exposure's place."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        light = light_at(i, speed=speed, **size)
        yield codes_of(light, evs[i % len(evs)], rng, curve), i % len(evs)


def timed(codes, index, **more):
    """One frame as a decoder gives it."""
    return Timed(Frame(codes, name=f"f{index}"), index, index, **more)


def write_video(
    path: Path,
    pictures,
    *,
    rate=Fraction(24),
    codec="libx264",
    pixels="yuv420p",
    tags=(1, 13, 1),
    stamps=None,
    base=None,
    audio=False,
    rotation=0,
    options=None,
):
    """Encode 8-bit codes; ``stamps`` are time stamps in units of ``base``."""
    import av

    bits = 10 if "10" in pixels else 8
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        pictures = list(pictures)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.time_base = base or 1 / rate
        context.color_primaries, context.color_trc, context.colorspace = tags
        context.color_range = 1
        context.options = options or {"crf": "6", "preset": "ultrafast"}
        if rotation:
            stream.set_display_rotation(rotation)
        sound = out.add_stream("aac", rate=48000) if audio else None
        for i, codes in enumerate(pictures):
            if pixels == "gray":
                frame = av.VideoFrame.from_ndarray(codes[..., 1], format="gray")
            else:
                frame = video_frame(planes_of(codes, Levels(bits)), pixels)
            frame.pts = i if stamps is None else stamps[i]
            frame.time_base = context.time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            wave = np.sin(np.arange(48000) / 20).astype(np.float32)[None]
            for at in range(0, 48000, 1024):
                part = av.AudioFrame.from_ndarray(wave[:, at : at + 1024], "fltp", "mono")
                part.sample_rate, part.pts = 48000, at
                out.mux(sound.encode(part))
            out.mux(sound.encode(None))
    return path


def write_pictures(folder: Path, pictures):
    """The frames as PNG files."""
    from hdrcli.formats import write_display_codes

    folder.mkdir(exist_ok=True)
    for i, codes in enumerate(pictures):
        write_display_codes(folder / f"{i:04d}.png", codes)
    return folder
