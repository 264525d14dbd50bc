import pytest
import torch
from tiny import Pixels, training_data

from dlp_fast.engine.batches import Cycle, normalise, pixel_statistics, training_order


class TestCycle:
    @pytest.mark.parametrize(("n", "batch"), [(10, 3), (10, 10), (7, 20), (1, 4), (12, 5)])
    def test_every_id_once_a_pass(self, n, batch):
        ids = torch.arange(n) * 3 + 100
        cycle = Cycle(ids, batch, seed=1, stream=3)
        drawn = torch.cat([cycle.at(step) for step in range(-(-4 * n // batch))])
        for start in range(0, 4 * n - n + 1, n):
            assert sorted(drawn[start : start + n].tolist()) == ids.tolist()

    def test_any_step_at_any_time(self):
        ids = torch.arange(11)
        cycle = Cycle(ids, 4, seed=1, stream=3)
        forward = [cycle.at(step) for step in range(30)]
        for step in (29, 0, 13, 5):
            assert torch.equal(Cycle(ids, 4, seed=1, stream=3).at(step), forward[step])
            assert torch.equal(cycle.at(step), forward[step])

    def test_passes_streams_and_seeds_differ(self):
        ids = torch.arange(50)
        first = Cycle(ids, 50, seed=1, stream=3)
        orders = [first.at(0), first.at(1), Cycle(ids, 50, 1, 4).at(0), Cycle(ids, 50, 2, 3).at(0)]
        assert len({tuple(order.tolist()) for order in orders}) == 4

    def test_batch_size_cuts_one_order(self):
        ids = torch.arange(30)
        small, large = Cycle(ids, 3, 5, 1), Cycle(ids, 12, 5, 1)
        assert torch.equal(
            torch.cat([small.at(i) for i in range(20)]), torch.cat([large.at(i) for i in range(5)])
        )


def test_training_order_is_a_permutation_for_any_seed():
    for seed in (0, 2**63 - 1):
        assert training_order(seed, 4, 0, 20).sort().values.tolist() == list(range(20))


class TestViews:
    @pytest.mark.parametrize("strong", [False, True])
    def test_the_same_for_any_batch_size(self, strong):
        data = training_data(24, side=16)
        ids = torch.tensor([3, 0, 17, 5, 9])
        whole = data.views(ids, epoch=2, strong=strong)
        for position, one in enumerate(ids.split(1)):
            single = data.views(one, epoch=2, strong=strong)
            assert torch.equal(single[0][0], whole[0][position])
            if strong:
                assert torch.equal(single[1][0], whole[1][position])
        assert (whole[1] is None) == (not strong)

    def test_epochs_and_ids_differ(self):
        data = training_data(24, side=16)
        ids = torch.arange(24)
        assert not torch.equal(data.views(ids, 0, True)[1], data.views(ids, 1, True)[1])

    def test_plain_is_normalised_channels_last(self):
        data = training_data()
        x = data.plain(torch.arange(96))
        assert x.shape == (96, 3, 8, 8)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert x.mean((0, 2, 3)).abs().max() < 1e-4
        assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-3


def test_normalise():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    x = normalise(images, (0.5, 0.2, 0.0), (1.0, 2.0, 0.5))
    torch.testing.assert_close(x.flatten(), torch.tensor([-0.5, 0.0, 2.0]))


def test_pixel_statistics_of_one_colour_stay_finite():
    mean, std = pixel_statistics(Pixels(torch.full((5, 4, 4, 3), 51, dtype=torch.uint8)))
    assert mean == pytest.approx((0.2, 0.2, 0.2))
    assert min(std) > 0
