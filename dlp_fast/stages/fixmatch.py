"""The loss of stage 3: FixMatch's (DLP Eq. 7; Sohn et al. 2020)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dlp_fast.config import FinetuningConfig
from dlp_fast.stages.label_policy import ANY


def unlabeled_loss(logits: Tensor, pseudo_label: Tensor, mask: Tensor, labeled: int) -> Tensor:
    """L2 of DLP Eq. 7, in nats: the masked cross-entropy of strong views, fp32 [u, classes]; its mean where u ≥
    `labeled` (μ ≥ 1). Of fewer unlabeled images a mean would have each outweigh a labeled one by 1/μ, and its
    pseudo-label a label; so each counts as one.
    """
    loss = F.cross_entropy(logits, pseudo_label, reduction="none") * mask
    return loss.sum() / max(len(logits), labeled)


def fixmatch_loss(
    logits: Tensor,
    target: Tensor,
    allowed: Tensor,
    config: FinetuningConfig,
    weights: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """(loss in nats, mask fp32 [u] of the pseudo-labels that counted, None without unlabeled images): DLP Eq. 7.

    Args: logits: fp32 [b + 2u, classes], of b labeled images, then of the weak, then of the strong views of u unlabeled
    ones; target: int64 [b]; allowed: int64 [u], the only pseudo-label that counts for each, or ANY; weights: of the two
    terms, where the images are one rank's part of a batch (see `Plan.weights`).
    """
    of_labeled, of_unlabeled = weights or (None, None)
    batch = len(target)
    # first term of DLP Eq. 7
    Lx = F.cross_entropy(logits[:batch], target, label_smoothing=config.label_smoothing)
    Lx = Lx if of_labeled is None else Lx * of_labeled
    if not len(allowed):
        return Lx, None
    logits_weak, logits_strong = logits[batch:].chunk(2)
    max_probs, targets_u = logits_weak.detach().softmax(1).max(1)
    mask = ((max_probs >= config.tau) & ((allowed == ANY) | (allowed == targets_u))).float()
    Lu = unlabeled_loss(logits_strong, targets_u, mask, batch)
    Lu = Lu if of_unlabeled is None else Lu * of_unlabeled
    return Lx + config.lambda_u * Lu, mask
