"""What the paper reports, per cent, where its text has it: (clean accuracy, attack success rate)."""

from __future__ import annotations

_COLUMNS = ("none", "badnets", "trojannn", "blended", "lca", "sig")


def _rows(text: str) -> dict[str, dict[str, tuple[float, float]]]:
    table = {}
    for line in text.strip().splitlines():
        name, *numbers = line.split()
        values = list(map(float, numbers))
        table[name] = dict(zip(_COLUMNS, zip(values[::2], values[1::2])))
    return table


# Table 3, CIFAR-10
TABLE3 = _rows(
    """
none 93.31 0 91.31 100 88.62 100 89.89 100 87.26 99.46 88.54 99.88
fp 86.62 0 83.06 96.89 83.14 69.25 85.41 83.49 80.03 55.62 83.14 77.80
mcr 88.99 0 79.35 4.56 73.92 25.16 80.12 28.78 78.26 21.13 83.22 2.39
nad 90.39 0 89.64 1.99 79.47 15.99 84.52 1.75 79.87 18.71 83.01 1.98
abl 88.46 0 87.42 4.13 88.74 4.41 85.62 16.37 89.12 0 89.33 0.08
anp 92.15 0 90.16 0.56 90.95 0.76 91.81 0.53 91.24 4.12 91.45 0.87
dlp 93.01 0 93.08 0.24 92.19 0.31 91.93 0 92.04 0.21 92.98 0
"""
)

# Table 6, CIFAR-10, DLP on other networks
TABLE6 = {
    "torchvision:vgg16_bn": {
        "badnets": (92.43, 0.36),
        "trojannn": (92.47, 0.33),
        "blended": (92.26, 0),
        "sig": (92.53, 0),
    },
    "torchvision:resnet18": {"badnets": (93.14, 0.25), "trojannn": (93.22, 0.27), "sig": (93.19, 0)},
    "torchvision:inception_v3": {"badnets": (93.56, 0.29), "trojannn": (93.43, 0.32), "sig": (93.61, 0)},
    "torchvision:mobilenet_v2": {
        "badnets": (93.88, 0.19),
        "trojannn": (93.64, 0.25),
        "blended": (93.57, 0),
        "sig": (93.92, 0),
    },
    "torchvision:densenet121": {"badnets": (94.82, 0.17), "trojannn": (95.02, 0.21)},
}
