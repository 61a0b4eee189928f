"""The loops over the pixels that a merge waits for, as machine code: see native.py.

Arrays are flat here: three codes a pixel, a plane's rows one after the other. What they mean is
said where they are used.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hdrcli.native import inlined, kernel

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]  # the bits of half floats
Bytes = NDArray[np.uint8]
Indices = NDArray[np.uint16]
Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]
Entries = TypeVar("Entries", NDArray[np.uint8], NDArray[np.uint16], NDArray[np.float32])
Codes = TypeVar("Codes", NDArray[np.uint8], NDArray[np.uint16])

SMALLEST = np.uint32(113 << 23)  # bits of the smallest normal half, as a float
LARGEST = np.uint32(0x477FF000)  # of the smallest number that is rounded to infinity
ULP = np.uint32(126 << 23)  # of 0.5, whose last place is the last one of subnormal halves
BIAS = np.uint32(112 << 10)  # what the exponents of halves and floats differ by
DENORMAL = np.float32(2.0**-24)  # the smallest half
ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
SHARP, THREE = np.float32(-0.75), np.float32(3)
CODES = np.float32(255)
QUARTER, FAINTEST = np.float32(0.25), np.float32(1e-4)
FOUR, NEARLY_WHITE, DIMMEST = np.float32(4), np.float32(1 - 1e-5), np.float32(1e-6)
ROOT_TWO, LOG2_E = np.float32(2**0.5), np.float32(1.4426950408889634)
LN_2, NEARLY_ONE = np.float32(0.6931471805599453), np.float32(0.999)
LAST = np.float32(65535)
NEAR, FEW = 4096, 64  # pixels
ANY_CODE = 65536  # beyond all codes
NEITHER, CLIPS, IS_DARK = np.uint16(0), np.uint16(1), np.uint16(256)  # marks, to be added
LOW, DARK_BLOCK, TWO_DARK = np.uint16(255), np.uint16(16), np.uint8(32)
HEARD = np.float32(2)  # times the doubt: how far a guess of clipped light is heard


@inlined
def add_light(
    red: int,
    green: int,
    blue: int,
    light: Floats,
    levels: int,
    w: np.float32,
    at: int,
    total: Floats,
) -> None:
    """Add w X of the three codes, and w, to the sum that begins ``at``."""
    total[at] += w * light[red]
    total[at + 1] += w * light[levels + green]
    total[at + 2] += w * light[2 * levels + blue]
    total[at + 3] += w


@kernel
def accumulate(
    codes: tuple[Codes, ...],
    light: tuple[Floats, ...],
    weight: tuple[Floats, ...],
    belief: tuple[Floats, ...],
    doubted: Integers,
    fallback: Floats,
    total: Floats,
    levels: int,
    count: int,
    frames: int,
) -> None:
    """Add some frames to a weighted sum: w X of three channels, and w, for each pixel.

    Of each frame ``light`` is (3, levels), ``weight`` (levels), looked up at the largest channel.
    Where it is ``doubted``, ``belief`` (count) multiplies it; ``fallback`` is added. ``total`` is
    (count, 4); NEAR pixels of it are summed at a time, which stay in a cache.
    """
    for first in range(0, count, NEAR):
        last = min(first + NEAR, count)
        for k in range(frames):
            shown, curves, weights, sure, least = (
                codes[k],
                light[k],
                weight[k],
                belief[k],
                fallback[k],
            )
            if doubted[k]:
                for i in range(first, last):
                    red, green, blue = shown[3 * i], shown[3 * i + 1], shown[3 * i + 2]
                    w = weights[max(red, green, blue)] * sure[i] + least
                    add_light(red, green, blue, curves, levels, w, 4 * i, total)
            else:  # a tenth of the time is saved without the belief
                for i in range(first, last):
                    red, green, blue = shown[3 * i], shown[3 * i + 1], shown[3 * i + 2]
                    w = weights[max(red, green, blue)] + least
                    add_light(red, green, blue, curves, levels, w, 4 * i, total)


@kernel
def largest_of_three(codes: Codes, out: Indices, count: int) -> None:
    """The largest channel of each pixel."""
    for i in range(count):
        out[i] = max(codes[3 * i], codes[3 * i + 1], codes[3 * i + 2])


@kernel
def accumulate_within(
    codes: tuple[Codes, ...],
    light: tuple[Floats, ...],
    weight: tuple[Floats, ...],
    belief: tuple[Floats, ...],
    doubted: Integers,
    beyond: Integers,
    tops: Indices,
    total: Floats,
    levels: int,
    count: int,
    frames: int,
) -> None:
    """``accumulate`` frames only where the reference is not ``beyond`` what they can show.

    That is where its largest channels, ``tops`` (count), are below that code of each frame. Their
    last code, which is then looked up, weighs nothing. FEW pixels are judged at a time: most of
    them lie all on one side, and are then summed as fast as without it, or left out.
    """
    last_code = levels - 1
    for first in range(0, count, FEW):
        last = min(first + FEW, count)
        low, high = tops[first], tops[first]
        for i in range(first, last):
            low, high = min(low, tops[i]), max(high, tops[i])
        for k in range(frames):
            outside = beyond[k]
            if low >= outside:
                continue
            shown, curves, weights, sure = codes[k], light[k], weight[k], belief[k]
            if doubted[k]:
                for i in range(first, last):
                    red, green, blue = shown[3 * i], shown[3 * i + 1], shown[3 * i + 2]
                    top = max(red, green, blue) if tops[i] < outside else last_code
                    w = weights[top] * sure[i]
                    add_light(red, green, blue, curves, levels, w, 4 * i, total)
            elif high < outside:
                for i in range(first, last):
                    red, green, blue = shown[3 * i], shown[3 * i + 1], shown[3 * i + 2]
                    w = weights[max(red, green, blue)]
                    add_light(red, green, blue, curves, levels, w, 4 * i, total)
            else:
                for i in range(first, last):
                    red, green, blue = shown[3 * i], shown[3 * i + 1], shown[3 * i + 2]
                    top = max(red, green, blue) if tops[i] < outside else last_code
                    w = weights[top]
                    add_light(red, green, blue, curves, levels, w, 4 * i, total)


@inlined
def half_bits(light: np.float32) -> np.uint16:
    """The bits of the half float nearest to a number of at least 0, of two the even one."""
    bits = np.float32(light).view(np.uint32)
    small = np.uint32(np.float32(light + HALF).view(np.uint32) - ULP)
    odd = np.uint32(np.uint32(bits >> np.uint32(13)) & np.uint32(1))
    above = np.uint32(np.uint32(bits + np.uint32(0xFFF)) + odd)
    rounded = np.uint32(np.uint32(above >> np.uint32(13)) - BIAS)
    normal = rounded if bits < LARGEST else np.uint32(0x7C00)
    return np.uint16(small if bits < SMALLEST else normal)


@inlined
def bound_beside(largest: np.float32, white: np.float32, least: np.float32) -> np.float32:
    """What part of its clipping level, ``white``, a clipped channel is at least.

    All of it, or ``least`` where the ``largest`` channel is that bright.
    """
    reached = min(max(FOUR * largest / white - THREE, ZERO), ONE)
    return ONE - reached * (ONE - least)


@kernel
def mend(
    codes: Codes,
    tops: Indices,
    light: Floats,
    weight: Floats,
    beside: Floats,
    fade: int,
    ceiling: int,
    least: np.float32,
    total: Floats,
    levels: int,
    count: int,
) -> None:
    """Where codes of a frame clip, or nearly: sums (count, 4) of no less than they say.

    From a largest channel, ``tops`` (count), of ``fade`` on a channel below ``ceiling`` is measured
    with the weight that it would have alone, times what its code is believed ``beside`` one that
    clips; the others are at least the light of ``ceiling``, or ``least`` times that beside one as
    bright. ``light`` is (3, levels), ``weight`` and ``beside`` (levels).
    """
    for i in range(count):
        top = tops[i]
        if top < fade:
            continue
        norm = total[4 * i + 3]
        largest = max(total[4 * i], total[4 * i + 1], total[4 * i + 2])
        part = bound_beside(largest, light[ceiling] * norm, least) * norm
        for c in range(3):
            code, at = codes[3 * i + c], 4 * i + c
            if code >= ceiling:
                total[at] = max(total[at], light[levels * c + ceiling] * part)
            else:
                extra = max(weight[code] - weight[top], ZERO) * beside[code]
                mean = (total[at] + extra * light[levels * c + code]) / (norm + extra)
                total[at] = mean * norm


@kernel
def darken(
    bright: Bytes,
    codes: Codes,
    light: Floats,
    telling: Floats,
    belief: Floats,
    step: int,
    white: np.float32,
    shortest: int,
    found: Floats,
    levels: int,
    count: int,
) -> None:
    """What one darker frame says where the reference is ``bright``, into ``found`` (count, 8).

    That is: belief in what is measured, as far as codes are ``telling`` (levels); what three
    channels are at least, as they clip at ``white``; and of the ``shortest`` frame the light of
    three channels and the belief. ``light`` is (3, levels).
    """
    clips = white * NEARLY_WHITE
    for i in range(count):
        if bright[i] == 0:
            continue
        sure, at = belief[i * step], 8 * i
        top = max(codes[3 * i], codes[3 * i + 1], codes[3 * i + 2])
        told = sure if shortest else sure * telling[top]
        found[at] = max(found[at], told)
        for c in range(3):
            own = light[levels * c + codes[3 * i + c]]
            if own >= clips:
                found[at + 1 + c] = max(found[at + 1 + c], sure * white)
            if shortest:
                found[at + 4 + c] = own
        if shortest:
            found[at + 7] = sure


@kernel
def mend_doubted(
    codes: Codes,
    tops: Indices,
    light: Floats,
    weight: Floats,
    beside: Floats,
    fade: int,
    ceiling: int,
    shade: int,
    nearly: np.float32,
    likely: np.float32,
    least: np.float32,
    darker: Floats,
    white: np.float32,
    guess: Floats,
    guessed: int,
    total: Floats,
    levels: int,
    count: int,
) -> None:
    """``mend`` where not all ``darker`` frames (count, 8, see ``darken``) are fully believed.

    A channel that does not clip is measured as in ``mend``, with more weight where nobody is
    believed, and from code ``shade`` on it is ``nearly`` as bright as it says. One that clips is
    the mean as far as that is believed, else the shortest frame's light, but no less than what
    clips, and no more than ``likely`` times what the other channels show. ``guess`` (count, 3),
    if it is ``guessed``, multiplies what does not clip at ``white``: in full from half a belief on.
    Beside a channel as bright as what clips, another is only ``least`` times that.
    """
    open_below = white * NEARLY_WHITE
    for i in range(count):
        top = tops[i]
        if top < fade:
            continue
        at, norm = 8 * i, total[4 * i + 3]
        believed, sure = darker[at], darker[at + 7]
        alone = max(ONE - FOUR * believed, ZERO)
        nobody = alone * alone * weight[fade]
        most = ONE
        for c in range(3):
            code, own = codes[3 * i + c], darker[at + 4 + c]
            if code < ceiling:
                most = min(most, likely * light[levels * c + code] / max(own, DIMMEST))
        fits, largest = sure + (ONE - sure) * most, ZERO
        for c in range(3):
            told = (ONE - believed) * fits * darker[at + 4 + c]
            largest = max(largest, believed * total[4 * i + c] / norm + told)
        part = bound_beside(largest, light[ceiling], least)
        for c in range(3):
            code, own = codes[3 * i + c], darker[at + 4 + c]
            mean = total[4 * i + c] / norm
            if code < ceiling:
                shown = light[levels * c + code]
                extra = max(max(weight[code] - weight[top], ZERO) * beside[code], nobody)
                there = (norm * mean + extra * shown) / (norm + extra)
                if code >= shade and believed < ONE:
                    there = max(there, nearly * shown)
            else:
                bound = part * max(darker[at + 1 + c], light[levels * c + ceiling])
                there = believed * mean + (ONE - believed) * max(fits * own, bound)
                if guessed and own < open_below:
                    there *= exp2(min(HEARD * (ONE - believed), ONE) * guess[3 * i + c] * LOG2_E)
                there = max(there, bound)
            total[4 * i + c] = there * norm


@kernel
def divide(total: Floats, least: np.float32, out: Floats, few: Integers, count: int) -> None:
    """The means of sums (count, 4), as (count, 3); in ``few`` how many weigh no more than that."""
    found = 0
    for i in range(count):
        norm = total[4 * i + 3]
        found += norm <= least
        for c in range(3):
            out[3 * i + c] = total[4 * i + c] / norm
    few[0] = found


@kernel
def divide_to_half(
    total: Floats, least: np.float32, out: Halves, few: Integers, count: int
) -> None:
    """The same as half floats; the means are at least 0."""
    found = 0
    for i in range(count):
        norm = total[4 * i + 3]
        found += norm <= least
        for c in range(3):
            out[3 * i + c] = half_bits(total[4 * i + c] / norm)
    few[0] = found


@inlined
def float_of_half(bits: np.uint16) -> np.float32:
    """A half float as a float."""
    short = np.uint32(bits)
    size = np.uint32(short & np.uint32(0x7FFF))
    shifted = np.uint32(size << np.uint32(13))
    normal = np.uint32(shifted + np.uint32(112 << 23)).view(np.float32)
    found = np.float32(np.int32(size)) * DENORMAL if size < np.uint32(0x400) else normal
    endless = np.uint32(shifted + np.uint32(224 << 23)).view(np.float32)
    found = found if size < np.uint32(0x7C00) else endless
    return np.float32(found if short < np.uint32(0x8000) else -found)


@kernel
def floats_of_halves(bits: Halves, out: Floats, count: int) -> None:
    """Half floats as floats."""
    for i in range(count):
        out[i] = float_of_half(bits[i])


@inlined
def log2(x: np.float32) -> np.float32:
    """Of a positive number, to 1e-7; the polynomial is that of logf in S. Moshier's Cephes."""
    bits = np.float32(x).view(np.uint32)
    mantissa = np.uint32((bits & np.uint32(0x7FFFFF)) | np.uint32(0x3F800000)).view(np.float32)
    exponent = np.float32(np.int32(np.int32(bits >> np.uint32(23)) - np.int32(127)))
    large = mantissa > ROOT_TWO
    exponent = exponent + ONE if large else exponent
    t = (mantissa * HALF if large else mantissa) - ONE
    z = t * t  # Estrin's order: Horner's waits for each product
    low = t * np.float32(-2.4999993993e-1) + np.float32(3.3333331174e-1)
    low += z * (t * np.float32(-1.6668057665e-1) + np.float32(2.0000714765e-1))
    high = t * np.float32(-1.2420140846e-1) + np.float32(1.4249322787e-1)
    high += z * (t * np.float32(-1.1514610310e-1) + np.float32(1.1676998740e-1))
    high += z * z * np.float32(7.0376836292e-2)
    p = low + z * z * high
    natural = (p * t - HALF) * z + t
    return exponent + natural * LOG2_E


