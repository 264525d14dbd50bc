import pytest
import torch

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
