"""The comparison of a frame with what is known of the light, as machine code: see native.py.

Pictures are (height, width, 3), and the numbers of a row lie one after the other: ``length`` is
three times the width. Borders are mirrored about their outermost pixels, as OpenCV does.
"""

import numpy as np
from numpy.typing import NDArray

from hdrcli.kernels import bound_beside, exp2, log2
from hdrcli.native import inlined, kernel

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

ZERO, ONE, THREE = np.float32(0), np.float32(1), np.float32(3)
SCHARR_SIDE, SCHARR_MIDDLE = np.float32(3 / 32), np.float32(10 / 32)
LEAST = np.float32(1e-6)  # light, of what a logarithm is taken
MOST, FEW = 7, 4  # taps of a blur on either side of the one in the middle
RING = 16  # rows of what is made of others that are kept: more than the widest blur takes
PAD = 3 * MOST + 3  # numbers on either side of a line
LOWEST_STOP, STOPS = -20, 41


def blurs(*sigmas: float) -> tuple[Floats, Integers]:
    """Gaussians as the loops take them, as many taps as OpenCV takes for float pictures."""
    taps, reaches = [], []
    for sigma in sigmas:
        reach = (round(8 * sigma + 1) | 1) // 2
        weights = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma**2))
        row = np.zeros(MOST + 1)
        row[: reach + 1] = weights / (2 * weights.sum() - weights[0])
        taps.append(row)
        reaches.append(reach)
    return np.concatenate(taps).astype(np.float32), np.array(reaches, np.int64)


def room(width: int) -> tuple[Floats, Floats, Floats]:
    """Room for the loops over a picture of some width: two rings, two lines, and four results."""
    length = 3 * width
    sizes = 2 * RING * length, 2 * (length + 2 * PAD), 4 * length
    rings, lines, made = (np.empty(size, np.float32) for size in sizes)
    return rings, lines, made


@inlined
def reflected(at: int, count: int) -> int:
    """The index inside a line that stands for any outside."""
    inner = abs(at)
    inner = 2 * count - 2 - inner if inner >= count else inner
    if inner >= 0:
        return inner
    period = max(2 * count - 2, 1)  # far outside, where divisions take their time
    inner = abs(at) % period
    return inner if inner < count else period - inner


@inlined
def row_of(y: int, height: int, mask: int, length: int) -> int:
    """Where a row begins, mirrored at the ends, in a plane or in a ring of some of its rows."""
    return (reflected(y, height) & mask) * length


@inlined
def mirror_pixels(line: Floats, start: int, reach: int, length: int) -> None:
    """Continue the ``length`` numbers behind ``start`` + PAD by pixels on either side."""
    at, count = start + PAD, length // 3
    for k in range(1, reach + 1):
        before, behind = 3 * reflected(-k, count), 3 * reflected(count - 1 + k, count)
        for c in range(3):
            line[at - 3 * k + c] = line[at + before + c]
            line[at + length - 3 + 3 * k + c] = line[at + behind + c]


@inlined
def blur_down(
    plane: Floats,
    first: int,
    mask: int,
    y: int,
    taps: Floats,
    tap: int,
    reach: int,
    line: Floats,
    height: int,
    length: int,
) -> None:
    """Row y of a plane blurred along its columns, into a line, and mirrored.

    The plane begins at ``first``; the taps at ``tap`` are the middle one and those on one side.
    """
    middle, here = taps[tap], first + row_of(y, height, mask, length)
    for i in range(length):
        line[PAD + i] = middle * plane[here + i]
    for k in range(1, reach + 1):
        weight = taps[tap + k]
        above = first + row_of(y - k, height, mask, length)
        below = first + row_of(y + k, height, mask, length)
        for i in range(length):
            line[PAD + i] += weight * (plane[above + i] + plane[below + i])
    mirror_pixels(line, 0, MOST, length)


@inlined
def blur_across(
    line: Floats, taps: Floats, tap: int, reach: int, out: Floats, at: int, length: int
) -> None:
    """A line blurred along itself, with FEW or with MOST taps: a loop over them is slow."""
    t0, t1, t2, t3 = taps[tap], taps[tap + 1], taps[tap + 2], taps[tap + 3]
    t4, t5, t6, t7 = taps[tap + 4], taps[tap + 5], taps[tap + 6], taps[tap + 7]
    for i in range(length):
        x = PAD + i
        near = t0 * line[x] + t1 * (line[x - 3] + line[x + 3]) + t2 * (line[x - 6] + line[x + 6])
        middle = t3 * (line[x - 9] + line[x + 9]) + t4 * (line[x - 12] + line[x + 12])
        out[at + i] = near + middle
    if reach > FEW:
        for i in range(length):
            x = PAD + i
            far = t5 * (line[x - 15] + line[x + 15]) + t6 * (line[x - 18] + line[x + 18])
            out[at + i] = out[at + i] + far + t7 * (line[x - 21] + line[x + 21])


