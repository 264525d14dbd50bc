"""From what stage 1 saw to what is suspected: propose, verify, decide, and a score for every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dlp_fast.config import DetectionConfig
from dlp_fast.detection import baselines
from dlp_fast.detection.cause import acquitted, explained, with_causes
from dlp_fast.detection.convict import ask_held_out, with_evidence
from dlp_fast.detection.decide import Decision, clearest, decide
from dlp_fast.detection.groups import Group
from dlp_fast.detection.marks import marks_among
from dlp_fast.detection.mislabeled import probably_mislabeled, unlike_their_label
from dlp_fast.detection.propose import PROPOSALS, Observed, by_curves
from dlp_fast.detection.settle import settled
from dlp_fast.detection.suspicion import Suspicion, by_groups
from dlp_fast.detection.together import grown_among, judged_together
from dlp_fast.detection.told import with_ids
from dlp_fast.detection.verify import try_triggers
from dlp_fast.detection.verify.hold_out import Train, with_support
from dlp_fast.detection.verify.trigger import Predict

Kept = Callable[[str, Callable[[], list[Group]]], list[Group]]


@dataclass(frozen=True)
class Detection:
    """suspicion: of every image; decision: which classes are found and how clearly; empty for methods that only
    rank.
    """

    suspicion: Suspicion
    decision: Decision


@dataclass(frozen=True)
class Networks:
    """What detection may ask of networks.

    predict: of stage 1's, uint8 [b, H, W, 3] -> class int64 [b]; features: gives fp32 [n, d] of it, asked for only by
    methods that look at activations; train: trains one more network, see verify.hold_out, three times at most.
    """

    predict: Predict
    features: Callable[[], Tensor]
    train: Train


def look_at_curves(seen: Observed, config: DetectionConfig) -> Decision:
    """The Decision by learning curves alone, before anything is verified; empty where the method or the proposals have
    none.
    """
    if config.method != "learning_curves" or "learning_curves" not in config.proposals:
        return Decision((), ())
    return decide(by_curves(seen, config, partial(clearest, config=config)), config)


def detect(
    seen: Observed,
    decision: Decision,
    networks: Networks,
    config: DetectionConfig,
    kept: Kept = lambda _name, make: make(),
) -> Detection:
    """The Detection that `config.method` asks for.

    Args: decision: what `look_at_curves` says of `seen`; kept: gives back what an earlier process made under a name.
    """
    if config.method != "learning_curves":
        rank = baselines.BASELINES[config.method]
        return Detection(
            rank(seen.entropy, seen.loss, seen.labels, seen.classes, networks.features), decision
        )
    others = [name for name in config.proposals if name != "learning_curves"]
    proposed = [
        group for name in others for group in kept(name, lambda name=name: PROPOSALS[name](seen, config))
    ]
    marks = marks_among(proposed, seen.classes, config)
    marks += grown_among(proposed, seen, config, kept)
    groups = [*decision.found, *decision.in_question(config), *marks]
    evidence = try_triggers(groups, seen, networks.predict)
    if ask_held_out(decision, marks, evidence, config):
        placebos = decision.placebos({group.label for group in groups}, config)
        evidence = with_support(groups, evidence, placebos, seen, networks.train, config)
        evidence = judged_together(groups, evidence, seen.classes, config)
    known = acquitted(groups, evidence, config)
    decision = with_evidence(decision, marks, evidence, config)
    decision = settled(decision, seen, networks.predict, networks.train, config)
    decision, without_cause = with_causes(decision, seen, networks.train, config)
    wrong = torch.from_numpy(probably_mislabeled(seen, config) | unlike_their_label(seen, config))
    wrong[without_cause] = True
    decision = explained(decision, wrong.numpy(), known)
    decision = _with_ids(decision)
    shown = zip(decision.marks, decision.of_marks, strict=True)
    unclear = [group for mark, group in shown if mark.unclear and group is not None]
    suspicion = by_groups(decision.found, seen.entropy, seen.loss, config, unclear)
    return Detection(replace(suspicion, mislabeled=wrong), decision)


def _with_ids(decision: Decision) -> Decision:
    """`decision` whose marks say which images are shown, where their groups are known."""
    shown = zip(decision.marks, decision.of_marks, strict=True)
    marks = [mark if group is None else with_ids(mark, group) for mark, group in shown]
    return replace(decision, marks=tuple(marks))
