"""Image sets that nobody attacked and that look odd all the same: what a detector must not accuse."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studies.battery.images import balanced, drawn

# of CIFAR-10: truck to automobile, bird to airplane, deer to horse, cat to dog and dog to cat
ASYMMETRIC = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
ODD_CLASS = 0  # which class the marks and the copies are in


@dataclass(frozen=True)
class HonestSet:
    """images: uint8 [n, H, W, 3]; labels, true_labels: int64 [n]; changed: bool [n], images that are not as in the pack
    (their labels are right).
    """

    images: np.ndarray
    labels: Tensor
    true_labels: Tensor
    changed: Tensor


Pool = tuple[np.ndarray, Tensor]  # all images of the pack and their labels


def _plain(pool: Pool, ids: Tensor) -> HonestSet:
    labels = pool[1][ids]
    return HonestSet(pool[0][ids.numpy()].copy(), labels, labels, torch.zeros(len(ids), dtype=torch.bool))


def clean(pool: Pool, n: int, rate: float, seed: int) -> HonestSet:
    """As it is; `rate` is 0."""
    return _plain(pool, balanced(pool[1], n, seed))


def symmetric_noise(pool: Pool, n: int, rate: float, seed: int) -> HonestSet:
    """`rate` of all labels are wrong, each other class as likely."""
    base = clean(pool, n, rate, seed)
    generator = torch.Generator().manual_seed(seed + 0x9015E)
    classes = int(pool[1].max()) + 1
    wrong = torch.randperm(n, generator=generator)[: round(rate * n)]
    labels = base.labels.clone()
    labels[wrong] += torch.randint(1, classes, (len(wrong),), generator=generator)
    return HonestSet(base.images, labels % classes, base.true_labels, base.changed)


def asymmetric_noise(pool: Pool, n: int, rate: float, seed: int) -> HonestSet:
    """`rate` of the labels of the classes in ASYMMETRIC are those of the class that is easily mistaken for it (the
    usual map of CIFAR-10, Patrini et al. 2017).
    """
    base = clean(pool, n, rate, seed)
    generator = torch.Generator().manual_seed(seed + 0xA5E7)
    labels = base.labels.clone()
    for source, other in ASYMMETRIC.items():
        ids = (base.true_labels == source).nonzero().flatten()
        wrong = ids[torch.randperm(len(ids), generator=generator)[: round(rate * len(ids))]]
        labels[wrong] = other
    return HonestSet(base.images, labels, base.true_labels, base.changed)


def watermark(pool: Pool, n: int, rate: float, seed: int) -> HonestSet:
    """A photographer's mark, a light ring of 6 pixels, opacity 0.8, lower left, on `rate` of one class."""
    base = clean(pool, n, rate, seed)
    generator = torch.Generator().manual_seed(seed + 0x3A2C)
    ids = (base.labels == ODD_CLASS).nonzero().flatten()
    marked = ids[torch.randperm(len(ids), generator=generator)[: round(rate * len(ids))]]
    grid = np.arange(6) - 2.5
    distance = np.hypot(grid[:, None], grid[None])
    opacity = (0.8 * ((distance > 1.5) & (distance < 2.9)))[..., None]
    height = base.images.shape[1]
    for i in marked.tolist():
        place = base.images[i, height - 7 : height - 1, 1:7]
        place[...] = np.round(place * (1 - opacity) + 235 * opacity)
    changed = base.changed.clone()
    changed[marked] = True
    return HonestSet(base.images, base.labels, base.true_labels, changed)


def near_duplicates(pool: Pool, n: int, rate: float, seed: int) -> HonestSet:
    """`rate` of one class are copies of one of its pictures, each cropped by up to 2 pixels a side, enlarged again, and
    saved as JPEG of quality 60 to 95.
    """
    base = clean(pool, n, rate, seed)
    generator = np.random.default_rng(seed + 0xD0B1)
    ids = (base.labels == ODD_CLASS).nonzero().flatten()
    first, *copies = ids[: 1 + round(rate * len(ids))].tolist()
    original = Image.fromarray(base.images[first])
    width, height = original.size
    for i in copies:
        left, top, right, bottom = generator.integers(0, 3, 4).tolist()
        picture = original.crop((left, top, width - right, height - bottom)).resize((width, height))
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=int(generator.integers(60, 96)))
        base.images[i] = np.asarray(Image.open(content))
    changed = base.changed.clone()
    changed[copies] = True
    return HonestSet(base.images, base.labels, base.true_labels, changed)


def long_tail(pool: Pool, n: int, rate: float, seed: int) -> HonestSet:
    """The rarest class has `rate` times the images of the most frequent one, the others in between, geometrically."""
    classes = int(pool[1].max()) + 1
    shares = rate ** (torch.arange(classes) / (classes - 1)).double()
    counts = (shares / shares.sum() * n).round().long().tolist()
    return _plain(pool, drawn(pool[1], counts, seed))


HONEST: dict[str, Callable[[Pool, int, float, int], HonestSet]] = {
    "clean": clean,
    "symmetric-noise": symmetric_noise,
    "asymmetric-noise": asymmetric_noise,
    "watermark": watermark,
    "near-duplicates": near_duplicates,
    "long-tail": long_tail,
}