@inlined
def slope_row(light: Floats, y: int, lines: Floats, out: Floats, height: int, length: int) -> None:
    """Squared length of the gradient of row y (Scharr), into a ring; there is room in lines."""
    one, two = row_of(y - 1, height, -1, length), row_of(y, height, -1, length)
    three, here = row_of(y + 1, height, -1, length), (y & (RING - 1)) * length
    down = length + 2 * PAD
    for i in range(length):
        ends = SCHARR_SIDE * (light[one + i] + light[three + i])
        lines[PAD + i] = ends + SCHARR_MIDDLE * light[two + i]
    for i in range(length):
        lines[down + PAD + i] = light[three + i] - light[one + i]
    mirror_pixels(lines, 0, 1, length)
    mirror_pixels(lines, down, 1, length)
    for i in range(length):
        at = PAD + i
        dx = lines[at + 3] - lines[at - 3]
        sides = SCHARR_SIDE * (lines[down + at - 3] + lines[down + at + 3])
        dy = sides + SCHARR_MIDDLE * lines[down + at]
        out[here + i] = dx * dx + dy * dy


@inlined
def overlap(at: int, begin: float, end: float) -> np.float32:
    """How much of the pixel at ``at`` lies between two borders."""
    return np.float32(min(end, at + 1.0) - max(begin, float(at)))


@kernel
def means_of_tiles(
    fine: Floats,
    light: Floats,
    clipped: Bytes,
    sums: Floats,
    out: Floats,
    height: int,
    width: int,
    rows: int,
    columns: int,
) -> None:
    """Means of ``fine`` squared, of ``light`` and of ``clipped`` over tiles, (rows, columns, 3).

    The planes are (height, width), and need not be cut between pixels. ``sums`` (3, width) is room.
    """
    tall, wide = height / rows, width / columns
    per = np.float32(1 / (tall * wide))
    for row in range(rows):
        begin, end = row * tall, (row + 1) * tall
        for i in range(3 * width):
            sums[i] = ZERO
        for y in range(int(begin), min(int(np.ceil(end)), height)):
            part, at = overlap(y, begin, end), y * width
            for x in range(width):
                sums[x] += part * fine[at + x] * fine[at + x]
                sums[width + x] += part * light[at + x]
                sums[2 * width + x] += part * np.float32(clipped[at + x])
        for column in range(columns):
            begin, end = column * wide, (column + 1) * wide
            square = level = clips = ZERO
            for x in range(int(begin), min(int(np.ceil(end)), width)):
                part = overlap(x, begin, end)
                square += part * sums[x]
                level += part * sums[width + x]
                clips += part * sums[2 * width + x]
            i = 3 * (row * columns + column)
            out[i], out[i + 1], out[i + 2] = square * per, level * per, clips * per


@kernel
def bounds(
    known_clips: Bytes,
    clips: Bytes,
    known_dark: Bytes,
    dark: Bytes,
    valid: Bytes,
    flags: Bytes,
    count: int,
) -> None:
    """What is a bound: 1 the guide clips, 2 the view clips, 4 and 8 they are dark, 16 not valid.

    The ``flags`` are (count, 3), the same three times: loops take numbers, not pixels.
    """
    for i in range(count):
        both = np.uint8(known_clips[i] | np.uint8(clips[i] << 1))
        night = np.uint8(np.uint8(known_dark[i] << 2) | np.uint8(dark[i] << 3))
        flag = both | night | np.uint8((1 - valid[i]) << 4)
        flags[3 * i] = flags[3 * i + 1] = flags[3 * i + 2] = flag


@inlined
def one_sided(
    difference: np.float32,
    light: np.float32,
    known: np.float32,
    flags: np.int32,
    ceiling: np.float32,
    low: np.float32,
) -> np.float32:
    """A difference as far as no bound explains it; ``flags`` are of the pixel: see ``bounds``."""
    found = difference
    if flags & 1:
        found = min(found, ZERO)
    if flags & 2:
        found = max(found, ZERO)
    if flags & 4:
        found = max(light - ceiling, ZERO)
    if flags & 8:
        found = ZERO if flags & 4 else min(low - known, ZERO)
    return ZERO if flags & 16 else found


