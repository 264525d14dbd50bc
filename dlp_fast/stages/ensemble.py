"""What stage 1 saw, by one network or by several where a set is small or one leaves doubt, and what follows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlp_fast.config import RunConfig
from dlp_fast.detection.decide import Decision
from dlp_fast.detection.detect import Detection, Networks, detect, look_at_curves
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.suspicion import Suspicion
from dlp_fast.detection.verify.hold_out import HeldOutNetwork
from dlp_fast.detection.verify.replication import averaged, ensemble_size
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.inference import features, predict
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.stages.cross_fit import with_cross_fit
from dlp_fast.stages.supervised import Supervised, supervised

NOTHING = Decision((), ())
ARRAYS = ("ids", "membership", "labels")  # of a Group
MEMBER_SEED = 101  # added to the seed for each further network of an ensemble
HELD_OUT_SEED = 977  # and for the network that is not given the labels in question
HELD_OUT_EPOCHS = 3  # at its end, whose losses are averaged
# What is kept of networks without some labels: of the first, and of those with other labels.
WITHOUT_LABELS = ("held_out", "sides", "halves")


def observe(
    session: Session, model: nn.Module, first: Supervised, data: TrainingData, config: RunConfig
) -> tuple[Supervised, Detection, int]:
    """(what stage 1 saw, averaged over its networks, what follows from it, how many networks): more than one where the
    set is small, or where the scores of one leave doubt. Of several ranks, rank 0 looks and decides.
    """
    ranks = session.ranks
    networks = ensemble_size(first.steps, config)
    if networks > 1:
        why = f"{networks} networks are trained, and their learning curves averaged"
        first = with_members(session, first, networks, why, data, config)
    decision = look_at_curves(_observed(first, data), config.detection) if ranks.leads else NOTHING
    asks = config.detection.method == "learning_curves" and config.detection.networks is None
    if ranks.agreed(lambda: networks == 1 and asks and decision.in_ensemble_band(config.detection)):
        networks = 2
        why = "the learning curves leave doubt: a second network is trained, and the curves averaged"
        first = with_members(session, first, networks, why, data, config)
        decision = look_at_curves(_observed(first, data), config.detection) if ranks.leads else NOTHING

    made: list[Detection] = []

    def look(train: Callable[[Tensor], HeldOutNetwork]) -> dict[str, Any]:
        asked = Networks(
            lambda images: predict(model, images, data),
            lambda: features(session, model, data),
            lambda ids: train(torch.from_numpy(ids)),
        )
        kept = partial(_kept_groups, session)
        made.append(detect(_observed(first, data), decision, asked, config.detection, kept))
        findings = [finding.as_json() for finding in made[0].decision.findings]
        return {"suspicion": dict(vars(made[0].suspicion)), "findings": findings}

    told = ranks.led(look, lambda ids: known_without(session, ids.numpy(), data, config, first))
    detection = made[0] if made else _without_groups(told)
    suspicion, more = with_cross_fit(session, detection.suspicion, first, data, config)
    detection, first = replace(detection, suspicion=suspicion), replace(first, seconds=first.seconds + more)
    for name in WITHOUT_LABELS:
        of = session.completed(name)
        first = replace(first, seconds=first.seconds + (of["seconds"] if of else 0.0))
    return first, detection, networks


def known_without(
    session: Session, ids: np.ndarray, data: TrainingData, config: RunConfig, first: Supervised
) -> HeldOutNetwork:
    """A fresh network that is trained as long as stage 1, but with weak augmentation and on the images `ids` alone;
    probability and entropy: the geometric and the plain mean over its last epochs.
    """
    digest = hashlib.sha256(ids.tobytes()).hexdigest()
    earlier = {name: session.completed(name) for name in WITHOUT_LABELS}
    name = next((name for name, of in earlier.items() if of and of.get("of") == digest), None)
    name = name or next((name for name, of in earlier.items() if of is None), WITHOUT_LABELS[-1])
    own = replace(data, seed=data.seed + HELD_OUT_SEED)
    model = new_model(config.model, own, own.seed)

    def train() -> dict[str, Any]:
        again = "" if name == WITHOUT_LABELS[0] else ", which are others now"
        session.log.say(f"one more network is trained, without the labels in question{again}")
        as_long = {"augment": "weak", "epochs": len(first.loss), "min_steps": first.steps}
        options = config.supervised.model_copy(update=as_long)
        last = max(0, options.epochs - HELD_OUT_EPOCHS)
        seen = supervised(session, model, own, options, only=torch.from_numpy(ids), scored_from=last)
        loss, entropy = (of[-HELD_OUT_EPOCHS:].float().mean(0) for of in (seen.loss, seen.entropy))
        outcome = {"of": digest, "loss": loss, "entropy": entropy, "seconds": seen.seconds}
        return outcome | {"weights": model.state_dict()}

    if earlier[name] is not None and earlier[name].get("of") != digest:
        session.complete(name, train())  # of other labels
    kept = session.cached(name, train)
    model.load_state_dict(kept["weights"])
    return HeldOutNetwork(
        kept["loss"].neg().exp().double().numpy(),
        kept["entropy"].double().numpy(),
        lambda images: predict(model, images, data),
    )


def _without_groups(told: dict[str, Any]) -> Detection:
    """The Detection of a rank that does not lead: what the stages need to know of it."""
    findings = tuple(Finding.from_json(values) for values in told["findings"])
    return Detection(Suspicion(**told["suspicion"]), Decision((), findings, groups=()))


def _observed(first: Supervised, data: TrainingData) -> Observed:
    return Observed(
        data.images, data.labels, data.classes, first.entropy, first.loss, first.other_loss, _others(data)
    )


def _others(data: TrainingData) -> torch.Tensor:
    return data.other_label(torch.arange(len(data))).cpu()


def with_members(
    session: Session, first: Supervised, networks: int, why: str, data: TrainingData, config: RunConfig
) -> Supervised:
    """`first` with its curves averaged with those of further networks, `networks` in all, and the seconds of all."""
    kept = session.completed("ensemble") or {"entropy": [], "loss": [], "other_loss": [], "seconds": []}
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
        other_loss=averaged([first.other_loss, *kept["other_loss"]]),
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
