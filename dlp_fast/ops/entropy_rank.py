"""Entropy ranking: DLP Eq. 5 and the choice of both index sets (Ying & Wu 2023), right for saturated rows.

The entropy uses the tail-exact form: with t_j = x_j - max x, s = sum of e^t over all but one maximum and
u = sum of t e^t, H = log1p(s) - u / (1 + s). Nothing cancels, so even a row of 1e-10 bits keeps six digits;
the usual ``-(p * log p).sum()`` has none left there, and saturated rows are exactly those that the method
ranks. A term below e^-86.5 of the largest (124.8 bits) counts as zero; a row of only such terms has entropy
zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlp_fast.errors import NumericError
from dlp_fast.ops.entropy_rank_reference import (
    entropy_rank_reference,
    highest_size,
    row_entropy_reference,
    select_reference,
)
from dlp_fast.ops.library import native_available, native_on

__all__ = ["Ranking", "entropy_and_class", "entropy_rank", "row_entropy", "select"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MAX_CLASSES = 1 << 24


class Ranking(NamedTuple):
    """What ranking gives back; ids are row numbers.

    entropy: fp32 [n], bits (from ``select``: the scores that were given).
    lowest: int64 [lowest], ascending by entropy, then by id.
    highest: int64, class after class, each descending by entropy, then ascending by id; a class with fewer
        rows than asked for gives all it has.
    counts: int64 [classes], how many entries of ``highest`` belong to each class.
    """

    entropy: Tensor
    lowest: Tensor
    highest: Tensor
    counts: Tensor


def entropy_rank(
    logits: Tensor,
    lowest: int,
    highest_per_class: int = 0,
    labels: Tensor | None = None,
    *,
    check: bool | None = None,
) -> Ranking:
    """Entropy of every row's softmax, the rows of lowest entropy, and those of highest entropy in each class.

    Source: DLP Eq. 5 (Ying & Wu, 2023). Deterministic: ties go to the smaller id, and any number of threads, any
    SIMD level and any batch size give the same bits.

    Args:
        logits: [n, C], fp32, fp16 or bf16, finite, C from 2 to 2**24. Rows may be strided.
        lowest: how many rows of lowest entropy, 0 to n.
        highest_per_class: how many rows of highest entropy in each class, 0 or more.
        labels: int64 or int32 [n] in [0, C), the classes. None: the class of a row is its largest logit (the
            first of equal ones), which the entropy needs anyway.
        check: whether to look for bad numbers and raise. None: yes on a CPU, no on CUDA, where looking waits
            for the device. Unchecked, rows with a number that is not finite get entropy NaN, labels out of
            range are in no class, and ``highest`` is not cut: it holds min(n, C * highest_per_class) entries,
            those chosen and then -1.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or range.
        NumericError: logits that are not finite; the message names the first rows.
    """
    _check_logits(logits)
    _check_counts(logits.shape[0], lowest, highest_per_class)
    if labels is not None:
        _check_labels(labels, logits)
    check = logits.device.type == "cpu" if check is None else check
    logits = logits.detach()
    if native_on(logits.device):
        found = torch.ops.dlp_fast.entropy_rank(logits, lowest, highest_per_class, labels)
    else:
        found = entropy_rank_reference(logits, lowest, highest_per_class, labels)
    entropy, low, high, counts, faults = found
    return _finish(entropy, low, high, counts, faults, labels, logits.shape[1], "logits", check)


def row_entropy(logits: Tensor, *, check: bool | None = None) -> Tensor:
    """Entropy of every row's softmax in bits, fp32 [n]; form and errors are those of ``entropy_rank``."""
    return entropy_and_class(logits, check=check)[0]


def select(
    scores: Tensor,
    lowest: int,
    highest_per_class: int = 0,
    labels: Tensor | None = None,
    num_classes: int | None = None,
    *,
    check: bool | None = None,
) -> Ranking:
    """The rows of lowest score, and those of highest score in each class, for any finite scores.

    Args:
        scores: fp32 [n], finite; negative ones and -0 (which equals +0) included.
        lowest: how many, 0 to n.
        highest_per_class: how many of each class, 0 or more; needs ``labels``.
        labels: int64 or int32 [n] in [0, num_classes).
        num_classes: how many classes; needed with ``labels``.
        check: as for ``entropy_rank``.

    Returns:
        A Ranking whose ``entropy`` is ``scores``.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or range.
        NumericError: scores that are not finite; the message names the first rows.
    """
    if not isinstance(scores, Tensor) or scores.dtype != torch.float32:
        raise TypeError(f"scores must be a float32 tensor, got {_kind(scores)}")
    if scores.dim() != 1:
        raise ValueError(f"scores must have 1 dimension, got shape {tuple(scores.shape)}")
    _check_counts(scores.shape[0], lowest, highest_per_class)
    if labels is None:
        if highest_per_class:
            raise ValueError(f"highest_per_class = {highest_per_class} needs labels, got none")
        classes = num_classes or 0
    else:
        if num_classes is None:
            raise ValueError("num_classes must be given with labels, got None")
        _check_labels(labels, scores)
        classes = num_classes
    fewest = 0 if labels is None else 1
    if not fewest <= classes <= _MAX_CLASSES:
        raise ValueError(f"num_classes must be from {fewest} to {_MAX_CLASSES}, got {classes}")
    check = scores.device.type == "cpu" if check is None else check
    scores = scores.detach()
    run = torch.ops.dlp_fast.select if native_on(scores.device) else select_reference
    low, high, counts, faults = run(scores, lowest, highest_per_class, labels, classes)
    return _finish(scores, low, high, counts, faults, labels, classes, "scores", check)


