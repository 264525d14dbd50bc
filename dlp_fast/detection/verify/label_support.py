"""Whether what images show supports their labels: how the network took them while it still learnt from content alone.

In its first epochs a network gives a label to what looks like it. An image under a wrong label is then among the
hardest of the class it was put into, and one under its own label is somewhere in the middle, whatever mark it carries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlp_fast.detection.propose.views import Images

EARLY = slice(1, 6)  # epochs: the first one is noise, later ones have begun to learn images by heart
THUMBNAIL = 8  # pixels: of this size two pictures are compared
ALIKE = 0.95  # correlation of two thumbnails from which they show the same picture


@dataclass(frozen=True)
class LabelSupport:
    """loss_rank: mean rank, 0 to 1, of the images' early losses in their class, 0.5 for images like the others;
    p: probability of a rank as high by chance; distinct: how many different pictures they are.
    """

    loss_rank: float
    p: float
    distinct: int


def early_loss_ranks(loss: Tensor, labels: Tensor) -> np.ndarray:
    """float64 [n]: rank, 0 to 1, of each image's loss in its class, mean over the early epochs.

    Args: loss: fp32 [epochs, n], nats; labels: int64 [n].
    """
    chosen = loss[EARLY].numpy() if len(loss) > 1 else loss.numpy()
    y, ranks = labels.numpy(), np.zeros(loss.shape[1])
    for label in np.unique(y):
        ids = np.flatnonzero(y == label)
        for losses in chosen:
            order = np.empty(len(ids))
            order[np.argsort(losses[ids], kind="stable")] = np.arange(len(ids))
            ranks[ids] += (order + 0.5) / len(ids) / len(chosen)
    return ranks


def label_support(images: Images, ids: np.ndarray, ranks: np.ndarray) -> LabelSupport:
    """The LabelSupport of the images `ids`, int64 [k]; ranks: of all images, see `early_loss_ranks`.

    Copies of one picture count once, since their losses are one observation.
    """
    pictures = distinct_pictures(images, ids)
    means = np.array([ranks[ids[pictures == number]].mean() for number in range(pictures.max() + 1)])
    # a mean of k uniform ranks has the deviation 1 / sqrt(12 k)
    deviations = (means.mean() - 0.5) * math.sqrt(12 * len(means))
    return LabelSupport(float(means.mean()), math.erfc(deviations / math.sqrt(2)) / 2, len(means))


def distinct_pictures(images: Images, ids: np.ndarray) -> np.ndarray:
    """int64 [k]: number of the picture that each of `ids` shows, from 0; near-duplicates have the same."""
    parts = []
    for part in torch.from_numpy(ids).split(256):
        planes = images.get(part).cpu().permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(planes, (THUMBNAIL, THUMBNAIL), mode="area").flatten(1)
        parts.append(small - small.mean(1, keepdim=True))
    small = torch.cat(parts)
    small = small / small.norm(dim=1, keepdim=True).clamp_min(1e-6)
    number = np.full(len(ids), -1)
    found = 0
    for i in range(len(ids)):
        if number[i] < 0:
            alike = ((small @ small[i]) >= ALIKE).numpy() & (number < 0)
            alike[i] = True
            number[alike] = found
            found += 1
    return number
