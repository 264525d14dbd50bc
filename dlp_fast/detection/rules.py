"""What the evidence says of a group: whether it acts as a trigger, and whether its labels are right; thresholds:
config.DetectionConfig.
"""

from __future__ import annotations

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.verify import Evidence

CLEARLY = 4 / 3  # times `min_apart_from_alike`: for a grown mark, or one whose images are not all poison


def acts_as_trigger(evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether what a group's images have in common sends other images to its class, and that of placebos does not.
    Without a placebo nothing is said: a picture with the mean of a class's pictures in it becomes one of that class.
    """
    if evidence.attack_success is None or evidence.placebo_success is None:
        return False
    lead = evidence.attack_success - evidence.placebo_success
    return evidence.attack_success >= config.min_attack_success and lead >= config.min_lead


def labels_unknown(evidence: Evidence, config: DetectionConfig, abounds: bool) -> bool:
    """Whether a network that was not given the labels of marked images gives them other labels, as it does with wrong
    ones, and not those of the class's other images; once the mark is off, too, where it can be taken off. Where marks
    abound, half as much support is asked for.
    """
    return not labels_shared(evidence, config) and unknown_to_network(evidence, config, abounds)


def unknown_to_network(evidence: Evidence, config: DetectionConfig, abounds: bool) -> bool:
    """`labels_unknown`, by the network alone, which does not understand pictures that somebody changed."""
    support, unmarked = evidence.support, evidence.without_mark
    return support is not None and (
        support.ratio <= config.max_label_support / (2 if abounds else 1)
        and support.p <= config.max_support_p
        and (unmarked is None or unmarked.ratio <= config.max_label_support)
    )


def labels_shared(evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether the pictures that look most like a group's have their labels: then these are right."""
    return evidence.neighbours is not None and evidence.neighbours.ratio >= config.min_shared_labels


def labels_elsewhere(shared: float, config: DetectionConfig) -> bool:
    """Whether the pictures that look most like a group's have its labels hardly more often than by chance."""
    return shared < config.min_shared_labels / 3


def labels_wrong(evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether the pictures that look most like a group's have other labels; where nothing is of its kind, nothing is
    said.
    """
    near = evidence.neighbours
    return near is not None and near.familiar >= 0 and not labels_shared(evidence, config)


def labels_outlast_mark(evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether a network that was not given the labels of marked images gives them, once the mark is off, as it does
    those of the class's other images.
    """
    unmarked = evidence.without_mark
    return unmarked is not None and unmarked.ratio >= config.min_outlasting


def labels_known(evidence: Evidence, config: DetectionConfig) -> bool:
    """Whether a network that was not given the labels of a group knows them nearly as well as those of the class's
    other images: typical pictures, or such as were taken alike; or, where what they have in common does not act as a
    trigger, as those of controls that were learnt alike: it is hard pictures that chance put together. Not where the
    pictures most like them have other labels.
    """
    support = evidence.support
    if support is None or labels_wrong(evidence, config):
        return False
    alike = support.probability >= config.min_outlasting * support.usual
    return support.ratio >= config.min_outlasting or (alike and not acts_as_trigger(evidence, config))
