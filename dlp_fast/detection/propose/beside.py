"""Whether images have a mark in common beside the pictures that look most like them, whatever their labels.

A mark that is told from the rest of its class may be what the images show: a 3 among the 8s is not like an 8. Beside
the other 3s a relabelled 3 has nothing of its own, a poisoned one its trigger.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.config import StaticPatternsConfig
from dlp_fast.detection.propose.grown import diagonal_discriminant
from dlp_fast.detection.propose.neighbours import Surroundings, even_out, small_pictures
from dlp_fast.detection.propose.views import Images, ResidualView, evenly, mean_residual, views_of

FEWEST = 5  # images
ALIKE = "apart_from_alike"  # a statistic: see below
COMPARED = 3  # pictures each is compared with
FOLDS = 4
SAMPLE = 256  # images of a group, evenly spread
SEED = 31  # of the folds


def apart_from_alike(
    images: Images, ids: Tensor, around: Surroundings, config: StaticPatternsConfig
) -> float | None:
    """By how many standard errors the images of a group, int64 ids, differ from the pictures most like each, more than
    others of the kinds that they show do, along a direction that is found without the images it is measured on; 0 where
    nothing tells them apart, None for fewer than FEWEST.

    The pictures themselves and their high-pass residuals are tried; the larger counts.
    """
    if len(ids) < FEWEST:
        return None
    ids = evenly(ids, SAMPLE)
    placebo = around.of_the_same_kind(ids)
    view = views_of(images.height, images.width, config.scan_side, config.tile)[0]
    pixels = [
        images.get(of.flatten()).cpu()
        for some in (ids, placebo)
        for of in (some, around.most_alike(some, COMPARED))
    ]
    residual = ResidualView(view, mean_residual(torch.cat(pixels), view))
    apart = []
    for vectors in (residual.vectors, _plain):
        own, alike, others, like_others = (vectors(of).double() for of in pixels)
        apart.append(
            _held_out_shift(own - _mean_of_each(alike, own), others - _mean_of_each(like_others, others))
        )
    return max(apart)


def _mean_of_each(alike: Tensor, of: Tensor) -> Tensor:
    return alike.view(len(of), -1, alike.shape[1]).mean(1)


def _plain(pixels: Tensor) -> Tensor:
    return even_out(small_pictures(pixels))


def _held_out_shift(group: Tensor, others: Tensor) -> float:
    """Standard errors between the means of fp64 [n, P] and [n, P], along a direction found on the other folds."""
    n = len(group)
    fold = torch.empty(n, dtype=torch.int64)
    fold[torch.randperm(n, generator=torch.Generator().manual_seed(SEED))] = torch.arange(n) % FOLDS
    one, two = [], []
    for k in range(FOLDS):
        rest, beside = group[fold != k], others[fold != k]
        weights = diagonal_discriminant(rest, beside)
        scale = torch.cat([rest @ weights, beside @ weights]).std().clamp_min(1e-12)
        one.append(group[fold == k] @ weights / scale)
        two.append(others[fold == k] @ weights / scale)
    a, b = torch.cat(one), torch.cat(two)
    return float((a.mean() - b.mean()) / ((a.var() + b.var()) / n).sqrt().clamp_min(1e-9))
