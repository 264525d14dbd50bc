"""What a run has before it, for the time that it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dlp_fast.config import RunConfig
from dlp_fast.detection.verify.replication import MOST_MEMBERS
from dlp_fast.runs.time_left import TimeLeft, Work
from dlp_fast.stages import finetuning as stage3
from dlp_fast.stages import supervised as stage1

TRAINED = 3.0
"""Cost of training on an image, forward and backward, in images that pass forward alone."""
FIRST, OTHERS = "stage 1 of 3, supervised", "stage 1 of 3, ensemble member"
UNLEARNING, TUNING = "stage 2 of 3, unlearning", "stage 3 of 3, fine-tuning"
POWER = "power "
STATISTICS = "stage 3 of 3, batch-norm statistics"


def time_left(
    images: int, classes: int, config: RunConfig, clock: Callable[[], float] = time.monotonic
) -> TimeLeft:
    """Reckons the time of the stages of `config` on `images` images of `classes` classes.

    Further networks of stage 1 are as many as the steps allow that the first one did not need: a small set that is
    learnt early has several short ones. Rounds of stage 3 that begin anew are not foreseen.
    """
    epochs, per_epoch, batch = stage1.plan(images, config.supervised)
    step, networks = TRAINED * batch + images / per_epoch, config.detection.networks
    work = [Work(FIRST, epochs * per_epoch, step)]
    if networks:
        work.append(Work(OTHERS, epochs * per_epoch, step, networks - 1))
    elif config.detection.method == "learning_curves":
        work.append(Work(OTHERS, epochs * per_epoch, step, MOST_MEMBERS - 1, config.supervised.min_steps))
    order = config.order.split("-")
    suspects = max(round(config.detection.rate * images), config.detection.min_images)
    for stage in order[1:]:
        if stage == "unlearning":
            two = config.unlearning
            steps = two.epochs * max(1, round(suspects / two.batch))
            work.append(Work(UNLEARNING, steps, TRAINED * min(two.batch, suspects)))
        else:
            work += _tuning(images, classes, config, epochs * per_epoch)
    if config.detection.power:
        work.append(_trials(config, epochs * per_epoch, step))
    return TimeLeft(work, {OTHERS: FIRST, POWER: FIRST}, clock)


def _trials(config: RunConfig, steps: int, step: float) -> Work:
    """The rounds of `detection.power`: in each, stage 1 and its further networks. Networks that a round asks for since
    a planted trigger is in doubt are not foreseen.
    """
    rounds, networks = config.detection.power, config.detection.networks
    if networks or config.detection.method != "learning_curves":
        return Work(POWER, steps, step, networks or 1, times=rounds)
    return Work(POWER, steps, step, MOST_MEMBERS, config.supervised.min_steps, whole=True, times=rounds)


@dataclass(frozen=True)
class Tuning:
    """Stage 3: labeled: images whose labels are used; steps: of training; batch, unlabeled: images of each step with
    and without a label.
    """

    labeled: int
    steps: int
    batch: int
    unlabeled: int


def tuning(images: int, classes: int, config: RunConfig, before: int) -> Tuning:
    """What stage 3 of `config` does, as far as it can be known before detection: on `images` images of `classes`
    classes, after `before` steps of stage 1.
    """
    three = config.finetuning
    hardest = three.labeled == "hardest"
    share = config.detection.rate if hardest else 1 - config.detection.high_loss_fraction
    labeled = max(1, round(share * images))
    labeled = min(images, max(labeled, config.detection.min_images * classes)) if hardest else labeled
    steps = stage3.planned_steps(labeled, 0 if hardest else images - labeled, three, before)
    # trusted: how many are mislabeled nobody knows by now; a given mu counts as soon as there is one
    others = images - labeled if hardest or three.mu is None else max(1, images - labeled)
    unlabeled = stage3.unlabeled_batch(labeled, others, three)
    return Tuning(labeled, steps, min(three.batch, labeled), unlabeled)


def _tuning(images: int, classes: int, config: RunConfig, before: int) -> list[Work]:
    of = tuning(images, classes, config, before)
    return [
        # an unlabeled image passes forward once more, under its weak view
        Work(TUNING, of.steps, TRAINED * (of.batch + of.unlabeled) + of.unlabeled),
        Work(STATISTICS, config.finetuning.norm_batches, of.batch),
    ]
