"""What every proposal hands on: a group of images that may be poison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Group:
    """Images that may be poison, of one class (label) or of several (label None), as one proposal found them.

    ids: int64 [k] ascending; membership: float64 [k] in (0, 1], how surely each belongs; statistics: numbers for the
    record.
    """

    proposal: str
    label: int | None
    ids: np.ndarray
    membership: np.ndarray
    statistics: Mapping[str, float]
