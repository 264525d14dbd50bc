"""The native ops: typed faces, checks, fakes, and a plain-torch reference beside each."""

from dlp_fast.ops.augment import augment, augment_reference
from dlp_fast.ops.augment_parameters import AugmentParameters, augment_parameters
from dlp_fast.ops.batch_norm_relu import batch_norm_relu, batch_norm_relu_reference
from dlp_fast.ops.entropy_rank import Ranking, entropy_and_class, entropy_rank, row_entropy, select
from dlp_fast.ops.inject_trigger import inject_trigger, inject_trigger_reference
from dlp_fast.ops.library import build_info, native_available
from dlp_fast.ops.residual_scan import (
    high_pass_residual,
    high_pass_residual_reference,
    window_hashes,
    window_hashes_reference,
)
from dlp_fast.ops.trigger_table import TriggerTable

__all__ = [
    "AugmentParameters",
    "Ranking",
    "TriggerTable",
    "augment",
    "augment_parameters",
    "augment_reference",
    "batch_norm_relu",
    "batch_norm_relu_reference",
    "build_info",
    "entropy_and_class",
    "entropy_rank",
    "high_pass_residual",
    "high_pass_residual_reference",
    "inject_trigger",
    "inject_trigger_reference",
    "native_available",
    "row_entropy",
    "select",
    "window_hashes",
    "window_hashes_reference",
]
