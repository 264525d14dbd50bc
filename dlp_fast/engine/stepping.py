"""One training step, run again and again: as it is, or on a GPU as one CUDA graph.

A step of a small network is hundreds of kernels of a few microseconds each, so that launching them one by one from
Python takes longer than running them. A graph launches them all at once (docs/engine.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dlp_fast.engine.device import Compute
from dlp_fast.engine.session import has_random_layers

WARM_UP = 3  # steps before the capture: cuDNN chooses its kernels, the optimizer makes its state
Replay = Callable[[], None]


def capture_cuda(run: Callable[[], None]) -> Replay:
    """Record the kernels of `run` without running them; what is returned runs them."""
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        # what a loader's thread does on the GPU meanwhile is its own affair
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            run()
    except BaseException:
        torch.cuda.set_stream(before)  # where the capture itself breaks off, torch does not
        raise
    return graph.replay


class Stepper:
    """Calls `body(*inputs)` once a step.

    `body` must do the whole step (forward, backward, optimizer, averages) on tensors alone: no value read back to the
    host, and whatever changes from step to step in `inputs` or in tensors that are changed in place. Then, where
    `compute.graphs`, the steps after WARM_UP are replays of one graph; inputs are copied into tensors of its own.
    Inputs of other shapes than the first are never captured and run as they are. Networks with random layers are not
    either: their draws are seeded step by step, so that a resumed run draws the same.

    `capture`: how to record a call, for tests on a machine without a GPU.
    """

    def __init__(
        self,
        compute: Compute,
        model: nn.Module,
        body: Callable[..., None],
        warn: Callable[[str], None],
        capture: Callable[[Callable[[], None]], Replay] = capture_cuda,
    ):
        self.body, self.warn, self._capture = body, warn, capture
        self.wanted = compute.graphs and not has_random_layers(model)
        self.captured = False
        self._cuda = compute.device.type == "cuda"
        self._calls = 0
        self._shapes: list[torch.Size] = []
        self._inputs: tuple[Tensor, ...] = ()
        self._replay: Replay | None = None

    def __call__(self, *inputs: Tensor) -> None:
        shapes = [x.shape for x in inputs]
        self._shapes = self._shapes or shapes
        if not self.wanted:
            self.body(*inputs)
        elif self._calls < WARM_UP:
            self._calls += 1
            self._warm_up(inputs)
        elif shapes != self._shapes:
            self.body(*inputs)
        elif self._replay is None:
            self._begin(inputs)
        else:
            for mine, given in zip(self._inputs, inputs, strict=True):
                mine.copy_(given)
            self._replay()

    def _warm_up(self, inputs: tuple[Tensor, ...]) -> None:
        """On a stream of its own, as PyTorch's notes on CUDA graphs ask for."""
        if not self._cuda:
            self.body(*inputs)
            return
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self.body(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        for x in inputs:
            x.record_stream(aside)

    def _begin(self, inputs: tuple[Tensor, ...]) -> None:
        """Capture, which runs nothing, and then run the step. Where it cannot be captured, the run goes on without."""
        self._inputs = tuple(x.clone(memory_format=torch.preserve_format) for x in inputs)
        try:
            self._replay = self._capture(lambda: self.body(*self._inputs))
        except RuntimeError as error:
            first = str(error).strip().split("\n")[0]
            self.warn(f"no CUDA graph ({first}); the steps are launched kernel by kernel, which is slower.")
            self.wanted = False
            self.body(*inputs)
            return
        self.captured = True
        self._replay()


def rate_on(compute: Compute, rate: float) -> float | Tensor:
    """A step size that `set_rate` changes; where there are graphs it lies in device memory, read by the kernel."""
    return torch.tensor(rate, dtype=torch.float32, device=compute.device) if compute.graphs else rate


def sgd(groups: Any, compute: Compute, *, lr: float, **settings: Any) -> torch.optim.SGD:
    """SGD whose step size `set_rate` changes, see `rate_on`."""
    fused = {"fused": True} if compute.graphs else {}
    return torch.optim.SGD(groups, lr=rate_on(compute, lr), **fused, **settings)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the step size of all groups, in place where it is a tensor; a checkpoint brings that to the CPU."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].to(group["params"][0].device)
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
