"""What alignment does with every pixel of its blocks, as machine code: see hdrcli/native.py.

Patches are square, and lie one behind the other: (n, side, side). Borders are mirrored about
their outermost pixels, as OpenCV does.
"""

import numpy as np
from numpy.typing import NDArray

from hdrcli.native import inlined, kernel, summing_kernel

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
EIGHTH, QUARTER = np.float32(0.125), np.float32(0.25)
FINE = 4  # taps of ``fine`` on either side of the one in the middle
WIDE = 12  # pixels on either side over which ``band`` takes the mean away
AREA = np.float32((2 * WIDE + 1) ** 2)
EDGE = 0.02 / 4  # of the slopes' two strengths, their product over the square of their sum
STEPS, STEP, SETTLED = 10, 2.0, 0.01  # of Gauss-Newton; pixels


@inlined
def mirrored(at: int, count: int) -> int:
    """The index inside a line that stands for one outside; it is not far outside."""
    inner = -at if at < 0 else at
    return 2 * count - 2 - inner if inner >= count else inner


@inlined
def mirror_ends(line: Floats, first: int, count: int, reach: int) -> None:
    """Continue ``count`` numbers from ``first`` on by ``reach`` on either side."""
    last = first + count - 1
    for k in range(1, reach + 1):
        line[first - k] = line[first + k]
        line[last + k] = line[last - k]


@inlined
def soften(light: Floats, taps: Floats, first: int, room: Floats, line: int, side: int) -> None:
    """Blur a patch of ``light`` into the beginning of the room, where ``line`` is free too."""
    t0, t1, t2, t3, t4 = taps[0], taps[1], taps[2], taps[3], taps[4]
    for y in range(side):
        for x in range(side):
            room[line + FINE + x] = t0 * light[first + y * side + x]
        for k in range(1, FINE + 1):
            above, tap = first + mirrored(y - k, side) * side, taps[k]
            below = first + mirrored(y + k, side) * side
            for x in range(side):
                room[line + FINE + x] += tap * (light[above + x] + light[below + x])
        mirror_ends(room, line + FINE, side, FINE)
        for x in range(side):
            at = line + FINE + x
            near = t0 * room[at] + t1 * (room[at - 1] + room[at + 1])
            far = t3 * (room[at - 3] + room[at + 3]) + t4 * (room[at - 4] + room[at + 4])
            room[y * side + x] = near + t2 * (room[at - 2] + room[at + 2]) + far


@inlined
def less_mean(room: Floats, line: int, light: Floats, first: int, side: int) -> None:
    """A row at ``first`` of what is in the room, less the means of 25, whose columns' sums are.

    They begin at ``line``; behind them there is room.
    """
    length = side + 2 * WIDE
    twos, fours = line + length, line + 2 * length
    for x in range(length - 1):
        room[twos + x] = room[line + x] + room[line + x + 1]
    for x in range(length - 3):
        room[fours + x] = room[twos + x] + room[twos + x + 2]
    for x in range(length - 7):
        room[twos + x] = room[fours + x] + room[fours + x + 4]
    for x in range(side):
        all_but_one = room[twos + x] + room[twos + x + 8] + room[twos + x + 16]
        light[first + x] -= (all_but_one + room[line + x + 2 * WIDE]) / AREA


@kernel
def band(light: Floats, taps: Floats, room: Floats, side: int, count: int) -> None:
    """Keep what is coarser than a pixel and finer than 25, in place, of patches of log light.

    Blurred by ``taps``, the middle one and those on one side of it, less the mean of 25 x 25
    pixels around. ``room`` takes side side + 3 (side + 24) numbers.
    """
    area = side * side
    columns = area + WIDE
    for patch in range(count):
        first = patch * area
        soften(light, taps, first, room, area, side)
        for x in range(side):
            room[columns + x] = ZERO
        for i in range(area):
            light[first + i] = room[i]
        for k in range(-WIDE, WIDE + 1):
            row = mirrored(k, side) * side
            for x in range(side):
                room[columns + x] += room[row + x]
        for y in range(side):
            mirror_ends(room, columns, side, WIDE)
            less_mean(room, area, light, first + y * side, side)
            enters, leaves = mirrored(y + 1 + WIDE, side) * side, mirrored(y - WIDE, side) * side
            for x in range(side):
                room[columns + x] += room[enters + x] - room[leaves + x]


@inlined
def slope(light: Floats, mask: Bytes, first: int, step: int, at: int, count: int) -> np.float32:
    """The slope at the ``at``-th of ``count`` numbers ``step`` apart, zero where the mask is."""
    here = first + at * step
    after = here + step if at < count - 1 else here
    before = here - step if at > 0 else here
    both = TWO if 0 < at < count - 1 else ONE
    return np.float32((light[after] - light[before]) / both * np.float32(mask[here]))