@inlined
def difference_row(
    known: Floats,
    light: Floats,
    flags: Bytes,
    y: int,
    limits: Floats,
    out: Floats,
    first: int,
    length: int,
) -> None:
    """View less guide of row y, one-sided, into a ring.

    Many numbers at once, so that nothing may depend on one pixel's flags.
    """
    row, here, per = y * length, first + (y & (RING - 1)) * length, limits[0]
    some = np.uint8(0)
    for i in range(length):
        out[here + i] = light[row + i] * per - known[row + i]
        some |= flags[row + i]
    if some == 0:
        return
    ceiling, low = limits[1], limits[2]
    for i in range(length):
        value = light[row + i] * per
        flag = np.int32(flags[row + i])
        out[here + i] = one_sided(out[here + i], value, known[row + i], flag, ceiling, low)
    if some & 1 == 0 or limits[12] == ONE:
        return
    for x in range(row, row + length, 3):
        if flags[x] & 1:
            largest = max(light[x], light[x + 1], light[x + 2]) * per
            white = max(known[x], known[x + 1], known[x + 2], LEAST)
            flag, part = np.int32(flags[x]), bound_beside(largest, white, limits[12])
            for i in range(x, x + 3):
                value, at = light[i] * per, here + i - row
                found = value - part * known[i]
                out[at] = one_sided(found, value, known[i], flag, ceiling, low)


@inlined
def in_tolerances(
    made: Floats, variance: Floats, row: int, limits: Floats, out: Floats, length: int
) -> None:
    """Squares of the differences at both scales, one after the other, in squared tolerances.

    ``made`` are the blurred light, squared gradient, and differences of a row.
    """
    shot, read, quantum, least = limits[3], limits[4], limits[5], limits[6]
    relative, floor, misplaced = limits[7], limits[8], limits[9]
    fine, coarse = limits[10], limits[11]
    for i in range(length):
        light = made[i] if made[i] > ZERO else ZERO
        quantised = quantum * (light if light > least else least)
        noise = shot * light + quantised + read + variance[row + i]
        steady = relative * light + floor
        steady = misplaced * made[length + i] + steady * steady
        near, far = made[2 * length + i], made[3 * length + i]
        out[i] = near * near / (fine * noise + steady)
        out[length + i] = far * far / (coarse * noise + steady)


