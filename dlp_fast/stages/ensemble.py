"""What stage 1 saw, by one network or by several where a set is small or one leaves doubt, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from dlp_fast.config import RunConfig
from dlp_fast.detection.detect import Detection, Networks, detect, look_at_curves
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.verify.replication import averaged, ensemble_size
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.inference import features, predict
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.stages.supervised import Supervised, supervised

ARRAYS = ("ids", "membership", "labels")  # of a Group
MEMBER_SEED = 101  # added to the seed for each further network of an ensemble
HELD_OUT_SEED = 977  # and for the network that is not given the labels in question
HELD_OUT_EPOCHS = 3  # at its end, whose losses are averaged


def observe(
    session: Session, model: nn.Module, first: Supervised, data: TrainingData, config: RunConfig
) -> tuple[Supervised, Detection, int]:
    """(what stage 1 saw, averaged over its networks, what follows from it, how many networks): more than one where the
    set is small, or where the scores of one leave doubt.
    """

    networks = ensemble_size(first.steps, config)
    if networks > 1:
        why = f"{networks} networks are trained, and their learning curves averaged"
        first = with_members(session, first, networks, why, data, config)
    decision = look_at_curves(_observed(first, data), config.detection)
    asks = config.detection.method == "learning_curves" and config.detection.networks is None
    if networks == 1 and asks and decision.in_ensemble_band(config.detection):
        networks = 2
        why = "the learning curves leave doubt: a second network is trained, and the curves averaged"
        first = with_members(session, first, networks, why, data, config)
        decision = look_at_curves(_observed(first, data), config.detection)
    asked = Networks(
        lambda images: predict(model, images, data),
        lambda: features(session, model, data),
        lambda ids: known_without(session, ids, data, config, first),
    )
    kept = partial(_kept_groups, session)
    detection = detect(_observed(first, data), decision, asked, config.detection, kept)
    held_out = session.completed("held_out")
    if held_out:
        first = replace(first, seconds=first.seconds + held_out["seconds"])
    return first, detection, networks


def known_without(
    session: Session, ids: np.ndarray, data: TrainingData, config: RunConfig, first: Supervised
) -> np.ndarray:
    """float64 [n]: probability of its label that a fresh network gives to each image (geometric mean over its last
    epochs) when it is trained as long as stage 1, but with weak augmentation and on the images `ids` alone.
    """

    def train() -> dict[str, Any]:
        session.log.say("one more network is trained, without the labels in question")
        own = replace(data, seed=data.seed + HELD_OUT_SEED)
        as_long = {"augment": "weak", "epochs": len(first.loss), "min_steps": first.steps}
        options = config.supervised.model_copy(update=as_long)
        model = new_model(config.model, own, own.seed)
        seen = supervised(session, model, own, options, only=torch.from_numpy(ids))
        return {"loss": seen.loss[-HELD_OUT_EPOCHS:].mean(0), "seconds": seen.seconds}

    return session.cached("held_out", train)["loss"].neg().exp().double().numpy()


def _observed(first: Supervised, data: TrainingData) -> Observed:
    return Observed(data.images, data.labels, data.classes, first.entropy, first.loss)


def with_members(
    session: Session, first: Supervised, networks: int, why: str, data: TrainingData, config: RunConfig
) -> Supervised:
    """`first` with its curves averaged with those of further networks, `networks` in all, and the seconds of all."""
    kept = session.completed("ensemble") or {"entropy": [], "loss": [], "seconds": []}
    kept = {name: list(values) for name, values in kept.items()}
    if len(kept["seconds"]) < networks - 1:
        session.log.say(why)
    for member in range(2 + len(kept["seconds"]), networks + 1):
        own = replace(data, seed=data.seed + (member - 1) * MEMBER_SEED)
        seen = supervised(
            session, new_model(config.model, own, own.seed), own, config.supervised, member=member
        )
        for name in kept:
            kept[name].append(getattr(seen, name))
        session.complete("ensemble", kept)
    return replace(
        first,
        entropy=averaged([first.entropy, *kept["entropy"]]),
        loss=averaged([first.loss, *kept["loss"]]),
        seconds=first.seconds + sum(kept["seconds"]),
    )


def _kept_groups(session: Session, name: str, make: Callable[[], list[Group]]) -> list[Group]:
    """The groups that `make` gives, of this or an earlier process; they depend on the images and labels alone."""

    def made() -> dict[str, Any]:
        session.log.say(f"looking for {name.replace('_', ' ')}")
        return {"groups": [_as_kept(group) for group in make()]}

    return [_from_kept(values) for values in session.cached(name, made)["groups"]]


def _as_kept(group: Group) -> dict[str, Any]:
    arrays = {name: getattr(group, name) for name in ARRAYS}
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items() if values is not None}
    return {"proposal": group.proposal, "label": group.label, "statistics": dict(group.statistics), **tensors}


def _from_kept(values: dict[str, Any]) -> Group:
    return Group(**values | {name: values[name].numpy() for name in ARRAYS if name in values})
