"""The rivals by the names that the paper's tables have."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dlp_fast.defenses.anti_backdoor import anti_backdoor
from dlp_fast.defenses.attention_distillation import attention_distillation
from dlp_fast.defenses.fine_pruning import fine_pruning
from dlp_fast.defenses.mode_connectivity import mode_connectivity
from dlp_fast.defenses.neuron_pruning import neuron_pruning
from dlp_fast.defenses.setting import Setting

DEFENSES: dict[str, Callable[[Setting], nn.Module]] = {
    "fp": fine_pruning,
    "mcr": mode_connectivity,
    "nad": attention_distillation,
    "abl": anti_backdoor,
    "anp": neuron_pruning,
}
