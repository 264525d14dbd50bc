"""The entry point: which images an attack changes, and how."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast import ops
from dlp_fast.attacks.base import Poisoning, Progress, Request
from dlp_fast.attacks.changes import ChangedImages, TableChange
from dlp_fast.attacks.registry import find_attack
from dlp_fast.errors import ConfigError
from dlp_fast.runs.names import printable

__all__ = ["Poisoning", "TriggeredImages", "find_target", "plan"]


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

    Args:
        attack: one of registry.ATTACKS.
        labels: int64 [n], the right ones; classes: their names; size: (height, width) in pixels.
        rate: share that is poisoned: of all images, all triggers together, drawn from the classes that the attack
            aims away from. SIG and LCA keep labels, so they draw from the target class: `rate` of that class
            (`rate_of` "class"), or of all images ("all"); "auto" is "class" for these two, else "all".
        target: name or number of the class aimed at. With several targets the first, the others are those after it;
            all-to-all aims at every class and has no use for it.
        images: by id; TrojanNN, LCA and the input-aware attack train a network on them, once: what they make is kept
            (see crafting.py).

    Raises: ConfigError for an unknown attack or target, or a rate that the images to draw from do not hold.
    """
    found = find_attack(attack)
    number = find_target(target, classes)
    request = Request(found, labels, classes, size, rate, rate_of, number, seed, images, device, progress)
    return found.make(request)


class TriggeredImages(ChangedImages):
    """An image set in which the images of `poisoned` (bool [n]) carry the first trigger of `table`."""

    def __init__(self, base, poisoned: Tensor, table: ops.TriggerTable):
        super().__init__(base, torch.where(poisoned, 0, -1), TableChange(table))
