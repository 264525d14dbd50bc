"""The whole run from Python: images in, a clean model and the list of suspected images out."""

from __future__ import annotations

import contextlib
import datetime
import glob
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.checkpoint import Checkpoints, write_atomic
from dlp_fast.cli import notes, percent, verdict_lines
from dlp_fast.config import RunConfig, build, differences, merge, read_preset, read_yaml, resolve
from dlp_fast.data import sources
from dlp_fast.data.index import write_quarantine
from dlp_fast.dryrun import Estimate, estimate
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import Compute, choose_compute, cpu_has_fast_bf16
from dlp_fast.engine.memory import (
    available,
    bytes_per_image,
    fitting_batches,
    is_out_of_memory,
    peak,
    views_of,
)
from dlp_fast.engine.scoring_pass import score
from dlp_fast.engine.session import Session
from dlp_fast.errors import ConfigError, DataError, ResourceError
from dlp_fast.filtering.decisions import Overrides, nobody, read_decisions
from dlp_fast.filtering.verdict import verdict
from dlp_fast.models.classifier import Classifier, load
from dlp_fast.models.registry import build_model
from dlp_fast.pipeline import Defense
from dlp_fast.pipeline import defend as run_stages
from dlp_fast.report.exhibits import gather
from dlp_fast.report.render import write_report
from dlp_fast.runfiles import SCHEMA, read_batches
from dlp_fast.runfolder import RunFolder, environment, fingerprint
from dlp_fast.runlog import RunLog
from dlp_fast.scoring import TestSet, precision, recall
from dlp_fast.tracking import start_trackers


@dataclass(frozen=True)
class Result:
    """What a run gives back.

    model: for uint8 pictures, see Classifier; suspected_poisoned, suspected_clean: int64 ids; score: fp32 [n],
    ascending = more suspicious; paths: of all images, by id; results: as in results.json; out: the run folder.
    """

    model: Classifier
    suspected_poisoned: torch.Tensor
    suspected_clean: torch.Tensor
    score: torch.Tensor
    paths: tuple[str, ...]
    results: dict[str, Any]
    out: Path | None

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the stages, and where the report is."""
        rows = "".join(
            f"<tr><td>{stage}</td><td>{percent(of['clean_accuracy'])}</td>"
            f"<td>{percent(of['attack_success_rate'])}</td><td>{of['seconds']:.0f} s</td></tr>"
            for stage, of in self.results["stages"].items()
        )
        lines = [*verdict_lines(self.results["verdict"]), *notes(self.results)]
        said = "<br>".join(map(html.escape, lines))
        where = f"<p>report: {html.escape(str(self.out / 'report.html'))}</p>" if self.out else ""
        return (
            f"<p><b>{said}</b><br>{len(self.suspected_poisoned)} of {len(self.paths)} images are suspected poisoned</p>"
            "<table><tr><th>after stage</th><th>clean accuracy</th><th>attack success rate</th><th>time</th></tr>"
            f"{rows}</table>{where}"
        )


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
        data: a folder or source name, a torchvision-style dataset of (picture, class number), or an array of
            uint8 images [n, H, W, 3] or [n, H, W] with `labels` [n].
        out: run folder; None keeps nothing on disk.
        preset: name of a shipped configuration, e.g. "paper".
        test, test_labels: a test set in the same form as `data`, to measure clean accuracy.
        classes: names, for arrays; flip: whether a mirrored picture keeps its class (digits do not).
        config: fields of RunConfig; sections as dicts, e.g. ``supervised={"epochs": 5}``.

    Raises: ConfigError, DataError, NumericError, ResourceError, Interrupted; each says what to do.
    """
    values = merge(read_preset(preset) if preset else {}, config)
    named = isinstance(data, (str, Path))
    if named and test is not None:
        raise ConfigError("defend(): a folder brings its own test set, as FOLDER/test; leave `test` out.")
    values["data"] = str(data) if named else "array" if labels is not None else "dataset"
    values.setdefault("attack", "none")
    values["out"] = str(out) if out is not None else None
    settings = build(values, "defend()")
    if named:
        dataset = None
    elif labels is not None:
        if isinstance(data, torch.Tensor):
            data = data.numpy(force=True)
        dataset = sources.from_arrays(np.asarray(data), labels, test, test_labels, classes, flip=flip)
    else:
        dataset = sources.from_torchvision(data, test, image_size=settings.dataset.image_size, flip=flip)
    return execute(settings, dataset, quiet=quiet, keep=out is not None)