@inlined
def exp2(x: np.float32) -> np.float32:
    """To 1e-7, of what is limited to -126 … 127; the polynomial is that of exp2f in Cephes."""
    risen = x if x > np.float32(-126) else np.float32(-126)
    limited = risen if risen < np.float32(127) else np.float32(127)
    whole = np.floor(limited + HALF)
    t = limited - whole
    z = t * t
    low = t * np.float32(6.931472028550421e-1) + ONE
    high = t * np.float32(5.550332471162809e-2) + np.float32(2.402264791363012e-1)
    higher = t * np.float32(1.339887440266574e-3) + np.float32(9.618437357674640e-3)
    p = low + z * (high + z * (higher + z * np.float32(1.535336188319500e-4)))
    biased = np.uint32(np.int32(np.int32(whole) + np.int32(127)))
    return np.float32(p * np.uint32(biased << np.uint32(23)).view(np.float32))


@inlined
def between(x: np.float32, most: np.float32) -> np.float32:
    """A number limited to 0 … most; what is none is 0."""
    positive = x if x > ZERO else ZERO
    return positive if positive < most else most


@inlined
def expose_run(
    light: Floats,
    first: int,
    most: np.float32,
    matrix: Floats,
    gains: Floats,
    above: int,
    below: int,
    offsets: int,
    t: np.float32,
    floor: np.float32,
    count: int,
) -> None:
    """``expose`` of ``count`` pixels of a row, the first at ``first``.

    Their slopes begin at ``above`` and ``below``, and their offsets so many numbers further.
    """
    rr, rg, rb = matrix[0], matrix[1], matrix[2]
    gr, gg, gb = matrix[3], matrix[4], matrix[5]
    br, bg, bb = matrix[6], matrix[7], matrix[8]
    lr, lg, lb = matrix[9], matrix[10], matrix[11]
    for x in range(count):
        i = first + 3 * x
        r, g = between(light[i], most), between(light[i + 1], most)
        b = between(light[i + 2], most)
        luminance = lr * r + lg * g + lb * b
        luminance = luminance if luminance > floor else floor
        slope, offset = gains[above + x], gains[above + offsets + x]
        slope += t * (gains[below + x] - slope)
        offset += t * (gains[below + offsets + x] - offset)
        gain = exp2(slope * log2(luminance) + offset)
        red, green = rr * r + rg * g + rb * b, gr * r + gg * g + gb * b
        blue = br * r + bg * g + bb * b
        light[i] = (red if red > ZERO else ZERO) * gain
        light[i + 1] = (green if green > ZERO else ZERO) * gain
        light[i + 2] = (blue if blue > ZERO else ZERO) * gain


