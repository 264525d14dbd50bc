"""Muon: steps of orthogonal matrices (Jordan et al. 2024), for the weights of convolutions; SGD for all others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # bring all singular values towards 1 (Jordan 2024)
ROUNDS = 5  # of it: singular values end between 0.7 and 1.2
SMALLEST = 1e-7  # norm that a matrix is divided by, at least


def orthogonal(of: Tensor) -> Tensor:
    """What is left of matrices [k, m, n] when their singular values are all brought to about 1, in their dtype: Newton
    and Schulz's iteration, by multiplications alone.
    """
    tall = of.shape[1] > of.shape[2]
    x = of.mT if tall else of
    x = x / (x.norm(dim=(1, 2), keepdim=True) + SMALLEST)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum, whose steps are made orthogonal for the convolutions of `model`: their weights, as
    matrices [out, in x height x width], move by a step with all singular values at about 1, times the square root of
    out / in where that is above 1, so that no direction is left behind that few images ask for.

    Args: lr: step size; a tensor lies in device memory, so that a captured step reads it anew; momentum: of both;
    decay: of the matrices, decoupled: a step multiplies them by 1 - lr decay; weight_decay: L2 penalty of linear
    layers; dtype: in which steps are made orthogonal, None: that of the weights. Biases and batch normalisation do not
    decay.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float | Tensor,
        momentum: float,
        decay: float,
        weight_decay: float,
        dtype: torch.dtype | None = None,
    ):
        matrices = [p for p in model.parameters() if p.dim() > 2]
        linear = [p for p in model.parameters() if p.dim() == 2]
        others = [p for p in model.parameters() if p.dim() < 2]
        groups: Iterable[dict[str, Any]] = [
            {"params": matrices, "weight_decay": decay, "orthogonal": True},
            {"params": linear, "weight_decay": weight_decay, "orthogonal": False},
            {"params": others, "weight_decay": 0.0, "orthogonal": False},
        ]
        super().__init__([of for of in groups if of["params"]], {"lr": lr, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step from the gradients that are there; parameters without one stay."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            decay, lr = group["weight_decay"], group["lr"]
            if decay and not group["orthogonal"]:
                gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
            steps = self._with_momentum(parameters, gradients, group["momentum"])
            if group["orthogonal"]:
                steps = _orthogonal_steps(steps, self.dtype)
                torch._foreach_mul_(parameters, 1 - lr * decay)
            torch._foreach_mul_(steps, -lr)
            torch._foreach_add_(parameters, steps)

    def _with_momentum(
        self, parameters: list[Tensor], gradients: list[Tensor], momentum: float
    ) -> list[Tensor]:
        """Gradients plus `momentum` times their sums, which are kept (Nesterov)."""
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        sums = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_mul_(sums, momentum)
        torch._foreach_add_(sums, gradients)
        return list(torch._foreach_add(gradients, sums, alpha=momentum))


def _orthogonal_steps(steps: list[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    """`orthogonal` of each, in `dtype`; those of one shape together: a GPU is slower to start them than to multiply
    them.
    """
    of_shape: dict[torch.Size, list[int]] = {}
    for k, step in enumerate(steps):
        of_shape.setdefault(step.shape, []).append(k)
    made: list[Tensor] = [torch.empty(0)] * len(steps)
    for shape, those in of_shape.items():
        matrices = torch.stack([steps[k].flatten(1) for k in those])
        scale = max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
        turned = orthogonal(matrices.to(dtype or matrices.dtype)).to(matrices.dtype) * scale
        for k, matrix in zip(those, turned, strict=True):
            made[k] = matrix.reshape(shape)
    return made
