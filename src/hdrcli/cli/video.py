"""``hdrcli video``."""

import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hdrcli.cli import display, options
from hdrcli.cli.options import EXPOSURE, MERGE, OUTPUT, TONE

if TYPE_CHECKING:
    from hdrcli.video import Target
    from hdrcli.video.given import Given

TIME = "Time"
EXR = ".exr"


def parse_rate(text: str) -> Fraction:
    """``25``, ``23.976``, ``24000/1001``: frames per second."""
    try:
        rate = Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as err:
        raise typer.BadParameter(f"{text!r} is not a frame rate such as 25 or 24000/1001") from err
    if not 0 < rate <= 1000:
        raise typer.BadParameter("a frame rate lies between 0 and 1000")
    return {Fraction("23.976"): Fraction(24000, 1001), Fraction("29.97"): Fraction(30000, 1001),
            Fraction("59.94"): Fraction(60000, 1001)}.get(rate, rate)  # fmt: skip


def parse_pattern(text: str) -> options.Numbers:
    """``0,1``: which exposure each frame of a period has."""
    if not re.fullmatch(r"\d(,\d)+", text.replace(" ", "")):
        raise typer.BadParameter(f"{text!r} is not a pattern such as 0,1 or 0,1,2")
    return options.Numbers(float(n) for n in text.split(","))


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CLIP",
            help="A video, a folder of pictures, or a pattern such as frames/%04d.png.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        list[Path],
        typer.Option(
            "--output",
            "-o",
            help="File to write: .mp4 .mkv .mov .webm, or a folder for EXR frames. "
            "Repeat for more.",
            show_default=False,
        ),
    ],
    exposures: Annotated[
        str,
        typer.Option(
            "--exposures",
            rich_help_panel=EXPOSURE,
            metavar="alternating|LIST",
            help="alternating finds them from the pixels; or seconds of one period, in the order "
            "of the frames, such as 1/1000,1/60.",
        ),
    ] = "alternating",
    evs: Annotated[
        options.Numbers | None,
        typer.Option(
            "--ev",
            "--evs",
            rich_help_panel=EXPOSURE,
            metavar="LIST",
            parser=options.parse_evs,
            help="Stops of one period, in the order of the frames, such as 0,3; + is brighter.",
        ),
    ] = None,
    pattern: Annotated[
        options.Numbers | None,
        typer.Option(
            "--pattern",
            rich_help_panel=EXPOSURE,
            metavar="LIST",
            parser=parse_pattern,
            help="Which of these exposures frame 0, 1, ... has, such as 1,0.",
        ),
    ] = None,
    response: Annotated[
        str,
        typer.Option(
            "--response",
            rich_help_panel=EXPOSURE,
            metavar="NAME|FILE",
            help="Camera curve: auto, srgb, linear, gamma2.2, bt709, pq, hlg, or a file.",
        ),
    ] = "auto",
    backend: Annotated[
        Literal["auto", "average", "flowmerge", "deephdrvideo"],
        typer.Option("--backend", "-b", rich_help_panel=MERGE, help="How to merge."),
    ] = "auto",
    deghost: Annotated[
        Literal["none", "low", "medium", "high"],
        typer.Option(
            "--deghost", rich_help_panel=MERGE, help="How firmly what moved is taken out."
        ),
    ] = "medium",
    stabilize: Annotated[
        bool,
        typer.Option(
            "--stabilize",
            rich_help_panel=MERGE,
            help="Bring neighbours to each frame by a similarity first, for a jerking camera; "
            "the film keeps its movement.",
        ),
    ] = False,
    transfer: Annotated[
        Literal["pq", "hlg", "sdr"],
        typer.Option(
            "--transfer",
            rich_help_panel=OUTPUT,
            help="Of every -o: pq (HDR10), hlg, or sdr (tone mapped).",
        ),
    ] = "pq",
    codec: Annotated[
        Literal["auto", "hevc", "h264", "av1", "prores"],
        typer.Option(
            "--codec",
            rich_help_panel=OUTPUT,
            help="Of every -o; auto: HEVC, H.264 for sdr, ProRes for .mov, AV1 for .webm.",
        ),
    ] = "auto",
    sdr: Annotated[
        Path | None,
        typer.Option("--sdr", rich_help_panel=OUTPUT, help="A tone-mapped video besides."),
    ] = None,
    hlg: Annotated[
        Path | None, typer.Option("--hlg", rich_help_panel=OUTPUT, help="An HLG video besides.")
    ] = None,
    peak_nits: Annotated[
        float,
        typer.Option(
            "--peak-nits",
            rich_help_panel=TONE,
            min=203.0,
            max=10000.0,
            help="Brightest light of PQ, cd/m²; brighter highlights roll off to it.",
        ),
    ] = 1000.0,
    reference_white: Annotated[
        float,
        typer.Option(
            "--reference-white",
            rich_help_panel=TONE,
            min=50.0,
            max=1000.0,
            help="Light of diffuse white in PQ, cd/m².",
        ),
    ] = 203.0,
    exposure: Annotated[
        float,
        typer.Option(
            "--exposure", rich_help_panel=TONE, min=-8.0, max=8.0, help="Stops brighter, of HDR."
        ),
    ] = 0.0,
    tmo: options.Tmo = "photo",
    tmo_params: options.TmoParam = None,
    crf: Annotated[
        int | None,
        typer.Option(
            "--crf", rich_help_panel=OUTPUT, min=0, max=63, help="Quality; less is better."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", rich_help_panel=OUTPUT, help="Speed of the encoder, in its own words."
        ),
    ] = None,
    exr_type: Annotated[
        Literal["half", "float"],
        typer.Option("--exr-type", rich_help_panel=OUTPUT, help="Sample type of EXR frames."),
    ] = "half",
    compression: Annotated[
        Literal["none", "rle", "zips", "zip", "piz", "pxr24", "dwaa", "dwab"],
        typer.Option("--compression", rich_help_panel=OUTPUT, help="Compression of EXR frames."),
    ] = "zip",
    audio: Annotated[
        bool, typer.Option("--audio/--no-audio", rich_help_panel=OUTPUT, help="Copy the audio.")
    ] = True,
    start: Annotated[
        float, typer.Option("--start", rich_help_panel=TIME, min=0.0, help="Seconds to skip.")
    ] = 0.0,
    duration: Annotated[
        float | None,
        typer.Option("--duration", rich_help_panel=TIME, min=0.0, help="Seconds to merge."),
    ] = None,
    fps: Annotated[
        Fraction,
        typer.Option(
            "--fps",
            rich_help_panel=TIME,
            metavar="RATE",
            parser=parse_rate,
            help="Frames per second of pictures, which have no time.",
        ),
    ] = "25",  # type: ignore[assignment]  # read by the parser
    keep_partial: Annotated[
        bool,
        typer.Option(
            "--keep-partial",
            rich_help_panel=OUTPUT,
            help="When interrupted, keep what is done as a shorter video.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", rich_help_panel=OUTPUT, help="Keep the EXR frames that are there."
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    tile: options.Tile = None,
    threads: options.Threads = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="Merge in chunks on the workers of a Dask scheduler, tcp://HOST:8786; they must "
            "see the same files under the same names.",
        ),
    ] = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Merge a clip whose frames alternate between two or three exposures into HDR video.

    [dim]hdrcli video in.mp4 --exposures alternating -o out.mp4[/]
    """
    from hdrcli.video import EncodeOptions, VideoOptions, video_file

    display.talk(verbose=verbose, quiet=quiet)
    targets = _targets(output, transfer, codec, sdr, hlg)
    chosen = VideoOptions(
        given=_given(exposures, evs, pattern),
        response=response,
        backend=backend,
        deghost=deghost,
        stabilize=stabilize,
        tmo=tmo,
        tmo_params={p.name: p.value for p in tmo_params or ()},
        exposure=exposure,
        peak_nits=peak_nits,
        reference_white=reference_white,
        start=start,
        duration=duration,
        fps=fps,
        device=device,
        precision=precision,
        tile=tile,
        threads=threads,
        encode=EncodeOptions(
            crf, preset, overwrite, audio, keep_partial, resume, exr_type, compression
        ),
    )
    with display.progress(quiet=quiet) as progress:
        if scheduler is None:
            outcome = video_file(source, targets, chosen, progress)
        else:
            from hdrcli.batch.chunks import video_on_cluster

            outcome = video_on_cluster(source, targets, scheduler, chosen, progress)
    report = outcome.as_dict()
    display.facts(report)
    if json:
        display.as_json(report)
    else:
        _say_exposures(report, quiet=quiet)
        display.paths(outcome.outputs, quiet=quiet)


def _targets(
    output: list[Path], transfer: str, codec: str, sdr: Path | None, hlg: Path | None
) -> list["Target"]:
    from hdrcli.errors import InputError
    from hdrcli.video import Target

    targets = [Target(path, "exr") if _is_folder(path) else Target(path, transfer, codec)
               for path in output]  # fmt: skip
    if sdr is not None:
        targets.append(Target(sdr, "sdr"))
    if hlg is not None:
        targets.append(Target(hlg, "hlg"))
    named = [target.path.resolve() for target in targets]
    for path in {path for path in named if named.count(path) > 1}:
        raise InputError(f"{path}: named twice", hint="give every output a name of its own")
    return targets


def _is_folder(path: Path) -> bool:
    return path.is_dir() or not path.suffix


def _given(exposures: str, evs: options.Numbers | None, pattern: options.Numbers | None) -> "Given":
    from hdrcli.video.given import Given

    places = None if pattern is None else tuple(int(n) for n in pattern)
    if exposures in ("alternating", "auto"):
        return Given(None if evs is None else tuple(evs), None, places)
    if evs is not None:
        raise typer.BadParameter("give --exposures or --ev, not both")
    return Given(None, tuple(options.parse_times(exposures)), places)


def _say_exposures(report: dict[str, object], *, quiet: bool) -> None:
    """What was found, on stderr: one should see it without asking."""
    if quiet:
        return
    evs = report["evs"]
    assert isinstance(evs, list)
    steps = ", ".join(f"{ev:+.2f}" for ev in evs)
    first = report["first"]
    typer.echo(
        f"exposures: period {report['period']}, {steps} EV, frame 0 at place {first} "
        f"(by {report['exposure_source']}; {report['response']})",
        err=True,
    )
