"""Which images are probably mislabeled: their labels were learnt as little as random wrong ones are known.

While a network learns, it comes to know right labels first (Liu et al. 2020, early learning), so the loss over all
epochs tells wrong labels apart better than the last network does. How large a loss is that of a wrong label depends on
the network, the classes and the length of stage 1; so it is measured on the same set: each image is asked for another
label as well, drawn by its id, and almost all of these are wrong.

Where stage 1 ends knowing the labels by heart, wrong ones are known too, and other ones are not. There both are asked
of networks that were given neither (cross-fitting, as in confident learning, Northcutt et al. 2021, section 3). How
many labels are wrong is estimated as the share of a mixture (Blanchard et al. 2010, Semi-supervised novelty detection,
section 3): the losses of the labels are those of right labels, and a share of those of wrong ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.columns import mean_over_epochs, pieces
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.learning_curves import by_class

HIGHEST = 0.9  # quantile of random wrong labels up to which shares are compared: beyond are few, and chance
THRESHOLDS = 7
LATE = 0.9  # quantile of the mean losses of a class, beyond which an image was learnt late
MOST = 0.5  # of the labels: more that are wrong than right cannot be told from right ones


def probably_mislabeled(seen: Observed, config: DetectionConfig) -> np.ndarray:
    """bool [n]: the mean loss of its label over the epochs is as high as those of the other labels are, all but the
    `config.mislabeled_quantile` lowest; both in relation to what is usual for the class of the label.
    """
    n = len(seen.labels)
    if seen.other_loss is None or seen.other_labels is None or seen.classes < 2 or len(seen.loss) < 2:
        return np.zeros(n, dtype=bool)
    listed = np.zeros(n, dtype=bool)
    if config.mislabeled_quantile == 1:
        return listed
    labels, others = seen.labels.numpy(), seen.other_labels.numpy()
    own = mean_over_epochs(seen.loss.numpy())
    usual = _usual(own, labels, seen.classes)
    placebo = mean_over_epochs(seen.other_loss.numpy())
    for piece in pieces(n):
        placebo[piece] -= usual[others[piece]]
    place = min(int(config.mislabeled_quantile * n), n - 1)
    placebo.partition(place)
    least = placebo[place]
    del placebo
    for piece in pieces(n):
        listed[piece] = own[piece] - usual[labels[piece]] >= least
    return listed


def unlike_their_label(seen: Observed, config: DetectionConfig) -> np.ndarray:
    """bool [n]: the pictures that look most like an image have another label, and it was learnt late in its class,
    later than all but a tenth of the images of which that is not so. Nobody, where pictures that look alike do not
    share their labels anyway.
    """
    n = len(seen.labels)
    late = np.zeros(n, dtype=bool)
    if config.mislabeled_quantile == 1 or seen.classes < 2:
        return late
    if seen.surroundings.agreement() < config.min_agreement:
        return late
    strange = np.isin(np.arange(n), seen.unlike_their_label.numpy())
    learnt, labels = mean_over_epochs(seen.loss.numpy()), seen.labels.numpy()
    for of_class in by_class(labels, seen.classes):
        usual = learnt[of_class[~strange[of_class]]]
        if len(usual):
            late[of_class] = learnt[of_class] > np.quantile(usual, LATE)
    return late & strange


@dataclass(frozen=True)
class HeldOutLoss:
    """float64 [n], nats, of networks that were not given the image: of its label, and of another, drawn by its id."""

    own: np.ndarray
    other: np.ndarray


def known_by_heart(loss: Tensor, config: DetectionConfig) -> bool:
    """Whether stage 1 ends with more than half of the probability on the given label of `config.heart_share` of the
    images or more, on average over its last epochs, so that held-out networks are to be asked.

    Args: loss: [epochs, n], nats.
    """
    if config.heart_share == 1 or config.mislabeled_quantile == 1:
        return False
    last = loss[-config.learning_curves.late_epochs :].float()
    return bool((last < math.log(2)).float().mean() >= config.heart_share)


def mislabeled_by_held_out(
    held: HeldOutLoss,
    loss: np.ndarray,
    labels: np.ndarray,
    others: np.ndarray,
    classes: int,
    config: DetectionConfig,
) -> np.ndarray:
    """bool [n]: as many images as labels are wrong by `wrong_share`, those whose label is least known to the networks
    that were not given it and to those of stage 1 while they learnt it.

    Args: loss: [epochs, n], nats, of stage 1; labels, others: int64 [n], the given and the other label.
    """
    usual = _usual(held.own, labels, classes)
    own, other = held.own - usual[labels], held.other - usual[others]
    learnt = loss.mean(0, dtype=np.float64)
    learnt = learnt - _usual(learnt, labels, classes)[labels]
    unknown = _in_deviations(own) + _in_deviations(learnt)
    share = wrong_share(own, other, config.mislabeled_quantile)
    count = (
        round(share * len(labels)) if share <= MOST else 0
    )  # networks that know nothing find all labels wrong
    listed = np.zeros(len(labels), dtype=bool)
    listed[np.argsort(-unknown, kind="stable")[:count]] = True
    return listed


def wrong_share(own: np.ndarray, other: np.ndarray, least: float) -> float:
    """Share of the labels that are wrong: at no threshold may there be fewer losses above than wrong labels alone
    would have, so it is the least ratio of both shares above a threshold.

    Args: own, other: float64 [n], of the labels and of random wrong ones; least: of the others below the lowest
    threshold.
    """
    thresholds = np.quantile(other, np.linspace(least, max(least, HIGHEST), THRESHOLDS))
    above = [(float((own >= at).mean()), float((other >= at).mean())) for at in thresholds]
    return min(1.0, *(of_own / of_other for of_own, of_other in above))


def _usual(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    return np.array([np.median(values[ids]) if len(ids) else 0.0 for ids in by_class(labels, classes)])


def _in_deviations(values: np.ndarray) -> np.ndarray:
    return values / max(float(values.std()), 1e-12)