def default_out(settings: dict[str, Any]) -> Path:
    """runs/<date>-<data>: of today, or of the day on which an unfinished run of these settings was begun."""
    data = settings["data"]
    name = Path(data).resolve().name if Path(data).exists() else data.split(":")[0]
    for folder in sorted(Path("runs").glob(f"????-??-??-{glob.escape(name)}"), reverse=True):
        begun = (folder / "checkpoints").is_dir() and not (folder / "results.json").exists()
        resolved = folder / "config.resolved.yaml"
        if begun and resolved.is_file() and not differences(read_yaml(resolved), settings):
            return folder
    return Path("runs") / f"{datetime.date.today():%Y-%m-%d}-{name}"


def execute(
    config: RunConfig, dataset: sources.Dataset | None = None, *, quiet: bool = False, keep: bool = True
) -> Result:
    """Run `config`, or go on with it where its run folder holds an unfinished run of the same configuration."""
    if config.threads:
        torch.set_num_threads(config.threads)
    compute = choose_compute(config.device, config.precision, config.graphs)
    settings = resolve(config)
    folder = RunFolder(config.out or default_out(settings)) if keep else None
    log = RunLog(None, quiet=quiet)
    with contextlib.ExitStack() as stack:
        if folder:
            folder.open(settings)
            stack.callback(folder.close)
            log = RunLog(folder.path / "metrics.jsonl", quiet=quiet)
        stack.callback(log.close)
        if compute.device.type == "cpu" and compute.autocast and not cpu_has_fast_bf16():
            log.warn(
                "this CPU is slower in bf16 than in fp32, ten times where it has no such instructions; "
                "--precision auto would take fp32."
            )
        log.trackers += start_trackers(config.track, folder.path if folder else None, settings, log.warn)
        ready = _prepare(config, settings, compute, dataset, folder, log)
        dataset, attack, data = ready.dataset, ready.attack, ready.data
        config = _fit(config, data, compute, folder, log)
        settings = resolve(config)
        images, labels, mean, std = data.images, data.labels, data.mean, data.std
        test = _test_set(dataset, attack, compute.device)

        def observe(model: torch.nn.Module) -> dict[str, float | None]:
            if test is None:
                return {"clean_accuracy": None, "attack_success_rate": None}
            return test.measure(model, compute.device, mean, std)

        checkpoints = Checkpoints(folder.path / "checkpoints") if folder else None
        overrides = _overrides(config, dataset, log)
        session = Session(config.seed, compute, log, checkpoints, config.checkpoint_seconds)
        if session.resumed:
            log.say("going on from the last checkpoint")
        _go_back(session, config, overrides, folder, log)
        with session, _out_of_memory_told(config):
            found = run_stages(session, data, config, observe, overrides)
            last = score(session, found.model, data)
        model = Classifier(
            found.model,
            config.model,
            dataset.train.classes,
            (images.height, images.width),
            torch.tensor(mean),
            torch.tensor(std),
        ).to(compute.device)
        said = verdict(
            found.evidence,
            found.nearest,
            torch.bincount(labels, minlength=len(dataset.train.classes)).tolist(),
            dataset.train.classes,
            len(found.first.entropy),
            config.filter,
        )
        results = {
            "schema": SCHEMA,
            "verdict": said.as_json(),
            "stages": found.stages,
            "filter": _filter_figures(found, attack),
            "decisions": overrides.counts,
            "late": found.late,
            "label_agreement": _label_agreement(config, found, labels, last.prediction),
            "raised_odds": _raised_odds(found, dataset.train.classes),
            "environment": environment(compute.describe()) | {"loader": dataset.loader},
            "config": settings,
        }
        if folder:
            chosen = found.selection
            folder.write_samples(
                dataset.train.paths,
                labels,
                dataset.train.classes,
                chosen,
                found.first.entropy[-1],
                overrides.words(),
            )
            model.save(folder.path)
            folder.write_predictions(last.prediction, (-last.loss).exp())
            targets = list(dict.fromkeys(t["label"] for t in said.targets))
            gather(images, labels, chosen, targets, found.first.loss, model.predict).save(folder.path)
            folder.write_json("results.json", results)
            log.event("done")
            write_report(folder.path)
        return Result(
            model.eval(),
            found.selection.suspected_poisoned,
            found.selection.suspected_clean,
            found.selection.score,
            dataset.train.paths,
            results,
            folder.path if folder else None,
        )


@dataclass(frozen=True)
class Prepared:
    """dataset: as loaded; attack: None where there is none; data: as the stages see it."""

    dataset: sources.Dataset
    attack: Poisoning | None
    data: TrainingData


