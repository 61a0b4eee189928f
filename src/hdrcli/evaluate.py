"""How near merges come to known radiance: whole data sets, pairs of files, and shifted brackets.

``evaluate`` merges every bracket of a data set as ``hdrcli merge`` would and measures it by
``metrics``; ``compare`` measures files that are there already. Published results stand in
PUBLISHED, to be shown beside ours.
"""

import csv
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import formats, pipeline
from hdrcli import metrics as measures
from hdrcli.bracket import ResolvedBracket, read_bracket
from hdrcli.errors import HdrcliError, InputError
from hdrcli.frames import Frame, Radiance
from hdrcli.pipeline import MergeOptions
from hdrcli.train.data import STORED, Item, items, truth_of

SHIFTS = (0, 5, 10, 20)  # px, of APNT-Fusion's test of robustness
log = logging.getLogger(__name__)
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Published:
    """One row of a paper's table; None where it gives no number."""

    method: str
    data: str
    psnr_mu: float | None
    psnr_l: float | None
    ssim_mu: float | None = None
    ssim_l: float | None = None
    source: str = "SAFNet, ECCV 2024, table 2"
    backend: str | None = None  # the backend here that implements it

    def values(self) -> dict[str, float | None]:
        """By the names of our metrics."""
        return {
            "psnr-mu": self.psnr_mu,
            "psnr-l": self.psnr_l,
            "ssim-mu": self.ssim_mu,
            "ssim-l": self.ssim_l,
        }


