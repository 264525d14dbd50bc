"""Stage 3 in rounds: where its own learning curves give away poison, it begins anew without those labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlp_fast.config import RunConfig
from dlp_fast.detection.decide import Decision, decide, with_held_out
from dlp_fast.detection.findings import Finding, HeldOutAgreement
from dlp_fast.detection.late import Late, beside_alike
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.learning_curves import learning_curves
from dlp_fast.detection.verify.held_out import held_out_agreement
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.selection.labels import Labels, labels_to_use, without
from dlp_fast.selection.overrides import Overrides
from dlp_fast.selection.partition import Selection
from dlp_fast.stages.finetuning import Finetuned, finetuning
from dlp_fast.stages.label_policy import ASK_FROM
from dlp_fast.stages.outcome import StageOutcome

SNAPSHOTS = 10  # evaluation snapshots during stage 3, for its learning curves


@dataclass(frozen=True)
class Rounds:
    """Stage 3 as a whole: model: of the last round; outcome: of that round, with the seconds of all; findings: those of
    stage 1, with what the first round says of their images, and those of stage 3; max_subthreshold_score: the highest
    score of stage 3 that does not count as found; given_away: int64 ids that its curves gave away, of every round;
    stage3_detections: how many of them in the last one, after the model had learnt their labels; shown: what its curves
    found and pictures that look alike speak for.
    """

    model: nn.Module
    outcome: StageOutcome
    findings: tuple[Finding, ...]
    max_subthreshold_score: float
    given_away: Tensor
    stage3_detections: int
    shown: tuple[Finding, ...] = ()


def finetune(
    session: Session,
    start: nn.Module,
    selection: Selection,
    findings: tuple[Finding, ...],
    data: TrainingData,
    config: RunConfig,
    steps_before: int,
    overrides: Overrides,
) -> Rounds:
    """Stage 3, begun anew where its own curves give away poison that stage 1 had not learnt.

    Args: start: the network of the stage before; findings: of stage 1, which took `steps_before` steps.
    """
    labels = labels_to_use(selection, config)
    rounds = config.finetuning.rounds if config.finetuning.labeled == "trusted" else 1
    weights = {name: value.clone() for name, value in start.state_dict().items()}
    told, highest, given_away, seconds = list(findings), 0.0, [], 0.0
    shown: dict[int, Finding] = {}
    for number in range(rounds):
        model = new_model(config.model, data, data.seed + 1 + number)
        if config.finetuning.start == "unlearned":
            model.load_state_dict(weights)
        kept = session.cached(
            f"finetuning round {number}",
            lambda model=model, labels=labels: finetuning_round(
                session, model, data, labels, config, steps_before, bool(findings), overrides
            ),
        )
        model.load_state_dict(kept["weights"])
        seconds += kept["metrics"]["seconds"]
        if number == 0:  # later rounds suspect more, and were begun for what this one has learnt
            heard = {label: HeldOutAgreement(**shares) for label, shares in kept["held_out"].items()}
            told = list(with_held_out(told, heard, config.detection))
        told += [Finding.from_json(values) for values in kept["findings"]]
        shown |= {of.label: of for of in map(Finding.from_json, kept.get("shown", ()))}
        highest = max(highest, kept["max_subthreshold_score"])
        given_away.append(kept["given_away"])
        if not len(kept["given_away"]):
            break
        labels = without(labels, kept["given_away"], config)
    metrics = kept["metrics"] | {"rounds": number + 1, "seconds": seconds}
    outcome = StageOutcome(metrics, kept["weights"])
    named = {finding.label for finding in told}
    return Rounds(
        model,
        outcome,
        tuple(told),
        highest,
        torch.cat(given_away),
        len(given_away[-1]),
        tuple(of for label, of in shown.items() if label not in named),
    )


def finetuning_round(
    session: Session,
    model: nn.Module,
    data: TrainingData,
    labels: Labels,
    config: RunConfig,
    steps_before: int,
    found_before: bool,
    overrides: Overrides,
) -> dict[str, Any]:
    """One training of stage 3, what its learning curves give away, and what it says of those it was given no label of.

    steps_before: of stage 1; found_before: whether stage 1 has found a class. Returned as `session.cached` keeps it.
    """
    snapshots = SNAPSHOTS if config.finetuning.labeled == "trusted" else 0
    trained = finetuning(session, model, data, labels, config.finetuning, snapshots, steps_before)
    judged = session.ranks.agreed(
        lambda: judge(session, trained, data, labels, config, found_before, overrides)
    )
    return {"weights": model.state_dict()} | judged


def judge(
    session: Session,
    trained: Finetuned,
    data: TrainingData,
    labels: Labels,
    config: RunConfig,
    found_before: bool,
    overrides: Overrides,
) -> dict[str, Any]:
    """What a training of stage 3 gives away and says, without its weights."""
    decision = late_decision(trained.labeled, trained.entropy, trained.loss, data, config, found_before)
    late = Late()
    if decision.found:
        seen = Observed(data.images, data.labels.cpu(), data.classes, trained.entropy, trained.loss)
        late = beside_alike(decision, trained.labeled, seen, config.detection)
    given_away = torch.cat(
        [torch.empty(0, dtype=torch.int64), *(torch.from_numpy(of.core) for of in late.groups)]
    )
    for finding in late.findings:
        session.log.event("finding", **finding.as_json())
    heard: dict[int, HeldOutAgreement] = {}
    if config.finetuning.start == "fresh" and len(trained.loss) >= ASK_FROM and labels.suspected.any():
        # from fresh weights, up to this snapshot, it has not learnt from the suspects
        suspects = labels.suspected.nonzero().flatten()
        heard = held_out_agreement(trained.loss[ASK_FROM - 1], data.labels, suspects, labels.labeled)
    metrics = {
        "seconds": trained.seconds,
        "images_per_second": trained.images_per_second,
        "steps": trained.steps,
        "labeled": len(trained.labeled),
        "unlabeled": len(labels.unlabeled),
        "mask": trained.mask,
        "odds": [round(raised, 4) for raised in trained.odds.tolist()],
    }
    return {
        "metrics": metrics,
        "given_away": given_away[~torch.isin(given_away, overrides.right)],
        "findings": [finding.as_json() for finding in late.findings],
        "shown": [finding.as_json() for finding in late.shown],
        "max_subthreshold_score": decision.max_subthreshold_score,
        "held_out": {label: vars(agreement) for label, agreement in heard.items()},
    }


def late_decision(
    labeled: Tensor, entropy: Tensor, loss: Tensor, data: TrainingData, config: RunConfig, found_before: bool
) -> Decision:
    """Which classes the curves of stage 3 give away; ids of its groups are positions in `labeled`, int64 ids."""
    # the first snapshot falls to the end of the warm-up: a large network's outputs are wild there, class by class
    entropy, loss = (values[1:, labeled].numpy() for values in (entropy, loss))
    options = config.detection
    # the clear groups only: here nobody is left to make up for a class that loses too many labels
    labels = data.labels[labeled].numpy()
    groups = learning_curves(entropy, loss, labels, data.classes, options.learning_curves, rare=False)
    return decide(groups, options, "finetuning", found_before)
