import pytest
import torch
from torch import nn

from dlp_fast.engine.inference import refit_batch_norm


def batches(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 4, 4, generator=generator) * 2 + 5 for n in sizes]


def test_statistics_are_those_of_the_batches():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
    given = batches(16, 16, 16)
    seen = [net[0](x).detach() for x in given]
    refit_batch_norm(net, given)
    means = torch.stack([x.mean((0, 2, 3)) for x in seen])
    variances = torch.stack([x.var((0, 2, 3)) for x in seen])
    torch.testing.assert_close(net[1].running_mean, means.mean(0))
    torch.testing.assert_close(net[1].running_var, variances.mean(0))


def test_what_was_there_has_no_say():
    nets = [nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[1][0].running_mean.fill_(100)
    nets[1][2].running_var.fill_(1e6)
    for net in nets:
        refit_batch_norm(net, batches(8, 8))
    assert all(
        torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values())
    )


@pytest.mark.parametrize("training", [True, False])
def test_weights_momentum_and_mode_stay(training):
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, momentum=0.3)).train(training)
    before = [p.detach().clone() for p in net.parameters()]
    refit_batch_norm(net, batches(8))
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before))
    assert net[1].momentum == 0.3 and all(m.training == training for m in net.modules())
    assert not any(p.grad is not None for p in net.parameters())


def test_without_batch_norm_nothing_is_drawn():
    def never():
        raise AssertionError("a batch was drawn")
        yield

    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    refit_batch_norm(net, never())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
