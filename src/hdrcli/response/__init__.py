"""Camera response: how a frame's codes become light.

A curve is known (sRGB, gamma, linear, a profile's, a file's) or recovered from the bracket.
``auto`` recovers it where the bracket says enough about it and what the file claims does not
explain the frames; else it keeps the claim.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdrcli.errors import BracketError, InputError
from hdrcli.frames import LINEAR, SRGB, Bracket, Frame, Response, sampled
from hdrcli.response import classic, files, highlights, recover
from hdrcli.response.pairs import NEAR_EV, Pairs, pairs_of, partners_of, systematic
from hdrcli.response.samples import Samples, take
from hdrcli.response.white import told

__all__ = ["ResponseFit", "apply_response", "known", "load", "recover_response", "save"]

load = files.load
save = files.save

FEWEST_PAIRS = 400  # a recovered curve rests on at least so many
WIDEST_GAP = 0.35  # of the code range that may lie outside what the pairs cover
NOTICEABLE_EV = 0.03  # a prior this near to the data is kept exactly
BETTER = 0.7  # a recovered curve leaves at most this part of the prior's error
AGREED = 0.85  # of the pairs agree with their curve where no frame is of another scene
FOREIGN = 0.15  # more of them agree once such a frame is left out
WORST_EV = 0.5  # a fit worse than this means the frames do not belong together


@dataclass(frozen=True, eq=False)
class ResponseFit:
    """Which curve was chosen, and how well it explains the bracket.

    ``residual`` is the systematic error left, in EV, of the frames against each other;
    ``before`` that of the prior; both inf where nothing could be compared. ``confidence`` is
    0 (a guess) to 1.
    """

    response: Response
    method: str
    residual: float
    before: float
    confidence: float
    why: str


def known(name: str) -> Response | None:
    """The curve of that name: srgb, linear, gamma, gamma2.2, gamma:2.2. None if there is none."""
    word = name.strip().lower()
    if word in NAMED:
        return NAMED[word]
    if not word.startswith("gamma"):
        return None
    try:
        exponent = float(word[5:].lstrip(":=") or 2.2)
    except ValueError:
        return None
    if not 0.2 <= exponent <= 5:
        raise InputError(f"--response {name}: an exponent between 0.2 and 5 is expected")
    return sampled(f"gamma {exponent:g}", lambda code: np.asarray(code**exponent))


NAMED = {"srgb": SRGB, "linear": LINEAR}


def apply_response(
    bracket: Bracket, choice: str = "auto", *, samples: Samples | None = None
) -> tuple[Bracket, ResponseFit]:
    """Give every frame the chosen curve. Float frames are linear and stay so.

    ``choice`` is auto, the name of a known curve, a method of METHODS, or a path. Raises
    InputError where it is none of these, BracketError where a method named outright has too
    little to go on. With ``samples`` the frames are also told whether they make white what nearly
    clips: see highlights.py.
    """
    if all(not frame.levels for frame in bracket.frames):
        return bracket, ResponseFit(LINEAR, "linear", 0.0, 0.0, 1.0, "float frames are linear")
    if choice in METHODS:
        fit = recover_response(bracket.frames, method=choice, samples=samples)
    else:
        fit = _fixed(choice)
    if fit.method != "prior":
        changed = (replace(f, response=fit.response) if f.levels else f for f in bracket.frames)
        bracket = bracket.with_frames(changed)
    if samples is None or not all(frame.levels for frame in bracket.frames):
        return bracket, fit
    fit = replace(fit, why=told(fit.why, samples.white))
    if highlights.washes(samples, bracket.evs, bracket.ref.response):
        bracket = bracket.with_frames(replace(f, washed=True) for f in bracket.frames)
        fit = replace(fit, why=f"{fit.why}; colours that nearly clip are whiter than their light")
    return bracket, fit


def _fixed(choice: str) -> ResponseFit:
    response = known(choice)
    if response is None:
        if not Path(choice).suffix:
            raise InputError(
                f"--response {choice}: no such response",
                hint=f"one of {', '.join([*METHODS, *NAMED])}, gamma2.2, or a file",
            )
        response = load(Path(choice))
    return ResponseFit(response, response.name, math.inf, math.inf, 1.0, "as asked")


def recover_response(
    frames: Sequence[Frame], *, method: str = "auto", samples: Samples | None = None
) -> ResponseFit:
    """Recover one curve, shared by the channels, from frames of known exposure.

    ``auto`` returns the prior (method "prior") where the bracket does not support a recovery
    or the prior explains it. Any other method recovers, or raises BracketError.
    """
    coded = [frame for frame in frames if frame.levels]
    prior = coded[0].response
    reason = _unsupported(coded)
    if reason:
        return _refuse(method, prior, reason)
    evs = np.log2([frame.exposure for frame in coded if frame.exposure is not None])
    samples = take(coded) if samples is None else samples
    pairs = pairs_of(samples, partners_of(evs), prior)
    covered = _coverage(pairs)
    if len(pairs.dark) < FEWEST_PAIRS or covered < 1 - WIDEST_GAP:
        return _refuse(method, prior, "too few unclipped points are seen by two frames")
    if method == "auto":
        return _auto(pairs, evs, prior, covered)
    response = METHODS[method](samples, evs, prior)
    before, after = (systematic(pairs, evs, r) for r in (prior, response))
    return ResponseFit(response, method, after, before, covered, "as asked")


def _auto(pairs: Pairs, evs: NDArray[np.float64], prior: Response, covered: float) -> ResponseFit:
    response, agreeing = _best_agreed(pairs, evs, prior)
    before = systematic(agreeing, evs, prior)
    if before < NOTICEABLE_EV:
        why = f"{prior.name} explains the frames within {before:.3f} EV"
        return ResponseFit(prior, "prior", before, before, covered, why)
    after = systematic(agreeing, evs, response)
    if after > WORST_EV or after > BETTER * before:
        why = f"no curve explains the frames better than {prior.name} ({before:.2f} EV)"
        return ResponseFit(prior, "prior", before, before, 0.3 * covered, why)
    why = f"{prior.name} is off by {before:.2f} EV, the recovered curve by {after:.3f} EV"
    return ResponseFit(response, "recovered", after, before, covered, why)


def _best_agreed(pairs: Pairs, evs: NDArray[np.float64], prior: Response) -> tuple[Response, Pairs]:
    """The recovered curve; without the one frame that agrees with no other, if there is one."""
    response, agreeing = recover.recovered(pairs, evs, prior)
    share = len(agreeing.dark) / len(pairs.dark)
    if share > AGREED or len(evs) < 3:
        return response, agreeing
    for frame in range(len(evs)):
        rest = pairs.only(pairs.without(frame))
        if len(rest.dark) < FEWEST_PAIRS:
            continue
        other, inliers = recover.recovered(rest, evs, prior)
        if len(inliers.dark) / len(rest.dark) > max(share + FOREIGN, AGREED):
            response, agreeing = other, inliers
            share = len(inliers.dark) / len(rest.dark) - FOREIGN
    return response, agreeing


def _unsupported(coded: Sequence[Frame]) -> str:
    """Why nothing can be recovered from these frames, or nothing."""
    if len(coded) < 2:
        return "fewer than two frames have a response"
    first = coded[0].response.samples
    if not all(np.array_equal(first, frame.response.samples) for frame in coded[1:]):
        return "the frames have different profiles"
    evs = np.log2([frame.exposure for frame in coded if frame.exposure is not None])
    if len(evs) < len(coded):
        return "the exposures are not known"
    if np.ptp(evs) < NEAR_EV:
        return "all frames have one exposure"
    return ""


def _refuse(method: str, prior: Response, reason: str) -> ResponseFit:
    if method == "auto":
        return ResponseFit(prior, "prior", math.inf, math.inf, 0.0, f"{prior.name}: {reason}")
    raise BracketError(
        f"the response cannot be recovered by {method}: {reason}",
        hint="--response auto or srgb",
    )


def _coverage(pairs: Pairs) -> float:
    """The part of the code range that takes part in pairs, 0 to 1."""
    codes = np.concatenate([pairs.dark, pairs.bright])
    counts, _ = np.histogram(codes, bins=20, range=(0, 1))
    return float(np.mean(counts >= 8))


Method = Callable[[Samples, NDArray[np.float64], Response], Response]
METHODS: dict[str, Method] = {
    "auto": recover.from_samples,
    "spline": recover.from_samples,
    "debevec": classic.debevec,
    "robertson": classic.robertson,
    "mitsunaga": classic.mitsunaga,
}
