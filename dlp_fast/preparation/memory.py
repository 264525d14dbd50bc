"""Batches that fit into memory, and what a person is told where they do not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from dlp_fast.config import RunConfig
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import Compute
from dlp_fast.engine.distributed import ALONE, Ranks
from dlp_fast.engine.memory import (
    available,
    bytes_per_image,
    fitting_batches,
    is_out_of_memory,
    peak,
    views_of,
)
from dlp_fast.errors import ResourceError
from dlp_fast.models.registry import new_model
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.reader import read_batches
from dlp_fast.runs.writer import RunFolder


def fit(
    config: RunConfig,
    data: TrainingData,
    compute: Compute,
    folder: RunFolder | None,
    log: RunLog,
    ranks: Ranks = ALONE,
) -> RunConfig:
    """`config` with the batches that fit into memory, where `batch` is auto; else a warning where they hardly will. Of
    several ranks, rank 0 looks at its own memory, and a GPU of each holds its part of a batch; of `batch_parts`, one at
    a time.
    """
    batches = ranks.agreed(lambda: _fitted(config, data, compute, folder, log))
    sections = {
        stage: getattr(config, stage).model_copy(update={"batch": b})
        for stage, b in batches.items()
        if b != getattr(config, stage).batch
    }
    return config.model_copy(update=sections) if sections else config


def _fitted(
    config: RunConfig, data: TrainingData, compute: Compute, folder: RunFolder | None, log: RunLog
) -> dict[str, int]:
    """The batches that the stages are to have, where they are others than those set."""
    kept = folder.path / "batches.json" if folder and config.batch == "auto" else None
    if kept and kept.is_file():  # a resumed run goes on as it was begun, whatever is free now
        batches = read_batches(kept, list(views_of(config)))
    else:
        size = (data.images.height, data.images.width)
        model = new_model(config.model, data, 0)
        per_image, free = bytes_per_image(model, size, compute), available(compute)
        batches = fitting_batches(config, per_image * _at_once(config, compute), free)
        if kept:
            write_atomic(kept, json.dumps(batches).encode() + b"\n")
    lowered = {stage: b for stage, b in batches.items() if b < getattr(config, stage).batch}
    if not lowered:
        return {}
    told = ", ".join(f"{stage}.batch {getattr(config, stage).batch} -> {b}" for stage, b in lowered.items())
    if config.batch == "auto":
        log.say(f"batches that fit into memory: {told}")
        return lowered
    log.warn(
        f"a training step may not fit into the {free / 1e9:.1f} GB that are free; --batch auto would halve: {told}"
    )
    return {}


def _at_once(config: RunConfig, compute: Compute) -> float:
    """Share of a batch that is in one memory at once: the part of a GPU, or those of all processes of this machine."""
    parts = config.batch_parts or compute.processes
    if compute.device.type == "cuda":
        return 1 / parts
    return min(1.0, compute.processes / parts)  # a process takes its parts one after the other


@contextlib.contextmanager
def out_of_memory_told(config: RunConfig) -> Iterator[None]:
    """Out of memory, in a form that says what to do; the checkpoint of before is kept."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        batches = ", ".join(f"{stage}.batch {getattr(config, stage).batch}" for stage in views_of(config))
        raise ResourceError(
            f"out of memory; the peak was {peak()}, with {batches}. The last checkpoint is kept. Give --batch auto or "
            "smaller batches, a smaller --dataset.image-size or --dataset.resident-megabytes 0 (each needs another "
            "--out)."
        ) from error
