"""One trigger, one target: BadNets, Blended, TrojanNN, and those that keep labels, SIG and LCA."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dlp_fast.attacks import triggers
from dlp_fast.attacks.base import Poisoning, Request
from dlp_fast.attacks.changes import ResidualChange, TableChange
from dlp_fast.attacks.crafting import adversarial_residuals, trojan_trigger
from dlp_fast.errors import ConfigError
from dlp_fast.ops import TriggerTable

MakeTrigger = Callable[[tuple[int, int], int], TriggerTable]


def single_trigger(make_trigger: MakeTrigger) -> Callable[[Request], Poisoning]:
    """An attack with the trigger that `make_trigger` gives for (size, seed)."""

    def make(request: Request) -> Poisoning:
        chosen = request.draw_other_classes()
        return request.poisoning(
            chosen, request.single_aim(), TableChange(make_trigger(request.size, request.seed))
        )

    return make


def needed_images(request: Request):
    """The images of a request whose attack trains a network on them; ConfigError where there are none."""
    if request.images is None:
        raise ConfigError(f"{request.attack.name} needs the images, to train the attacker's network on.")
    return request.images


def trojannn(request: Request) -> Poisoning:
    """TrojanNN (Liu et al. 2018): the trigger drives neurons of the attacker's network."""
    chosen = request.draw_other_classes()
    table = trojan_trigger(
        needed_images(request),
        request.labels,
        len(request.classes),
        request.target,
        request.seed,
        request.device,
        request.progress,
    )
    return request.poisoning(chosen, request.single_aim(), TableChange(table))


def label_consistent(request: Request) -> Poisoning:
    """LCA (Turner et al. 2019): the image loses what shows its class, and gets the trigger; its label is kept."""
    chosen = request.draw_other_classes()
    ids = chosen.sort().values
    residuals = adversarial_residuals(
        needed_images(request),
        request.labels,
        len(request.classes),
        ids,
        request.seed,
        request.device,
        request.progress,
    )
    row = torch.zeros_like(request.labels)
    row[ids] = torch.arange(len(ids))
    trigger = TableChange(triggers.corners(request.size, request.seed))
    return request.poisoning(chosen, request.single_aim(), ResidualChange(residuals, row, trigger), trigger)
