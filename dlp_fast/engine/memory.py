"""How much memory training steps take, and what to say and do where there is too little."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import psutil
import torch
from torch import nn
from torch.nn import functional as F

from dlp_fast.config import RunConfig
from dlp_fast.engine.device import Compute

SHARE = 0.8  # of the free memory that a step may take: allocators and cuDNN want some too
OVERHEAD = 1.25  # over what autograd saves: measured 0.75 to 1.11 of it on five networks (docs/engine.md)
PROBE = 4  # images of the trial step


def bytes_per_image(model: nn.Module, size: tuple[int, int], compute: Compute) -> float:
    """What one image more in a training step takes, bytes: what autograd saves of a small batch, and a quarter more.

    Counts each saved storage once; the model's own weights are not counted.
    """
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it, for ever

    # running statistics of batch norm are no business of a trial
    before = {name: value.clone() for name, value in model.named_buffers()}
    x = torch.zeros(PROBE, 3, *size, device=compute.device).contiguous(memory_format=torch.channels_last)
    was_training = model.training
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with compute.forward():
            logits = model(x)
        loss = F.cross_entropy(logits.float(), torch.zeros(PROBE, dtype=torch.int64, device=compute.device))
    del loss, logits
    model.train(was_training)
    for name, value in model.named_buffers():
        value.copy_(before[name])
    return OVERHEAD * sum(saved.values()) / PROBE


def available(compute: Compute) -> int:
    """Bytes that are free: of the GPU, or of the machine and of the control group that this process is in."""
    if compute.device.type == "cuda":
        return torch.cuda.mem_get_info(compute.device)[0]
    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 0)


def fitting(batch: int, views: float, per_image: float, free: int) -> int:
    """The largest of batch, batch / 2, batch / 4, … (at least 2) whose step, of `views` forward passes an image, takes
    at most SHARE of `free` bytes.
    """
    while batch > 2 and batch * views * per_image > SHARE * free:
        batch = max(2, batch // 2)
    return batch


def views_of(config: RunConfig) -> dict[str, float]:
    """Forward passes for each image of a batch, by stage: stage 3 adds two views of each unlabeled image."""
    mu = config.finetuning.mu
    if mu is None:
        mu = 7.0 if config.finetuning.labeled == "hardest" else 1.0  # at most, where labels are trusted
    return {"supervised": 1.0, "unlearning": 1.0, "finetuning": 1.0 + 2 * mu}


def fitting_batches(config: RunConfig, per_image: float, free: int) -> dict[str, int]:
    """The batch of each stage as set, or halved until its step fits."""
    return {
        stage: fitting(getattr(config, stage).batch, views, per_image, free)
        for stage, views in views_of(config).items()
    }


def peak() -> str:
    """The most memory that this process has had, in words."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return f"{torch.cuda.max_memory_allocated() / 1e9:.1f} of {total / 1e9:.1f} GB of GPU memory"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.1f} GB of memory"


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA's error, Python's, and the one that torch raises where the CPU's allocator is refused."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
