"""The mark, taken off again: does a network that was not given the labels then give the images their label?

A picture under its right label is taken for its class once a watermark is gone; a network that never saw the watermark
may be misled by it, and held-out agreement with it. A picture that an attacker relabelled has nothing but the mark to
say for its label. The images that are compared get the same mark put on and taken off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import fisher_exact
from torch import Tensor
from torch.nn import functional as F

from dlp_fast.detection.propose.views import Images
from dlp_fast.detection.verify.trigger import (
    SIGNIFICANT,
    Predict,
    Trigger,
    enough_of_class,
    moments,
    spread,
)

OPAQUE = 0.15  # scale of a pixel below which nothing of the picture can be got back from it


@dataclass(frozen=True)
class WithoutMark:
    """Shares, 0 to 1, of images that the network takes for their label once the mark is off: suspects: those of the
    group; others: of the class's controls, that had it put on before; p: probability, by chance, of so few
    suspects.
    """

    suspects: float
    others: float
    p: float

    @property
    def ratio(self) -> float:
        return self.suspects / max(self.others, 1e-6)


def mark_of(images: Images, suspects: Tensor, usual: Tensor) -> Trigger:
    """What `suspects` have in common and `usual` (int64 ids) have not, without what they show: opaque where their
    pixels hardly differ from one another; elsewhere what is added to the high-pass residual, by more than chance. The
    shade of a class, which relabelled pictures lack, has no part in it.
    """
    one, two = moments(images, spread(suspects)), moments(images, spread(usual))
    opaque = (one.deviation < OPAQUE * two.deviation.clamp_min(1.0)).any(-1, keepdim=True)
    error = (one.residual_deviation**2 / one.count + two.residual_deviation**2 / two.count).sqrt() + 0.25
    added = one.residual - two.residual
    offset = torch.where(added.abs() >= SIGNIFICANT * error, added, 0.0)
    scale = torch.where(opaque, 0.0, torch.ones_like(offset))
    return Trigger(scale.float(), torch.where(opaque, one.mean, offset).float())


def take_off(trigger: Trigger, images: Tensor) -> Tensor:
    """uint8 [b, H, W, 3]: `images` as they were before `trigger` was put on them; where it is opaque, what surrounds it
    is carried on.
    """
    scale, offset = trigger.scale.to(images.device), trigger.offset.to(images.device)
    hidden = (scale < OPAQUE).any(-1)
    x = (images.float() - offset) / scale.clamp_min(OPAQUE)
    known = (~hidden).float().expand(len(images), 1, *hidden.shape).contiguous()
    x = x.permute(0, 3, 1, 2) * known
    while not bool(known[0].all()) and bool(known[0].any()):
        weight = F.avg_pool2d(known, 3, 1, 1, count_include_pad=True)
        around = F.avg_pool2d(x, 3, 1, 1, count_include_pad=True) / weight.clamp_min(1e-6)
        fresh = (known == 0) & (weight > 0)
        x, known = torch.where(fresh, around, x), (weight > 0).float()
    return x.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8)


def without_mark(
    images: Images,
    suspects: Tensor,
    labels: Tensor,
    label: int | None,
    usual: Tensor,
    controls: Tensor,
    predict: Predict,
) -> WithoutMark | None:
    """The WithoutMark of `suspects` (int64 ids) of class `label`, or of several (None); None where nothing that they
    have in common can be reconstructed.

    Args: labels: int64 [n]; usual: int64 ids of images without the mark, that it is told from; controls: int64 ids of
    images whose labels `predict` was not given either.
    """
    if label is not None:
        if not enough_of_class(len(suspects), labels, label, usual):
            return None
        usual, controls = (ids[labels[ids] == label] for ids in (usual, controls))
    if not len(usual) or not len(controls):
        return None
    trigger = mark_of(images, suspects, usual)
    if bool((trigger.scale == 1).all() and (trigger.offset == 0).all()):
        return None

    def right(ids: Tensor, put_on: bool) -> tuple[int, int]:
        hits = 0
        for part in ids.split(64):
            x = images.get(part)
            x = take_off(trigger, trigger.on(x) if put_on else x)
            hits += int((predict(x).cpu() == labels[part]).sum())
        return hits, len(ids) - hits

    one, two = right(spread(suspects), False), right(spread(controls), True)
    p = float(fisher_exact([one, two], alternative="less")[1])
    return WithoutMark(one[0] / sum(one), two[0] / sum(two), p)
