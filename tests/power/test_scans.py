"""Own triggers put to the scan for marks alone: what counts as seen, which trials there are, and that a run tells."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import CONFIG, Pixels, session, training_data

import dlp_fast
from dlp_fast.commands import dry_run
from dlp_fast.config import DetectionConfig, RunConfig
from dlp_fast.detection.groups import Group
from dlp_fast.errors import ConfigError
from dlp_fast.power import scans
from dlp_fast.power.plant import Planted
from dlp_fast.power.scans import KEPT, scheduled, seen
from dlp_fast.power.trials import Trial, summary
from dlp_fast.report.text import notes
from dlp_fast.runs.checkpoint import Checkpoints

ANYWHERE = (torch.ones(360, dtype=torch.bool), range(3))


def textured(n: int = 360, classes: int = 3, side: int = 16):
    """Training data of smooth pictures, in which nothing repeats."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(1)) * 200 + 20
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    noise = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(2)) * 4
    pixels = (smooth + noise).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return replace(training_data(n, classes, side), images=Pixels(pixels))


def mark(ids, label: int | None = 1, labels=None) -> Group:
    ids = np.array(ids)
    return Group("static_patterns.skewness", label, ids, np.ones(len(ids)), {"purity": 0.9}, labels)


@pytest.mark.parametrize(
    ("marks", "suspected", "is_seen"),
    [
        ([mark(range(10))], 10, True),
        ([mark(range(5))], 5, True),
        ([mark(range(4))], 4, False),
        ([mark([*range(10), *range(20, 30)])], 10, True),
        ([mark([*range(10), *range(20, 31)])], 10, False),
        ([mark(range(20, 30))], 0, False),
        ([mark(range(4)), mark(range(3, 9))], 6, True),
        ([mark(range(10), None, np.ones(10, np.int64))], 10, True),
        ([mark([*range(10), *range(40, 60)], None)], 10, True),
        ([], 0, False),
    ],
)
def test_what_counts_as_seen(marks, suspected, is_seen):
    labels = np.zeros(60, np.int64)
    labels[:40] = 1  # images of other classes beside them in a mark of all are another class's
    of = seen([Planted("patch", 0.1, 1, torch.arange(10))], marks, labels)
    assert of == [Trial("patch", 0.1, 10, suspected, is_seen)]


def test_each_combination_that_fits_is_tried_as_often():
    data = training_data(900, 9)
    copies = scheduled(data, 9, 4)
    every = [one for copy in copies for one in copy]
    assert {one: every.count(one) for one in every} == {
        (trigger, rate): 4 for trigger in ("patch", "blend") for rate in (0.03, 0.01)
    }  # 3 images of 900 are too few to be told from chance
    assert max(map(len, copies)) == 3 and all(len(set(copy)) == len(copy) for copy in copies)
    assert scheduled(data, 0, 4) == [] and scheduled(training_data(60, 9), 9, 4) == []
    assert max(map(len, scheduled(data, 1, 4))) == 1
    # 27 images are more than half of a class of 50
    assert {rate for copy in scheduled(training_data(900, 18), 18, 1) for _, rate in copy} == {0.01}


def test_a_patch_is_seen_and_nothing_is_where_nothing_is_planted(monkeypatch):
    data, config = textured(), DetectionConfig(power_scans=2)
    rows = {
        (row["trigger"], row["rate"]): row for row in summary(scans.scans(session(), data, *ANYWHERE, config))
    }
    assert rows["patch", 0.03] == {
        "trigger": "patch", "rate": 0.03, "images": 11, "trials": 2, "found": 2, "low": 0.3424, "high": 1.0
    }  # fmt: skip

    real = scans.plant

    def unplanted(data, *others):
        return data, real(data, *others)[1]

    monkeypatch.setattr(scans, "plant", unplanted)
    assert not any(trial.found for trial in scans.scans(session(), data, *ANYWHERE, config))


def test_suspects_and_their_classes_are_left_alone(monkeypatch):
    planted = []
    real = scans.plant

    def noted(*arguments):
        planted.append(real(*arguments)[1])
        return real(*arguments)

    monkeypatch.setattr(scans, "plant", noted)
    suspected = torch.arange(0, 360, 3)[:90]
    data, config = textured(), RunConfig(detection={"power_scans": 3})
    found = SimpleNamespace(
        selection=SimpleNamespace(suspected_poisoned=suspected), findings=(SimpleNamespace(label=0),)
    )
    rows = scans.power_of(session(), data, found, config)
    assert rows["power"] == [] and sum(row["trials"] for row in rows["power_scans"]) == 6
    every = [of for copy in planted for of in copy]
    assert every and all(of.target != 0 and not torch.isin(of.ids, suspected).any() for of in every)


def test_a_run_that_was_stopped_goes_on_after_the_last_copy(tmp_path, monkeypatch):
    data, config = textured(), DetectionConfig(power_scans=2)
    whole = scans.scans(session(), data, *ANYWHERE, config)
    scanned, real = [], scans.marks_in

    def stopped(copy, options):
        scanned.append(copy)
        if len(scanned) == 2:
            raise KeyboardInterrupt
        return real(copy, options)

    monkeypatch.setattr(scans, "marks_in", stopped)
    first = session(checkpoints=Checkpoints(tmp_path))
    first.every = 0
    with pytest.raises(KeyboardInterrupt):
        scans.scans(first, data, *ANYWHERE, config)
    again = session(checkpoints=Checkpoints(tmp_path))
    assert len(again.completed(KEPT)["copies"]) == 1
    assert scans.scans(again, data, *ANYWHERE, config) == whole
    assert len(scanned) == len(again.completed(KEPT)["copies"]) + 1
    scans.scans(again, data, *ANYWHERE, config)
    assert len(scanned) == len(again.completed(KEPT)["copies"]) + 1


@pytest.mark.parametrize("over", [{"method": "entropy"}, {"proposals": ("learning_curves",)}])
def test_without_a_scan_there_is_none_to_try(over):
    with pytest.raises(ConfigError, match=r"power_scans: there is no scan for marks"):
        DetectionConfig(power_scans=1, **over)


def test_a_run_tells_what_the_scan_would_have_seen(tmp_path):
    detection = {**CONFIG["detection"], "power_scans": 1, "proposals": ("learning_curves", "static_patterns")}
    options = {**CONFIG, "detection": detection, "order": "supervised-unlearning"}
    pixels = textured().images.get(torch.arange(360)).numpy()
    result = dlp_fast.defend(pixels, np.arange(360) % 3, out=tmp_path / "run", quiet=True, **options)
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["detection"]["power_scans"]
    assert rows == result.results["detection"]["power_scans"] and [row["trials"] for row in rows] == [1, 1]
    said = " ".join(notes(result.results))
    assert (
        "power of the scan for marks alone" in said
        and f"{rows[0]['found']} of 1 trials at 3.0% (11 images)" in said
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("the scan for marks alone") == 2 and '<table id="power">' in page


def test_a_dry_run_counts_the_scans(monkeypatch):
    monkeypatch.setattr(dry_run.time, "monotonic", iter(range(10)).__next__)
    config = SimpleNamespace(detection=DetectionConfig(power_scans=6))
    data = textured()
    assert dry_run.seconds_of_scans(data, config) == len(scheduled(data, 3, 6)) * 1.0
