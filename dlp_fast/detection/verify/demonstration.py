"""What a finding's images have in common, put on a few other images, for a person to see; nothing is decided by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast.detection.propose.views import Images, evenly
from dlp_fast.detection.verify.trigger import Predict, Trigger, attempts

SHOWN = 5  # images that carry the trigger, and suspects that are shown beside their nearest clean image
CANDIDATES = 1024  # clean images, at most, among which the nearest are looked for


@dataclass(frozen=True)
class Demonstration:
    """Of one finding.

    finding: its number among the findings; trigger: the reconstruction that acts more on the network of stage 1;
    victims: int64 ids [v] of images of other classes; before, after: int64 [2, v], the classes that the network of
    stage 1 and the final model give them without and with the trigger; suspects: int64 ids [s] of the finding; nearest:
    int64 ids [s], of each the clean image whose features in the final model are nearest (Euclidean).
    """

    finding: int
    trigger: Trigger
    victims: Tensor
    before: Tensor
    after: Tensor
    suspects: Tensor
    nearest: Tensor


def demonstrate(
    finding: int,
    suspects: Tensor,
    label: int,
    images: Images,
    labels: Tensor,
    unsuspicious: Tensor,
    clean: Tensor,
    networks: tuple[Predict, Predict],
    features: Callable[[Tensor], Tensor],
) -> Demonstration | None:
    """The Demonstration of `suspects`, int64 ids of class `label`; None where no trigger can be reconstructed.

    Args: labels: int64 [n]; unsuspicious: int64 ids that the trigger is tried on; clean: int64 ids among which the
    nearest are looked for; networks: of stage 1, and the final model; features: of the final model, ids -> fp32 [b, d].
    """
    tried = attempts(images, suspects, labels, label, unsuspicious, networks[0])
    if not tried:
        return None
    trigger = max(tried, key=lambda attempt: attempt[1])[0]
    victims = one_of_each_class(unsuspicious[labels[unsuspicious] != label], labels)
    plain = images.get(victims)
    marked = trigger.on(plain)
    first, final = (torch.stack([network(x).cpu() for x in (plain, marked)]) for network in networks)
    some = evenly(suspects, SHOWN)
    return Demonstration(
        finding,
        trigger,
        victims,
        torch.stack([first[0], final[0]]),
        torch.stack([first[1], final[1]]),
        some,
        nearest(some, evenly(clean, CANDIDATES), features),
    )


def one_of_each_class(ids: Tensor, labels: Tensor) -> Tensor:
    """At most SHOWN of `ids`, of as many classes as there are, evenly spread; no picture is chosen for its effect."""
    classes = labels[ids].unique()
    chosen = [ids[labels[ids] == label] for label in evenly(classes, SHOWN).tolist()]
    taken = torch.stack([of[len(of) // 2] for of in chosen])
    rest = ids[~torch.isin(ids, taken)]
    return torch.cat([taken, evenly(rest, SHOWN - len(taken))])


def nearest(ids: Tensor, among: Tensor, features: Callable[[Tensor], Tensor]) -> Tensor:
    """int64 [k]: of `among`, int64 ids, the one whose features are nearest to those of each of `ids`."""
    distance = torch.cdist(features(ids).double(), features(among).double())
    return among[distance.argmin(1)]
