"""ANP: prune the channels that adversarial noise on the weights makes fail first (Wu & Wang 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.defenses.setting import STREAM, Setting, accuracy_on, allowed_loss, copy_of
from dlp_fast.engine.batches import Cycle
from dlp_fast.errors import ConfigError

STEPS, BATCH = 2000, 128
EPSILON, ALPHA = 0.4, 0.2  # bound of the noise; weight of the clean loss
MASK_RATE, MOMENTUM = 0.2, 0.9
THRESHOLDS = tuple(k / 20 for k in range(1, 20))
MOST_LOST = 0.05  # of held-out clean accuracy


class Perturbed:
    """Masks and noise on the scale and shift of every batch norm of a network, put in place by hooks."""

    def __init__(self, model: nn.Module):
        self.norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        if not self.norms:
            raise ConfigError(
                "ANP masks batch-norm channels, and this network has none; choose another --model"
            )
        device = self.norms[0].weight.device
        sizes = [m.num_features for m in self.norms]
        self.masks = [torch.ones(s, device=device, requires_grad=True) for s in sizes]
        self.scale_noise = [torch.zeros(s, device=device, requires_grad=True) for s in sizes]
        self.shift_noise = [torch.zeros(s, device=device, requires_grad=True) for s in sizes]
        self.noisy = False
        self._handles = [m.register_forward_hook(self._hook(i)) for i, m in enumerate(self.norms)]
        self._momenta = [m.momentum for m in self.norms]
        for norm in self.norms:
            norm.momentum = (
                0.0  # its own forward pass, whose output is replaced, would move the running statistics
            )

    def _hook(self, i: int):
        def replace(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
            scale, shift = norm.weight * self.masks[i], norm.bias
            if self.noisy:
                scale = norm.weight * (self.masks[i] + self.scale_noise[i])
                shift = norm.bias * (1 + self.shift_noise[i])
            if norm.training:  # statistics of the batch, as published; the running ones stay as they are
                return F.batch_norm(inputs[0], None, None, scale, shift, True, 0.0, norm.eps)
            return F.batch_norm(
                inputs[0], norm.running_mean, norm.running_var, scale, shift, False, 0.0, norm.eps
            )

        return replace

    @property
    def noise(self) -> list[Tensor]:
        return self.scale_noise + self.shift_noise

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        for norm, momentum in zip(self.norms, self._momenta):
            norm.momentum = momentum


def learn_masks(setting: Setting, model: nn.Module, tuned: Tensor) -> list[Tensor]:
    """Mask of each channel of each batch norm, 0..1: near 0 where noise on the channel hurts most."""
    model.train()
    of = Perturbed(model)
    cycle = Cycle(tuned, min(BATCH, len(tuned)), setting.clean.seed, STREAM + 3)
    velocity = [torch.zeros_like(m) for m in of.masks]
    generator = torch.Generator(device=of.masks[0].device).manual_seed(setting.clean.seed + 0xA2B)
    steps = STEPS
    setting.session.log.start("ANP, masks", steps)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).float(), y)

    for step in range(steps):
        setting.session.poll()
        ids = cycle.at(step)
        x, y = setting.clean.views(ids, step, strong=False)[0], setting.clean.target(ids)
        of.noisy = True
        for noise in of.noise:
            noise.detach_().uniform_(-EPSILON, EPSILON, generator=generator).requires_grad_(True)
        for noise, gradient in zip(of.noise, torch.autograd.grad(loss_of(x, y), of.noise)):
            with torch.no_grad():  # one step of projected ascent, as large as the bound
                noise.add_(EPSILON * gradient.sign()).clamp_(-EPSILON, EPSILON)
        robust = loss_of(x, y)
        of.noisy = False
        loss = ALPHA * loss_of(x, y) + (1 - ALPHA) * robust
        with torch.no_grad():
            for mask, speed, gradient in zip(of.masks, velocity, torch.autograd.grad(loss, of.masks)):
                speed.mul_(MOMENTUM).add_(gradient)
                mask.sub_(MASK_RATE * speed).clamp_(0, 1)
        setting.session.log.advance(step + 1, len(ids))
    setting.session.log.finish()
    of.close()
    return [m.detach() for m in of.masks]


def prune(model: nn.Module, masks: list[Tensor], threshold: float) -> int:
    """Zero the scale of the channels whose mask is at most `threshold`, in place; returns how many.

    The shift stays, as it was when the masks were learnt.
    """
    count = 0
    norms = (m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        for norm, mask in zip(norms, masks):
            gone = mask <= threshold
            norm.weight[gone] = 0
            count += int(gone.sum())
    return count


def neuron_pruning(setting: Setting) -> nn.Module:
    """Stop rule: the largest threshold that costs at most MOST_LOST of held-out clean accuracy."""
    tuned, held = setting.split()
    masks = learn_masks(setting, copy_of(setting.model), tuned)
    allowed = allowed_loss(accuracy_on(setting.model, setting.clean, held), MOST_LOST)
    best = copy_of(setting.model)
    for threshold in THRESHOLDS:
        trial = copy_of(setting.model)
        prune(trial, masks, threshold)
        if accuracy_on(trial, setting.clean, held) < allowed:
            break
        best = trial
    return best
