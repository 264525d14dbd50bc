import copy

import pytest
import torch
from torch.optim.swa_utils import update_bn

from dlp_fast.models import batch_norm, wide_resnet
from dlp_fast.models.wide_resnet import WideResNet


@pytest.mark.parametrize(
    ("depth", "width", "parameters"), [(16, 1, 0.18e6), (16, 4, 2.75e6), (28, 2, 1.47e6)]
)
def test_sizes_are_the_published_ones(depth, width, parameters):
    net = WideResNet(depth, width, 10, 32)
    count = sum(p.numel() for p in net.parameters())
    assert abs(count - parameters) < 0.05 * parameters
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == depth - 3  # the last layer is linear, three shortcuts are 1x1


@pytest.mark.parametrize("depth", [4, 9, 12, 17])
def test_depth(depth):
    with pytest.raises(ValueError, match=rf"6n\+4 and at least 10, got {depth}"):
        WideResNet(depth, 1, 10, 32)


@pytest.mark.parametrize(("size", "last"), [(8, 2), (16, 4), (32, 8), (64, 8), (96, 12), (224, 14)])
def test_last_map_stays_small(size, last):
    net = WideResNet(10, 1, 5, size).eval()
    seen = []
    net.bn.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, size, size)).shape == (1, 5)
    assert seen == [last]


def gradients(net: WideResNet, x: torch.Tensor) -> list[torch.Tensor]:
    net.zero_grad()
    net(x).square().sum().backward()
    return [p.grad.clone() for p in net.parameters()]


def test_batch_norm_with_relu_is_both_layers(monkeypatch):
    """In training, in eval mode, and with running statistics that count every batch alike."""
    torch.manual_seed(0)
    x = torch.randn(6, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    net = WideResNet(10, 1, 5, 16).to(memory_format=torch.channels_last).train()
    twin = copy.deepcopy(net)
    mine, (mean, count) = gradients(net, x), (net.bn.running_mean, net.bn.num_batches_tracked)
    update_bn([x, x + 0.1], net)
    evaluated = net.eval()(x)
    monkeypatch.setattr(wide_resnet, "active", lambda norm, x: torch.relu(norm(x)))
    theirs = gradients(twin, x)
    update_bn([x, x + 0.1], twin)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
    torch.testing.assert_close(mean, twin.bn.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.bn.running_var, twin.bn.running_var, rtol=1e-4, atol=1e-5)
    assert count == twin.bn.num_batches_tracked == 2
    torch.testing.assert_close(evaluated, twin.eval()(x), rtol=1e-4, atol=1e-4)


def test_a_layer_that_others_hold_is_called():
    net = WideResNet(10, 1, 5, 8).train()
    called = []
    net.blocks[0].bn1.register_forward_pre_hook(lambda _m, _i: called.append("hook"))
    net.bn.forward = lambda x: called.append("forward") or x
    net(torch.randn(2, 3, 8, 8))
    assert called == ["hook", "forward"]


def test_where_one_operation_does_both(monkeypatch):
    """On the kinds of device that are named, and on another one while that is asked for."""
    asked, norm, x = [], torch.nn.BatchNorm2d(16), torch.zeros(2, 16, 3, 3)
    monkeypatch.setattr(batch_norm, "batch_norm_relu", lambda x, *given: asked.append("one") or x)
    batch_norm.active(norm, x)
    assert list(batch_norm.FUSED_ON) == ["cpu"] and asked == ["one"]
    monkeypatch.setattr(batch_norm, "FUSED_ON", {"cuda"})
    batch_norm.active(norm, x)
    with batch_norm.fused_also_on("cpu"):
        batch_norm.active(norm, x)
    batch_norm.active(norm, x)
    assert asked == ["one", "one"] and list(batch_norm.FUSED_ON) == ["cuda"]