_SETS: Mapping[str, str] = MappingProxyType(
    {
        "kalantari": "kalantari",
        "wu": "kalantari",
        "hdrgan": "kalantari",
        "patches": "kalantari",
        "tel": "tel",
        "deephdrvideo": "deephdrvideo",
    }
)
PUBLISHED: tuple[Published, ...] = (
    Published("Sen", "kalantari", 40.80, 38.11, 0.9808, 0.9721),
    Published("Kalantari", "kalantari", 42.67, 41.23, 0.9888, 0.9846),
    Published("DeepHDR (Wu)", "kalantari", 41.65, 40.88, 0.9860, 0.9858),
    Published("AHDRNet", "kalantari", 43.63, 41.14, 0.9900, 0.9702),
    Published("NHDRRNet", "kalantari", 42.41, 41.43, 0.9877, 0.9857),
    Published("HDR-GAN", "kalantari", 43.92, 41.57, 0.9905, 0.9865, backend="hdrgan"),
    Published("ADNet", "kalantari", 43.87, 41.69, 0.9925, 0.9885, backend="adnet"),
    Published(
        "PSFNet", "kalantari", 44.06, 41.57, 0.9907, 0.9867, "PSFNet, ACM MM 2021", "psfnet"
    ),
    Published(
        "APNT-Fusion", "kalantari", 43.96, 41.69, 0.9957, 0.9914, "APNT-Fusion, TIP 2022",
        "apntfusion",
    ),
    Published("FlexHDR", "kalantari", 44.35, 42.60, 0.9931, 0.9902),
    Published("HDR-Transformer", "kalantari", 44.32, 42.18, 0.9916, 0.9884),
    Published("HyHDRNet", "kalantari", 44.64, 42.47, 0.9915, 0.9894),
    Published("SCTNet", "kalantari", 44.49, 42.29, 0.9924, 0.9887),
    Published("SAFNet-S", "kalantari", 44.12, 42.50, 0.9928, 0.9907),
    Published("SAFNet", "kalantari", 44.66, 43.18, 0.9932, 0.9917),
    Published("AFUNet", "kalantari", 44.91, 42.59, 0.9923, 0.9906, "AFUNet's read-me"),
    Published("AHDRNet", "tel", 42.08, None, source="SCTNet's benchmark"),
    Published("HDR-Transformer", "tel", 42.39, None, source="SCTNet's benchmark"),
    Published("SCTNet", "tel", 42.55, None, source="SCTNet's benchmark"),
    Published(
        "DeepHDRVideo, two exposures, dynamic", "deephdrvideo", 45.46, None,
        source="DeepHDRVideo, ICCV 2021", backend="deephdrvideo",
    ),
    Published(
        "DeepHDRVideo, three exposures, dynamic", "deephdrvideo", 41.16, None,
        source="DeepHDRVideo, ICCV 2021", backend="deephdrvideo",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One bracket, measured. ``backend`` is the one that merged it, "file" for a given picture."""

    name: str
    backend: str
    values: Mapping[str, float]
    shift: int = 0


@dataclass(frozen=True)
class Table:
    """All that was measured, the means over it, and what papers report on the same data."""

    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)  # name of the bracket: what went wrong
    published: tuple[Published, ...] = ()

    def means(self) -> list[Row]:
        """The mean over the brackets for every backend and shift, in the order of appearance."""
        groups: dict[tuple[str, int], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.backend, row.shift), []).append(row)
        return [
            Row(
                "mean",
                backend,
                {name: float(np.mean([r.values[name] for r in rows])) for name in self.metrics},
                shift,
            )
            for (backend, shift), rows in groups.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "means": [asdict(row) for row in self.means()],
            "failed": dict(self.failed),
            "published": [asdict(row) for row in self.published],
        }

    def as_csv(self) -> str:
        """Every bracket and the means, a line each."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["bracket", "backend", "shift", *self.metrics])
        for row in (*self.rows, *self.means()):
            values = [f"{row.values[name]:.6g}" for name in self.metrics]
            writer.writerow([row.name, row.backend, row.shift, *values])
        return text.getvalue()


@dataclass(frozen=True)
class Request:
    """What to measure: which metrics, how merged, how many brackets, how far shifted.

    ``options`` are those of a merge; its backend is replaced by each of ``backends``, and its
    response by the data set's own where it is "auto". ``scale`` as ``metrics.measure`` takes it.
    """

    metrics: tuple[str, ...] = measures.DEFAULT
    backends: tuple[str, ...] = ("auto",)
    options: MergeOptions = field(default_factory=MergeOptions)
    scale: measures.Scale = "none"
    nits: float = 1000.0
    limit: int | None = None
    shifts: tuple[int, ...] = (0,)


def evaluate(roots: Sequence[Path], request: Request, progress: Report | None = None) -> Table:
    """Merge every bracket of the data sets by every backend and measure it.

    A bracket that cannot be merged or has no truth is reported in ``failed``; the others are
    measured. Raises InputError for a folder without a data set, an unknown metric or backend,
    and where nothing could be measured.
    """
    for name in request.metrics:
        measures.metric_of(name)
    for backend in request.backends:
        pipeline.check_options(replace(request.options, backend=backend))
    found = [item for root in roots for item in items(root)][: request.limit]
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for done, item in enumerate(found):
        if progress is not None:
            progress(item.name, done / len(found))
        try:
            rows += measured(item, request)
        except HdrcliError as err:
            log.warning("%s: %s", item.name, err)
            failed[item.name] = str(err)
    if not rows:
        raise InputError("nothing could be measured", hint=next(iter(failed.values()), None))
    data = {_SETS[item.layout] for item in found if item.layout in _SETS}
    return Table(
        tuple(rows), request.metrics, failed, tuple(p for p in PUBLISHED if p.data in data)
    )


def measured(item: Item, request: Request) -> list[Row]:
    """Merge one bracket by every backend, unshifted and shifted, and measure each."""
    truth = truth_of(item)
    resolved = bracket_of(item, request.options)
    rows = []
    for shift in request.shifts:
        moved = shifted(resolved, shift)
        for backend in request.backends:
            light, used = merged(moved, item, replace(request.options, backend=backend))
            values = measures.measure(
                light,
                truth,
                request.metrics,
                scale=request.scale,
                peak=item.top,
                nits=request.nits,
            )
            rows.append(Row(item.name, used, values, shift))
    return rows


def bracket_of(item: Item, options: MergeOptions) -> ResolvedBracket:
    """Read the frames of a bracket with the exposures that the data set gives.

    Raises InputError for AHDRNet's training patches, which are no photographs in files.
    """
    if item.layout == STORED:
        raise InputError(
            f"{item.name}: patches in HDF5 are for training",
            hint="evaluate on the photographs they were cut from",
        )
    return read_bracket(
        item.frames,
        evs=item.evs,
        reference=item.frames[item.reference].name,
        threads=options.threads,
    )


def merged(
    resolved: ResolvedBracket, item: Item, options: MergeOptions
) -> tuple[NDArray[np.float32], str]:
    """Merge; radiance with 1.0 the reference's white, and the backend that made it."""
    response = item.response if options.response == "auto" else options.response
    found = pipeline.merge(resolved, replace(options, response=response, anchor="reference"))
    if not isinstance(found.image, Radiance):
        raise InputError(
            f"backend {found.backend} makes a picture for the screen, not radiance",
            hint="choose another --backend",
        )
    return found.image.pixels.astype(np.float32), found.backend


def shifted(resolved: ResolvedBracket, pixels: int) -> ResolvedBracket:
    """Move every frame but the reference to the right, the border repeated (APNT-Fusion, IV-F).

    The frames keep their exposures and responses, so what is recovered from codes is the same.
    """
    if pixels == 0:
        return resolved
    bracket = resolved.bracket
    frames = [frame if frame is bracket.ref else _moved(frame, pixels) for frame in bracket.frames]
    return replace(resolved, bracket=bracket.with_frames(frames))


def _moved(frame: Frame, pixels: int) -> Frame:
    if not 0 < pixels < frame.size[1]:
        raise InputError(
            f"cannot shift {frame.name} by {pixels} pixels: it is {frame.size[1]} wide"
        )
    codes = np.pad(frame.codes, ((0, 0), (pixels, 0), (0, 0)), mode="edge")[:, :-pixels]
    return replace(frame, codes=np.ascontiguousarray(codes))


def compare(pairs: Iterable[tuple[Path, Path]], request: Request, peak: float = 1.0) -> Table:
    """Measure HDR files against their truths. Raises InputError for sizes that differ."""
    rows = []
    for estimate, truth in pairs:
        light, aim = (formats.read(path).linear() for path in (estimate, truth))
        values = measures.measure(
            light, aim, request.metrics, scale=request.scale, peak=peak, nits=request.nits
        )
        rows.append(Row(estimate.name, "file", values))
    return Table(tuple(rows), request.metrics)