@inlined
def slopes(light: Floats, mask: Bytes, first: int, room: Floats, side: int) -> None:
    """The slopes of a patch along x, then those along y, into the beginning of the room."""
    area = side * side
    for y in range(side):
        row = y * side
        for x in range(1, side - 1):
            i = first + row + x
            room[row + x] = (light[i + 1] - light[i - 1]) / TWO * np.float32(mask[i])
        room[row] = slope(light, mask, first + row, 1, 0, side)
        room[row + side - 1] = slope(light, mask, first + row, 1, side - 1, side)
        up, down = max(y - 1, 0) * side, min(y + 1, side - 1) * side
        per = ONE if up == row or down == row else TWO
        for x in range(side):
            gap = light[first + down + x] - light[first + up + x]
            room[area + row + x] = gap / per * np.float32(mask[first + row + x])


@inlined
def offset(shift_x: float, shift_y: float, full: int, reach: int) -> int:
    """Where in a patch of ``full`` x ``full`` a block moved by whole pixels begins."""
    return (reach + int(shift_y)) * full + reach + int(shift_x)


@inlined
def meet(
    light: Floats,
    mask: Bytes,
    own: int,
    wide: Floats,
    wide_mask: Bytes,
    other: int,
    shift_x: float,
    shift_y: float,
    room: Floats,
    moved: int,
    side: int,
    reach: int,
) -> tuple[np.float32, np.float32, np.float32]:
    """Bring patch b to where a is, interpolated linearly into the room, from ``moved`` on.

    What is returned are sums where both masks are: of these, of a, and of b.
    """
    full = side + 2 * reach
    left, top = np.floor(shift_x), np.floor(shift_y)
    ax, ay = np.float32(shift_x - left), np.float32(shift_y - top)
    corner = other + offset(left, top, full, reach)
    nearest = other + offset(np.rint(shift_x), np.rint(shift_y), full, reach)
    n = one = two = ZERO
    for row in range(side):
        above, line = corner + row * full, row * side
        for x in range(side):
            at = above + x
            upper = wide[at] + ax * (wide[at + 1] - wide[at])
            lower = wide[at + full] + ax * (wide[at + full + 1] - wide[at + full])
            i = own + line + x
            m = np.float32(mask[i]) * np.float32(wide_mask[nearest + row * full + x])
            b = upper + ay * (lower - upper)
            room[moved + line + x] = b
            n += m
            one += light[i] * m
            two += b * m
    return n, one, two


Products = tuple[
    np.float32, np.float32, np.float32, np.float32, np.float32,
    np.float32, np.float32, np.float32, np.float32, np.float32,
]  # fmt: skip


@inlined
def products(
    light: Floats,
    mask: Bytes,
    own: int,
    wide_mask: Bytes,
    nearest: int,
    one: np.float32,
    two: np.float32,
    room: Floats,
    side: int,
    full: int,
) -> Products:
    """Sums where both masks are, of a and b less their means, ``one`` and ``two``.

    aa, bb, ab; the slopes times a; the slopes times b; and of the slopes xx, xy, yy. The room
    holds the slopes along x, those along y, and b.
    """
    area = side * side
    aa = bb = ab = xa = xb = ya = yb = xx = xy = yy = ZERO
    for row in range(side):
        for x in range(side):
            i = row * side + x
            m = np.float32(mask[own + i]) * np.float32(wide_mask[nearest + row * full + x])
            a, b = (light[own + i] - one) * m, (room[2 * area + i] - two) * m
            gx, gy = room[i] * m, room[area + i] * m
            aa, bb, ab = aa + a * a, bb + b * b, ab + a * b
            xa, xb, ya, yb = xa + gx * a, xb + gx * b, ya + gy * a, yb + gy * b
            xx, xy, yy = xx + gx * gx, xy + gx * gy, yy + gy * gy
    return aa, bb, ab, xa, ya, xb, yb, xx, xy, yy


@inlined
def next_move(seen: Products, xx: float, xy: float, yy: float) -> tuple[float, float]:
    """How much further Gauss-Newton goes, no more than STEP; the slopes' products are the first."""
    aa, bb, _, xa, ya, xb, yb, _, _, _ = seen
    scale = np.sqrt(np.float64(aa) / np.float64(bb)) if aa > ZERO and bb > ZERO else 0.0
    gx, gy = np.float64(xa) - scale * np.float64(xb), np.float64(ya) - scale * np.float64(yb)
    det = xx * yy - xy * xy
    dx, dy = (yy * gx - xy * gy) / det, (xx * gy - xy * gx) / det
    short = min(1.0, STEP / max(np.sqrt(dx * dx + dy * dy), 1e-9))
    return short * dx, short * dy


