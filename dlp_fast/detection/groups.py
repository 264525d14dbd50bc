"""What a proposal hands to verification and decision: a group of images that may be poison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Group:
    """Images that may be poison, of one class (`label`) or of several (None), as one proposal found them.

    proposal: name of the proposal; ids: int64 [k], ascending; membership: float64 [k] in [0, 1], how surely each
    belongs to the group; statistics: numbers of the proposal's own, for the decision and for the record.
    """

    proposal: str
    label: int | None
    ids: np.ndarray
    membership: np.ndarray
    statistics: Mapping[str, float]

    @property
    def core(self) -> np.ndarray:
        """int64 ids of the images that more likely belong than not."""
        return self.ids[self.membership > 0.5]
