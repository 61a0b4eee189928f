"""The windowed match finds what was moved, and only where it is asked."""

import itertools

import pytest
import torch
from torch.nn import functional

from hdrcli.nets.matching import halved, match, refine, scaled, search, swap


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def features(channels=6, height=12, width=20, batch=2):
    return torch.randn(batch, channels, height, width)


def everywhere(x):
    return torch.ones(x.shape[0], *x.shape[2:], dtype=torch.bool)


def shifted(x, dy, dx):
    """Move the content by (dy, dx)."""
    return x.roll((dy, dx), dims=(2, 3))


def by_hand(target, source, mask, radius):
    """Equations 5 and 7 place by place."""
    patches = [
        functional.unfold(x, 3, padding=1).view(len(x), -1, *x.shape[2:]) for x in (target, source)
    ]
    T, S = (functional.normalize(p, dim=1) for p in patches)
    moves = torch.zeros(len(T), 2, *T.shape[2:], dtype=torch.long)
    window = list(itertools.product(range(-radius, radius + 1), repeat=2))
    for b, y, x in mask.nonzero().tolist():
        scores = {
            (dy, dx): float(T[b, :, y, x] @ S[b, :, y + dy, x + dx])
            - 1e-3 * (dy**2 + dx**2) ** 0.5 / radius
            for dy, dx in window
            if 0 <= y + dy < T.shape[2] and 0 <= x + dx < T.shape[3]
        }
        moves[b, :, y, x] = torch.tensor(max(scores, key=lambda move: scores[move]))
    return moves


@pytest.mark.parametrize("find", [search, None], ids=["search", "refine"])
@pytest.mark.parametrize("radius", [1, 3])
def test_the_match_is_the_best_of_the_window(find, radius):
    target, source = features(), features()
    mask = torch.rand(2, 12, 20) > 0.5
    pair = scaled(target, "candidate"), scaled(source, "candidate")
    if find is search:
        moves = search(*pair, mask, radius)
    else:
        moves = refine(*pair, mask, torch.zeros(2, 2, 12, 20, dtype=torch.long), radius)
    assert torch.equal(moves, by_hand(target, source, mask, radius))


def test_refinement_looks_around_the_given_move():
    target = features(height=24, width=24)
    source, mask = shifted(target, 5, -4), torch.zeros(2, 24, 24, dtype=torch.bool)
    mask[:, 8:16, 8:16] = True
    around = (
        torch.tensor([4, -3])[None, :, None, None].expand(2, 2, 24, 24).contiguous() * mask[:, None]
    )
    moves = refine(scaled(target, "candidate"), scaled(source, "candidate"), mask, around, 1)
    assert (moves[:, 0][mask] == 5).all()
    assert (moves[:, 1][mask] == -4).all()


