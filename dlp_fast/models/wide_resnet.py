"""Wide residual networks (Zagoruyko & Komodakis 2016), with a stem that suits the image size."""

from __future__ import annotations

from torch import Tensor, nn

from dlp_fast.models.batch_norm import active


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv twice; where the shape changes, the shortcut starts after the first BN-ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        same = channels_in == channels_out and stride == 1
        self.shortcut = None if same else nn.Conv2d(channels_in, channels_out, 1, stride, 0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first = active(self.bn1, x)
        residual = x if self.shortcut is None else self.shortcut(first)
        return residual + self.conv2(active(self.bn2, self.conv1(first)))


class WideResNet(nn.Module):
    """WRN-depth-width: [b, 3, H, W] float to logits [b, classes].

    Up to 48 px the stem is the published 3x3 convolution; up to 96 px it has stride 2; above, stride 2 and a
    max-pool, so that the last feature map stays near 8x8 and the cost near that of CIFAR.
    """

    def __init__(self, depth: int, width: int, classes: int, size: int):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth of a wide ResNet must be 6n+4 and at least 10, got {depth}")
        blocks = (depth - 4) // 6
        stem: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1 if size <= 48 else 2, 1, bias=False)]
        if size > 96:
            stem.append(nn.MaxPool2d(3, 2, 1))
        self.stem = nn.Sequential(*stem)
        layers: list[nn.Module] = []
        channels = 16
        for planes, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for i in range(blocks):
                layers.append(PreActivationBlock(channels, planes, stride if i == 0 else 1))
                channels = planes
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = active(self.bn, self.blocks(self.stem(x)))
        return self.classifier(x.mean((2, 3)))
