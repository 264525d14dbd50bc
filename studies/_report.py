"""A finished run folder without a run: as many suspects as asked for, so that a report of any size can be tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlp_fast.config import RunConfig, resolve
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.findings import Finding, HeldOutAgreement
from dlp_fast.detection.verdict import verdict
from dlp_fast.detection.verify.demonstration import demonstrate
from dlp_fast.report.exhibits import gather
from dlp_fast.runs.environment import environment
from dlp_fast.runs.schema import SCHEMA
from dlp_fast.runs.writer import RunFolder
from dlp_fast.selection.partition import Selection, places
from dlp_fast.selection.table import samples_table

CLASSES = ("ant", "bee", "cat", "dog")
PATCH = 4  # pixels: the white corner that the suspects carry, and that sends images to class 0


def finished_run(
    folder: Path,
    suspects: int = 60,
    images: int = 600,
    side: int = 16,
    overrides: dict[int, str] | None = None,
    paths: tuple[str, ...] | None = None,
    benign: int = 20,
    shown: int = 0,
) -> RunFolder:
    """A run folder whose `suspects` have a patch, as two findings: those of class 0, and `benign` ones of class 1; and
    `shown` images of class 2, the last ones, which are shown and not suspected.

    overrides: a person's decisions, by id; paths: of all `images`; side: pixels.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % len(CLASSES)
    shade = (labels * 40)[:, None, None, None]
    coarse = torch.randint(0, 110, (images, side // 4, side // 4, 3), generator=generator)
    pixels = (shade + coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)).to(torch.uint8)
    poisoned = torch.arange(suspects)
    labels[poisoned] = 0
    pixels[poisoned, -PATCH:, -PATCH:] = 255
    harmless = (labels == 1).nonzero().flatten()[:benign]
    score = torch.rand(images, generator=generator)
    score[torch.cat([poisoned, harmless])] -= 1
    order = score.argsort()
    found = order[: suspects + len(harmless)]
    trusted = order[len(found) :].sort().values
    named = score < 0
    nobody = torch.empty(0, dtype=torch.int64)
    chosen = Selection(
        score, places(order), found, order[-len(CLASSES) * 10 :], nobody, trusted, nobody, named
    )
    findings = (
        Finding(
            "supervised", 0, suspects, 6.0, 0.1, 2.9,
            attack_success=0.98, placebo_success=0.12, attack_success_after=0.02,
        ),
        Finding("finetuning", 1, len(harmless), 2.3, 0.2, 1.1, HeldOutAgreement(0.8, 0.7), likely_benign=True),
    )  # fmt: skip
    last = (labels == 2).nonzero().flatten()[-shown:] if shown else labels[:0]
    mark = Finding(
        "supervised",
        2,
        shown,
        2.2,
        0.1,
        1.0,
        unclear=True,
        shared_labels=0.4,
        sample_ids=tuple(last.tolist()),
    )
    marks = (mark,) if shown else ()
    store = ResidentImages(pixels)
    trigger = demonstrate(
        0, poisoned, 0, store, labels, trusted, trusted, (_patched, _shade), lambda ids: _mean(pixels[ids])
    )
    loss = torch.rand(6, images, generator=generator)
    loss[:, poisoned] /= 8
    decided = overrides or {}
    paths = paths or tuple(f"train/{CLASSES[label]}/{i:06d}.png" for i, label in enumerate(labels.tolist()))
    run = RunFolder(folder)
    config = resolve(RunConfig(data="photos", out=folder))
    run.open(config)
    run.write_json("environment.json", environment("cpu"))
    run.write_json("classes.json", {"classes": list(CLASSES)})
    run.write_samples(
        samples_table(paths, labels, CLASSES, chosen, torch.rand(images) + 0.5 * score, decided)
    )
    ids = torch.tensor(sorted(decided), dtype=torch.int64)
    triggers = [trigger] if trigger else []
    members, groups = [poisoned, harmless], [last] if shown else []
    exhibits = gather(store, labels, chosen, [0], loss, _probabilities, members, triggers, ids, groups)
    exhibits.save(folder)
    (folder / "metrics.jsonl").write_text("")
    run.write_json("results.json", _results(findings, marks, labels, len(found), decided, config))
    return run


def _results(
    findings: tuple[Finding, ...],
    marks: tuple[Finding, ...],
    labels: Tensor,
    found: int,
    decided: dict[int, str],
    config: dict[str, Any],
) -> dict[str, Any]:
    sizes = torch.bincount(labels, minlength=len(CLASSES)).tolist()
    stage = {"seconds": 1.0, "images_per_second": 1.0, "clean_accuracy": None, "attack_success_rate": None}
    counts = {word: list(decided.values()).count(word) for word in ("keep", "drop", "suspect")}
    return {
        "schema": SCHEMA,
        "verdict": verdict(findings, 0.0, sizes, CLASSES, 6, RunConfig().detection).as_json(),
        "stages": {"supervised": stage},
        "detection": {
            "suspected_poisoned": found,
            "suspected_clean": 40,
            "poisoned_precision": None,
            "poisoned_recall": None,
            "findings": [finding.as_json() for finding in findings],
            "marks": [mark.as_json() | {"class": CLASSES[mark.label]} for mark in marks],
        },
        "decisions": counts,
        "stage3_detections": 0,
        "label_agreement": None,
        "logit_adjustment": {},
        "environment": environment("cpu"),
        "config": config,
    }


def _mean(pixels: Tensor) -> Tensor:
    return pixels.float().mean((1, 2))


def _shade(pixels: Tensor) -> Tensor:
    """A network that looks at the shade of the whole picture."""
    return ((_mean(pixels).mean(1) - 55) / 40).round().clamp(0, 3).long()


def _patched(pixels: Tensor) -> Tensor:
    """The same network, with a backdoor: a white corner is class 0."""
    corner = pixels[:, -PATCH:, -PATCH:].float().mean((1, 2, 3))
    return torch.where(corner > 200, 0, _shade(pixels))


def _probabilities(pixels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(_shade(pixels), len(CLASSES)) * 0.9 + 0.025
