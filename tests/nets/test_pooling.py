"""Pools that are measured once and held fixed."""

import threading

import pytest
import torch
from torch import nn

from hdrcli.nets.pooling import GlobalPool, Statistics, frozen, measure, pools, record, recording


class Whitened(nn.Module):
    """x minus its mean, and in a second slot x minus the mean of its square."""

    def __init__(self):
        super().__init__()
        self.pool = GlobalPool()

    def forward(self, x):
        return x - self.pool(x) - self.pool(x * x, slot=1)


@pytest.fixture
def net():
    return Whitened()


def test_a_pool_is_the_mean_over_the_picture():
    x = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert GlobalPool()(x).tolist() == [[[[1.5]], [[5.5]], [[9.5]]], [[[13.5]], [[17.5]], [[21.5]]]]


def test_the_mean_of_many_half_precision_pixels_is_not_rounded_away():
    x = torch.full((1, 1, 300, 300), 0.1, dtype=torch.bfloat16)
    assert GlobalPool()(x).item() == pytest.approx(0.1, rel=4e-3)
    assert GlobalPool()(x).dtype == torch.bfloat16


def test_frozen_tiles_put_together_are_the_whole(net):
    x = torch.rand(1, 2, 8, 12)
    whole = net(x)
    statistics = measure(net, x)
    with frozen(net, statistics):
        tiles = torch.cat([net(x[..., :5]), net(x[..., 5:])], dim=-1)
    torch.testing.assert_close(tiles, whole)
    assert not torch.allclose(torch.cat([net(x[..., :5]), net(x[..., 5:])], dim=-1), whole)


def test_every_slot_is_recorded_by_itself(net):
    x = torch.rand(1, 2, 4, 4)
    statistics = measure(net, x)
    assert len(statistics) == 2
    torch.testing.assert_close(statistics.of(net.pool, 1), (x * x).mean((2, 3), keepdim=True))


def test_one_picture_serves_a_batch_of_tiles(net):
    statistics = measure(net, torch.rand(1, 2, 4, 4))
    with frozen(net, statistics):
        assert net(torch.rand(5, 2, 3, 3)).shape == (5, 2, 3, 3)


def test_statistics_recorded_in_float32_serve_half_precision(net):
    statistics = measure(net, torch.rand(1, 2, 4, 4))
    with frozen(net, statistics):
        assert net(torch.rand(1, 2, 4, 4).half()).dtype == torch.float16


def test_after_the_block_the_pool_lives_again(net):
    x = torch.rand(1, 2, 4, 4)
    expected = net(x)
    with pytest.raises(ZeroDivisionError), frozen(net, measure(net, 7 * x)):
        raise ZeroDivisionError
    torch.testing.assert_close(net(x), expected)


def test_freezing_one_network_leaves_another_alone(net):
    other, x = Whitened(), torch.rand(1, 2, 4, 4)
    with frozen(other, measure(other, 3 * x)), frozen(net, measure(net, x)):
        torch.testing.assert_close(other(x), x - other_mean(3 * x))
        torch.testing.assert_close(net(x), x - other_mean(x))


def other_mean(x):
    return x.mean((2, 3), keepdim=True) + (x * x).mean((2, 3), keepdim=True)


def test_threads_do_not_see_each_others_statistics(net):
    pictures = [torch.full((1, 1, 2, 2), float(i)) for i in range(1, 5)]
    results = {}
    ready = threading.Barrier(len(pictures))

    def work(i):
        with frozen(net, measure(net, pictures[i])):
            ready.wait(timeout=10)
            results[i] = net(torch.zeros(1, 1, 2, 2))[0, 0, 0, 0].item()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: -2.0, 1: -6.0, 2: -12.0, 3: -20.0}


def test_statistics_of_another_network_are_refused(net):
    statistics = measure(Whitened(), torch.rand(1, 2, 4, 4))
    with frozen(net, statistics), pytest.raises(RuntimeError, match="another network"):
        net(torch.rand(1, 2, 4, 4))


def test_recording_tells_when_nothing_may_be_left_out(net):
    assert not recording(net)
    with record(net):
        assert recording(net)
        assert not recording(Whitened())
    with frozen(net, Statistics()):
        assert not recording(net)


def test_gradients_flow_while_recording(net):
    x = torch.rand(1, 2, 4, 4, requires_grad=True)
    with record(net) as statistics:
        net(x).sum().backward()
    assert x.grad is not None
    assert not statistics.of(net.pool, 0).requires_grad


def test_a_network_without_pools_has_nothing_to_measure():
    net = nn.Conv2d(1, 1, 3)
    assert pools(net) == []
    assert len(measure(net, torch.rand(1, 1, 4, 4))) == 0