@pytest.mark.parametrize("move", [(0, 0), (3, -5), (-8, 8)])
def test_a_moved_copy_is_found_at_every_scale(move):
    """Features of three scales of one picture that moved by whole coarse cells."""
    target = [features(4, 96 // 2**scale, 96 // 2**scale, 1) for scale in range(3)]
    moves = [torch.tensor(move) * 4 // 2**scale for scale in range(3)]
    source = [shifted(t, *m.tolist()) for t, m in zip(target, moves, strict=True)]
    masks = [torch.zeros(1, *t.shape[2:], dtype=torch.bool) for t in target]
    for scale, mask in enumerate(masks):
        mask[:, 40 // 2**scale : 56 // 2**scale, 44 // 2**scale : 60 // 2**scale] = True
    found = match(target, source, masks, windows=(2, 2, 8))
    for mask, moves_of_scale, expected in zip(masks, found, moves, strict=True):
        assert (moves_of_scale.permute(0, 2, 3, 1)[mask] == expected).all()


def test_nothing_is_matched_outside_the_mask():
    target, source = features(), features()
    mask = torch.zeros(2, 12, 20, dtype=torch.bool)
    mask[1, 3:5, 7:9] = True
    moves = search(scaled(target, "candidate"), scaled(source, "candidate"), mask, 3)
    assert not moves.permute(0, 2, 3, 1)[~mask].any()
    assert moves.permute(0, 2, 3, 1)[mask].any()


def test_flat_surroundings_do_not_move():
    flat = torch.ones(1, 4, 24, 24)
    noise = 1e-6 * torch.randn(1, 4, 24, 24)
    moves = search(
        scaled(flat, "candidate"), scaled(flat + noise, "candidate"), everywhere(flat), 4
    )
    assert not moves[..., 1:-1, 1:-1].any()


def test_moves_point_inside_the_picture():
    target, source = features(), features()
    moves = match([target], [source], [everywhere(target)], windows=(0, 0, 6))[0]
    y, x = torch.arange(12)[:, None] + moves[:, 0], torch.arange(20) + moves[:, 1]
    assert y.min() >= 0
    assert y.max() < 12
    assert x.min() >= 0
    assert x.max() < 20


def test_a_brighter_candidate_wins_only_as_the_paper_prints_it():
    """Dividing by the norm of the target alone prefers energy to likeness."""
    target = features(4, 16, 16, 1).abs()
    source = target.clone()
    source[..., 8:, :] = 10 * torch.rand(1, 4, 8, 16)
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[:, 4, 2:14] = True
    kept = match([target], [source], [mask], (0, 0, 6), "candidate")[0]
    lured = match([target], [source], [mask], (0, 0, 6), "target")[0]
    assert not kept.any()
    assert (lured[:, 0][mask] > 2).all()


def test_a_tile_that_holds_the_window_gives_the_moves_of_the_whole():
    target, source = features(8, 40, 48, 1), features(8, 40, 48, 1)
    mask = torch.rand(1, 40, 48) > 0.5
    whole = search(scaled(target, "candidate"), scaled(source, "candidate"), mask, 4)
    part = (slice(None), slice(None), slice(7, 33), slice(11, 41))
    tile = search(
        scaled(target[part], "candidate"),
        scaled(source[part], "candidate"),
        mask[:, 7:33, 11:41],
        4,
    )
    halo = 4 + 2  # the window, and the patches of its outermost candidates
    assert torch.equal(tile[..., halo:-halo, halo:-halo], whole[part][..., halo:-halo, halo:-halo])


def test_swapping_brings_the_copy_back():
    source = features(3, 16, 16, 1)
    target, mask = torch.zeros_like(source), torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[:, 4:9, 5:10] = True
    moves = torch.tensor([3, -2])[None, :, None, None] * mask[:, None]
    swapped = swap(target, source, mask, moves)
    torch.testing.assert_close(swapped[..., 4:9, 5:10], source[..., 7:12, 3:8])
    assert not swapped.permute(0, 2, 3, 1)[~mask].any()


def test_where_neighbours_disagree_their_patches_are_averaged():
    source, mask = features(1, 3, 8, 1), torch.zeros(1, 3, 8, dtype=torch.bool)
    mask[0, 1, 3:5] = True
    moves = torch.zeros(1, 2, 3, 8, dtype=torch.long)
    moves[0, 1, 1, 3], moves[0, 1, 1, 4] = 1, -2
    swapped = swap(torch.zeros_like(source), source, mask, moves)
    row = source[0, 0, 1]
    torch.testing.assert_close(
        swapped[0, 0, 1, 3:5], torch.stack([(row[4] + row[1]) / 2, (row[5] + row[2]) / 2])
    )


def test_the_gradient_of_a_swap_goes_where_the_content_came_from():
    target, source = features(2, 8, 8, 1).requires_grad_(), features(2, 8, 8, 1).requires_grad_()
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2, 2] = True
    moves = torch.tensor([3, 1])[None, :, None, None] * mask[:, None]
    swap(target, source, mask, moves).sum().backward()
    assert source.grad.sum(1).nonzero().tolist() == [[0, 5, 3]]
    assert (target.grad.sum(1) == 0).nonzero().tolist() == [[0, 2, 2]]


def test_a_coarser_scale_takes_the_mean_move_of_its_cell():
    moves = torch.tensor([[4, 99], [8, 6]])[None, None].repeat(1, 2, 1, 1)
    mask = torch.tensor([[[True, False], [True, True]]])
    assert halved(moves, mask).flatten().tolist() == [3, 3]


def test_an_empty_mask_costs_nothing_and_moves_nothing():
    target = features()
    mask = torch.zeros(2, 12, 20, dtype=torch.bool)
    assert not match([target], [target], [mask], (2,))[0].any()
    assert torch.equal(swap(target, 2 * target, mask, torch.zeros(2, 2, 12, 20).long()), target)
