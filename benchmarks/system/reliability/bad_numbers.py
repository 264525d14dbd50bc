"""NaN, infinity and exploding gradients at a random step of each stage: undone, or a clean end; never in what is kept.

python -m benchmarks.system.reliability.bad_numbers --count 60
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import session, training_data
from dlp_fast.config import FinetuningConfig, SupervisedConfig, UnlearningConfig
from dlp_fast.errors import NumericError
from dlp_fast.models.registry import build_model
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import finetuning
from dlp_fast.stages.supervised import supervised
from dlp_fast.stages.unlearning import unlearning

STEPS = 6


def poison(model: nn.Module, kind: str, at: int) -> None:
    """Spoil the `at`-th forward pass in train mode: its output, or only what flows back."""
    seen = [0]

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        if not module.training or not torch.is_grad_enabled():
            return output
        seen[0] += 1
        if seen[0] - 1 != at:
            return output
        if kind == "gradient":
            output.register_hook(lambda g: g * float("inf"))
            return output
        return output * {"nan": float("nan"), "inf": float("inf"), "huge": 3e38}[kind]

    model.register_forward_hook(hook)


def stage_1(among: Any, model: nn.Module) -> None:
    supervised(among, model, training_data(), SupervisedConfig(epochs=2, min_steps=0, batch=32))


def stage_2(among: Any, model: nn.Module) -> None:
    config = UnlearningConfig(epochs=STEPS, max_rollbacks=2)
    unlearning(among, model, training_data(), torch.arange(20), config)


def stage_3(among: Any, model: nn.Module) -> None:
    labels = Labels(torch.arange(60), torch.arange(60, 96), torch.zeros(96, dtype=torch.bool))
    finetuning(among, model, training_data(), labels, FinetuningConfig(steps=STEPS, batch=16, norm_batches=2))


STAGES: dict[str, Callable[[Any, nn.Module], None]] = {
    "supervised": stage_1,
    "unlearning": stage_2,
    "finetuning": stage_3,
}


def finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return all(map(finite, value)) if isinstance(value, list) else True


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    for number in range(count):
        name = list(STAGES)[number % len(STAGES)]
        kind, at = rng.choice(("nan", "inf", "huge", "gradient")), rng.randrange(STEPS)
        model = build_model("wrn-10-1", 3, 8, seed=number)
        poison(model, kind, at)
        kept = Checkpoints(folder / str(number))
        what = f"{name}: {kind} in step {at}"
        among = session(checkpoints=kept)
        among.every = 0.0  # after every step
        try:
            STAGES[name](among, model)
            end = "undone" if finite(model.state_dict()) else "in the weights"
        except NumericError:
            end = "a clean end"
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
        saved = kept.load()
        sound = saved is None or finite(saved)
        yield Trial(end in ("undone", "a clean end") and sound, f"{what}: {end}, kept state sound: {sound}")


PROMISE = Promise(
    "numbers that are not finite",
    "NaN, infinity and exploding gradients are undone or end the run cleanly, and are in no checkpoint",
    "outputs or gradients of a random step of each stage made NaN, infinite or huge",
    trials,
    full=60,
    sample=12,
    part=12,
)

if __name__ == "__main__":
    main(PROMISE)
