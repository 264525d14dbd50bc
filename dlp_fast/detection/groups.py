"""What a proposal hands to verification and decision: a group of images that may be poison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Group:
    """Images that may be poison, of one class (`label`) or of several (None), as one proposal found them.

    proposal: name of the proposal; ids: int64 [k], ascending; membership: float64 [k] in [0, 1], how surely each
    belongs to the group; statistics: numbers of the proposal's own, for the decision and for the record; labels: int64
    [k], of the ids, where the group is of several classes.
    """

    proposal: str
    label: int | None
    ids: np.ndarray
    membership: np.ndarray
    statistics: Mapping[str, float]
    labels: np.ndarray | None = None

    @property
    def core(self) -> np.ndarray:
        """int64 ids of the images that more likely belong than not."""
        return self.ids[self.membership > 0.5]

    def has_most_of(self, other: Group) -> bool:
        """Whether more than half of what belongs to `other`, of the same class, belongs to this one."""
        return self.label == other.label and bool(np.isin(other.core, self.core).mean() > 0.5)
