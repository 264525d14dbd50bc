"""Which images an attack changes, and an image set with the change made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast import ops
from dlp_fast.attacks.crafting import Progress, adversarial_residuals, trojan_trigger
from dlp_fast.attacks.triggers import TRIGGERS, Trigger
from dlp_fast.errors import ConfigError
from dlp_fast.runs.names import printable


@dataclass(frozen=True)
class Poisoning:
    """An attack on one image set.

    poisoned: bool [n]; labels: int64 [n], as the victim sees them; true_labels: int64 [n]; table: the trigger;
    residuals: int16 [poisoned, h, w, 3], what is added to each poisoned image, in the order of the ids, before it gets
    the trigger (LCA), or None.
    """

    trigger: Trigger
    target: int
    poisoned: Tensor
    labels: Tensor
    true_labels: Tensor
    table: ops.TriggerTable
    residuals: Tensor | None = None

    def poison(self, images) -> TriggeredImages:
        """`images` (by ids) as the victim gets them."""
        return TriggeredImages(images, self.poisoned, self.table, self.residuals)

    def describe(self, classes: tuple[str, ...]) -> str:
        n = int(self.poisoned.sum())
        kept = "labels kept" if self.trigger.clean_label else f"relabeled {printable(classes[self.target])}"
        of = f"{n / len(self.labels):.2%} of all"
        return f"{self.trigger.name} ({self.trigger.parameters}): {n} images, {of}, {kept}"


def find_target(target: str, classes: tuple[str, ...]) -> int:
    """Number of the class named (or numbered) `target`; ConfigError naming the classes where there is none."""
    if target in classes:
        return classes.index(target)
    if target.isdecimal() and int(target) < len(classes):
        return int(target)
    shown = ", ".join(map(printable, classes[:20])) + (", …" if len(classes) > 20 else "")
    raise ConfigError(
        f"target class {target!r} does not exist; the classes are: {shown} (or 0 to {len(classes) - 1})"
    )


def plan(
    attack: str,
    labels: Tensor,
    classes: tuple[str, ...],
    size: tuple[int, int],
    *,
    rate: float,
    rate_of: str,
    target: str,
    seed: int,
    images=None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Poisoning:
    """Draw the images to poison, and make the trigger.

    Labels change in BadNets, TrojanNN and Blended: `rate` of all images, drawn from the other classes. SIG and LCA keep
    labels, so they draw from the target class: `rate` of that class (`rate_of="class"`), or of all images (`"all"`).
    TrojanNN and LCA train a network on `images` (by ids), once: what they make is kept (see crafting.py).
    Raises ConfigError for an unknown target or a rate that the images to draw from do not hold.
    """
    trigger = TRIGGERS[attack]
    number = find_target(target, classes)
    of_class = rate_of == "class" or (rate_of == "auto" and trigger.clean_label)
    if of_class and not trigger.clean_label:
        raise ConfigError(
            f"--poison-of class is for attacks that keep labels; {attack} changes them: use `all`."
        )
    inside = labels == number
    pool = (inside if trigger.clean_label else ~inside).nonzero().flatten()
    wanted = round(rate * (int(inside.sum()) if of_class else len(labels)))
    if not 1 <= wanted <= len(pool):
        where = (
            f"class {printable(classes[number])}"
            if trigger.clean_label
            else f"the classes other than {printable(classes[number])}"
        )
        of = "of that class" if of_class else f"of all {len(labels)} images"
        raise ConfigError(
            f"poison rate {rate:g} {of} is {wanted} images, but {attack} draws from {where}, which "
            f"holds {len(pool)}: choose a rate that gives 1 to {len(pool)}."
        )
    generator = torch.Generator().manual_seed(seed + 0x9015)
    chosen = pool[torch.randperm(len(pool), generator=generator)[:wanted]]
    poisoned = torch.zeros(len(labels), dtype=torch.bool)
    poisoned[chosen] = True
    new_labels = labels.clone()
    new_labels[chosen] = number
    table, residuals = None, None
    if attack in ("trojannn", "lca"):
        if images is None:
            raise ConfigError(f"{attack} needs the images, to train the attacker's network on.")
        if attack == "trojannn":
            table = trojan_trigger(images, labels, len(classes), number, seed, device, progress)
        else:
            ids = poisoned.nonzero().flatten()
            residuals = adversarial_residuals(images, labels, len(classes), ids, seed, device, progress)
    table = table or trigger.make(size, seed)
    return Poisoning(trigger, number, poisoned, new_labels, labels, table, residuals)


class TriggeredImages:
    """An image set in which chosen images carry the trigger, injected as they are read; same interface as its base."""

    def __init__(self, base, poisoned: Tensor, table: ops.TriggerTable, residuals: Tensor | None = None):
        self.base, self.poisoned, self.table, self.residuals = base, poisoned, table, residuals
        self.height, self.width = base.height, base.width
        self._which = torch.where(poisoned, 0, -1)
        self._row = (torch.cumsum(poisoned, 0) - 1).clamp_min(0)  # of residuals, for poisoned ids

    def __len__(self) -> int:
        return len(self.base)

    def get(self, ids: Tensor) -> Tensor:
        """uint8 [b, H, W, 3] of `ids`, int64 [b]."""
        images = self.base.get(ids)
        self._move(images.device)
        ids = ids.to(images.device, non_blocking=True)
        which = self._which[ids]
        if self.residuals is not None:
            added = self.residuals[self._row[ids]] * (which >= 0).view(-1, 1, 1, 1)
            images = (images.to(torch.int16) + added).clamp(0, 255).to(torch.uint8)
        return ops.inject_trigger(images, self.table, which)

    def _move(self, device: torch.device) -> None:
        """What is looked up for each batch goes to where the batches are, once."""
        if self._which.device == device:
            return
        self._which, self._row = self._which.to(device), self._row.to(device)
        self.table = self.table.to(device)
        self.residuals = None if self.residuals is None else self.residuals.to(device)

    def expect(self, ids: Tensor) -> None:
        self.base.expect(ids)

    def to(self, device: torch.device | str) -> TriggeredImages:
        return TriggeredImages(self.base.to(device), self.poisoned, self.table, self.residuals)
