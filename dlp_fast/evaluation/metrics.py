"""Results where the truth is known. Nothing here reaches a decision of the defence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlp_fast.engine.batches import Images, TrainingData, normalise
from dlp_fast.engine.inference import BATCH, accuracy


@dataclass(frozen=True)
class TestSet:
    """Test images, and what an attack makes of them where it is known.

    labels: int64 [n]; triggered: see Poisoning.triggered_test: the images with a trigger, by the same ids, the class
    that the attack wants (int64 [m]), and the ids that count (int64 [m]); None where no attack is known.
    Clean accuracy: over the whole test set. Attack success rate: share of the triggered images that count which are
    classified as the attack wants.
    """

    __test__ = False  # not a pytest class

    images: Images
    labels: Tensor
    triggered: tuple[Images, Tensor, Tensor] | None = None

    def measure(
        self, model: nn.Module, device: torch.device, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> dict[str, float | None]:
        """{"clean_accuracy": 0..1, "attack_success_rate": 0..1 or None where no attack is known}."""

        def batches(images: Images, ids: Tensor, wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
            for part, classes in zip(ids.split(BATCH[device.type]), wanted.split(BATCH[device.type])):
                yield normalise(images.get(part).to(device), mean, std), classes.to(device)

        clean = accuracy(model, batches(self.images, torch.arange(len(self.labels)), self.labels))
        rate = None
        if self.triggered is not None:
            images, wanted, ids = self.triggered
            rate = accuracy(model, batches(images, ids, wanted))
        return {"clean_accuracy": clean, "attack_success_rate": rate}


@torch.no_grad()
def per_class_accuracy(model: nn.Module, of: TestSet, data: TrainingData, classes: int) -> list[float | None]:
    """Clean accuracy of each class, 0..1; None for a class without a test image."""
    model.eval()
    right, seen = torch.zeros(classes), torch.zeros(classes)
    for part in torch.arange(len(of.labels)).split(BATCH[data.device.type]):
        x = normalise(of.images.get(part).to(data.device), data.mean, data.std)
        hit = (model(x).argmax(1).cpu() == of.labels[part]).float()
        right.index_add_(0, of.labels[part], hit)
        seen.index_add_(0, of.labels[part], torch.ones(len(part)))
    return [float(r / s) if s else None for r, s in zip(right, seen)]


def precision(ids: Tensor, right: Tensor) -> float | None:
    """Share of `ids` for which `right` (bool [n]) holds; None for no ids."""
    return float(right[ids].float().mean()) if len(ids) else None


def recall(ids: Tensor, wanted: Tensor) -> float | None:
    """Share of the images for which `wanted` (bool [n]) holds that are among `ids`; None where there are none."""
    return float(wanted[ids].sum() / wanted.sum()) if bool(wanted.any()) else None
