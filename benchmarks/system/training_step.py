"""What a training step on a CPU costs: ours, ours without one of its parts, and the loop that a user would write.

    python -m benchmarks.system.training_step --out FILE

All variants take turns in one process, one thread each, and processor seconds are counted, not those of the clock: so a
busy machine slows all alike. First the losses of all are compared. `plain loop` is eager torch, fp32, contiguous NCHW;
`both layers` has batch norm and ReLU as two operations; `memory given back` leaves malloc as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.common import add_out, add_threads, parser_of, write_result
from dlp_fast.engine.allocator import freed_memory_kept
from dlp_fast.models import wide_resnet
from dlp_fast.models.registry import build_model

FUSED = wide_resnet.active


def both_layers(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(norm(x))


VARIANTS: dict[str, dict[str, Any]] = {
    "plain loop": {"layout": torch.contiguous_format, "active": both_layers, "keep": False},
    "ours": {},
    "ours, both layers": {"active": both_layers},
    "ours, memory given back": {"keep": False},
    "ours, both layers, memory given back": {"active": both_layers, "keep": False},
}


class Variant:
    """One network, its step and its scoring; `seconds` and `scoring` grow by each turn."""

    def __init__(
        self,
        size: int,
        batch: int,
        autocast: bool,
        layout: torch.memory_format = torch.channels_last,
        active: Callable[..., torch.Tensor] = FUSED,
        keep: bool = True,
    ):
        self.autocast, self.active, self.keep = autocast, active, keep
        self.model = build_model("wrn-16-1", 10, size, 0).to(memory_format=layout)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(batch, 3, size, size, generator=generator).contiguous(memory_format=layout)
        self.y = torch.randint(10, (batch,), generator=generator)
        self.seconds: list[float] = []
        self.scoring: list[float] = []

    def train(self) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.model.train()(self.x)
        loss = F.cross_entropy(logits.float(), self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def score(self) -> float:
        return float(F.cross_entropy(self.model.eval()(self.x[:64]), self.y[:64]))

    def turn(self) -> tuple[float, float]:
        """The losses of a step and of scoring."""
        wide_resnet.active = self.active
        try:
            with freed_memory_kept() if self.keep else contextlib.nullcontext():
                return timed(self.train, self.seconds), timed(self.score, self.scoring)
        finally:
            wide_resnet.active = FUSED


def timed(call: Callable[[], float], seconds: list[float]) -> float:
    call()  # malloc has what a step takes, and the caches are those of this variant
    start = time.process_time()
    loss = call()
    seconds.append(time.process_time() - start)
    return loss


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median": 1e3 * median(seconds[1:]), "least": 1e3 * min(seconds[1:])}


def measure(size: int, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median and least processor milliseconds of each variant: a step in fp32, one in bf16, scoring in fp32."""
    of = {
        f"{name}, {precision}": Variant(size, batch, precision == "bf16", **settings)
        for precision in ("fp32", "bf16")
        for name, settings in VARIANTS.items()
        if (name, precision) != ("plain loop", "bf16")
    }
    for turn in range(rounds):
        losses = {name: variant.turn() for name, variant in of.items()}
        if not turn:
            for either in zip(*losses.values()):
                assert max(either) - min(either) < 0.05, losses
    found = {name: summary(variant.seconds) for name, variant in of.items()}
    scored = {name: summary(variant.scoring) for name, variant in of.items() if "fp32" in name}
    return found | {f"{name}, scoring 64 images": row for name, row in scored.items()}


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.system.training_step")
    add_out(arguments, "result file, JSON")
    add_threads(arguments, 1)
    arguments.add_argument(
        "--sizes", type=int, nargs="+", default=[32, 16], help="sides of the images, pixels"
    )
    arguments.add_argument("--batch", type=int, default=128, help="images a step")
    arguments.add_argument("--rounds", type=int, default=8, help="turns; the first is not counted")
    return arguments


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    rows = {}
    for size in options.sizes:
        rows[f"{size} px"] = measure(size, options.batch, options.rounds)
        for name, of in rows[f"{size} px"].items():
            print(f"{size} px", name, {k: round(v, 1) for k, v in of.items()}, flush=True)
    result = {"processor milliseconds": rows, "batch": options.batch, "threads": options.threads}
    write_result(Path(options.out), result, "CPU")


if __name__ == "__main__":
    main()