@summing_kernel
def track(
    light: Floats,
    mask: Bytes,
    wide: Floats,
    wide_mask: Bytes,
    least: np.float32,
    room: Floats,
    found: Doubles,
    side: int,
    reach: int,
    count: int,
) -> None:
    """Find patches a of ``side`` in patches b, ``reach`` wider on each side, by Gauss-Newton.

    ``found`` is (count, 5), begins as zeros, and takes the shift (x, y) from the middle; the
    correlation at the middle, and at the shift, 0 where the patch was lost; and whether at least
    ``least`` of it is seen in both. ``room`` takes 3 side side numbers.
    """
    full, area = side + 2 * reach, side * side
    for patch in range(count):
        own, other, out = patch * area, patch * full * full, 5 * patch
        slopes(light, mask, own, room, side)
        x = y = xx = xy = yy = 0.0
        for step in range(STEPS):
            n, one, two = meet(
                light, mask, own, wide, wide_mask, other, x, y, room, 2 * area, side, reach
            )
            if n < least * np.float32(area):
                break
            found[out + 4] = 1.0
            nearest = other + offset(np.rint(x), np.rint(y), full, reach)
            seen = products(
                light, mask, own, wide_mask, nearest, one / n, two / n, room, side, full
            )
            alike = seen[0] > ZERO and seen[1] > ZERO
            size = np.sqrt(np.float64(seen[0]) * np.float64(seen[1]))
            after = np.float64(seen[2]) / size if alike else 0.0
            if step == 0:  # the mask hardly changes within a few pixels
                xx, xy, yy = np.float64(seen[7]), np.float64(seen[8]), np.float64(seen[9])
                found[out + 2] = after
            if xx * yy - xy * xy <= EDGE * (xx + yy) ** 2:
                break  # a straight edge: it may slide along itself
            dx, dy = next_move(seen, xx, xy, yy)
            x, y = x + dx, y + dy
            if max(abs(x), abs(y)) > reach - 1:
                break
            if step == STEPS - 1 or max(abs(dx), abs(dy)) < SETTLED:
                found[out], found[out + 1], found[out + 3] = x, y, after
                break


@inlined
def tensors(
    smooth: Floats,
    good: Bytes,
    y: int,
    sign: float,
    sums: Doubles,
    height: int,
    width: int,
) -> None:
    """Add the products xx, yy, xy of Sobel's slopes of one row to ``sums`` (3, width).

    Of the good pixels alone, and with a sign: 1 where the row enters the sums, -1 where it leaves.
    """
    upper, row = mirrored(y - 1, height) * width, y * width
    lower = mirrored(y + 1, height) * width
    for x in range(1, width - 1):
        a, b, c = upper + x, row + x, lower + x
        across = smooth[a + 1] - smooth[a - 1] + smooth[c + 1] - smooth[c - 1]
        down = smooth[c - 1] - smooth[a - 1] + smooth[c + 1] - smooth[a + 1]
        open_ = np.float32(good[b]) * EIGHTH
        gx = (across + TWO * (smooth[b + 1] - smooth[b - 1])) * open_
        gy = (down + TWO * (smooth[c] - smooth[a])) * open_
        sums[x] += sign * np.float64(gx * gx)
        sums[width + x] += sign * np.float64(gy * gy)
        sums[2 * width + x] += sign * np.float64(gx * gy)
    for x in range(0, width, width - 1):  # the mirrored picture does not slope across its edge
        beside = 1 if x == 0 else width - 2
        edge = smooth[lower + beside] - smooth[upper + beside] + smooth[lower + x]
        slope = (edge - smooth[upper + x]) * np.float32(good[row + x]) * QUARTER
        sums[width + x] += sign * np.float64(slope * slope)


@kernel
def texture(
    smooth: Floats,
    good: Bytes,
    window: int,
    sums: Doubles,
    running: Doubles,
    out: Floats,
    height: int,
    width: int,
) -> None:
    """The smaller eigenvalue of the structure tensor over ``window`` x ``window`` pixels.

    Of a plane of blurred log light (height, width), where it is ``good`` (Shi and Tomasi 1994).
    There is room in ``sums`` (3, width) and ``running`` (3, width + window + 1).
    """
    before, part = window // 2, 1 / (window * window)
    padded = width + window + 1
    for i in range(3 * width):
        sums[i] = 0.0
    for k in range(window):
        tensors(smooth, good, mirrored(k - before, height), 1.0, sums, height, width)
    for y in range(height):
        xx = yy = xy = 0.0
        for i in range(width + window):
            x = mirrored(i - before, width)
            running[i], running[padded + i], running[2 * padded + i] = xx, yy, xy
            xx, yy, xy = xx + sums[x], yy + sums[width + x], xy + sums[2 * width + x]
        for x in range(width):
            one = np.float32((running[x + window] - running[x]) * part)
            two = np.float32((running[padded + x + window] - running[padded + x]) * part)
            at = 2 * padded + x
            cross = np.float32((running[at + window] - running[at]) * part)
            root = np.sqrt((one - two) * (one - two) * QUARTER + cross * cross)
            out[y * width + x] = (one + two) / TWO - root
        enters = mirrored(y + window - before, height)
        tensors(smooth, good, enters, 1.0, sums, height, width)
        tensors(smooth, good, mirrored(y - before, height), -1.0, sums, height, width)
