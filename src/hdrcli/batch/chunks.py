"""Video on the workers of a Dask scheduler: a clip in chunks, merged as one machine would.

The exposures and the pattern of the whole clip are found here, once, by decoding it: a worker
gets the place in the pattern of each of its frames, and does not look for anything itself. Chunks
overlap by as many frames as a window reaches, so that the seams are those of any other frame.

Folders of EXR frames are written by the workers. A video file is one stream: its frames go
through a folder of EXR frames of full precision, and are encoded here, so that light levels, the
tone mapping that follows the scene, and the audio are those of one run.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hdrcli import formats
from hdrcli.backends.registry import Progress, silent
from hdrcli.batch.executors import Cluster
from hdrcli.errors import FormatError
from hdrcli.frames import Frame, Radiance
from hdrcli.video.clip import Clip, Timed
from hdrcli.video.encode import EXR_NAME, ExrFolder, Target
from hdrcli.video.exposures import Pattern
from hdrcli.video.run import (
    Clock,
    Prepared,
    Shown,
    VideoOptions,
    VideoOutcome,
    distinct,
    exposed_as,
    finished,
    is_done,
    merger_for,
    one_merged,
    prepared,
)
from hdrcli.video.windows import windows

LENGTH = 24  # frames of a chunk, at most
NO_PICTURE = Frame(np.zeros((1, 1, 3), np.uint8))


@dataclass(frozen=True)
class Place:
    """A frame of the clip, without its picture."""

    index: int
    pts: int
    key: int
    scene: int


@dataclass(frozen=True, eq=False)
class Chunk:
    """What a worker merges: the frames ``first`` to ``last`` of ``places``, which reach further
    on both sides."""

    clip: Clip
    pattern: Pattern
    places: tuple[Place, ...]
    first: int
    last: int
    targets: tuple[Target, ...]
    options: VideoOptions


def video_on_cluster(
    source: str | Path,
    targets: Sequence[Target],
    address: str,
    options: VideoOptions | None = None,
    progress: Progress | None = None,
) -> VideoOutcome:
    """Merge a clip on a cluster, whose workers see the same files under the same names.

    Raises what ``video_file`` does, and SetupError where no scheduler answers.
    """
    chosen, say, clock = options or VideoOptions(), progress or silent, Clock()
    ready = prepared(Path(source).resolve(), targets, chosen, clock, say)
    merger_for(ready.pattern, chosen)  # what it lacks is said before the work
    with ExitStack() as stack:
        cluster = Cluster(address)
        stack.callback(cluster.close)
        with clock.stage("decode"):
            places = list(_places(ready))
        folders = [replace(t, path=t.path.resolve()) for t in targets if t.folder]
        files = [target for target in targets if not target.folder]
        if files:
            room = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=".hdrcli-", dir=files[0].path.resolve().parent)
            )
            folders.append(Target(Path(room), "exr"))
        chunks = cut(ready, places, tuple(folders), chosen, temporary=bool(files))
        with clock.stage("merge"):
            clipped = _merged(cluster, chunks, say)
        shown = partial(_read_back, folders[-1].path) if files else _unread
        merged = (Shown(place_of(p), shown(p, clipped.get(p.index, 0.0))) for p in places)
        outcome = finished(ready, merged, files, chosen, clock, say)
    written = sum(target.folder for target in targets) and {"exr_frames": len(clipped)}
    return replace(
        outcome, outputs=[t.path for t in targets], facts={**outcome.facts, **(written or {})}
    )


def _places(ready: Prepared) -> Iterator[Place]:
    """The frames of the clip, each decoded for its brightness alone."""
    with closing(ready.reel.take()) as frames:  # type: ignore[type-var]
        for timed in ready.phase.follow(frames):
            yield Place(timed.index, timed.pts, timed.key, timed.scene)


def place_of(place: Place) -> Timed:
    """A frame without its picture, for what is encoded."""
    return Timed(NO_PICTURE, place.index, place.pts, place.key, place.scene)


def cut(
    ready: Prepared,
    places: Sequence[Place],
    folders: tuple[Target, ...],
    options: VideoOptions,
    *,
    temporary: bool,
) -> list[Chunk]:
    """The chunks of a clip. The last of ``folders`` is for frames to be encoded, where
    ``temporary``."""
    reach = 2 * ready.pattern.period  # as far as a window may have to look; see windows
    length = max(2, min(LENGTH, -(-len(places) // 2)))
    if temporary:
        whole = replace(options.encode, exr_type="float", compression="zip")  # nothing is lost
        options = replace(options, encode=whole)
    return [
        Chunk(
            ready.clip,
            ready.pattern,
            tuple(places[max(0, start - reach) : start + length + reach]),
            start,
            min(start + length, len(places)) - 1,
            folders,
            options,
        )
        for start in range(0, len(places), length)
    ]


def _merged(cluster: Cluster, chunks: Sequence[Chunk], say: Progress) -> dict[int, float]:
    """Merge the chunks; the share that clips, by frame."""
    futures: list[Future[dict[int, float]]] = [
        cluster.pool.submit(merge_chunk, chunk) for chunk in chunks
    ]
    clipped: dict[int, float] = {}
    for i, future in enumerate(as_completed(futures)):
        clipped |= future.result()
        say(f"chunk {i + 1} of {len(chunks)}", (i + 1) / len(chunks))
    return clipped


def merge_chunk(chunk: Chunk) -> dict[int, float]:
    """On a worker: merge a chunk into its folders; the share that clips, by frame."""
    sinks = [ExrFolder(target, chunk.clip, chunk.options.encode) for target in chunk.targets]
    merger = merger_for(chunk.pattern, chunk.options)
    done: Callable[[int], bool] = partial(is_done, chunk.targets, chunk.options.encode)
    clipped: dict[int, float] = {}
    frames = exposed_as(_pictures(chunk), chunk.pattern)
    for window in windows(frames, chunk.pattern.period, distinct(chunk.pattern)):
        if not chunk.first <= window.now.index <= chunk.last or done(window.now.index):
            continue
        radiance = one_merged(window, merger, chunk.options)
        for sink in sinks:
            sink.take(window.now, radiance)
        clipped[window.now.index] = radiance.clipped
    return clipped


def _pictures(chunk: Chunk) -> Iterator[Timed]:
    """The frames of a chunk and around it, with their places in the pattern."""
    clip, wanted = chunk.clip, {place.pts: place for place in chunk.places}
    with closing(clip.frames(_start(chunk))) as frames:  # type: ignore[type-var]
        for timed in frames:
            place = wanted.pop(timed.pts, None)
            if place is not None:
                yield replace(timed, index=place.index, key=place.key, scene=place.scene)
            if not wanted:
                return
    raise FormatError(
        f"{clip.path}: frame {min(place.index for place in wanted.values())} is not found by its "
        "time stamp",
        hint="merge this clip on one machine, without --scheduler",
    )


def _start(chunk: Chunk) -> float:
    """Seconds from the clip's first frame, or a little less."""
    clip, first = chunk.clip, chunk.places[0].pts
    origin = int(clip.tags.get("start_pts") or 0)
    return max(0.0, float((first - origin) * clip.time_base) - float(1 / clip.rate))


def _read_back(folder: Path, place: Place, clipped: float) -> Radiance:
    frame = formats.read(folder / EXR_NAME.format(place.index))
    return Radiance(np.asarray(frame.codes, np.float32), frame.primaries, clipped=clipped)


def _unread(_place: Place, clipped: float) -> Radiance:
    return Radiance(np.zeros((1, 1, 3), np.float32), clipped=clipped)
