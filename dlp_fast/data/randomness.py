"""Randomness belongs to the sample: (seed, epoch, id) -> words, and what the package makes of them.

``philox``, ``uniform01`` and ``integers`` live in ``dlp_fast.ops.philox``, beside the kernels that draw the
same words.
"""

from __future__ import annotations

import numpy as np
import torch

from dlp_fast.ops.philox import Block, integers, philox, uniform01

__all__ = ["Block", "integers", "permutation", "philox", "uniform01"]


def permutation(seed: int, epoch: int, n: int) -> torch.Tensor:
    """The order in which epoch ``epoch`` visits ids 0..n-1: int64 [n], on the CPU.

    Ids are sorted by a 64-bit random key of their own, ties (2**-64 a pair) by id, so the order is the same
    on every machine and rank. Raises ValueError where ``n`` is negative or ``seed`` or ``epoch`` is out of
    range.
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    words = philox(seed, epoch, np.arange(n), Block.PERMUTATION).astype(np.uint64)
    keys = (words[:, 0] << np.uint64(32)) | words[:, 1]
    return torch.from_numpy(np.argsort(keys, kind="stable"))
