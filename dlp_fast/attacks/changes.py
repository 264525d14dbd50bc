"""What is done to the pixels of chosen images, and an image set in which it is done as they are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dlp_fast import ops


class Change(Protocol):
    """A change of pixels that depends on the image, its id and its variant, and on nothing else in the batch."""

    def __call__(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        """uint8 [b, H, W, 3] of uint8 `images` [b, H, W, 3]; `ids`, `variant`: int64 [b] on the same device.

        `variant` says which of its changes each image gets; one with -1 stays as it is.
        """
        ...

    def to(self, device: torch.device | str) -> Change:
        """The same change with its tensors on `device`."""
        ...


@dataclass(frozen=True)
class TableChange:
    """The trigger of `table` whose number is the variant."""

    table: ops.TriggerTable

    def __call__(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        return ops.inject_trigger(images, self.table, variant)

    def to(self, device: torch.device | str) -> TableChange:
        return TableChange(self.table.to(device))


@dataclass(frozen=True)
class ResidualChange:
    """Adds `residuals`, int16 [k, H, W, 3], row `row[id]` (int64 [n]) to image `id`, clamped; then comes `after`."""

    residuals: Tensor
    row: Tensor
    after: Change | None = None

    def __call__(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        added = self.residuals[self.row[ids]] * (variant >= 0).view(-1, 1, 1, 1)
        images = (images.to(torch.int16) + added).clamp(0, 255).to(torch.uint8)
        return images if self.after is None else self.after(images, ids, variant)

    def to(self, device: torch.device | str) -> ResidualChange:
        after = None if self.after is None else self.after.to(device)
        return replace(self, residuals=self.residuals.to(device), row=self.row.to(device), after=after)


class RowChange(ABC):
    """Base of changes that are worked out for the chosen rows of a batch alone: subclasses define `change`."""

    def __call__(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        rows = (variant >= 0).nonzero().flatten()
        if not len(rows):
            return images
        changed = images.clone()
        changed[rows] = self.change(images[rows], ids[rows], variant[rows])
        return changed

    @abstractmethod
    def change(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        """uint8 [b, H, W, 3] of uint8 `images`, none of which stays as it is."""

    def to(self, device: torch.device | str) -> RowChange:
        """Itself: `change` moves what it needs. Subclasses with large tensors move them here."""
        return self


class ChangedImages:
    """An image set in which chosen images are changed as they are read; same interface as its base.

    Args:
        base: images by id, see dlp_fast.data.storage.
        variant: int64 [n], what `change` does to each image; -1: nothing.
        change: see Change.
    """

    def __init__(self, base, variant: Tensor, change: Change):
        self.base, self.variant, self.change = base, variant, change
        self.height, self.width = base.height, base.width

    def __len__(self) -> int:
        return len(self.base)

    def get(self, ids: Tensor) -> Tensor:
        """uint8 [b, H, W, 3] of `ids`, int64 [b]."""
        images = self.base.get(ids)
        self._move(images.device)
        ids = ids.to(images.device, non_blocking=True)
        return self.change(images, ids, self.variant[ids])

    def _move(self, device: torch.device) -> None:
        """What is looked up for each batch goes to where the batches are, once."""
        if self.variant.device != device:
            self.variant, self.change = self.variant.to(device), self.change.to(device)

    def expect(self, ids: Tensor) -> None:
        """Let the base begin with the batch that comes next."""
        self.base.expect(ids)

    def to(self, device: torch.device | str) -> ChangedImages:
        """The same images with batches on `device`."""
        return ChangedImages(self.base.to(device), self.variant, self.change)
