"""A clip of alternating exposures becomes HDR video: the program on one page."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hdrcli import motion as still_motion
from hdrcli import response, tonemap
from hdrcli.backends.registry import Progress, Settings, silent
from hdrcli.errors import InputError
from hdrcli.frames import Radiance, Response
from hdrcli.strips import default_threads
from hdrcli.video import encode, look
from hdrcli.video.clip import BT709, HLG, PQ, Clip, Timed, open_clip
from hdrcli.video.encode import EncodeOptions, Sink, Target
from hdrcli.video.exposures import Pattern
from hdrcli.video.given import Given, pattern_of
from hdrcli.video.merge import AUTO, Merger, load_merger
from hdrcli.video.phase import Phase
from hdrcli.video.probe import Probe
from hdrcli.video.stabilise import steadied
from hdrcli.video.stages import Worker, ahead, side_by_side
from hdrcli.video.windows import Window, windows

log = logging.getLogger("hdrcli")

SURVEY_SECONDS = 3.0
DARK = {False: 3 / 255, True: 9 / 255}  # codes up to here say only "dark"; by crushed blacks
SURVEY_FRAMES = (12, 72)  # at least and at most
KEPT_BYTES = 200_000_000  # of frames that need not be decoded again after the survey


@dataclass(frozen=True)
class VideoOptions:
    """Everything a clip can be told."""

    given: Given = field(default_factory=Given)
    response: str = "auto"
    backend: str = "auto"
    deghost: str = "medium"
    stabilize: bool = False  # neighbours, by a similarity, before anything else
    tmo: str = tonemap.DEFAULT
    tmo_params: Mapping[str, float] = field(default_factory=dict)
    exposure: float = 0.0  # stops brighter, of the HDR outputs
    peak_nits: float = 1000.0
    reference_white: float = 203.0
    start: float = 0.0
    duration: float | None = None
    fps: Fraction = Fraction(25)  # of folders of pictures
    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    threads: int | None = None
    encode: EncodeOptions = field(default_factory=EncodeOptions)


@dataclass
class VideoOutcome:
    """What was done."""

    outputs: list[Path]
    facts: dict[str, Any]
    seconds: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        spent = {stage: round(value, 3) for stage, value in self.seconds.items()}
        return {"outputs": [str(p) for p in self.outputs], **self.facts, "seconds": spent}


class Clock:
    """Adds up what each stage takes; stages of several threads overlap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one piece of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self.lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def timed(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        """The same items, the time to make each counted."""
        with closing(items):  # type: ignore[type-var]
            while True:
                with self.stage(name):
                    item = next(items, None)
                if item is None:
                    return
                yield item


def video_file(
    source: str | Path,
    targets: Sequence[Target],
    options: VideoOptions | None = None,
    progress: Progress | None = None,
) -> VideoOutcome:
    """Merge a clip and write every target.

    ``source`` is a video, a folder, or a pattern of pictures. Raises InputError for what cannot
    be used, SetupError for what the machine lacks; what can fail early fails before the first
    frame is merged.
    """
    chosen, say, clock = options or VideoOptions(), progress or silent, Clock()
    ready = prepared(source, targets, chosen, clock, say)
    merger = merger_for(ready.pattern, chosen)
    done = partial(is_done, targets, chosen.encode)
    merged = merging(ready.reel.take(), ready.phase, merger, chosen, clock, done)
    return finished(ready, merged, targets, chosen, clock, say)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A clip that is known well enough to be merged."""

    clip: Clip
    pattern: Pattern
    grade: look.Grade
    phase: Phase
    reel: "Reel"


def prepared(
    source: str | Path,
    targets: Sequence[Target],
    options: VideoOptions,
    clock: Clock,
    say: Progress,
) -> Prepared:
    """Check everything that can be wrong before the first frame, and find the exposures."""
    tonemap.settled(tonemap.operator_of(options.tmo), options.tmo_params)
    if options.deghost not in still_motion.STRENGTHS:
        raise InputError(f"--deghost {options.deghost}: not known")
    clip = open_clip(source, rate=options.fps)
    for target in targets:
        encode.check(target, clip, options.encode)
    say("exposures", 0.0)
    reel = Reel(clip, options)
    with clock.stage("exposures"):
        clip, pattern, grade = surveyed(clip, options, reel)
    log.info("exposures: %s", pattern.described())
    return Prepared(clip, pattern, grade, Phase(pattern), reel)


def merger_for(pattern: Pattern, options: VideoOptions) -> Merger:
    """The backend, for this clip."""
    anchor = pattern.exposures[pattern.anchor]
    return load_merger(options.backend, _settings(options), anchor, crushed=pattern.crushed)


def finished(
    ready: Prepared,
    merged: Iterator["Shown"],
    targets: Sequence[Target],
    options: VideoOptions,
    clock: Clock,
    say: Progress,
) -> VideoOutcome:
    """Write merged frames into every target, and tell what was done."""
    tell = counting(ready.clip, options, say)
    count = written(merged, ready.clip, targets, ready.grade, options, clock, tell)
    for broken in ready.phase.breaks:
        log.warning("%s", broken)
    return VideoOutcome(
        [target.path for target in targets],
        {**facts_of(ready.clip, ready.pattern, ready.phase, options), **count},
        clock.seconds,
    )


def _settings(options: VideoOptions) -> Settings:
    return Settings(
        threads=options.threads,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
    )


def counting(clip: Clip, options: VideoOptions, say: Progress) -> Callable[[int], None]:
    """Tells the progress by the number of frames done."""
    total = clip.count
    if options.duration is not None:
        limit = int(options.duration * clip.rate)
        total = limit if total is None else min(total, limit)
    return lambda done: say(
        f"frame {done}" + (f" of {total}" if total else ""), min(done / total, 1) if total else 0.0
    )


# --- survey -----------------------------------------------------------------------------------


class Reel:
    """The frames of a clip, the first of which may be looked at before they are taken.

    What was looked at is kept for the taking, as far as that is few bytes.
    """

    def __init__(self, clip: Clip, options: VideoOptions) -> None:
        self.open = partial(clip.frames, options.start, options.duration)
        self.frames: Iterator[Timed] = self.open()
        self.held: list[Timed] | None = []

    def first(self, count: int) -> Iterator[Timed]:
        """Look at so many frames."""
        size = 0
        for timed in islice(self.frames, count):
            size += timed.frame.codes.nbytes
            if size > KEPT_BYTES:
                self.held = None
            if self.held is not None:
                self.held.append(timed)
            yield timed

    def take(self) -> Iterator[Timed]:
        """All frames, from the first on; once only."""
        if self.held is None:
            self.close()
            self.frames = self.open()
        held, self.held = deque(self.held or ()), None
        with closing(self.frames):  # type: ignore[type-var]
            while held:
                yield held.popleft()
            yield from self.frames

    def close(self) -> None:
        """Stop decoding."""
        self.frames.close()  # type: ignore[attr-defined]


def survey(clip: Clip, frames: Reel) -> list[Probe]:
    """Probes of the first seconds."""
    most = int(np.clip(SURVEY_SECONDS * clip.rate, *SURVEY_FRAMES))
    return [Probe.of(timed) for timed in frames.first(most)]


VIDEO_CURVES = {"bt709": BT709, "pq": PQ, "hlg": HLG}


def curve_of(name: str) -> Response:
    """The curve called so, or in a file of that name. InputError where there is neither."""
    found = VIDEO_CURVES.get(name.lower()) or response.known(name)
    if found is not None:
        return found
    if not Path(name).suffix:
        known = ", ".join([*VIDEO_CURVES, *response.NAMED, "gamma2.2"])
        raise InputError(f"--response {name}: no such curve", hint=f"one of {known}, or a file")
    return response.load(Path(name))


def surveyed(
    clip: Clip, options: VideoOptions, frames: Reel | None = None
) -> tuple[Clip, Pattern, look.Grade]:
    """The pattern of the exposures and how HDR will be shown, both fixed for the clip."""
    claimed = clip.response if options.response == "auto" else curve_of(options.response)
    reel = frames or Reel(clip, options)
    probes = survey(clip, reel)
    if frames is None:
        reel.close()
    if not probes:
        raise InputError(f"{clip.path}: there are no frames there", hint="see --start, --duration")
    pattern = pattern_of(clip, probes, claimed, options.given, fixed=options.response != "auto")
    small = replace(look.rough(probes, pattern), primaries=clip.primaries)
    grade = look.grade_of(small, options.reference_white, options.peak_nits, options.exposure)
    return replace(clip, response=pattern.response), pattern, grade


# --- the chain --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shown:
    """One merged frame."""

    now: Timed
    radiance: Radiance


def merging(
    frames: Iterator[Timed],
    phase: Phase,
    merger: Merger,
    options: VideoOptions,
    clock: Clock,
    done: Callable[[int], bool] = lambda _index: False,
) -> Generator[Shown, None, None]:
    """Decode, follow the pattern, window, merge. Frames that are ``done`` are not merged."""
    pattern = phase.pattern
    exposed = exposed_as(phase.follow(ahead(clock.timed("decode", frames))), pattern)

    def work(window: Window) -> Shown:
        if done(window.now.index):
            return Shown(window.now, EMPTY)
        with clock.stage("merge"):
            return Shown(window.now, one_merged(window, merger, options))

    count = options.threads or default_threads()
    if not merger.side_by_side:
        count = 1
    yield from side_by_side(
        work, windows(exposed, pattern.period, distinct(pattern)), count, few_if_large
    )


def one_merged(window: Window, merger: Merger, options: VideoOptions) -> Radiance:
    """The window's frame, merged."""
    if options.stabilize:
        window = steadied(window)
    return merger.merge(window, options.deghost)


def few_if_large(window: Window) -> int:
    """How many windows may be merged at once, for the memory they take."""
    height, width = window.now.frame.size
    return max(1, AT_ONCE // (height * width))


AT_ONCE = 20_000_000  # pixels that may be merged at once: two frames of 4K, one of 8K
EMPTY = Radiance(np.zeros((1, 1, 3), np.float32))  # of a frame that need not be merged


def is_done(targets: Sequence[Target], options: EncodeOptions, index: int) -> bool:
    """Whether every output has this frame already: --resume of folders alone."""
    return options.resume and all(
        target.folder and (target.path / encode.EXR_NAME.format(index)).is_file()
        for target in targets
    )


def exposed_as(frames: Iterator[Timed], pattern: Pattern) -> Iterator[Timed]:
    """Frames with the exposure and the response that were found."""
    for timed in frames:
        frame = replace(
            timed.frame,
            exposure=pattern.exposures[timed.key],
            response=pattern.response,
            white=pattern.white if timed.frame.levels else 1.0,
        )
        yield replace(timed, frame=frame, dark=DARK[pattern.crushed])


def distinct(pattern: Pattern) -> dict[int, int]:
    """Which places of the pattern have one and the same exposure."""
    values = sorted({round(float(ev), 2) for ev in pattern.evs})
    return {key: values.index(round(float(ev), 2)) for key, ev in enumerate(pattern.evs)}


# --- outputs ----------------------------------------------------------------------------------


def written(
    merged: Iterator[Shown],
    clip: Clip,
    targets: Sequence[Target],
    grade: look.Grade,
    options: VideoOptions,
    clock: Clock,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """Encode every frame into every target, each in a thread. Returns what was counted."""
    sinks: list[Sink] = []
    workers: list[Worker[Shown]] = []
    count, clipped = 0, 0.0
    try:
        for target in targets:
            made = encode.look_for(target, grade, options.tmo, options.tmo_params)
            sink = encode.open_sink(target, clip, made, grade, options.encode)
            sinks.append(sink)
            workers.append(Worker(_encoder(sink, clock)))
        with closing(merged):  # type: ignore[type-var]
            for shown in merged:
                for worker in workers:
                    worker.put(shown)
                count += 1
                clipped += shown.radiance.clipped
                tell(count)
        for worker, sink in zip(workers, sinks, strict=True):
            worker.finish()
            sink.finish()
    except BaseException:
        for worker in workers:
            worker.abandon()
        for sink in sinks:
            sink.abandon()
        raise
    if not count:
        raise InputError(f"{clip.path}: no frame could be decoded")
    facts: dict[str, Any] = {"frames": count, "clipped_percent": round(100 * clipped / count, 3)}
    for sink in sinks:
        facts |= sink.facts()
    return facts


def _encoder(sink: Sink, clock: Clock) -> Callable[[Shown], None]:
    name = f"encode {sink.target.path.name}"

    def work(shown: Shown) -> None:
        with clock.stage(name):
            sink.take(shown.now, shown.radiance)

    return work


def facts_of(clip: Clip, pattern: Pattern, phase: Phase, options: VideoOptions) -> dict[str, Any]:
    """What was found of the clip, as plain data."""
    height, width = clip.size
    return {
        "size": [width, height],
        "fps": round(float(clip.rate), 4),
        "period": pattern.period,
        "first": pattern.first,
        "evs": [round(ev, 3) for ev in pattern.evs],
        "measured_evs": None
        if pattern.measured is None
        else [round(ev, 3) for ev in pattern.measured],
        "exposure_source": pattern.source,
        "response": pattern.response.name,
        "response_why": pattern.why,
        "breaks": [{"frame": b.frame, "what": b.what, "frames": b.frames} for b in phase.breaks],
        "backend": AUTO if options.backend == "auto" else options.backend,
    }
