"""From what stage 1 saw to what is suspected: propose, verify, decide, and a score for every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dlp_fast.config import DetectionConfig
from dlp_fast.detection import baselines
from dlp_fast.detection.decide import Decision, decide, is_mark, with_evidence
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import PROPOSALS, Observed
from dlp_fast.detection.suspicion import Suspicion, by_groups
from dlp_fast.detection.verify import verify
from dlp_fast.detection.verify.trigger import Predict

Kept = Callable[[str, Callable[[], list[Group]]], list[Group]]


@dataclass(frozen=True)
class Detection:
    """suspicion: of every image; decision: which classes are found and how clearly; empty for methods that only
    rank.
    """

    suspicion: Suspicion
    decision: Decision


def detect(
    seen: Observed,
    predict: Predict,
    features: Callable[[], Tensor],
    config: DetectionConfig,
    kept: Kept = lambda _name, make: make(),
) -> Detection:
    """The Detection that `config.method` asks for.

    Args: predict: the network of stage 1, uint8 [b, H, W, 3] -> class int64 [b]; features: gives fp32 [n, d] of it,
    asked for only by methods that look at activations; kept: gives back what an earlier process made under a name.
    """
    if config.method != "learning_curves":
        rank = baselines.BASELINES[config.method]
        return Detection(rank(seen.entropy, seen.loss, seen.labels, seen.classes, features), Decision((), ()))
    curves = PROPOSALS["learning_curves"](seen, config) if "learning_curves" in config.proposals else []
    others = [name for name in config.proposals if name != "learning_curves"]
    groups = [
        group for name in others for group in kept(name, lambda name=name: PROPOSALS[name](seen, config))
    ]
    decision = decide(curves, config)
    marks = [group for group in groups if is_mark(group, config)]
    evidence = verify([*decision.found, *marks], seen, predict, config)
    decision = with_evidence(decision, marks, evidence, config)
    return Detection(by_groups(decision.found, seen.entropy, seen.loss, config), decision)
