"""Networks by name; channels-last and initialisation from a seed in one place."""

from __future__ import annotations

import difflib
import re
from typing import Any

import torch
from torch import nn

from dlp_fast.errors import ConfigError
from dlp_fast.models.from_timm import TIMM, timm_names, timm_network
from dlp_fast.models.starting import STEM, Filled, StartingWeights, fill
from dlp_fast.models.wide_resnet import WideResNet

TORCHVISION = "torchvision:"
SMALL = 96  # pixels; below this, stems that divide the resolution by 4 leave nothing to classify


def _small_stem(name: str, net: nn.Module, size: int) -> nn.Module:
    """Undo the early strides and pools of networks made for 224 px, so that 32 px end at about 4 to 8 px."""
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    elif name.startswith("densenet"):
        net.features.conv0 = nn.Conv2d(3, net.features.conv0.out_channels, 3, 1, 1, bias=False)
        net.features.pool0 = nn.Identity()
    elif name.startswith("mobilenet_v2"):
        net.features[0][0].stride = (1, 1)
        net.features[2].conv[1][0].stride = (1, 1)
    elif name.startswith("inception_v3"):
        net.Conv2d_1a_3x3.conv.stride = (1, 1)
        net.Conv2d_1a_3x3.conv.padding = net.Conv2d_2a_3x3.conv.padding = (1, 1)
        net.maxpool1 = net.maxpool2 = nn.Identity()
    elif name.startswith("vgg"):
        pools = [i for i, layer in enumerate(net.features) if isinstance(layer, nn.MaxPool2d)]
        while size >> len(pools) < 1:  # below 32 px the last pools have nothing to halve
            net.features[pools.pop()] = nn.Identity()
        # what is left is one pixel: the 7 x 7 pool and two layers of 4,096 would see it 49 times
        net.avgpool = nn.AdaptiveAvgPool2d(1)
        net.classifier = nn.Linear(512, net.classifier[-1].out_features)
    return net


def classifier_of(net: nn.Module) -> nn.Linear:
    """The last linear layer of any network: what it is given are the features.

    Raises ConfigError where a network has none.
    """
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ConfigError(
            "the network has no linear layer, so it has no features before a classifier; choose another --model"
        )
    return layers[-1]


def _head_of(net: nn.Module) -> nn.Module:
    """The layer that gives the logits: linear, or, in SqueezeNet, the last convolution."""
    if any(isinstance(module, nn.Linear) for module in net.modules()):
        return classifier_of(net)
    return [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]


