"""Trials: stage 1 and detection on copies with planted triggers; which of them would have been found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from dlp_fast.config import RunConfig
from dlp_fast.detection.detect import Detection
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.session import Session
from dlp_fast.pipeline import Defense, train_first
from dlp_fast.power.plant import Planted, combinations, plant, trials_at_once
from dlp_fast.stages.ensemble import observe

SEED = 50_021  # added to the seed of the run for each round
FOUND = 0.5  # of the planted images that are suspected where a trigger counts as found


@dataclass(frozen=True)
class Trial:
    """trigger, rate: what was planted; images: how many; suspected: how many of them detection suspects; found:
    whether it names their class and suspects half of them or more.
    """

    trigger: str
    rate: float
    images: int
    suspected: int
    found: bool


def power(session: Session, data: TrainingData, found: Defense, config: RunConfig) -> list[dict[str, Any]]:
    """What detection would have found: for each trigger and rate, in how many trials of `config.detection.power` rounds
    (0: none), each of them one more stage 1. Most visible first.
    """
    rounds = config.detection.power
    kept: list[Trial] = []
    for number in range(rounds):
        kept += _round(session, data, found, config, number)
    return summary(kept)


def summary(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """One row a trigger and rate, most visible first: trigger, rate, images of a trial, trials, found, and the 95 %
    interval of the share that is found (Wilson's), low and high.
    """
    rows: dict[tuple[str, float], list[Trial]] = defaultdict(list)
    for trial in trials:
        rows[trial.trigger, trial.rate].append(trial)
    return [
        {
            "trigger": trigger,
            "rate": rate,
            "images": of[0].images,
            "trials": len(of),
            "found": sum(trial.found for trial in of),
            **_interval(sum(trial.found for trial in of), len(of)),
        }
        for (trigger, rate), of in sorted(rows.items(), key=lambda entry: (-entry[0][1], entry[0][0]))
    ]


def _interval(found: int, trials: int) -> dict[str, float]:
    low, high = binomtest(found, trials).proportion_ci(0.95, method="wilson")
    return {"low": round(float(low), 4), "high": round(float(high), 4)}


def _round(
    session: Session, data: TrainingData, found: Defense, config: RunConfig, number: int
) -> list[Trial]:
    def tried() -> dict[str, Any]:
        session.log.say(f"power, round {number + 1} of {config.detection.power}: own triggers in a copy")
        copy, planted = _copy(data, found, number)
        inner = session.within(f"power {number + 1}: ")
        model, first, _ = train_first(inner, copy, config)
        _, detection, _ = observe(inner, model, first, copy, config)
        inner.forget()
        return {"trials": [vars(trial) for trial in judged(planted, detection)]}

    return [Trial(**values) for values in session.cached(f"power {number + 1}", tried)["trials"]]


def _copy(data: TrainingData, found: Defense, number: int) -> tuple[TrainingData, list[Planted]]:
    """The copy of round `number` (from 0): other triggers than in the round before, targets among the classes in which
    nothing is found.
    """
    free, targets = unsuspicious(data, found)
    every, at_once = combinations(len(data)), trials_at_once(data.classes)
    wanted = [every[(number * at_once + k) % len(every)] for k in range(min(at_once, len(every)))]
    return plant(data, free, targets, wanted, data.seed + SEED * (number + 1))


def unsuspicious(data: TrainingData, found: Defense) -> tuple[Tensor, list[int]]:
    """(bool [n], images that are not suspected; classes in which nothing is found): where triggers may be planted."""
    free = torch.ones(len(data), dtype=torch.bool)
    free[found.selection.suspected_poisoned] = False
    taken = {finding.label for finding in found.findings}
    return free, [label for label in range(data.classes) if label not in taken]


def judged(planted: Sequence[Planted], detection: Detection) -> list[Trial]:
    """What a Detection of the copy says of each trigger in it."""
    named = {finding.label for finding in detection.decision.findings}
    suspected: Tensor = detection.suspicion.suspected
    trials = []
    for of in planted:
        hits = int(suspected[of.ids].sum())
        found = of.target in named and hits >= FOUND * len(of.ids)
        trials.append(Trial(of.trigger, of.rate, len(of.ids), hits, found))
    return trials
