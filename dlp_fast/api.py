"""The whole run from Python: images in, a clean model and the list of suspected images out."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlp_fast.config import (
    RunConfig,
    at_real_places,
    build,
    merge,
    read_preset,
    refuse_address,
    refuse_overlaps,
    refuse_test_options,
    resolve,
)
from dlp_fast.data import sources
from dlp_fast.engine.device import SLOW_BF16, choose_compute, slow_bf16
from dlp_fast.engine.inference import score
from dlp_fast.engine.parts import Ranks, ranks_of
from dlp_fast.engine.session import Session
from dlp_fast.errors import ConfigError
from dlp_fast.models.classifier import load
from dlp_fast.models.registry import check_name
from dlp_fast.models.starting import check_options
from dlp_fast.pipeline import defend as run_stages
from dlp_fast.power.scans import power_of
from dlp_fast.preparation.memory import fit, out_of_memory_told
from dlp_fast.preparation.place import default_out
from dlp_fast.preparation.prepare import prepare
from dlp_fast.preparation.threads import fitting_threads
from dlp_fast.preparation.work import time_left
from dlp_fast.report.result import Result
from dlp_fast.report.results import Finished, classifier_of, result_of, results_of, write_run
from dlp_fast.runs.checkpoint import Checkpoints
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.tracking import start_trackers
from dlp_fast.runs.writer import RunFolder
from dlp_fast.selection.decisions import given_overrides, go_back


def defend(
    data: Any,
    labels: Any = None,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    test: Any = None,
    test_labels: Any = None,
    classes: Any = None,
    flip: bool = True,
    quiet: bool = False,
    **config: Any,
) -> Result:
    """Train a clean model on images that are not trusted.

    Args:
        data: a folder, archive, table or source name; a dataset of (picture, label) or {"image": ..., "label": ...}; an
            array of uint8 images [n, H, W, 3] or [n, H, W], or a list of pictures or paths, with `labels` [n]; a data
            frame of paths and labels. A label is a number from 0 or a name.
        out: run folder; None keeps nothing on disk.
        preset: name of a shipped configuration, e.g. "paper".
        test, test_labels: a test set in the same form as `data`, to measure clean accuracy; unset: the folder's own.
        classes: names, for arrays; flip: whether a mirrored picture keeps its class (digits do not).
        config: fields of RunConfig; sections as dicts, e.g. ``supervised={"epochs": 5}``.

    Raises: ConfigError, DataError, NumericError, ResourceError, Interrupted; each says what to do.
    """
    values = merge(read_preset(preset) if preset else {}, config)
    named = isinstance(data, (str, Path))
    if named:
        refuse_address(str(data))
    if named and test is not None:  # another folder
        if not isinstance(test, (str, Path)):
            raise ConfigError("defend(): give the test set of a folder as a path, or leave `test` out.")
        values = merge(values, {"dataset": {"test": str(test)}})
    values["data"] = str(data) if named else "array" if labels is not None else "dataset"
    values.setdefault("attack", "none")
    values["out"] = str(out) if out is not None else None
    settings = build(values, "defend()")
    given = (data, labels, test, test_labels, classes)
    dataset = None if named else sources.from_python(*given, options=settings.dataset, flip=flip)
    return execute(settings, dataset, quiet=quiet, keep=out is not None)


def execute(
    config: RunConfig, dataset: sources.Dataset | None = None, *, quiet: bool = False, keep: bool = True
) -> Result:
    """Run `config`, or go on with it where its run folder holds an unfinished run of the same configuration. Processes
    launched together (torchrun, srun) work on one run and all get its Result; rank 0 alone writes and prints."""
    with ranks_of(config.sync_batch_norm, config.batch_parts) as ranks:
        return _execute(config, dataset, quiet or not ranks.leads, keep and ranks.leads, ranks)


def _execute(
    config: RunConfig, dataset: sources.Dataset | None, quiet: bool, keep: bool, ranks: Ranks
) -> Result:
    compute = choose_compute(config.device, config.precision, config.graphs)
    check_name(config.model)
    if dataset is None:
        config = at_real_places(config)
    else:
        refuse_test_options(f"the {config.data} that was given", config.dataset)
    settings = resolve(config)
    folder = RunFolder(config.out or default_out(settings)) if keep else None
    check_options(config, folder.path if folder else None)
    with contextlib.ExitStack() as stack:
        if folder:
            if dataset is None:
                refuse_overlaps(config, folder.path)
            folder.open(settings)
            stack.callback(folder.close)
        log = RunLog(folder.path / "metrics.jsonl" if folder else None, quiet=quiet)
        stack.callback(log.close)
        if slow_bf16(compute):
            log.warn(SLOW_BF16)
        if ranks.leads:
            log.trackers += start_trackers(config.track, folder and folder.path, settings, log.warn)
        stack.enter_context(fitting_threads(config, compute, folder, log))
        prepared = prepare(config, settings, compute, dataset, folder, log, ranks)
        data, train = prepared.data, prepared.dataset.train
        config = fit(config, data, compute, folder, log, ranks)
        log.run_time = time_left(len(data), data.classes, config)
        overrides = given_overrides(config.decisions, train.paths, data.labels, train.classes, log)
        checkpoints = Checkpoints(folder.path / "checkpoints", folder.identity) if folder else None
        session = Session(compute, log, checkpoints, config.checkpoint_seconds, ranks)
        go_back(session, config.decisions, overrides, folder, log)
        with session, out_of_memory_told(config):
            found = run_stages(session, data, config, overrides)
            log.say("what the model says of all images, and the report")
            after = replace(prepared, data=replace(data, labels=overrides.relabeled(data.labels)))
            scores = score(session, found.model, after.data)
            tried = power_of(session, data, found, config)
            finished = Finished(after, found, scores, overrides, compute, tried)
            results = ranks.agreed(lambda: results_of(finished, config))
        model = classifier_of(finished, config.model, results["model"]["holds"])
        if folder:
            write_run(folder, finished, model, results, log)
        return result_of(finished, model.eval(), results, folder.path if folder else None)


__all__ = ["ConfigError", "Result", "defend", "execute", "load"]
