"""``entropy_rank`` in plain torch, by stable sorts: the form to trust, and what runs without the native module."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST_TERM = -86.5  # in nats below the largest logit; what is smaller counts as zero


def entropy_rank_reference(
    logits: Tensor, lowest: int, highest_per_class: int, labels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The op in plain torch (float64 inside): entropy, lowest, highest with its -1 tail, counts, faults."""
    entropy, top = row_entropy_reference(logits)
    chosen = select_reference(
        entropy, lowest, highest_per_class, top if labels is None else labels, logits.shape[1]
    )
    return entropy, *chosen


def row_entropy_reference(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy in bits (NaN where a logit is not finite) and the first class of the largest logit, int32."""
    x = logits.double()
    n = x.shape[0]
    if n == 0:
        return x.new_empty(0, dtype=torch.float32), x.new_empty(0, dtype=torch.int32)
    best, _ = x.max(dim=1, keepdim=True)
    top = (x == best).to(torch.int8).argmax(dim=1)
    t = x - best
    term = torch.where(t >= SMALLEST_TERM, t.exp(), 0.0).scatter(1, top[:, None], 0.0)
    s, u = term.sum(1), (t * term).sum(1)
    entropy = (torch.log1p(s) - u / (1 + s)) / math.log(2)
    return torch.where(x.isfinite().all(1), entropy, math.nan).float(), top.int()


def select_reference(
    scores: Tensor, lowest: int, highest_per_class: int, labels: Tensor | None, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The selection in plain torch, by stable sorts: lowest, highest with its -1 tail, counts, faults."""
    n, device = scores.shape[0], scores.device
    low = torch.sort(scores, stable=True).indices[:lowest]
    size = highest_size(n, num_classes, highest_per_class)
    high = torch.full((size,), -1, dtype=torch.int64, device=device)
    counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
    wrong = torch.zeros(n, dtype=torch.bool, device=device)
    if labels is not None:
        wrong = (labels < 0) | (labels >= num_classes)
        down = torch.sort(scores, descending=True, stable=True).indices
        # rows out of range go behind all classes
        group = torch.where(wrong, num_classes, labels.long())[down]
        order = torch.sort(group, stable=True)
        ids, group = down[order.indices], order.values
        sizes = torch.bincount(group, minlength=num_classes + 1)
        place = torch.arange(n, device=device) - (sizes.cumsum(0) - sizes)[group]
        chosen = ids[(place < highest_per_class) & (group < num_classes)]
        high[: chosen.shape[0]] = chosen
        counts = sizes[:num_classes].clamp(max=highest_per_class)
    return low, high, counts, torch.stack([_first(~scores.isfinite()), _first(wrong)])


def highest_size(n: int, classes: int, per_class: int) -> int:
    """Length of ``highest`` before it is cut: at most every row, at most ``per_class`` of every class."""
    return 0 if per_class == 0 or classes == 0 else torch.sym_min(n, classes * per_class)


def _first(flags: Tensor) -> Tensor:
    n = flags.shape[0]
    ids = torch.arange(n, device=flags.device)
    return torch.where(flags, ids, n).min() if n else torch.zeros((), dtype=torch.int64, device=flags.device)