@kernel
def expose(
    light: Floats,
    most: np.float32,
    matrix: Floats,
    gains: Floats,
    upper: Integers,
    part: Floats,
    floor: np.float32,
    rows: int,
    width: int,
) -> None:
    """Make light, in place, the colours that a tone curve takes, with their local gain.

    It is cleaned, limited to ``most``, and multiplied by ``matrix`` (4, 3), which gives three
    colours and the luminance L that the gain, 2 ** (slope log2 L + offset), depends on. ``gains``
    is (h, 2, width), slopes and offsets; row y lies ``part[y]`` below its row ``upper[y]``.
    """
    for y in range(rows):
        t, first, above = part[y], 3 * y * width, 2 * upper[y] * width
        below = above + 2 * width if t > ZERO else above
        expose_run(light, first, most, matrix, gains, above, below, width, t, floor, width)


@inlined
def place_of(light: np.float32, scale: np.float32) -> np.uint16:
    """The place in a table, scale times the root of light, that is nearest."""
    place = np.sqrt(light) * scale + HALF
    return np.uint16(np.int32(place if place < LAST else LAST))


@kernel
def root_index(light: Floats, scale: np.float32, out: Indices, count: int) -> None:
    """The place in a table, scale times the root of light, that is nearest to each number."""
    for i in range(count):
        out[i] = place_of(light[i], scale)