def _prepare(
    config: RunConfig,
    settings: dict[str, Any],
    compute: Compute,
    dataset: sources.Dataset | None,
    folder: RunFolder | None,
    log: RunLog,
) -> Prepared:
    """Load the images, check that they are those of the run folder, and poison them where that is asked for."""
    if dataset is None:
        dataset = _load(config, folder, log)
    _announce(log, dataset, folder)
    images = dataset.train.images.to(compute.device)
    attack = attack_of(settings, dataset, str(compute.device), log.counter())
    labels = attack.labels if attack else dataset.train.labels
    if folder:
        folder.check_data(fingerprint(dataset.train.paths, labels, dataset.train.sha256))
        folder.write_json("environment.json", environment(compute.describe()))
    if attack:
        log.say(f"attack: {attack.describe(dataset.train.classes)}")
        images = attack.poison(images)
    log.say(f"computing on {compute.describe()}")
    for side in (images.height, images.width):
        if not 8 <= side <= 256:
            raise DataError(
                f"images of {images.width} x {images.height} pixels: expected sides of 8 to 256 pixels. Resize "
                "them, or give --dataset.image-size."
            )
    mean, std = pixel_statistics(images)
    classes = len(dataset.train.classes)
    data = TrainingData(images, labels, classes, mean, std, dataset.flip, config.seed, compute.device)
    return Prepared(dataset, attack, data)


def _fit(
    config: RunConfig, data: TrainingData, compute: Compute, folder: RunFolder | None, log: RunLog
) -> RunConfig:
    """`config` with the batches that fit into memory, where `batch` is auto; else a warning where they hardly will."""
    kept = folder.path / "batches.json" if folder and config.batch == "auto" else None
    if kept and kept.is_file():  # a resumed run goes on as it was begun, whatever is free now
        batches = read_batches(kept, list(views_of(config)))
    else:
        size = (data.images.height, data.images.width)
        model = build_model(config.model, data.classes, max(size), 0).to(compute.device)
        per_image, free = bytes_per_image(model, size, compute), available(compute)
        batches = fitting_batches(config, per_image, free)
        if kept:
            write_atomic(kept, json.dumps(batches).encode() + b"\n")
    lowered = {stage: b for stage, b in batches.items() if b < getattr(config, stage).batch}
    if not lowered:
        return config
    told = ", ".join(f"{stage}.batch {getattr(config, stage).batch} -> {b}" for stage, b in lowered.items())
    if config.batch == "auto":
        log.say(f"batches that fit into memory: {told}")
        sections = {
            stage: getattr(config, stage).model_copy(update={"batch": b}) for stage, b in lowered.items()
        }
        return config.model_copy(update=sections)
    log.warn(
        f"a training step may not fit into the {free / 1e9:.1f} GB that are free; --batch auto would halve: {told}"
    )
    return config


@contextlib.contextmanager
def _out_of_memory_told(config: RunConfig) -> Iterator[None]:
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


def dry_run(config: RunConfig, dataset: sources.Dataset | None = None, *, quiet: bool = False) -> Estimate:
    """Try two batches of every stage of `config`, and reckon time and memory of the whole; writes nothing."""
    if config.threads:
        torch.set_num_threads(config.threads)
    compute = choose_compute(config.device, config.precision, config.graphs)
    log = RunLog(None, quiet=quiet)
    ready = _prepare(config, resolve(config), compute, dataset, None, log)
    with Session(config.seed, compute, RunLog(None, quiet=True)) as session:
        return estimate(session, ready.data, config)


def _load(config: RunConfig, folder: RunFolder | None, log: RunLog) -> sources.Dataset:
    options = config.dataset
    try:
        return sources.load(
            config.data,
            image_size=options.image_size,
            loader=config.loader,
            resident_limit_mb=options.resident_megabytes,
            max_megapixels=options.max_megapixels,
            max_megabytes=options.max_megabytes,
            workers=options.workers,
            cache=folder.path / "scan.jsonl" if folder else None,
            progress=log.counter(),
        )
    except DataError as error:
        log.finish()
        if folder and getattr(error, "quarantine", None):
            write_quarantine(folder.path / "quarantine.csv", error.quarantine)
        raise


def _overrides(config: RunConfig, dataset: sources.Dataset, log: RunLog) -> Overrides:
    if config.decisions is None:
        return nobody()
    overrides = read_decisions(config.decisions, dataset.train.paths)
    counted = ", ".join(f"{count} {word}" for word, count in overrides.counts.items())
    log.say(f"decisions from {config.decisions}: {counted}")
    return overrides


