"""What stage 1 saw, by one network or by several where a set is small or one leaves doubt, and what follows from it."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from dlp_fast.config import RunConfig
from dlp_fast.detection.detect import Detection, detect
from dlp_fast.detection.verify.replication import averaged, ensemble_size
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.inference import features
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.stages.supervised import Supervised, supervised

MEMBER_SEED = 101  # added to the seed for each further network of an ensemble


def observe(
    session: Session, model: nn.Module, first: Supervised, data: TrainingData, config: RunConfig
) -> tuple[Supervised, Detection, int]:
    """(what stage 1 saw, averaged over its networks, what follows from it, how many networks): more than one where the
    set is small, or where the scores of one leave doubt.
    """

    def detected(seen: Supervised) -> Detection:
        return detect(
            seen.entropy,
            seen.loss,
            data.labels,
            data.classes,
            config.detection,
            lambda: features(session, model, data),
        )

    networks = ensemble_size(first.steps, config)
    if networks > 1:
        why = f"{networks} networks are trained, and their learning curves averaged"
        first = with_members(session, first, networks, why, data, config)
    detection = detected(first)
    asks = config.detection.method == "learning_curves" and config.detection.networks is None
    if networks == 1 and asks and detection.decision.in_ensemble_band(config.detection):
        networks = 2
        why = "the learning curves leave doubt: a second network is trained, and the curves averaged"
        first = with_members(session, first, networks, why, data, config)
        detection = detected(first)
    return first, detection, networks


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