@kernel
def looked_up(index: Indices, table: Entries, out: Entries, count: int) -> None:
    """What stands in a table."""
    for i in range(count):
        out[i] = table[index[i]]


@kernel
def show_halves(
    bits: Halves,
    most: np.float32,
    matrix: Floats,
    gains: Floats,
    upper: Integers,
    part: Floats,
    floor: np.float32,
    scale: np.float32,
    table: Entries,
    light: Floats,
    index: Indices,
    out: Entries,
    run: int,
    rows: int,
    width: int,
) -> None:
    """The codes of half floats: ``floats_of_halves``, ``expose``, ``root_index``, ``looked_up``.

    All are done for ``run`` pixels of a row at a time, which stay in a first-level cache;
    ``light`` and ``index``, three numbers for each of those, are room.
    """
    for y in range(rows):
        t, above = part[y], 2 * upper[y] * width
        below = above + 2 * width if t > ZERO else above
        for left in range(0, width, run):
            count, first = min(run, width - left), 3 * (y * width + left)
            for i in range(3 * count):
                light[i] = float_of_half(bits[first + i])
            at, under = above + left, below + left
            expose_run(light, 0, most, matrix, gains, at, under, width, t, floor, count)
            for i in range(3 * count):
                index[i] = place_of(light[i], scale)
            for i in range(3 * count):
                out[first + i] = table[index[i]]


@inlined
def add_luminance(
    light: Floats, first: int, weights: Floats, most: np.float32, line: Floats, count: int
) -> int:
    """Add the luminance of ``count`` pixels to a line; how many numbers are none, or too large."""
    largest, bad = np.uint32(0), 0
    for i in range(first, first + 3 * count):
        largest = max(largest, np.float32(light[i]).view(np.uint32))
    if largest > np.float32(most).view(np.uint32):  # NaN, inf and whatever has a sign are larger
        for i in range(first, first + 3 * count):
            bad += int(not light[i] >= ZERO) + int(light[i] > most)
    red, green, blue = weights[0], weights[1], weights[2]
    for x in range(count):
        i = first + 3 * x
        r, g = between(light[i], most), between(light[i + 1], most)
        line[x] += red * r + green * g + blue * between(light[i + 2], most)
    return bad