def build_model(
    name: str,
    classes: int,
    size: int,
    seed: int,
    start: StartingWeights | None = None,
    *,
    own_stem: bool = False,
) -> nn.Module:
    """A network with new weights drawn from `seed`, in channels-last memory format.

    Args:
        name: `wrn-D-K`, `torchvision:NAME` or `timm:NAME`; classes: outputs; size: image side in pixels.
        start: weights that all layers but the classifier begin with.
        own_stem: torchvision's networks keep their stem, also up to SMALL pixels.

    Raises ConfigError for an unknown name, a network that cannot take images of that size, or weights that are of
    another one; ResourceError where timm is missing.
    """
    check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
        if wide:
            net: nn.Module = WideResNet(int(wide[1]), int(wide[2]), classes, size)
        elif name.startswith(TIMM):
            net = timm_network(name.removeprefix(TIMM), classes=classes)
        else:
            net = _from_torchvision(name.removeprefix(TORCHVISION), classes, size, own_stem)
        if start is not None:
            fill(net, start, _head_of(net), name)
        net = net.to(memory_format=torch.channels_last)
        try:
            with torch.no_grad():
                net.eval()(torch.zeros(2, 3, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"model {name} cannot take {size} px images ({(str(error).splitlines() or ['?'])[0]}); "
                "choose another --model or a larger --dataset.image-size"
            ) from None
    return net.train()


def check_name(name: str) -> None:
    """ConfigError, with the nearest name there is, where no network is called `name`; nothing is built."""
    wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    if wide:
        depth, width = int(wide[1]), int(wide[2])
        if depth < 10 or (depth - 4) % 6 or not width:
            near = 10 + 6 * max(0, round((depth - 10) / 6))
            raise ConfigError(
                f"model {name}: the depth of a wide ResNet must be 6n+4 and at least 10, and its width at least 1; "
                f"perhaps you meant wrn-{near}-{max(1, width)}"
            )
        return
    if name.startswith(TIMM):
        own = name.removeprefix(TIMM)
        others = timm_names(own)
        if others is not None:
            near = _nearest(own.lower(), others)
            raise ConfigError(
                f"model {name} is unknown" + (f"; perhaps you meant {TIMM}{near}" if near else "")
            )
        return
    import torchvision  # seconds that other networks need not pay

    known = torchvision.models.list_models(module=torchvision.models)
    own = name.removeprefix("torchvision:")
    if own in known and own != name:
        return
    near = own if own in known else _nearest(own.lower(), known)
    hint = f"; perhaps you meant torchvision:{near}" if near else ""
    if own == name:
        raise ConfigError(
            f"model {name!r} is unknown{hint}; expected wrn-16-1, any wrn-D-K, torchvision:NAME, or timm:NAME"
        )
    raise ConfigError(f"model torchvision:{own} is unknown{hint}")


def _nearest(name: str, known: list[str]) -> str | None:
    """The known name that is most like `name`; of several that are equally like it, the smallest network."""
    near = difflib.get_close_matches(name, known, n=10)
    likeness = {one: difflib.SequenceMatcher(None, one, name).ratio() for one in near}
    best = [one for one in near if likeness[one] == max(likeness.values())]
    return min(best, key=lambda one: [int(n) for n in re.findall(r"\d+", one)], default=None)


def _from_torchvision(name: str, classes: int, size: int, own_stem: bool) -> nn.Module:
    import torchvision

    net = torchvision.models.get_model(name, weights=None, num_classes=classes, **torchvision_options(name))
    return _small_stem(name, net, size) if size <= SMALL and not own_stem else net


def torchvision_options(name: str) -> dict[str, bool]:
    """What torchvision's builder of the network `name` is given besides the number of classes."""
    return {"aux_logits": False, "init_weights": True} if name in ("inception_v3", "googlenet") else {}


_STEMS = {
    (
        "resnet",
        "resnext",
        "wide_resnet",
    ): "its first convolution is 3 x 3 with stride 1 instead of 7 x 7 with stride 2, "
    "and there is no max-pool after it",
    (
        "densenet",
    ): "its first convolution is 3 x 3 with stride 1 instead of 7 x 7 with stride 2, and there is no pool "
    "after it",
    ("mobilenet_v2",): "its first convolution and its third block have stride 1 instead of 2",
    (
        "inception_v3",
    ): "its first convolutions have stride 1 and padding, and its first two max-pools are left out",
    ("vgg",): "its average pool gives one pixel, and its classifier is one linear layer instead of three",
}
"""What `_small_stem` changes, by the beginning of the name."""


def _changed_stem(name: str, size: int, own_stem: bool) -> str | None:
    """What `build_model` changes of torchvision's network for images of `size` pixels; None: nothing."""
    if not name.startswith(TORCHVISION) or size > SMALL or own_stem:
        return None
    own = name.removeprefix(TORCHVISION)
    return next((how for start, how in _STEMS.items() if own.startswith(start)), None)


def difference_from_torchvision(name: str, size: int, own_stem: bool = False) -> str | None:
    """How the network `name` for images of `size` pixels differs from torchvision's of that name; None: not at all."""
    if not name.startswith(TORCHVISION):
        return "is not one of torchvision's networks"
    stem = _changed_stem(name, size, own_stem)
    if stem is None:
        return None
    return f"is made for small images and is not torchvision's: {stem}. Above {SMALL} px it would be torchvision's own"


def _side(data: Any) -> int:
    return max(data.images.height, data.images.width)


def keeps_own_stem(data: Any) -> bool:
    """Whether networks for `data` keep their stem below SMALL pixels: it is worth its starting weights from STEM on."""
    return data.start is not None and _side(data) > STEM


def new_model(name: str, data: Any, seed: int) -> nn.Module:
    """The network `name` for the classes and image size of `data` (a TrainingData), on its device.

    It starts from `data.start`, where there is one, but for the classifier; all else is drawn from `seed`.
    """
    own_stem = keeps_own_stem(data)
    return build_model(name, data.classes, _side(data), seed, data.start, own_stem=own_stem).to(data.device)


def how_it_starts(name: str, data: Any) -> tuple[Filled, str]:
    """What `new_model` takes from `data.start`, and a line that says so."""
    size, own_stem = _side(data), keeps_own_stem(data)
    net = build_model(name, data.classes, size, data.seed, own_stem=own_stem)
    filled = fill(net, data.start, _head_of(net), name)
    stem = _changed_stem(name, size, own_stem)
    told = f"starting weights: {data.start.source} (sha256 {data.start.sha256[:12]}…): {filled}"
    if stem:
        told += f"; at {size} px the stem is replaced, and what replaces it is not pretrained: {stem}"
    return filled, told
