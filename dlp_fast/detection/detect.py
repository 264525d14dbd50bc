"""From what stage 1 saw to what is suspected: propose, decide, and a score for every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dlp_fast.config import DetectionConfig
from dlp_fast.detection import baselines
from dlp_fast.detection.decide import Decision, decide
from dlp_fast.detection.propose import Observed, propose
from dlp_fast.detection.suspicion import Suspicion, by_groups


@dataclass(frozen=True)
class Detection:
    """suspicion: of every image; decision: which classes are found and how clearly; empty for methods that only
    rank.
    """

    suspicion: Suspicion
    decision: Decision


def detect(
    entropy: Tensor,
    loss: Tensor,
    labels: Tensor,
    classes: int,
    config: DetectionConfig,
    features: Callable[[], Tensor],
) -> Detection:
    """The Detection that `config.method` asks for.

    Args: entropy (bits), loss (nats): fp32 [epochs, n]; labels: int64 [n]; features: gives fp32 [n, d], asked for only
    by methods that look at activations.
    """
    if config.method != "learning_curves":
        ranked = baselines.BASELINES[config.method](entropy, loss, labels, classes, features)
        return Detection(ranked, Decision((), ()))
    seen = Observed(entropy.numpy(), loss.numpy(), labels.numpy(), classes)
    decision = decide(propose(seen, config), config)
    return Detection(by_groups(decision.found, entropy, loss, config), decision)
