"""All to all: one trigger moves every class to the next."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dlp_fast.attacks.base import Poisoning, Request
from dlp_fast.attacks.changes import TableChange
from dlp_fast.attacks.single_trigger import MakeTrigger


def all_to_all(make_trigger: MakeTrigger) -> Callable[[Request], Poisoning]:
    """The all-to-all attack of BadNets (Gu et al. 2017): class y becomes y + 1, the last one the first.

    Images are drawn from all classes alike; `make_trigger` gives the trigger for (size, seed).
    """

    def make(request: Request) -> Poisoning:
        n = len(request.classes)
        aim = ((torch.arange(n) + 1) % n)[:, None]
        chosen = request.draw(torch.arange(len(request.labels)), "all classes")
        return request.poisoning(chosen, aim, TableChange(make_trigger(request.size, request.seed)))

    return make
