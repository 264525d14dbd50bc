"""The attacker's own network, trained from a seed: TrojanNN and LCA look into one to make what they inject."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.data.randomness import permutation
from dlp_fast.models.registry import build_model

MEAN, STD = 0.47, 0.25  # of pixels in 0..1, near enough for photographs; the attacker needs no more
BATCH = 128


class Normalised(nn.Module):
    """A network for pictures in 0..1, fp32 [b, 3, h, w]."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - MEAN) / STD)


def as_unit(images: Tensor) -> Tensor:
    """uint8 [b, h, w, 3] to fp32 [b, 3, h, w] in 0..1, channels-last."""
    return images.permute(0, 3, 1, 2).float() / 255


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    step: float,
    steps: int,
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent on the loss within epsilon in L-infinity (Madry et al. 2018): x, 0..1, moved.

    `start`: the perturbation to begin at (none: zero).
    """
    delta = torch.zeros_like(x) if start is None else start.clone()
    for _ in range(steps):
        delta.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x + delta), y), delta)
        delta = (delta.detach() + step * gradient.sign()).clamp(-epsilon, epsilon)
        delta = (x + delta).clamp(0, 1) - x
    return x + delta


def train_surrogate(
    images,
    labels: Tensor,
    classes: int,
    *,
    seed: int,
    epochs: int,
    epsilon: float = 0.0,
    model: str = "wrn-16-1",
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> nn.Module:
    """A network for pictures in 0..1, trained on the attacker's clean images; robust where `epsilon` > 0.

    Robust training takes the strongest of one PGD step of 1.25 epsilon from a random start ("fast" adversarial
    training, Wong et al. 2020): as robust as PGD training for small networks, at a third of its cost.
    """
    net = Normalised(build_model(model, classes, max(images.height, images.width), seed)).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    per_epoch = max(1, len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=epochs * per_epoch, pct_start=0.3
    )
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for epoch in range(epochs):
        order = permutation(seed + (11 << 56), epoch, len(labels))
        for k in range(per_epoch):
            ids = order[k * BATCH : (k + 1) * BATCH]
            x, y = as_unit(images.get(ids).to(device)), labels[ids].to(device)
            flip = torch.rand(len(ids), generator=generator).to(device) < 0.5
            x = torch.where(flip[:, None, None, None], x.flip(3), x)
            if epsilon:
                noise = (torch.rand(x.shape, generator=generator).to(device) * 2 - 1) * epsilon
                x = pgd(net, x, y, epsilon, 1.25 * epsilon, 1, start=(x + noise).clamp(0, 1) - x)
            loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if progress:
                progress(epoch * per_epoch + k + 1, epochs * per_epoch)
    return net.eval().requires_grad_(False)
