"""What the kernels are given, and what they are compared with: what a person writes in torch, and published forms."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch

CHUNK = 128  # rows at a time, as TRL's entropy_from_logits takes them
# 0.2 as trigger injection's fixed point has it, exact in fp32: peers round the same numbers
ALPHA = 6554 / 32768


def logits(n: int, classes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[n, classes] on the CPU: noise, and one class that stands out in each row."""
    g = torch.Generator().manual_seed(classes)
    x = torch.randn(n, classes, generator=g) * 2
    x[torch.arange(n), torch.randint(classes, (n,), generator=g)] += 6
    return x.to(dtype)


KINDS = ("random", "equal", "two-valued", "sorted", "reversed", "denormal")


def keys(kind: str, n: int) -> torch.Tensor:
    """fp32 [n] on the CPU, of one of KINDS."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, generator=g).abs()
    return {
        "random": lambda: x,
        "equal": lambda: torch.full((n,), 0.5),
        "two-valued": lambda: torch.randint(2, (n,), generator=g).float(),
        "sorted": lambda: x.sort().values,
        "reversed": lambda: x.sort(descending=True).values,
        "denormal": lambda: torch.randint(-1000, 1000, (n,), generator=g).float() * 1e-45,
    }[kind]()


def pictures(n: int, size: int) -> torch.Tensor:
    """uint8 [n, size, size, 3] on the CPU: smooth pictures with some noise, histograms like those of photographs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") * 235
    noise = torch.randint(0, 20, (n, 3, size, size), generator=generator)
    return (smooth + noise).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def eager_entropy(x: torch.Tensor) -> torch.Tensor:
    """As the paper's formula is written down, bits."""
    p = torch.softmax(x.float(), 1)
    return -(p * torch.log2(p + 1e-8)).sum(1)


def chunked_entropy(x: torch.Tensor) -> torch.Tensor:
    """By log-softmax, some rows at a time, which bounds the memory (as in TRL), nats."""
    parts = []
    for rows in x.split(CHUNK):
        logs = torch.log_softmax(rows, 1)
        parts.append(-(logs.exp() * logs).sum(1))
    return torch.cat(parts)


def triton_entropy() -> Callable[[torch.Tensor], torch.Tensor] | None:
    """One pass over registers in Triton, see triton_entropy.py; None where Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        return None
    from benchmarks.kernels.triton_entropy import entropy

    return entropy


def eager_rank(
    x: torch.Tensor, lowest: int, entropy: Callable[[torch.Tensor], torch.Tensor] = eager_entropy
) -> torch.Tensor:
    return torch.topk(entropy(x), lowest, largest=False, sorted=False).indices


def highest_by_loop(scores: torch.Tensor, classes: torch.Tensor, number: int, per_class: int) -> torch.Tensor:
    """The highest of each class, class by class."""
    found = []
    for c in range(number):
        ids = (classes == c).nonzero().flatten()
        found.append(ids[torch.topk(scores[ids], min(per_class, len(ids))).indices])
    return torch.cat(found)


def eager_rank_both(
    x: torch.Tensor,
    lowest: int,
    per_class: int,
    entropy: Callable[[torch.Tensor], torch.Tensor] = eager_entropy,
) -> tuple[torch.Tensor, torch.Tensor]:
    h = entropy(x)
    low = torch.topk(h, lowest, largest=False, sorted=False).indices
    return low, highest_by_loop(h, x.argmax(1), x.shape[1], per_class)


def blended(images: torch.Tensor, overlay: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.floor((1 - alpha) * images.float() + alpha * overlay.float() + 0.5).to(torch.uint8)


def blended_where(
    images: torch.Tensor, overlay: torch.Tensor, which: torch.Tensor, alpha: float
) -> torch.Tensor:
    """The whole batch, and a mask: one kernel once it is compiled."""
    return torch.where((which >= 0).view(-1, 1, 1, 1), blended(images, overlay, alpha), images)


def blended_mixed(
    images: torch.Tensor, overlays: torch.Tensor, which: torch.Tensor, alpha: float
) -> torch.Tensor:
    """The same with an overlay of its own for each image, of [k, H, W, 3]."""
    return blended_where(images, overlays[which.clamp(min=0)], which, alpha)


def residual_by_convolution(images: torch.Tensor, mean: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """fp32 [b, H * W * 3], high-pass residuals of length 1, by two depthwise convolutions with edges repeated. weights:
    fp32 [7], of sum 1.
    """
    x = images.permute(0, 3, 1, 2).float()
    kernel = weights.expand(3, 1, 1, -1)
    wide = torch.nn.functional.pad(x, (3, 3, 3, 3), mode="replicate")
    blur = torch.nn.functional.conv2d(wide, kernel, groups=3)
    blur = torch.nn.functional.conv2d(blur, kernel.transpose(2, 3), groups=3)
    found = (x - blur).permute(0, 2, 3, 1) - mean
    return torch.nn.functional.normalize(found.flatten(1), dim=1)
