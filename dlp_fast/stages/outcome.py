"""What every stage leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class StageOutcome:
    """metrics: seconds, images_per_second and what else the stage counts; weights: state dict of the network after."""

    metrics: dict[str, Any]
    weights: dict[str, Tensor]
