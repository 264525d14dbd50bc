"""Several triggers in one image set, each with a target class of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.attacks import triggers
from dlp_fast.attacks.base import NO_AIM, Poisoning, Request
from dlp_fast.attacks.changes import TableChange
from dlp_fast.errors import ConfigError
from dlp_fast.ops import TriggerTable


def three_triggers(request: Request) -> Poisoning:
    """A checkerboard, a blended noise image and stripes; `rate` is that of all three together."""
    of = (triggers.badnets, triggers.blended, triggers.sig)
    return _several(request, [make(request.size, request.seed) for make in of])


def ten_triggers(request: Request) -> Poisoning:
    """Ten squares of random colours at ten places; `rate` is that of all ten together."""
    return _several(request, triggers.ten_squares(request.size, request.seed))


def _several(request: Request, tables: list[TriggerTable]) -> Poisoning:
    """Trigger k sends all other classes to the k-th class from `request.target` on; equal shares of the images.

    Raises ConfigError where there are fewer classes than triggers, or a class would be left without enough images.
    """
    count, classes = len(tables), len(request.classes)
    if classes < count:
        raise ConfigError(
            f"{request.attack.name} aims at {count} classes, but there are {classes}: choose another attack."
        )
    targets = (request.target + torch.arange(count)) % classes
    aim = targets.expand(classes, -1).clone()
    for k, target in enumerate(targets.tolist()):
        aim[target, k] = NO_AIM
    chosen = request.draw(torch.arange(len(request.labels)), "all classes")
    trigger = _assign(request, chosen, aim)
    return request.poisoning(chosen, aim, TableChange(TriggerTable.stack(tables)), trigger=trigger)


def _assign(request: Request, chosen: Tensor, aim: Tensor) -> Tensor:
    """int64 [k], the trigger of each chosen image: by turns, and the next one where the image is of the target."""
    count = aim.shape[1]
    trigger = torch.arange(len(chosen)) % count
    own = aim[request.labels[chosen], trigger] == NO_AIM
    return torch.where(own, (trigger + 1) % count, trigger)
