"""What a run gives back and leaves behind: results.json, and the files of a finished run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dlp_fast.config import RunConfig, resolve
from dlp_fast.detection.propose.learning_curves import flat_classes
from dlp_fast.detection.verdict import verdict
from dlp_fast.engine.device import Compute
from dlp_fast.engine.inference import Scores
from dlp_fast.evaluation.of_run import detection_metrics, make_test_set, stage_metrics
from dlp_fast.models.classifier import Classifier
from dlp_fast.models.registry import keeps_own_stem
from dlp_fast.pipeline import Defense
from dlp_fast.preparation.prepare import Prepared
from dlp_fast.report.agreement import label_agreement, raised_odds
from dlp_fast.report.exhibits import gather
from dlp_fast.report.render import write_report
from dlp_fast.report.result import Result
from dlp_fast.runs.contents import holds_of
from dlp_fast.runs.environment import environment
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.names import printable
from dlp_fast.runs.schema import SCHEMA
from dlp_fast.runs.sums import write_sums
from dlp_fast.runs.writer import RunFolder
from dlp_fast.selection.overrides import Overrides
from dlp_fast.selection.table import samples_table


@dataclass(frozen=True)
class Finished:
    """A run whose stages are done: scores: what the clean model says of every training image; power: what would have
    been found, by the option that asks for it, see power.scans.
    """

    prepared: Prepared
    found: Defense
    scores: Scores
    overrides: Overrides
    compute: Compute
    power: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def labels_seen(self) -> torch.Tensor:
        """int64 [n], as detection saw them, before a person's decisions."""
        attack = self.prepared.attack
        return attack.labels if attack else self.prepared.dataset.train.labels

    @cached_property
    def samples(self) -> dict[str, Sequence[Any]]:
        """The columns of samples.csv: made once, of what may be millions of images."""
        found, train = self.found, self.prepared.dataset.train
        entropy, decided = found.first.entropy[-1], self.overrides.labels()
        labels = self.prepared.data.labels
        return samples_table(train.paths, labels, train.classes, found.selection, entropy, decided)


def results_of(run: Finished, config: RunConfig) -> dict[str, Any]:
    """results.json of a run of `config`: verdict, what stages and detection are worth, where it was made."""
    found, dataset, data = run.found, run.prepared.dataset, run.prepared.data
    attack, classes, labels = run.prepared.attack, dataset.train.classes, run.labels_seen
    said = verdict(
        found.findings,
        found.max_subthreshold_score,
        torch.bincount(labels, minlength=len(classes)).tolist(),
        classes,
        len(found.first.entropy),
        config.detection,
        _flat(found, labels, config),
        found.marks,
    )
    test = make_test_set(dataset, attack, run.compute.device)
    metrics = stage_metrics(found, test, data, config)
    return {
        "schema": SCHEMA,
        "verdict": said.as_json(),
        "stages": metrics,
        "model": {"name": config.model, "holds": holds_of(metrics)}
        | ({"starting_weights": run.prepared.start} if run.prepared.start else {}),
        "detection": detection_metrics(found.selection, attack)
        | {
            "findings": [finding.as_json() for finding in found.findings],
            "marks": [mark.as_json() | {"class": printable(classes[mark.label])} for mark in found.marks],
        }
        | run.power,
        "decisions": run.overrides.counts,
        "stage3_detections": found.stage3_detections,
        "label_agreement": label_agreement(config, found, data.labels, run.scores.prediction),
        "logit_adjustment": raised_odds(found, classes),
        "environment": environment(run.compute.describe()) | {"loader": dataset.loader},
        "config": resolve(config),
    }


def _flat(found: Defense, labels: torch.Tensor, config: RunConfig) -> list[int]:
    """The classes whose images were all learnt alike; none where detection does not look at curves."""
    if config.detection.method != "learning_curves" or len(found.first.entropy) < 2:
        return []
    arrays = (of.numpy() for of in (found.first.entropy, found.first.loss, labels))
    return flat_classes(*arrays, config.detection.learning_curves)


def classifier_of(run: Finished, name: str, holds: str) -> Classifier:
    """The model that the run hands out, of network `name`, with how pictures are to be given to it."""
    data, dataset = run.prepared.data, run.prepared.dataset
    return Classifier(
        run.found.model,
        name,
        dataset.train.classes,
        (data.images.height, data.images.width),
        torch.tensor(data.mean),
        torch.tensor(data.std),
        fit=dataset.fit,
        bit_depth=dataset.bit_depth,
        holds=holds,
        own_stem=keeps_own_stem(data),
    ).to(run.compute.device)


def result_of(run: Finished, model: Classifier, results: dict[str, Any], out: Path | None) -> Result:
    """What `defend` gives back; `model` in eval mode."""
    chosen = run.found.selection
    return Result(
        model,
        chosen.suspected_poisoned,
        chosen.suspected_clean,
        chosen.score,
        run.prepared.dataset.train.paths,
        results,
        out,
        run.samples,
    )


def write_run(
    folder: RunFolder, run: Finished, model: Classifier, results: dict[str, Any], log: RunLog
) -> None:
    """Write everything that a finished run folder holds, results.json last but for the report."""
    found, data = run.found, run.prepared.data
    folder.write_samples(run.samples)
    model.save(folder.path)
    folder.write_predictions(run.scores.prediction, (-run.scores.loss).exp())
    targets = list(dict.fromkeys(target["label"] for target in results["verdict"]["targets"]))
    exhibits = gather(
        data.images,
        run.labels_seen,
        found.selection,
        targets,
        found.first.loss,
        model.predict,
        finding_members(found, data.labels),
        found.demonstrations,
        torch.tensor(sorted(run.overrides.labels()), dtype=torch.int64),
        [torch.tensor(mark.sample_ids, dtype=torch.int64) for mark in found.marks if mark.sample_ids],
    )
    exhibits.save(folder.path)
    folder.write_json("results.json", results)
    write_sums(folder.path)
    log.event("done")
    write_report(folder.path)


def finding_members(found: Defense, labels: torch.Tensor) -> list[torch.Tensor]:
    """int64 ids of the images of each of `found.findings`. Those of stage 3 are what is suspected of their class and of
    no finding of stage 1.

    Args: labels: int64 [n], as stage 3 had them, after a person's relabeling.
    """
    suspected = found.selection.suspected_poisoned
    late = suspected[~torch.isin(suspected, torch.cat([suspected[:0], *found.members]))]
    others = found.findings[len(found.members) :]
    return [*found.members, *(late[labels[late] == finding.label] for finding in others)]