def entropy_and_class(
    logits: Tensor, *, check: bool | None = None, first_id: int = 0
) -> tuple[Tensor, Tensor]:
    """(entropy of every row in bits, fp32 [n]; its largest logit, the first of equal ones, int64 [n]) by one read.

    Args:
        logits, check: as of ``entropy_rank``.
        first_id: what the first row is called in an error, for logits that come batch by batch.

    Raises:
        TypeError, ValueError, NumericError: as ``entropy_rank``.
    """
    _check_logits(logits)
    check = logits.device.type == "cpu" if check is None else check
    logits = logits.detach()
    native = native_on(logits.device)
    entropy, top = (torch.ops.dlp_fast.row_entropy if native else row_entropy_reference)(logits)
    if check and not bool(entropy.isfinite().all()):
        raise _not_finite("logits", entropy, first_id)
    return entropy, top.long()


def _finish(
    scores: Tensor,
    low: Tensor,
    high: Tensor,
    counts: Tensor,
    faults: Tensor,
    labels: Tensor | None,
    classes: int,
    name: str,
    check: bool,
) -> Ranking:
    if check:
        n = scores.shape[0]
        bad_score, bad_label = faults.tolist()
        if bad_score < n:
            raise _not_finite(name, scores)
        if bad_label < n and labels is not None:
            raise ValueError(
                f"labels must be in [0, {classes}), got {int(labels[bad_label])} for row {bad_label} first"
            )
        high = high[: int(counts.sum())]
    return Ranking(scores, low, high, counts)


def _not_finite(name: str, scores: Tensor, first_id: int = 0) -> NumericError:
    ids = (~scores.isfinite()).nonzero().flatten()
    shown = ", ".join(str(first_id + i) for i in ids[:5].tolist())
    return NumericError(
        f"{name} must be finite, got NaN or infinity in {len(ids)} of {len(scores)} rows; first rows: {shown}"
    )


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _check_logits(logits: Tensor) -> None:
    if not isinstance(logits, Tensor) or logits.dtype not in _DTYPES:
        raise TypeError(f"logits must be a float32, float16 or bfloat16 tensor, got {_kind(logits)}")
    if logits.dim() != 2:
        raise ValueError(f"logits must have 2 dimensions [n, classes], got shape {tuple(logits.shape)}")
    if not 2 <= logits.shape[1] <= _MAX_CLASSES:
        raise ValueError(f"logits must have 2 to {_MAX_CLASSES} classes (columns), got {logits.shape[1]}")


def _check_counts(n: int, lowest: int, highest_per_class: int) -> None:
    for name, value in (("lowest", lowest), ("highest_per_class", highest_per_class)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not 0 <= lowest <= n:
        raise ValueError(f"lowest must be from 0 to the number of rows, {n}, got {lowest}")
    if highest_per_class < 0:
        raise ValueError(f"highest_per_class must not be negative, got {highest_per_class}")


def _check_labels(labels: Tensor, like: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"labels must be an int64 or int32 tensor, got {_kind(labels)}")
    if labels.shape != like.shape[:1]:
        raise ValueError(f"labels must have shape ({like.shape[0]},), got {tuple(labels.shape)}")
    if labels.device != like.device:
        raise ValueError(f"labels must be on {like.device} like the rows, got {labels.device}")


def _register_fakes() -> None:
    @torch.library.register_fake("dlp_fast::row_entropy")
    def _(logits):
        n = logits.shape[0]
        return logits.new_empty(n, dtype=torch.float32), logits.new_empty(n, dtype=torch.int32)

    def chosen(like, n, lowest, highest_per_class, classes):
        high = highest_size(n, classes, highest_per_class)
        return tuple(like.new_empty(size, dtype=torch.int64) for size in (lowest, high, classes, 2))

    @torch.library.register_fake("dlp_fast::select")
    def _(scores, lowest, highest_per_class, labels, num_classes):
        return chosen(scores, scores.shape[0], lowest, highest_per_class, num_classes)

    @torch.library.register_fake("dlp_fast::entropy_rank")
    def _(logits, lowest, highest_per_class, labels):
        n, classes = logits.shape
        entropy = logits.new_empty(n, dtype=torch.float32)
        return entropy, *chosen(logits, n, lowest, highest_per_class, classes)


if native_available():
    _register_fakes()
