"""TaCT: a trigger that works for one source class alone."""

from __future__ import annotations

import torch

from dlp_fast.attacks import triggers
from dlp_fast.attacks.base import NO_AIM, Poisoning, Request
from dlp_fast.attacks.changes import TableChange
from dlp_fast.runs.names import printable


def tact(request: Request) -> Poisoning:
    """Targeted contamination (Tang et al. 2021): images of the source class, the one after the target, are relabeled;
    as many of the other classes carry the same trigger and keep their labels.
    """
    source = (request.target + 1) % len(request.classes)
    aim = torch.full((len(request.classes), 1), NO_AIM)
    aim[source] = request.target
    pool = (request.labels == source).nonzero().flatten()
    chosen = request.draw(pool, f"class {printable(request.classes[source])}")
    others = ((request.labels != source) & (request.labels != request.target)).nonzero().flatten()
    cover = request.draw_cover(len(chosen), others)
    table = triggers.badnets(request.size, request.seed)
    return request.poisoning(chosen, aim, TableChange(table), cover=cover)
