"""The scan for marks alone, tried on many copies: no network is trained, so that a copy takes seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from dlp_fast.config import DetectionConfig, RunConfig
from dlp_fast.detection.groups import Group
from dlp_fast.detection.marks import marks_among
from dlp_fast.detection.propose.static_patterns import static_patterns
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.session import Session
from dlp_fast.pipeline import Defense
from dlp_fast.power.plant import Planted, fitting, plant, trials_at_once
from dlp_fast.power.trials import FOUND, Trial, power, summary, unsuspicious

SEED = 70_001  # added to the seed of the run for each copy
RATES = (0.03, 0.01, 0.003, 0.001)  # of all images
TRIGGERS = ("patch", "blend")  # a warp leaves no static pattern
KEPT = "power scans"  # name of what is kept of a session


def power_of(
    session: Session, data: TrainingData, found: Defense, config: RunConfig
) -> dict[str, list[dict[str, Any]]]:
    """What would have been found, by option: `power` by all of detection, `power_scans` by the scan for marks alone."""
    scanned = summary(scans(session, data, *unsuspicious(data, found), config.detection))
    return {"power_scans": scanned, "power": power(session, data, found, config)}


def scans(
    session: Session, data: TrainingData, free: Tensor, targets: Sequence[int], config: DetectionConfig
) -> list[Trial]:
    """`config.power_scans` trials of each trigger and rate, several in one copy. Where a session goes on, it does after
    the last copy that was kept.

    Args: free: bool [n], images that may be changed; targets: the classes that triggers may be planted in.
    """
    copies = scheduled(data, len(targets), config.power_scans)
    kept = session.completed(KEPT) or {"copies": []}
    done = [list(trials) for trials in kept["copies"]]
    if len(done) < len(copies):
        session.log.start("power, scans of copies", len(copies), len(done), unit="copies")
    saved = time.monotonic()
    for number in range(len(done), len(copies)):

        def scan(number: int = number) -> dict[str, Any]:
            copy, planted = plant(data, free, targets, copies[number], data.seed + SEED * (number + 1))
            return {
                "trials": [
                    vars(trial) for trial in seen(planted, marks_in(copy, config), copy.labels.numpy())
                ]
            }

        done.append(session.ranks.agreed(scan)["trials"])
        session.log.advance(number + 1, len(data))
        late = session.stopping or time.monotonic() - saved >= session.every
        if late or number == len(copies) - 1:
            session.complete(KEPT, {"copies": done})
            saved = time.monotonic()
        session.poll()
    session.log.finish()
    return [Trial(**values) for trials in done for values in trials]


def scheduled(data: TrainingData, targets: int, trials: int) -> list[list[tuple[str, float]]]:
    """What is planted in each copy, (trigger, rate): each combination that fits `trials` times, no more of them in a
    copy than there are classes for.
    """
    every = fitting(data, TRIGGERS, RATES)
    at_once = min(trials_at_once(data.classes), targets, len(every))
    if not at_once:
        return []
    wanted = iter(every * trials)
    return list(iter(lambda: list(islice(wanted, at_once)), []))


def marks_in(copy: TrainingData, config: DetectionConfig) -> list[Group]:
    found = static_patterns(copy.images, copy.labels, copy.classes, config.static_patterns)
    return marks_among(found, copy.classes, config)


def seen(planted: Sequence[Planted], marks: Sequence[Group], labels: np.ndarray) -> list[Trial]:
    """Which triggers are seen: there is a mark that has FOUND of their images or more, and whose images of their class
    are theirs to the same share. `suspected` of a Trial: those of them in the mark that has most.

    Args: labels: int64 [n], of the copy.
    """
    trials = []
    for of in planted:
        ids, hits, found = of.ids.numpy(), 0, False
        for mark in marks:
            core = mark.core[labels[mark.core] == of.target]
            inside = int(np.isin(core, ids).sum())
            hits = max(hits, inside)
            found |= inside >= FOUND * len(ids) and inside >= FOUND * len(core)
        trials.append(Trial(of.trigger, of.rate, len(ids), hits, found))
    return trials
