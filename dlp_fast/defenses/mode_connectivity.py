"""MCR: a point on a low-loss curve between two networks (Zhao et al. 2020, "Mode Connectivity Repair")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from dlp_fast.defenses.setting import STREAM, Setting, accuracy_on, allowed_loss, copy_of, tune
from dlp_fast.engine.batches import training_order

END_EPOCHS, CURVE_EPOCHS, RATE = 100, 100, 0.01
POINTS = (0.1, 0.2, 0.3, 0.4, 0.5)  # t, from the model as given (0) towards its fine-tuned copy (1)
MOST_LOST = 0.02  # of held-out clean accuracy against the best point


def along(
    start: dict[str, Tensor], bend: dict[str, Tensor], end: dict[str, Tensor], t: float
) -> dict[str, Tensor]:
    """Weights at t on the quadratic Bezier curve from `start` to `end` by `bend`."""
    return {
        name: (1 - t) ** 2 * start[name] + 2 * t * (1 - t) * bend[name] + t**2 * end[name] for name in start
    }


def at(
    setting: Setting, ends: tuple[nn.Module, nn.Module], bend: dict[str, Tensor], t: float, tuned: Tensor
) -> nn.Module:
    """The network at t, its batch-norm statistics taken anew over the clean subset."""
    start, end = (dict(m.named_parameters()) for m in ends)
    model = copy_of(ends[0])
    with torch.no_grad():
        for name, value in along(start, bend, end, t).items():
            model.get_parameter(name).copy_(value)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
        model.train()
        for ids in tuned.split(128):
            model(setting.clean.plain(ids))
        for norm in norms:
            norm.momentum = 0.1
    return model


def mode_connectivity(setting: Setting) -> nn.Module:
    """The ends are the model and its copy fine-tuned on the clean subset.

    Rule for t: the largest of POINTS whose held-out clean accuracy is within MOST_LOST of the best of them: far from
    the backdoored end, at no cost that clean images show.
    """
    tuned, held = setting.split()
    end = tune(
        setting,
        copy_of(setting.model),
        setting.clean,
        tuned,
        title="MCR, the other end",
        epochs=END_EPOCHS,
        rate=lambda done: RATE * 0.5 * (1 + math.cos(math.pi * done)),
    )
    bend = train_bend(setting, (setting.model, end), tuned)
    points = [(t, at(setting, (setting.model, end), bend, t, tuned)) for t in POINTS]
    found = [(t, accuracy_on(model, setting.clean, held), model) for t, model in points]
    best = max(accuracy for _, accuracy, _ in found)
    return max((t, model) for t, accuracy, model in found if accuracy >= allowed_loss(best, MOST_LOST))[1]


def train_bend(setting: Setting, ends: tuple[nn.Module, nn.Module], tuned: Tensor) -> dict[str, Tensor]:
    """The middle of the curve, trained at points drawn along it (Garipov et al. 2018)."""
    start, end = ({k: v.detach() for k, v in m.named_parameters()} for m in ends)
    bend = {k: ((start[k] + end[k]) / 2).clone().requires_grad_(True) for k in start}
    optimizer = torch.optim.SGD(list(bend.values()), lr=RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)
    carrier = copy_of(ends[0])  # its buffers only
    generator = torch.Generator().manual_seed(setting.clean.seed + 0x3C2)
    epochs = CURVE_EPOCHS
    setting.session.log.start("MCR, the curve", epochs)
    for epoch in range(epochs):
        for ids in tuned[training_order(setting.clean.seed, STREAM + 2, epoch, len(tuned))].split(64):
            setting.session.poll()
            t = float(torch.rand((), generator=generator))
            x = setting.clean.views(ids, epoch, strong=False)[0]
            logits = functional_call(carrier, along(start, bend, end, t), (x,))
            loss = F.cross_entropy(logits.float(), setting.clean.target(ids))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * (epoch + 1) / epochs))
        setting.session.log.advance(epoch + 1, len(tuned))
    setting.session.log.finish()
    return {k: v.detach() for k, v in bend.items()}