@kernel
def judge(
    known: Floats,
    variance: Floats,
    light: Floats,
    flags: Bytes,
    limits: Floats,
    taps: Floats,
    reaches: Integers,
    rings: Floats,
    lines: Floats,
    made: Floats,
    out: Floats,
    top: int,
    bottom: int,
    height: int,
    length: int,
) -> None:
    """How far a view is from a guide in tolerances, (height, width), from row ``top`` on.

    ``known`` and its ``variance`` are the guide's, ``light`` is the view's, in its own white;
    ``flags`` are those of ``bounds``. ``limits`` are, in this order: the reference's white in the
    view's; the lights that are a dark guide's and a dark view's bounds; of the view's noise its
    part of the light, what is read, the quantum and the light it has at least; the tolerated part
    of the light and floor; that of the squared gradient; and the standard deviations, squared,
    over which each of the two scales averages; and what part of a clipped colour a channel is at
    least, beside one as bright. ``taps`` are those of blurs over one pixel and over the two
    scales, ``reaches`` how many there are on one side of each middle.
    """
    second, one = RING * length, reaches[0]
    sloped, differed = max(top - reaches[0], 0), max(top - reaches[2], 0)
    for y in range(top, bottom):
        while sloped < min(y + reaches[0] + 1, height):
            slope_row(known, sloped, lines, rings, height, length)
            sloped += 1
        while differed < min(y + reaches[2] + 1, height):
            difference_row(known, light, flags, differed, limits, rings, second, length)
            differed += 1
        blur_down(known, 0, -1, y, taps, 0, one, lines, height, length)
        blur_across(lines, taps, 0, one, made, 0, length)
        blur_down(rings, 0, RING - 1, y, taps, 0, one, lines, height, length)
        blur_across(lines, taps, 0, one, made, length, length)
        for scale in range(1, 3):
            tap, reach = scale * (MOST + 1), reaches[scale]
            blur_down(rings, second, RING - 1, y, taps, tap, reach, lines, height, length)
            blur_across(lines, taps, tap, reach, made, (scale + 1) * length, length)
        in_tolerances(made, variance, y * length, limits, lines, length)
        row = y * (length // 3)
        for x in range(length // 3):
            i, j = 3 * x, length + 3 * x
            near, far = (
                lines[i] + lines[i + 1] + lines[i + 2],
                lines[j] + lines[j + 1] + lines[j + 2],
            )
            out[row + x] = np.sqrt(near if near > far else far)


@kernel
def extend(
    light: Floats,
    where: Bytes,
    limits: Floats,
    taps: Floats,
    reaches: Integers,
    rings: Floats,
    lines: Floats,
    made: Floats,
    radiance: Floats,
    variance: Floats,
    height: int,
    length: int,
) -> None:
    """Put a frame's light and its variance where it is to be known, in place.

    ``limits`` are the reference's white in the view's, and of the noise what ``judge`` has; the
    last is 0 where the light that was known means nothing. Else that is a lower bound, of which
    it says what part a channel is at least, beside one as bright. The light of the variance is
    blurred by ``taps``. Of the room the rings are not needed.
    """
    width, reach = length // 3, reaches[0]
    for y in range(height):
        some = 0
        for x in range(width):
            some |= where[y * width + x]
        if some == 0:
            continue
        blur_down(light, 0, -1, y, taps, 0, reach, lines, height, length)
        blur_across(lines, taps, 0, reach, made, 0, length)
        for x in range(width):
            if where[y * width + x]:
                first = y * length + 3 * x
                largest = max(light[first], light[first + 1], light[first + 2]) * limits[0]
                white = max(radiance[first], radiance[first + 1], radiance[first + 2], LEAST)
                bounds = limits[5] > ZERO
                part = bound_beside(largest, white, limits[5]) if bounds else ZERO
                for i in range(3 * x, 3 * x + 3):
                    at, bright = y * length + i, made[i]
                    value = light[at] * limits[0]
                    radiance[at] = max(value, part * radiance[at]) if bounds else value
                    noise = limits[1] * bright + limits[3] * max(bright, limits[4]) + limits[2]
                    variance[at] = noise


@kernel
def pair_brightness(
    known: Floats,
    light: Floats,
    flags: Bytes,
    per: np.float32,
    sums: Floats,
    steps: Bytes,
    ends: Integers,
    middles: Floats,
    gaps: Floats,
    height: int,
    width: int,
) -> None:
    """Brightness in stops of both pictures where neither has a flag, of every other pixel.

    Their means, and how much brighter the second is, ordered by the stop that the mean is in:
    ``ends`` says where each of 41 ends, from -20 on. ``sums``, two for each, and ``steps`` are
    room.
    """
    count, after = 0, (height + 1) // 2 * ((width + 1) // 2)
    for y in range(0, height, 2):
        for x in range(0, width, 2):
            i = 3 * (y * width + x)
            if flags[i]:
                continue
            sums[count] = known[i] + known[i + 1] + known[i + 2]
            sums[after + count] = (light[i] + light[i + 1] + light[i + 2]) * per
            count += 1
    for k in range(count):
        ours = log2(max(sums[k] / THREE, LEAST))
        theirs = log2(max(sums[after + k] / THREE, LEAST))
        sums[k] = (ours + theirs) / np.float32(2)
        sums[after + k] = theirs - ours
    for stop in range(STOPS):
        ends[stop] = 0
    for k in range(count):
        stop = min(max(int(np.floor(sums[k])) - LOWEST_STOP, 0), STOPS - 1)
        steps[k] = np.uint8(stop)
        ends[stop] += 1
    start = 0
    for stop in range(STOPS):
        start, ends[stop] = start + ends[stop], start
    for k in range(count):
        at = ends[steps[k]]
        middles[at], gaps[at] = sums[k], sums[after + k]
        ends[steps[k]] = at + 1


@kernel
def brighten(
    light: Floats,
    per: np.float32,
    at: Floats,
    error: Floats,
    nodes: int,
    out: Floats,
    count: int,
) -> None:
    """Pixels without an error of brightness that is known, in stops, ``at`` some brightnesses.

    It goes on linearly between them, and stays beyond them. ``per`` brings their light to the
    white that these refer to.
    """
    for k in range(count):
        i = 3 * k
        total = (light[i] + light[i + 1] + light[i + 2]) * per / THREE
        brightness = log2(max(total, LEAST))
        found = error[0]
        for n in range(1, nodes):
            part = (brightness - at[n - 1]) / (at[n] - at[n - 1])
            between = error[n - 1] + part * (error[n] - error[n - 1])
            found = between if brightness > at[n - 1] else found
        found = error[nodes - 1] if brightness >= at[nodes - 1] else found
        gain = exp2(-found)
        out[i], out[i + 1], out[i + 2] = light[i] * gain, light[i + 1] * gain, light[i + 2] * gain
