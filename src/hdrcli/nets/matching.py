"""Windowed matching of features and their swap: section III-B of APNT-Fusion (apntfusion.py).

For a place k of the target's features, the place j of the source's with the most similar 3×3
patch within a window (equations 5 to 8), coarse to fine. Only where a mask asks: the cost is
that of the masked area. Everything is told as the move j - k, whole pixels of its scale, (dy, dx).

Results depend on nothing but the features within the window, so tiles that hold the window give
what the whole picture gives. In flat surroundings all candidates are equal; there a small
preference for the shorter move decides, instead of the last bit of a sum.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Normalize = Literal["candidate", "target"]

PATCH = 1  # a patch is 3×3: its radius
BLOCK = 8  # places matched together, per side
BLOCKS_AT_ONCE = 8
PLACES_AT_ONCE = 2048
PLACES_SWAPPED = 1 << 15  # together
LONGEST_COSTS = 1e-3  # of similarity: what the longest move of a window must be better by


def match(
    target: Sequence[Tensor],
    source: Sequence[Tensor],
    masks: Sequence[Tensor],
    windows: Sequence[int],
    normalize: Normalize = "candidate",
) -> list[Tensor]:
    """Find the moves at every scale of ``masks``, fine to coarse, each (B, 2, h, w) int64.

    ``target`` and ``source`` are features (B, C, h, w), fine to coarse, of as many scales as are
    to be matched; ``masks`` are (B, h, w) bool. The coarsest is searched with the last of
    ``windows`` around no move, the finer ones around what was found. Moves outside the mask
    are 0.
    """
    with torch.autocast(target[0].device.type, enabled=False):
        pairs = [
            (scaled(t, "candidate"), scaled(s, normalize))
            for t, s in zip(target, source, strict=True)
        ]
        coarsest = len(pairs) - 1
        found = [search(*pairs[coarsest], masks[coarsest], windows[-1])]
        for scale in reversed(range(coarsest)):
            around = 2 * found[0].repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
            found.insert(0, refine(*pairs[scale], masks[scale], around, windows[scale]))
    while len(found) < len(masks):
        found.append(halved(found[-1], masks[len(found) - 1]))
    return found


Scaled = tuple[Tensor, Tensor]  # features (B, C, h, w), and a factor per place (B, h, w) > 0


def scaled(features: Tensor, normalize: Normalize) -> Scaled:
    """Features in float32, and one over the norm of the patch around each place (or 1)."""
    features = features.float()
    if normalize == "target":
        return features, torch.ones_like(features[:, 0])
    energy = 9 * functional.avg_pool2d(features.square().sum(1, keepdim=True), 3, 1, PATCH)
    return features, energy.clamp(min=1e-12).rsqrt()[:, 0]


def search(target: Scaled, source: Scaled, mask: Tensor, radius: int) -> Tensor:
    """Equation 7: match the masked places within ``radius`` of themselves, block by block."""
    T, t = blocks(target[0], PATCH), blocks(target[1], 0)
    S, s = blocks(source[0], radius + PATCH), blocks(source[1], radius)
    wanted = blocks(mask, 0)
    moves = wanted.new_zeros(*wanted.shape[:3], 2, BLOCK, BLOCK, dtype=torch.long)
    toll = tolls(radius, mask.device)
    for some in torch.split(wanted.flatten(3).any(dim=3).nonzero(), BLOCKS_AT_ONCE):
        at = some.unbind(dim=1)
        scores = patch_products(T[at], S[at]) * t[at][..., None, None]
        moves[at] = best_moves(scored(scores, s[at][:, None, None], toll))
    whole = moves.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    return whole[..., : mask.shape[1], : mask.shape[2]] * mask[:, None]


def blocks(x: Tensor, margin: int) -> Tensor:
    """Cut (B, ..., h, w) into blocks with a margin of zeros outside: (B, ny, nx, ..., n, n).

    A view of one padded copy.
    """
    below, right = -x.shape[-2] % BLOCK, -x.shape[-1] % BLOCK
    padded = functional.pad(x, (margin, margin + right, margin, margin + below))
    side = BLOCK + 2 * margin
    return padded.unfold(-2, side, BLOCK).unfold(-2, side, BLOCK).movedim((-4, -3), (1, 2))


def patch_products(T: Tensor, S: Tensor) -> Tensor:
    """Inner products of all 3×3 patches of T (n, C, a, a) with all of S (n, C, b, b).

    Returns (n, a - 2, a - 2, b - 2, b - 2). Products of places come first, by one matrix
    product; those of patches are sums of nine of them.
    """
    n, a, b = len(T), T.shape[-1], S.shape[-1]
    places = torch.bmm(T.flatten(2).mT, S.flatten(2)).view(n, a, a, b, b)
    a, b = a - 2 * PATCH, b - 2 * PATCH
    total = torch.zeros(n, a, a, b, b, device=T.device)
    for y, x in itertools.product(range(2 * PATCH + 1), repeat=2):
        total += places[:, y : y + a, x : x + a, y : y + b, x : x + b]
    return total


def tolls(radius: int, device: torch.device) -> Tensor:
    """What a move costs, (BLOCK, BLOCK, m, m): nothing at home, infinity beyond ``radius``."""
    side = BLOCK + 2 * radius
    move = torch.arange(side)[None] - radius - torch.arange(BLOCK)[:, None]
    far = torch.maximum(move.abs()[:, None, :, None], move.abs()[None, :, None, :])
    length = torch.hypot(move[:, None, :, None].float(), move[None, :, None, :].float())
    cost = LONGEST_COSTS * length / max(radius, 1)
    return cost.masked_fill(far > radius, torch.inf).to(device)


def scored(products: Tensor, factors: Tensor, toll: Tensor) -> Tensor:
    """Similarity less toll; candidates outside the picture, whose factor is 0, are out."""
    return (products * factors - toll).masked_fill_(factors == 0, -torch.inf)


def best_moves(scores: Tensor) -> Tensor:
    """The best candidate of every place of (n, BLOCK, BLOCK, m, m): moves (n, 2, BLOCK, BLOCK)."""
    side = scores.shape[-1]
    radius = (side - BLOCK) // 2
    best = scores.flatten(3).argmax(dim=3)
    home = radius + torch.arange(BLOCK, device=scores.device)
    return torch.stack([best // side - home[:, None], best % side - home], dim=1)


def refine(target: Scaled, source: Scaled, mask: Tensor, around: Tensor, radius: int) -> Tensor:
    """Equation 8: match the masked places within ``radius`` of where ``around`` moves them."""
    margin = radius + PATCH
    T, S = rows(target[0], PATCH), rows(source[0], margin)
    t, s = target[1].flatten(), functional.pad(source[1], (radius,) * 4).flatten()
    window = offsets(radius, mask.device)
    toll = LONGEST_COSTS * window.float().norm(dim=1) / max(radius, 1)
    moves = torch.zeros_like(around)
    for k in torch.split(mask.nonzero(), PLACES_AT_ONCE):
        move = around[k[:, 0], :, k[:, 1], k[:, 2]]
        j = k + functional.pad(move, (1, 0))
        products = row_products(
            T[near(k, mask.shape, PATCH, PATCH)], S[near(j, mask.shape, margin, margin)], radius
        )
        products *= t[near(k, mask.shape, 0, 0)]
        scores = scored(products, s[near(j, mask.shape, radius, radius)], toll)
        moves[k[:, 0], :, k[:, 1], k[:, 2]] = move + window[scores.argmax(dim=1)]
    return moves


def row_products(T: Tensor, S: Tensor, radius: int) -> Tensor:
    """Inner products of a patch with the patches of a window, as patch_products.

    (K, 9, C) and (K, (2r + 3)², C) to (K, (2r + 1)²).
    """
    side = 2 * (radius + PATCH) + 1
    patch = (offsets(PATCH, T.device) + PATCH) @ torch.tensor([side, 1], device=T.device)
    window = (offsets(radius, T.device) + radius) @ torch.tensor([side, 1], device=T.device)
    pairs = window[:, None] + patch + side * side * torch.arange(len(patch), device=T.device)
    places = torch.bmm(T, S.mT).flatten(1)
    return places[:, pairs.flatten()].view(-1, *pairs.shape).sum(dim=2)


def halved(moves: Tensor, mask: Tensor) -> Tensor:
    """Moves (B, 2, h, w) of one scale at the next: the mean of a cell's masked ones, halved."""
    weight = mask[:, None].float()
    share = functional.avg_pool2d(weight, 2)
    mean = functional.avg_pool2d(moves * weight, 2) / share.clamp(min=0.25)
    return (mean / 2).round().long()


