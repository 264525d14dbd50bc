"""The stages in order (and their other orders, DLP Figure 4), from images and labels to a clean model.

Each function takes what it needs and returns what it found; `session.cached` gives back what an earlier process of the
same run has finished. Nobody here knows the truth: what a run is worth is measured on finished models, in evaluation/.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dlp_fast.config import RunConfig
from dlp_fast.detection.detect import Detection
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.verify.demonstration import Demonstration
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.selection.overrides import Overrides, apply, no_overrides
from dlp_fast.selection.partition import Selection, counts, select
from dlp_fast.stages.ensemble import observe
from dlp_fast.stages.outcome import StageOutcome
from dlp_fast.stages.rounds import finetune
from dlp_fast.stages.supervised import Supervised, supervised
from dlp_fast.stages.tried_triggers import attack_success_after, demonstrations
from dlp_fast.stages.unlearning import unlearning


@dataclass(frozen=True)
class Defense:
    """What a run found and made.

    model: after the last stage; first: what stage 1 saw, averaged over its networks; stages: the outcome of each, in
    order; findings: of stages 1 and 3; max_subthreshold_score: the highest score that does not count as found;
    marks: shown and not suspected, see Decision; stage3_detections: images that the last round of stage 3 gave away
    after it had learnt their labels, among the suspected of `selection`; members: int64 ids of the images of each
    finding of stage 1, which come first; demonstrations: what their images have in common, of the first of them.
    """

    model: nn.Module
    selection: Selection
    first: Supervised
    stages: dict[str, StageOutcome]
    findings: tuple[Finding, ...]
    max_subthreshold_score: float
    marks: tuple[Finding, ...] = ()
    stage3_detections: int = 0
    members: tuple[Tensor, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()


def defend(
    session: Session, data: TrainingData, config: RunConfig, overrides: Overrides | None = None
) -> Defense:
    """Run the stages of `config.order` on `data`, with a person's decisions where there are any."""
    overrides = overrides or no_overrides()
    counts(len(data), data.classes, config.detection)  # what cannot be asked for is refused before stage 1
    model, first, outcome = train_first(session, data, config)
    first, detection, networks = observe(session, model, first, data, config)
    if networks > 1:
        members = {"networks": networks, "seconds": first.seconds}
        outcome = replace(outcome, metrics=outcome.metrics | members)
    selection = partition(session, detection, data, config, overrides)
    data = replace(data, labels=overrides.relabeled(data.labels))  # of the stages that learn from labels
    decision = detection.decision
    found = Defense(
        model,
        selection,
        first,
        {"supervised": outcome},
        decision.findings,
        decision.max_subthreshold_score,
        decision.marks,
    )
    for stage in config.order.split("-")[1:]:
        if stage == "unlearning":
            outcome = unlearn(session, found.model, selection, data, config)
            found = replace(found, stages={**found.stages, stage: outcome})
        else:
            rounds = finetune(
                session, found.model, selection, found.findings, data, config, first.steps, overrides
            )
            found = replace(
                found,
                model=rounds.model,
                selection=selection.with_late(rounds.given_away),
                stages={**found.stages, stage: rounds.outcome},
                findings=rounds.findings,
                max_subthreshold_score=max(found.max_subthreshold_score, rounds.max_subthreshold_score),
                marks=(*found.marks, *rounds.shown),
                stage3_detections=rounds.stage3_detections,
            )
    if not session.ranks.leads:  # the rest is for the report
        return found
    members = tuple(torch.from_numpy(group.core) for group in decision.found)
    findings = attack_success_after(found.model, found.findings, members, found.selection, data)
    weights = found.stages["supervised"].weights
    shown = demonstrations(session, weights, found.model, findings, members, found.selection, data, config)
    return replace(found, findings=findings, members=members, demonstrations=shown)


def train_first(
    session: Session, data: TrainingData, config: RunConfig
) -> tuple[nn.Module, Supervised, StageOutcome]:
    """Stage 1: the network, what it saw, and the outcome."""
    model = new_model(config.model, data, data.seed)

    def train() -> dict[str, Any]:
        return {**vars(supervised(session, model, data, config.supervised)), "weights": model.state_dict()}

    kept = session.cached("supervised", train)
    weights = kept.pop("weights")
    model.load_state_dict(weights)
    first = Supervised(**kept)
    metrics = {name: kept[name] for name in ("seconds", "images_per_second", "steps")}
    return model, first, StageOutcome(metrics, weights)


def partition(
    session: Session, detection: Detection, data: TrainingData, config: RunConfig, overrides: Overrides
) -> Selection:
    """The sets that the stages work on; logged once in the life of a run."""
    position = session.log.position()
    options = config.detection
    selection = select(detection.suspicion, data.labels, data.classes, options, session.compute.device)
    selection = apply(selection, overrides, counts(len(data), data.classes, options)[0])

    def note() -> dict[str, Any]:
        for finding in detection.decision.findings:
            session.log.event("finding", **finding.as_json())
        sizes = ("suspected_poisoned", "suspected_clean", "mislabeled", "trusted", "unlabeled")
        counted = {name: len(getattr(selection, name)) for name in sizes}
        session.log.event("detection", method=options.method, **counted)
        return {"overrides": overrides.fingerprint, "log_position": position}

    session.cached("detection", note)
    return selection


def unlearn(
    session: Session, model: nn.Module, selection: Selection, data: TrainingData, config: RunConfig
) -> StageOutcome:
    """Stage 2 on the images to unlearn, in place; skipped where there are none."""

    def train() -> dict[str, Any]:
        if not len(selection.to_unlearn):
            metrics = {"seconds": 0.0, "images_per_second": 0.0, "skipped": True}
        else:
            metrics = dict(vars(unlearning(session, model, data, selection.to_unlearn, config.unlearning)))
        return {"metrics": metrics, "weights": model.state_dict()}

    kept = StageOutcome(**session.cached("unlearning", train))
    model.load_state_dict(kept.weights)
    return kept
