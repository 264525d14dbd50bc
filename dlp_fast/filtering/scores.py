"""One function from what stage 1 saw to a Suspicion, by the filter that the configuration names."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dlp_fast.config import FilterConfig
from dlp_fast.filtering import peers
from dlp_fast.filtering.suspicion import Suspicion, snapshot, trajectory


def suspicion(
    entropy: Tensor,
    loss: Tensor,
    labels: Tensor,
    classes: int,
    config: FilterConfig,
    features: Callable[[], Tensor] | None = None,
) -> Suspicion:
    """The Suspicion that `config.score` asks for.

    Args: entropy (bits), loss (nats): fp32 [epochs, n]; labels: int64 [n]; features: gives fp32 [n, d], asked for only
    by the filters that look at activations.
    """
    match config.score:
        case "snapshot":
            return snapshot(entropy)
        case "loss":
            return peers.training_loss(loss)
        case "trajectory":
            return trajectory(entropy, loss, labels, classes, config)
    if features is None:
        raise ValueError(f"the filter {config.score} looks at activations: features are needed")
    peer = {
        "activation_clustering": peers.activation_clustering,
        "spectral_signatures": peers.spectral_signatures,
    }[config.score]
    return peer(features(), labels, classes)
