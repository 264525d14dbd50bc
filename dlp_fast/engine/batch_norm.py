"""Batch-norm statistics for weights that no training step has seen, such as an average."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn


def refit_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running mean and variance of each batch norm to those of `batches`, each of which counts alike (Izmailov
    et al. 2018, section 3.2); weights and mode stay. In fp32, as the network is used. Without batch norm nothing is
    drawn.

    Args: batches: at least one, normalised fp32 [b, 3, H, W] on the model's device.
    """
    update_bn(batches, model)
