"""Whether images have a mark in common beside the pictures that look most like them, whatever their labels.

A mark that is told from the rest of its class may be what the images show: a 3 among the 8s is not like an 8. Beside
the other 3s a relabelled 3 has nothing of its own, a poisoned one its trigger.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.config import StaticPatternsConfig
from dlp_fast.detection.propose.grown import diagonal_discriminant
from dlp_fast.detection.propose.neighbours import Surroundings, evenly, small_pictures
from dlp_fast.detection.propose.views import Images, ResidualView, mean_residual, views_of

FEWEST = 5  # images
ALIKE = "apart_from_alike"  # a statistic: see below
COMPARED = 3  # pictures each is compared with
FOLDS = 4
SAMPLE = 256  # images of a group, evenly spread
SEED = 31


def apart_from_alike(
    images: Images, ids: Tensor, around: Surroundings, config: StaticPatternsConfig
) -> float | None:
    """By how many standard errors the images of a group, int64 ids, differ from the pictures of other labels most like
    each, along a direction that is found without the images it is measured on; 0 where nothing tells them apart, None
    for fewer than FEWEST.

    The pictures themselves and their high-pass residuals are tried; the larger counts.
    """
    if len(ids) < FEWEST:
        return None
    ids = evenly(ids, SAMPLE)
    alike = around.most_alike(ids, COMPARED)
    if not alike.shape[1]:
        return None
    view = views_of(images.height, images.width, config.scan_side, config.tile)[0]
    pixels = [images.get(of).cpu() for of in (ids, alike.flatten())]
    residual = ResidualView(view, mean_residual(torch.cat(pixels), view))
    tried = (residual.vectors, _plain)
    return max(_held_out_shift(*(vectors(of) for of in pixels)) for vectors in tried)


def _plain(pixels: Tensor) -> Tensor:
    """fp32 [b, P]: small pictures without their mean, of length 1."""
    small = small_pictures(pixels).flatten(1)
    small = small - small.mean(1, keepdim=True)
    return small / small.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _held_out_shift(group: Tensor, others: Tensor) -> float:
    """By how many standard errors fp32 [n, P] differ from [n k, P], of whose rows k follow for each of the group."""
    n, each = len(group), len(others) // len(group)
    fold = torch.empty(n, dtype=torch.int64)
    fold[torch.randperm(n, generator=torch.Generator().manual_seed(SEED))] = torch.arange(n) % FOLDS
    of_others = fold.repeat_interleave(each)
    shifts = []
    for k in range(FOLDS):
        rest, beside = group[fold != k].double(), others[of_others != k].double()
        weights = diagonal_discriminant(rest, beside)
        scale = torch.cat([rest @ weights, beside @ weights]).std().clamp_min(1e-12)
        alike = (others[of_others == k].double() @ weights).view(-1, each).mean(1)
        shifts.append((group[fold == k].double() @ weights - alike) / scale)
    shift = torch.cat(shifts)
    return float(shift.mean() / shift.std().clamp_min(1e-9) * n**0.5)