def swap(target: Tensor, source: Tensor, mask: Tensor, moves: Tensor) -> Tensor:
    """Replace the masked places of ``target`` by what ``source`` has where the moves point.

    Section III-B.3. Whole patches are replaced, so a masked place k is the mean over the masked
    places n beside it of the source at k + move(n). ``target`` and ``source`` are (B, C, h, w),
    ``mask`` is (B, h, w), ``moves`` is (B, 2, h, w). Gradients go to both features.
    """
    k = mask.nonzero()
    says, move, S = (
        functional.pad(mask, (PATCH,) * 4).flatten(),
        rows(moves, PATCH),
        rows(source, 0),
    )
    found = [heard(some, mask.shape, says, move, S) for some in torch.split(k, PLACES_SWAPPED)]
    filled = target.permute(0, 2, 3, 1).index_put(k.unbind(dim=1), torch.cat(found))
    return filled.permute(0, 3, 1, 2)


def heard(k: Tensor, shape: torch.Size, says: Tensor, moves: Tensor, S: Tensor) -> Tensor:
    """The mean at places k (K, 3) of what the masked places beside them point to: (K, C).

    ``says`` and ``moves`` are rows with the margin of a patch, ``S`` rows of the source.
    """
    beside = near(k, shape, PATCH, PATCH)
    say, move = says[beside], moves[beside]
    total, count = S.new_zeros(len(k), S.shape[1]), S.new_zeros(len(k), 1)
    for i in range(beside.shape[1]):
        j = k + functional.pad(move[:, i], (1, 0))
        known = say[:, i] & inside(j, shape)
        j = torch.where(known[:, None], j, k)  # any row will do where nothing is said
        weight = known[:, None].to(S.dtype)
        total = torch.addcmul(total, S.index_select(0, near(j, shape, 0, 0)[:, 0]), weight)
        count = count + weight
    return total / count


def offsets(radius: int, device: torch.device) -> Tensor:
    """Every (dy, dx) of a window, row by row, ((2r + 1)², 2)."""
    line = torch.arange(-radius, radius + 1, device=device)
    return torch.cartesian_prod(line, line)


def rows(x: Tensor, margin: int) -> Tensor:
    """One row per place of (B, C, h, w), with a margin of zeros around: (B·h·w, C)."""
    return functional.pad(x, (margin,) * 4).permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def near(places: Tensor, shape: torch.Size, margin: int, radius: int) -> Tensor:
    """Rows of the window around places (K, 3) = (b, y, x), when (B, h, w) has a margin."""
    h, w = shape[1] + 2 * margin, shape[2] + 2 * margin
    at = places + places.new_tensor([0, margin, margin])
    home = at @ at.new_tensor([h * w, w, 1])
    window = offsets(radius, places.device) @ at.new_tensor([w, 1])
    return home[:, None] + window


def inside(places: Tensor, shape: torch.Size) -> Tensor:
    """Which of (K, 3) = (b, y, x) lie in the picture."""
    size = places.new_tensor(shape[1:])
    return ((places[:, 1:] >= 0) & (places[:, 1:] < size)).all(dim=1)
