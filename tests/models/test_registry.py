import pytest
import torch

from dlp_fast.errors import ConfigError
from dlp_fast.models.registry import build_model


def test_weights_come_from_the_seed_and_leave_the_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (build_model("wrn-10-1", 4, 16, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.classifier.weight, two.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert one.training
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers()))
    assert float(one.bn.running_mean.abs().max()) == 0  # the trial pass leaves no trace


def test_channels_last():
    net = build_model("wrn-10-1", 4, 16, 0)
    assert net.stem[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_torchvision_takes_small_images(name):
    net = build_model(f"torchvision:{name}", 3, 32, 0).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_small_stem():
    small, large = (build_model("torchvision:resnet18", 3, size, 0) for size in (32, 224))
    assert small.conv1.stride == (1, 1)
    assert isinstance(small.maxpool, torch.nn.Identity)
    assert large.conv1.stride == (2, 2)


@pytest.mark.parametrize(("size", "pools"), [(8, 3), (16, 4), (32, 5)])
def test_vgg_keeps_the_pools_that_its_images_have_room_for(size, pools):
    net = build_model("torchvision:vgg11_bn", 3, size, 0).eval()
    assert sum(isinstance(layer, torch.nn.MaxPool2d) for layer in net.features) == pools
    with torch.no_grad():
        assert net(torch.zeros(2, 3, size, size)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrn-17-1", r"wrn-17-1: the depth of a wide ResNet must be 6n\+4 .* perhaps you meant wrn-16-1"),
        ("wrn-1-1", "perhaps you meant wrn-10-1"),
        ("wrn-16-0", "its width at least 1; perhaps you meant wrn-16-1"),
        ("wrn-16", "'wrn-16' is unknown; expected wrn-16-1"),
        (
            "resnet50",
            "'resnet50' is unknown; perhaps you meant torchvision:resnet50; expected wrn-16-1, any wrn-D-K",
        ),
        ("ResNet50", "perhaps you meant torchvision:resnet50"),
        ("resnet9", "perhaps you meant torchvision:resnet18"),
        ("torchvision:resnet9", "torchvision:resnet9 is unknown; perhaps you meant torchvision:resnet18"),
        ("torchvision:resnet81", "perhaps you meant torchvision:resnet18"),
        ("torchvision:zzz", "torchvision:zzz is unknown"),
        ("", "is unknown"),
    ],
)
def test_names(name, message):
    with pytest.raises(ConfigError, match=message):
        build_model(name, 3, 16, 0)


def test_images_too_small_for_the_network():
    with pytest.raises(ConfigError, match=r"alexnet cannot take 16 px images .*--dataset.image-size"):
        build_model("torchvision:alexnet", 3, 16, 0)