def _go_back(
    session: Session, config: RunConfig, overrides: Overrides, folder: RunFolder | None, log: RunLog
) -> None:
    """Where a person has decided otherwise since the filter ran, what came after it is done anew."""
    before = session.completed("filter")
    edited = folder.edited() if folder and config.decisions is None else None
    if edited:
        raise ConfigError(
            f"{edited} holds a person's decisions (column override) that would be lost. Give it with --decisions, or "
            "take the column out."
        )
    if before is None or before["overrides"] == overrides.fingerprint:
        return
    if config.decisions is None:
        raise ConfigError(
            "this run went on with a person's decisions; give them again with --decisions FILE (the run's samples.csv "
            "holds them), or choose another --out."
        )
    session.keep_only(("supervised", "further looks"))
    log.rewind(before["log_position"])  # what metrics.jsonl tells of the stages that are done anew
    if folder:
        folder.unfinish()
    log.say("going on from the filter, with these decisions")


def _announce(log: RunLog, dataset: sources.Dataset, folder: RunFolder | None) -> None:
    of = dataset.train
    log.say(
        f"{dataset.name}: {len(of.labels):,} training images, {len(of.classes)} classes, "
        f"{of.images.width} x {of.images.height} px"
        + (f", {len(dataset.test.labels):,} test images" if dataset.test else ", no test set")
    )
    log.say(f"loader {dataset.loader}")
    for warning in dataset.warnings:
        log.warn(warning)
    if folder:
        write_quarantine(folder.path / "quarantine.csv", dataset.quarantine)
    if dataset.quarantine:
        where = f", listed in {folder.path / 'quarantine.csv'}" if folder else ""
        log.warn(f"{len(dataset.quarantine)} files cannot be used{where}")


def attack_of(
    settings: dict[str, Any], dataset: sources.Dataset, device: str = "cpu", progress: Any = None
) -> Poisoning | None:
    """The attack that a resolved configuration asks for, on its image set; None where it asks for none."""
    if settings["attack"] == "none":
        return None
    images = dataset.train.images
    return plan(
        settings["attack"],
        dataset.train.labels,
        dataset.train.classes,
        (images.height, images.width),
        rate=settings["poison_rate"],
        rate_of=settings["poison_of"],
        target=settings["target"],
        seed=settings["seed"],
        images=images,
        device=device,
        progress=progress,
    )


def _test_set(dataset: sources.Dataset, attack: Poisoning | None, device: torch.device) -> TestSet | None:
    if dataset.test is None:
        return None
    images = dataset.test.images.to(device)
    return TestSet(images, dataset.test.labels, attack and attack.table, attack and attack.target)


def _label_agreement(
    config: RunConfig, found: Defense, labels: torch.Tensor, prediction: torch.Tensor
) -> dict[str, float] | None:
    """Share of the trusted images to which a network gives their label: that of stage 1, and the clean model, where
    stage 3 learnt these labels last. Needs no test set.
    """
    chosen = found.selection
    # what stage 3 gave away is suspected as well, and a clean model is right to refuse its label
    late = torch.isin(chosen.trusted, chosen.suspected_poisoned)
    trusted = chosen.trusted[~late]
    learnt = config.finetune.labeled == "trusted" and config.order.endswith("assft")
    if not learnt or not len(trusted):
        return None
    return {
        name: float((of[trusted] == labels[trusted]).float().mean())
        for name, of in (("supervised", found.first.prediction), ("clean_model", prediction))
    }


def _raised_odds(found: Defense, classes: tuple[str, ...]) -> dict[str, float]:
    """Of the classes that lost labels, how many times stage 3 raised the odds."""
    odds = found.stages.get("finetuning", {}).get("odds", [])
    return {name: of for name, of in zip(classes, odds, strict=False) if of > 1}


def _filter_figures(found: Defense, attack: Poisoning | None) -> dict[str, Any]:
    chosen = found.selection
    known = attack is not None
    return {
        "suspected_poisoned": len(chosen.suspected_poisoned),
        "suspected_clean": len(chosen.suspected_clean),
        "poisoned_precision": precision(chosen.suspected_poisoned, attack.poisoned) if known else None,
        "poisoned_recall": recall(chosen.suspected_poisoned, attack.poisoned) if known else None,
        "clean_precision": precision(chosen.suspected_clean, ~attack.poisoned) if known else None,
        "trusted": len(chosen.trusted),
        "trusted_precision": precision(chosen.trusted, ~attack.poisoned) if known else None,
        "evidence": found.evidence,
    }


__all__ = ["ConfigError", "Result", "defend", "execute", "load"]