@inlined
def rows_read(y: int, side: int, step: int, rows: int) -> tuple[int, int]:
    """The first row of a block to read, and where they end: about its middle, at least one."""
    first = y * side + (step - 1) * (side % 2)
    return min(first, rows - 1), min((y + 1) * side, rows)


@inlined
def means_of_blocks(line: Floats, lines: int, side: int, out: Floats, at: int, count: int) -> None:
    """Means of each ``side`` numbers of a sum of so many lines; the last ones may be fewer."""
    for x in range(-(-count // side)):
        total, end = ZERO, min((x + 1) * side, count)
        for i in range(x * side, end):
            total += line[i]
        out[at + x] = total / np.float32((end - x * side) * lines)


@kernel
def luminances(
    light: Floats,
    weights: Floats,
    most: np.float32,
    side: int,
    step: int,
    line: Floats,
    out: Floats,
    bad: Integers,
    rows: int,
    width: int,
) -> None:
    """Mean luminance of blocks of ``side`` x ``side`` pixels of light (rows, width, 3).

    Every ``step``-th row of a block is read, and blocks at the border may be smaller. Light is
    cleaned and limited to ``most``; in ``bad`` how many of the numbers were not that already.
    ``line`` (width) is room.
    """
    bad[0] = 0
    for y in range(-(-rows // side)):
        first, stop = rows_read(y, side, step, rows)
        for x in range(width):
            line[x] = ZERO
        for row in range(first, stop, step):
            bad[0] += add_luminance(light, 3 * row * width, weights, most, line, width)
        lines = -(-(stop - first) // step)
        means_of_blocks(line, lines, side, out, y * -(-width // side), width)


@kernel
def luminances_of_halves(
    bits: Halves,
    light: Floats,
    weights: Floats,
    most: np.float32,
    side: int,
    step: int,
    line: Floats,
    out: Floats,
    bad: Integers,
    rows: int,
    width: int,
) -> None:
    """The same of half floats; ``light`` (3 width) is room too."""
    bad[0] = 0
    for y in range(-(-rows // side)):
        first, stop = rows_read(y, side, step, rows)
        for x in range(width):
            line[x] = ZERO
        for row in range(first, stop, step):
            for i in range(3 * width):
                light[i] = float_of_half(bits[3 * row * width + i])
            bad[0] += add_luminance(light, 0, weights, most, line, width)
        lines = -(-(stop - first) // step)
        means_of_blocks(line, lines, side, out, y * -(-width // side), width)


@kernel
def remap(
    stops: Floats,
    reference: np.float32,
    threshold: np.float32,
    detail: np.float32,
    compression: np.float32,
    out: Floats,
    count: int,
) -> None:
    """tonemap/local.py, ``local_laplacian``: differences to a reference, remapped.

    Smooth below the threshold, where they are multiplied by ``detail``; straight above it.
    """
    for i in range(count):
        apart = stops[i] - reference
        size = apart if apart > ZERO else -apart
        small = size if size < threshold else threshold
        more = small * (ONE + (detail - ONE) * (ONE - small / threshold))
        found = more + compression * (size - small)
        out[i] = found if apart > ZERO else -found


@kernel
def add_near(
    fine: Floats,
    coarse: Floats,
    level: Floats,
    reference: np.float32,
    step: np.float32,
    total: Floats,
    count: int,
) -> None:
    """Add ``fine`` less ``coarse`` as far as ``level`` is less than a step from the reference."""
    for i in range(count):
        apart = level[i] - reference
        share = ONE - (apart if apart > ZERO else -apart) / step
        total[i] += (fine[i] - coarse[i]) * (share if share > ZERO else ZERO)


@inlined
def means_of_four(codes: Bytes, first: int, below: int, count: int, means: Bytes) -> None:
    """Of ``count`` numbers from ``first`` on, those from ``below`` on, and their neighbours.

    All of them, rounded: it takes less time than to step over those that nobody asks for.
    """
    for i in range(count - 3):
        i0, i1 = first + i, below + i
        upper = np.uint16(codes[i0]) + np.uint16(codes[i0 + 3])
        lower = np.uint16(codes[i1]) + np.uint16(codes[i1 + 3])
        means[i] = np.uint8((upper + lower + np.uint16(2)) >> 2)


@inlined
def count_ends(
    codes: Bytes,
    first: int,
    below: int,
    count: int,
    clip: int,
    dark: int,
    side: int,
    marks: Indices,
    counts: Indices,
) -> None:
    """How many of ``side`` columns of two rows clip, and 256 times how many are dark.

    From each of the ``count`` numbers from ``first`` and ``below`` on; the largest code of two
    pixels decides. ``side`` is even, four at least and 254 at most.
    """
    bright, night = np.uint8(clip), np.uint8(dark)
    for i in range(count - 2):
        i0, i1 = first + i, below + i
        upper = max(max(codes[i0], codes[i0 + 1]), codes[i0 + 2])
        top = max(max(max(codes[i1], codes[i1 + 1]), codes[i1 + 2]), upper)
        marks[i] = (CLIPS if top >= bright else NEITHER) | (IS_DARK if top <= night else NEITHER)
    for i in range(count - 5):
        marks[i] = np.uint16(marks[i] + marks[i + 3])
    blocks = count - 3 * side + 1
    for i in range(blocks):
        counts[i] = np.uint16(marks[i] + marks[i + 6])
    for k in range(2, side // 2):
        for i in range(blocks):
            counts[i] = np.uint16(counts[i] + marks[i + 6 * k])


@inlined
def light_of(
    means: Bytes, light: Floats, first: int, side: int
) -> tuple[np.float32, np.float32, np.float32]:
    """Sums of the light of every other column of a block, whose means begin at ``first``.

    There are four columns at least.
    """
    red = light[means[first]] + light[means[first + 6]]
    green = light[256 + means[first + 1]] + light[256 + means[first + 7]]
    blue = light[512 + means[first + 2]] + light[512 + means[first + 8]]
    i, end = first + 12, first + 3 * side
    while i < end:  # a range would be unrolled, which takes longer than so few columns
        red += light[means[i]]
        green += light[256 + means[i + 1]]
        blue += light[512 + means[i + 2]]
        i += 6
    return red, green, blue


@kernel
def glance(
    codes: Bytes,
    light: Floats,
    clip: int,
    dark: int,
    side: int,
    means: Bytes,
    marks: Indices,
    counts: Indices,
    mean: Floats,
    clipped: Floats,
    black: Floats,
    rows: int,
    width: int,
    left: int,
    length: int,
) -> None:
    """What blocks of ``side`` x ``side`` pixels show in the two rows in their middle.

    ``mean`` (rows, width, 3) is light: codes of 2 x 2 pixels are averaged before they are looked
    up in ``light`` (3, 256). ``clipped`` and ``black`` (rows, width) are parts of the columns,
    two pixels each, whose largest code is ``clip`` or more, or ``dark`` or less, in 255ths.
    Rows of codes are of ``length`` and looked at from ``left`` on. There is room for 3 ``width``
    ``side`` numbers in ``means``, ``marks`` and ``counts``.
    """
    part, step, count = TWO / np.float32(side), CODES / np.float32(side), 3 * width * side
    for y in range(rows):
        middle = length * (y * side + side // 2 - 1) + left
        below = middle + length
        means_of_four(codes, middle, below, count, means)
        count_ends(codes, middle, below, count, clip, dark, side, marks, counts)
        for x in range(width):
            first, at = 3 * x * side, y * width + x
            red, green, blue = light_of(means, light, first, side)
            mean[3 * at] = red * part
            mean[3 * at + 1] = green * part
            mean[3 * at + 2] = blue * part
            ends, nights = int(counts[first] & LOW), int(counts[first] >> 8)
            clipped[at] = np.floor(np.float32(ends) * step + HALF) / CODES
            black[at] = np.floor(np.float32(nights) * step + HALF) / CODES


@kernel
def glimpse(
    codes: Bytes,
    light: Floats,
    clip: int,
    dark: int,
    fewest: Integers,
    side: int,
    means: Bytes,
    marks: Indices,
    counts: Indices,
    mean: Floats,
    clipped: Bytes,
    black: Bytes,
    rows: int,
    width: int,
    length: int,
) -> None:
    """The same of 2 x 2 blocks together: their mean light, and whether they clip or are dark.

    One of them clips, or two are dark, of whose columns at least ``fewest``, two numbers, are.
    The room is for twice as much.
    """
    part, count = HALF / np.float32(side), 6 * width * side
    most_ends, most_nights = np.uint16(fewest[0]), np.uint16(fewest[1] << 8)
    for i in range(rows * width):
        mean[3 * i] = mean[3 * i + 1] = mean[3 * i + 2] = ZERO
        black[i] = np.uint8(0)
    for y in range(2 * rows):
        middle, row = length * (y * side + side // 2 - 1), (y // 2) * width
        below = middle + length
        means_of_four(codes, middle, below, count, means)
        for x in range(width):
            red, green, blue = light_of(means, light, 6 * x * side, 2 * side)
            at = 3 * (row + x)
            mean[at] += red * part
            mean[at + 1] += green * part
            mean[at + 2] += blue * part
        count_ends(codes, middle, below, count, clip, dark, side, marks, counts)
        for i in range(count - 3 * side + 1):
            ends, nights = np.uint16(counts[i] & LOW), counts[i]
            clips = CLIPS if ends >= most_ends else NEITHER
            counts[i] = clips | (DARK_BLOCK if nights >= most_nights else NEITHER)
        for x in range(width):
            first = 6 * x * side
            black[row + x] = np.uint8(black[row + x] + counts[first] + counts[first + 3 * side])
    for i in range(rows * width):
        clipped[i] = np.uint8(np.uint8(black[i] & np.uint8(15)) > np.uint8(0))
        black[i] = np.uint8(black[i] >= TWO_DARK)


@kernel
def log_light(
    codes: Codes,
    light: Floats,
    gain: np.float32,
    out: Floats,
    open_: Bytes,
    levels: int,
    count: int,
) -> None:
    """log(gain L + 1) of the sum L of three channels, at most 1, in ``light`` (3, levels).

    ``open_`` says where L is well below 1.
    """
    for i in range(count):
        red, green = light[codes[3 * i]], light[levels + codes[3 * i + 1]]
        out[i] = red + green + light[2 * levels + codes[3 * i + 2]]
    for i in range(count):
        open_[i] = np.uint8(out[i] < NEARLY_ONE)
        out[i] = log2((out[i] if out[i] < ONE else ONE) * gain + ONE) * LN_2


@kernel
def upsample(
    small: Floats,
    above: Integers,
    below: Integers,
    down: Floats,
    before: Integers,
    right: Floats,
    line: Floats,
    out: Floats,
    length: int,
    depth: int,
    rows: int,
    columns: int,
) -> None:
    """Between the numbers of a map (h, length), linearly: (rows, columns).

    Row y lies ``down[y]`` of the way from row ``above[y]`` of the map to row ``below[y]``, column
    x ``right[x]`` of that from column ``before[x]`` to the one ``depth`` further. ``line``
    (length + depth) is room.
    """
    for i in range(length, length + depth):
        line[i] = ZERO
    for y in range(rows):
        upper, lower, t = length * above[y], length * below[y], down[y]
        for i in range(length):
            line[i] = small[upper + i] + t * (small[lower + i] - small[upper + i])
        for x in range(columns):
            one, two = line[before[x]], line[before[x] + depth]
            out[y * columns + x] = one + right[x] * (two - one)


@inlined
def limited(shift: float) -> float:
    """A shift that is no further than any picture is large."""
    low = shift if shift > -1e6 else -1e6
    return low if low < 1e6 else 1e6


@inlined
def cubic(t: np.float32, k: int) -> np.float32:
    """The weight of the k-th of four neighbours, t beyond the second (Keys 1981, a = -0.75)."""
    u = ONE - t
    before, after = SHARP * t * u * u, SHARP * u * t * t
    second = ((SHARP + TWO) * t - (SHARP + THREE)) * t * t + ONE
    if k == 0:
        return before
    if k == 1:
        return second
    return ONE - before - second - after if k == 2 else after


@inlined
def four(codes: Codes, at: int, t: np.float32) -> np.float32:
    """A code between four pixels of a row, t beyond the second."""
    one, two = np.float32(codes[at]), np.float32(codes[at + 3])
    three, last = np.float32(codes[at + 6]), np.float32(codes[at + 9])
    left = cubic(t, 0) * one + cubic(t, 1) * two
    return np.float32(left + (cubic(t, 2) * three + cubic(t, 3) * last))


@inlined
def sixteen(
    codes: Codes,
    height: int,
    width: int,
    row: int,
    column: int,
    c: int,
    x: np.float32,
    y: np.float32,
) -> np.float32:
    """A code between sixteen pixels, the first at row and column; the border goes on outside."""
    found = ZERO
    for k in range(4):
        start = min(max(row + k, 0), height - 1) * width
        for j in range(4):
            at = 3 * (start + min(max(column + j, 0), width - 1)) + c
            found += cubic(y, k) * (cubic(x, j) * np.float32(codes[at]))
    return found


@inlined
def near(position: float, count: int, beyond: np.float32) -> bool:
    """Whether a position is no further than ``beyond`` the first and the last of some pixels."""
    return bool((position >= -beyond) & (position <= count - 1 + beyond))


@kernel
def resample(
    codes: Codes,
    most: np.float32,
    matrix: Doubles,
    shifts: Floats,
    given: int,
    whole: Integers,
    parts: Floats,
    out: Codes,
    inside: Bytes,
    beyond: np.float32,
    height: int,
    width: int,
    top: int,
    left: int,
    rows: int,
    columns: int,
) -> None:
    """Codes (height, width, 3) at other places, (rows, columns, 3), between pixels by cubics.

    Row y and column x of the result come from where ``matrix`` (3, 3) puts ``top`` + y and
    ``left`` + x, and if ``given``, ``shifts`` (rows, columns, 2) further. Runs of pixels that are
    shifted by equally many whole pixels are done at once. ``inside`` (rows, columns) becomes 1
    where that is no further than ``beyond`` the outermost pixels, else 0. ``whole`` (2, columns)
    and ``parts`` (8, columns) are room.
    """
    for row in range(rows):
        y = top + row
        ax, ay = matrix[1] * y + matrix[2], matrix[4] * y + matrix[5]
        az = matrix[7] * y + matrix[8]
        for i in range(columns):
            x = left + i
            d = 1.0 / (matrix[6] * x + az)
            dx, dy = (matrix[0] * x + ax) * d - x, (matrix[3] * x + ay) * d - y
            if given:
                dx += shifts[2 * (row * columns + i)]
                dy += shifts[2 * (row * columns + i) + 1]
            inside[row * columns + i] = near(x + dx, width, beyond) & near(y + dy, height, beyond)
            dx, dy = limited(dx), limited(dy)
            fx, fy = np.floor(dx), np.floor(dy)
            parts[i], parts[columns + i] = np.float32(dx - fx), np.float32(dy - fy)
            whole[i], whole[columns + i] = int(fx), int(fy)
        for i in range(2 * columns):
            at = 2 * columns + 3 * i
            parts[at] = parts[i]
            parts[at + 1] = parts[i]
            parts[at + 2] = parts[i]
        start = 0
        while start < columns:
            sx, sy, stop = whole[start], whole[columns + start], start + 1
            while stop < columns and whole[stop] == sx and whole[columns + stop] == sy:
                stop += 1
            fx, fy = 2 * columns + 3 * start, 5 * columns + 3 * start
            column, line = left + start + sx - 1, y + sy - 1
            to, inner = 3 * (row * columns + start), line >= 0 and line + 4 <= height
            if inner and column >= 0 and column + stop - start + 3 <= width:
                at = 3 * (line * width + column)
                for j in range(3 * (stop - start)):
                    tx, ty = parts[fx + j], parts[fy + j]
                    upper = cubic(ty, 0) * four(codes, at + j, tx)
                    upper += cubic(ty, 1) * four(codes, at + 3 * width + j, tx)
                    lower = cubic(ty, 2) * four(codes, at + 6 * width + j, tx)
                    lower += cubic(ty, 3) * four(codes, at + 9 * width + j, tx)
                    out[to + j] = np.int32(between(upper + lower + HALF, most))
            else:
                for j in range(3 * (stop - start)):
                    tx, ty = parts[fx + j], parts[fy + j]
                    found = sixteen(codes, height, width, line, column + j // 3, j % 3, tx, ty)
                    out[to + j] = np.int32(between(found + HALF, most))
            start = stop


@kernel
def logarithms(light: Floats, per: np.float32, out: Floats, count: int) -> None:
    """log(1 + light times ``per``)."""
    for i in range(count):
        out[i] = log2(ONE + light[i] * per) * LN_2


@kernel
def doubts(light: Floats, deviation: Floats, limits: Floats, noise: Floats, count: int) -> None:
    """nets/denoise.py, ``noise_of``: of three channels each; ``limits``: KNEE, DARKNESS, MOST."""
    knee, darkness, most = limits[0], limits[1], limits[2]
    for i in range(count):
        red, green, blue = light[3 * i], light[3 * i + 1], light[3 * i + 2]
        per = deviation[i] / np.sqrt(max(red, green, blue) + darkness)
        for c in range(3):
            x = light[3 * i + c]
            noise[3 * i + c] = min(per * np.sqrt(x + darkness) / (x + knee), most)


@kernel
def show_noise(
    logarithm: Floats,
    around: Floats,
    noise: Floats,
    clipped: Bytes,
    steep: np.float32,
    out: Floats,
    count: int,
) -> None:
    """nets/denoise.py, ``seen``: eight numbers for each pixel."""
    for i in range(count):
        loudest = max(noise[3 * i], noise[3 * i + 1], noise[3 * i + 2])
        for c in range(3):
            apart = (logarithm[3 * i + c] - around[3 * i + c]) / noise[3 * i + c]
            out[8 * i + c] = max(min(apart, steep), -steep) * HALF
            out[8 * i + 3 + c] = logarithm[3 * i + c] * QUARTER - ONE
        out[8 * i + 6] = log2(max(loudest, FAINTEST)) * LN_2 * HALF + np.float32(1.5)
        out[8 * i + 7] = np.float32(clipped[i])


@kernel
def want_less(
    said: Floats,
    noise: Floats,
    clipped: Bytes,
    limits: Floats,
    out: Floats,
    rows: int,
    width: int,
) -> None:
    """nets/denoise.py, ``residual`` before the means are taken out of it, (rows, width, 3).

    ``said`` (rows / 2, width / 2, 12): of each channel four pixels. ``limits``: REACH, BARELY.
    """
    reach, least, most = limits[0], limits[1], limits[2]
    for y in range(rows):
        for x in range(width):
            i = y * width + x
            quad = 12 * ((y // 2) * (width // 2) + x // 2) + 2 * (y % 2) + x % 2
            loudest = max(noise[3 * i], noise[3 * i + 1], noise[3 * i + 2])
            unsure = between((loudest - least) / (most - least), ONE)
            known = reach * (ONE - np.float32(clipped[i]) * unsure)
            for c in range(3):
                risen = exp2(said[quad + 4 * c] / reach * TWO * LOG2_E)  # of a tanh
                out[3 * i + c] = noise[3 * i + c] * known * (ONE - TWO / (risen + ONE))


@kernel
def quieten(
    light: Floats,
    wanted: Floats,
    around: Floats,
    noise: Floats,
    limits: Floats,
    ceiling: np.float32,
    count: int,
) -> None:
    """nets/denoise.py, ``forward`` from the means on, over ``light`` itself.

    What reaches ``ceiling`` stays so. ``limits``: REACH, LEAST_SEEN, WELL_SEEN, KNEE, BESIDE.
    """
    reach, heard, fully, knee = limits[0], limits[1], limits[2], limits[3]
    for i in range(count):
        most = max(light[3 * i], light[3 * i + 1], light[3 * i + 2]) * limits[4]
        for j in range(3 * i, 3 * i + 3):
            limit = reach * noise[j]
            residual = max(min(wanted[j] - around[j], limit), -limit)
            noticed = noise[j] * (knee + light[j]) / (knee + max(light[j], most))
            residual *= between((noticed - heard) / (fully - heard), ONE)
            found = max(light[j] + (knee + light[j]) * (exp2(residual * LOG2_E) - ONE), ZERO)
            light[j] = max(found, ceiling) if light[j] >= ceiling else found
