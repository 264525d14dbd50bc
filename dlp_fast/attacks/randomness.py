"""Random numbers that belong to an image of the attack: a function of (seed, stream, id), whatever the batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlp_fast.data.randomness import integers, philox, uniform01

BLOCK = 2 << 16  # the first of the blocks that belong to the attacks; see dlp_fast.ops.philox.Block
TRAINING, TEST = (
    0,
    1,
)  # place of the epoch in the counter: training and test images of one id draw other numbers


def uniform(seed: int, part: int, stream: int, ids: Tensor, count: int) -> Tensor:
    """float64 [b, count] in [0, 1) on the CPU for int64 `ids` [b].

    `part` is TRAINING or TEST; `stream` (0 .. 2**16 - 1) keeps the uses apart.
    """
    words = -(-count // 4)
    counters = (ids.cpu()[:, None] * words + torch.arange(words)).flatten()
    drawn = uniform01(philox(seed, part, counters, BLOCK + stream))
    return torch.from_numpy(np.ascontiguousarray(drawn.reshape(len(ids), 4 * words)[:, :count]))


def choices(seed: int, part: int, stream: int, ids: Tensor, n: int) -> Tensor:
    """int64 [b] in 0 .. n - 1 on the CPU, one for each of int64 `ids` [b]."""
    return torch.from_numpy(integers(philox(seed, part, ids.cpu(), BLOCK + stream)[:, 0], n))
