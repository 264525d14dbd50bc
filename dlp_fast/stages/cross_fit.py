"""Labels that stage 1 knows by heart, asked of networks that were not given them: one for each half of the images."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_fast.config import RunConfig, SupervisedConfig
from dlp_fast.detection.mislabeled import HeldOutLoss, known_by_heart, mislabeled_by_held_out
from dlp_fast.detection.suspicion import Suspicion
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.stages.supervised import Supervised, supervised

SEED = 3001  # added to the seed of the run for the halves, and once more for each network
SHARE = 0.8  # of stage 1's epochs: trained on half of the images each, and all scored by both, is one more stage 1
LAST = 0.5  # of their epochs, whose losses are averaged


def with_cross_fit(
    session: Session, suspicion: Suspicion, first: Supervised, data: TrainingData, config: RunConfig
) -> tuple[Suspicion, float]:
    """`suspicion` with its probably mislabeled images told by networks that were not given their labels, where stage 1
    ends knowing the labels of `data` by heart, and the seconds that this took; else as it is, and 0.
    """
    nobody_looked = suspicion.mislabeled is None or data.classes < 2
    if nobody_looked or not known_by_heart(first.loss, config.detection):
        return suspicion, 0.0
    held, seconds = held_out_loss(session, first, data, config)
    others = data.other_label(torch.arange(len(data))).cpu().numpy()
    wrong = mislabeled_by_held_out(
        held, first.loss.numpy(), data.labels.numpy(), others, data.classes, config.detection
    )
    return replace(suspicion, mislabeled=torch.from_numpy(wrong)), seconds


def held_out_loss(
    session: Session, first: Supervised, data: TrainingData, config: RunConfig
) -> tuple[HeldOutLoss, float]:
    """Of every image, the mean loss over the last epochs of a network that is trained on the other half, and the
    seconds of both networks.

    Args: first: what stage 1 saw.
    """
    half = halves(data.labels.numpy(), data.classes, data.seed + SEED)
    own, other, seconds = np.zeros(len(data)), np.zeros(len(data)), 0.0
    for k in (0, 1):
        kept = session.cached(
            f"cross-fit {k + 1}", lambda k=k: _network(session, half != k, k, first, data, config)
        )
        own[half == k], other[half == k] = (kept[name].double().numpy() for name in ("own", "other"))
        seconds += kept["seconds"]
    return HeldOutLoss(own, other), seconds


def halves(labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """int64 [n], 0 or 1: the half that each image is in, with as many of each class in both, give or take one."""
    rng, half = np.random.default_rng(seed), np.zeros(len(labels), dtype=np.int64)
    for label in range(classes):
        half[rng.permutation(np.flatnonzero(labels == label))[::2]] = 1
    return half


def half_options(config: SupervisedConfig, epochs: int, steps: int) -> SupervisedConfig:
    """How a network of one half is trained where stage 1 took `epochs` of `steps` steps in all. A small set that was
    known after a few steps is learnt until it is known here too, within the steps that stage 1 was granted.
    """
    granted = math.floor(SHARE * max(steps, config.min_steps) / 2)
    more = {"augment": "weak", "epochs": max(1, math.floor(SHARE * epochs)), "min_steps": granted}
    return config.model_copy(update=more)


def last_half(seen: Supervised) -> tuple[Tensor, Tensor]:
    """Means of the losses, of the label and of the other one, over the last epochs, fp32 [n] each."""
    epochs = max(1, round(LAST * len(seen.loss)))
    return seen.loss[-epochs:].float().mean(0), seen.other_loss[-epochs:].float().mean(0)


def _network(
    session: Session, used: np.ndarray, number: int, first: Supervised, data: TrainingData, config: RunConfig
) -> dict[str, Any]:
    """What a fresh network, trained on the images `used` (bool [n]) with weak augmentation, says of all others."""
    if number == 0:
        session.log.say(
            "stage 1 knows the labels by heart: two networks are asked, each trained on half of the images"
        )
    own = replace(data, seed=data.seed + SEED * (number + 1))
    ids, name = torch.from_numpy(np.flatnonzero(used)), f"network of one half, {number + 1} of 2"
    model = new_model(config.model, own, own.seed)
    options = half_options(config.supervised, len(first.loss), first.steps)
    seen = supervised(session, model, own, options, only=ids, name=name)
    held = torch.from_numpy(~used)
    label, other = (of[held] for of in last_half(seen))
    return {"own": label, "other": other, "seconds": seen.seconds}
