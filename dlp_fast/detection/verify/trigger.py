"""The trigger, reconstructed in closed form and tried: an attack success rate that is estimated without any truth.

What a group's images have in common is put on images of other classes, and what the network says of them is counted.
A static trigger gives itself away; one that differs from image to image (a warp, changing places) does not. So what
this shows convicts, and what it does not show acquits nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast.detection.propose.views import Images, evenly
from dlp_fast.ops.residual_scan import high_pass

SAMPLE = 512  # images of each group that a trigger is made from, and that it is tried on
SIGNIFICANT = 4.0  # standard errors from which a pixel of a trigger differs from the other images

Predict = Callable[[Tensor], Tensor]  # uint8 [b, H, W, 3] -> class int64 [b]


@dataclass(frozen=True)
class Trigger:
    """Per pixel and channel, x becomes scale x + offset; fp32 [H, W, 3], levels of 0 to 255. A patch has scale 0, a
    blend of opacity α 1 - α, an added pattern 1.
    """

    scale: Tensor
    offset: Tensor

    def on(self, images: Tensor) -> Tensor:
        """uint8 [b, H, W, 3] with the trigger."""
        changed = images.float() * self.scale.to(images.device) + self.offset.to(images.device)
        return changed.round().clamp(0, 255).to(torch.uint8)


def reconstruct(images: Images, suspects: Tensor, others: Tensor) -> list[Trigger]:
    """Triggers that would make `others` look like `suspects` (int64 ids): one by each pixel's mean and deviation, where
    these differ by more than chance, and one by the mean high-pass residual, which fewer images suffice for.
    """
    one, two = moments(images, spread(suspects)), moments(images, spread(others))
    scale = (one.deviation / two.deviation.clamp_min(1.0)).clamp(0, 1)
    shift = one.mean - two.mean
    of_mean = shift.abs() / ((one.deviation**2 / one.count + two.deviation**2 / two.count).sqrt() + 0.5)
    of_scale = scale.clamp_min(1e-3).log().abs() * (2 * max(one.count - 1, 1)) ** 0.5
    differs = (of_mean >= SIGNIFICANT) | ((of_scale >= SIGNIFICANT) & (scale < 0.9))
    scale = torch.where(differs, scale, 1.0)
    by_moments = Trigger(scale.float(), torch.where(differs, one.mean - scale * two.mean, 0.0).float())
    added = one.residual - two.residual
    return [by_moments, Trigger(torch.ones_like(scale).float(), added.float())]


def enough_of_class(suspects: int, labels: Tensor, label: int, tried_on: Tensor) -> bool:
    """Whether class `label` has enough images among `tried_on` to compare so many suspects with."""
    own = int((labels[tried_on] == label).sum())
    return own >= suspects // 4 and own > 8


def estimated_attack_success(
    images: Images,
    suspects: Tensor,
    labels: Tensor,
    label: int,
    tried_on: Tensor,
    predict: Predict,
    within_class: bool | None = None,
) -> float:
    """Share, 0 to 1, of images of other classes that `predict` takes for class `label` once they carry what `suspects`
    (int64 ids) have in common; of two ways to reconstruct it the one that works better.

    Args: labels: int64 [n]; tried_on: int64 ids of unsuspicious images of all classes; within_class: whether suspects
    are compared with images of their class, which takes the class's own look out of the trigger; None: where there are
    enough (`enough_of_class`). A placebo has to be compared as the group that it stands for.
    """
    tried = attempts(images, suspects, labels, label, tried_on, predict, within_class)
    return max((share for _, share in tried), default=0.0)


def attempts(
    images: Images,
    suspects: Tensor,
    labels: Tensor,
    label: int,
    tried_on: Tensor,
    predict: Predict,
    within_class: bool | None = None,
) -> list[tuple[Trigger, float]]:
    """Each way to reconstruct what `suspects` have in common, with the share that `estimated_attack_success` takes the
    highest of; none where there is nothing to make it from or nobody to try it on.
    """
    others = tried_on[labels[tried_on] != label]
    if not len(others) or not len(suspects):
        return []
    if within_class is None:
        within_class = enough_of_class(len(suspects), labels, label, tried_on)
    compared = tried_on[labels[tried_on] == label] if within_class else others
    if not len(compared):
        return []
    victims = spread(others)
    found = []
    for trigger in reconstruct(images, suspects, compared):
        hits = sum(
            int((predict(trigger.on(images.get(part))).cpu() == label).sum()) for part in victims.split(64)
        )
        found.append((trigger, hits / len(victims)))
    return found


@dataclass(frozen=True)
class Moments:
    """Mean and deviation of pixels, and of their high-pass residuals, in levels: fp64 [H, W, 3] on the CPU."""

    mean: Tensor
    deviation: Tensor
    residual: Tensor
    residual_deviation: Tensor
    count: int


def moments(images: Images, ids: Tensor) -> Moments:
    """The Moments of the images `ids`, int64."""
    shape = (images.height, images.width, 3)
    total, squares, residual, energy = (torch.zeros(shape, dtype=torch.float64) for _ in range(4))
    for part in ids.split(64):
        pixels = images.get(part).cpu()
        x = pixels.double()
        total += x.sum(0)
        squares += (x * x).sum(0)
        high = high_pass(pixels).double()
        residual += high.sum(0)
        energy += (high * high).sum(0)
    n = len(ids)
    mean, residual = total / n, residual / n
    deviations = [
        (of / n - centre**2).clamp_min(0).sqrt() for of, centre in ((squares, mean), (energy, residual))
    ]
    return Moments(mean, deviations[0], residual, deviations[1], n)


def spread(ids: Tensor) -> Tensor:
    """At most SAMPLE of `ids`, evenly spread."""
    return evenly(ids, SAMPLE)
