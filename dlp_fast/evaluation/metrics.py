"""Results where the truth is known. Nothing here reaches a decision of the defence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlp_fast import ops
from dlp_fast.engine.batches import Images, TrainingData, normalise
from dlp_fast.engine.inference import BATCH, accuracy


@dataclass(frozen=True)
class TestSet:
    """Test images, and how to trigger them where the attack is known (table, target; else None).

    Clean accuracy: over the whole test set. Attack success rate: share of the triggered images whose true class
    is not the target that are classified as the target.
    """

    __test__ = False  # not a pytest class

    images: Images
    labels: Tensor
    table: ops.TriggerTable | None = None
    target: int | None = None

    def _batches(
        self,
        ids: Tensor,
        device: torch.device,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        triggered: bool,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for part in ids.split(BATCH[device.type]):
            images = self.images.get(part).to(device)
            labels = self.labels[part].to(device)
            if triggered:
                which = torch.zeros(len(part), dtype=torch.int64, device=device)
                images = ops.inject_trigger(images, self.table.to(device), which)
                labels = torch.full_like(labels, self.target)
            yield normalise(images, mean, std), labels

    def measure(
        self, model: nn.Module, device: torch.device, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> dict[str, float | None]:
        """{"clean_accuracy": 0..1, "attack_success_rate": 0..1 or None where no attack is known}."""
        everything = torch.arange(len(self.labels))
        clean = accuracy(model, self._batches(everything, device, mean, std, triggered=False))
        rate = None
        if self.table is not None:
            others = everything[self.labels != self.target]
            rate = accuracy(model, self._batches(others, device, mean, std, triggered=True))
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
