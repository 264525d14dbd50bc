"""Counter-based random words: Philox4x32-10, the vectorised twin of ``csrc/philox.h``.

A word depends on (seed, epoch, id, block) and on nothing else: not on the order of the batches, their size,
the worker or the rank, so a run can be stopped, resumed, sharded or moved to a GPU and see the same images.
Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch

ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Block(IntEnum):
    """Which words of (seed, epoch, id) belong to whom: the last part of the counter.

    The first 2**16 blocks are those of ``ops.augment``; every other user takes 2**16 of its own.
    """

    WEAK = 0
    STRONG = 1
    CUTOUT = 2
    OPERATION = 3  # and one block more for each further operation
    PERMUTATION = 1 << 16


def philox(seed: int, epoch: int, ids: torch.Tensor | np.ndarray, block: int) -> np.ndarray:
    """Four random words for every id.

    ``seed`` 0..2**64-1 is the key; the counter is (id, epoch, block): ``ids`` int64 [n], ``epoch`` and
    ``block`` 0..2**32-1. Returns uint32 [n, 4]. Raises ValueError where one of them is out of range.
    """
    for name, value, bits in (("seed", seed, 64), ("epoch", epoch, 32), ("block", block, 32)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} must be in [0, 2**{bits}), got {value}")
    ids = np.asarray(ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"ids must be a vector of integers, got {ids.dtype} of shape {list(ids.shape)}")
    ids = ids.astype(np.int64).view(np.uint64)
    low, high = ids & _MASK, ids >> _HALF
    third, fourth = np.full_like(ids, epoch), np.full_like(ids, block)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    for _ in range(ROUNDS):
        product0, product1 = low * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        low, high = (product1 >> _HALF) ^ high ^ np.uint64(key[0]), product1 & _MASK
        third, fourth = (product0 >> _HALF) ^ fourth ^ np.uint64(key[1]), product0 & _MASK
        key = tuple((k + w) & 0xFFFFFFFF for k, w in zip(key, _WEYL))
    return np.stack([low, high, third, fourth], axis=1).astype(np.uint32)


def uniform01(words: np.ndarray) -> np.ndarray:
    """uint32 words -> float64 of the same shape in [0, 1): the upper 24 bits, exact in float32 too."""
    return (words >> np.uint32(8)) * 2.0**-24


def integers(words: np.ndarray, n: int) -> np.ndarray:
    """uint32 words -> int64 of the same shape in [0, n), by the high half of word * n.

    ``n`` 1..2**32. The chance of a value is off by less than 2**-32 from 1/n. Raises ValueError on another n.
    """
    if not 1 <= n <= 1 << 32:
        raise ValueError(f"n must be in [1, 2**32], got {n}")
    return ((words.astype(np.uint64) * np.uint64(n)) >> _HALF).astype(np.int64)
