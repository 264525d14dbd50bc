"""What a finished run is worth where the truth is known; called on finished models, and by no stage."""

from __future__ import annotations

from typing import Any

import torch

from dlp_fast.attacks.poisoning import Poisoning
from dlp_fast.config import RunConfig
from dlp_fast.data.sources import Dataset
from dlp_fast.engine.batches import TrainingData
from dlp_fast.evaluation.metrics import TestSet, precision, recall
from dlp_fast.models.registry import new_model
from dlp_fast.pipeline import Defense
from dlp_fast.selection.partition import Selection


def make_test_set(dataset: Dataset, attack: Poisoning | None, device: torch.device) -> TestSet | None:
    """The test images, with the trigger of `attack`; None where there are none."""
    if dataset.test is None:
        return None
    images = dataset.test.images.to(device)
    labels = dataset.test.labels
    return TestSet(images, labels, attack.triggered_test(images, labels) if attack else None)


def stage_metrics(
    found: Defense, test: TestSet | None, data: TrainingData, config: RunConfig
) -> dict[str, dict[str, Any]]:
    """The metrics of each stage, with clean_accuracy and attack_success_rate (0 to 1, None where unknown) of its
    network.
    """
    told = {}
    for stage, outcome in found.stages.items():
        measured: dict[str, float | None] = {"clean_accuracy": None, "attack_success_rate": None}
        if test is not None:
            model = new_model(config.model, data, 0)
            model.load_state_dict(outcome.weights)
            measured = test.measure(model, data.device, data.mean, data.std)
        told[stage] = outcome.metrics | measured
    return told


def detection_metrics(selection: Selection, attack: Poisoning | None) -> dict[str, Any]:
    """How many images are in each set, and what the sets are worth where the attack is known."""
    poisoned, clean, trusted = selection.suspected_poisoned, selection.suspected_clean, selection.trusted
    known = attack is not None
    return {
        "suspected_poisoned": len(poisoned),
        "suspected_clean": len(clean),
        "probably_mislabeled": len(selection.mislabeled),
        "poisoned_precision": precision(poisoned, attack.poisoned) if known else None,
        "poisoned_recall": recall(poisoned, attack.poisoned) if known else None,
        "clean_precision": precision(clean, ~attack.poisoned) if known else None,
        "trusted": len(trusted),
        "trusted_precision": precision(trusted, ~attack.poisoned) if known else None,
    }
