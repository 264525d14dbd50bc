"""Own triggers planted in a copy: what is planted, what counts as found, and that a run tells of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CONFIG, TINY, session, training_data

import dlp_fast
from dlp_fast.config import RunConfig
from dlp_fast.detection.decide import Decision
from dlp_fast.detection.detect import Detection
from dlp_fast.detection.findings import Finding
from dlp_fast.detection.suspicion import by_score
from dlp_fast.engine.session import Session
from dlp_fast.pipeline import defend
from dlp_fast.power import trials
from dlp_fast.power.plant import Planted, combinations, plant, trials_at_once
from dlp_fast.power.trials import Trial, judged, power, summary
from dlp_fast.report.text import notes
from dlp_fast.runs.checkpoint import Checkpoints


def everybody(n: int) -> torch.Tensor:
    return torch.ones(n, dtype=torch.bool)


def planted_in(n: int = 900, classes: int = 9, side: int = 16, seed: int = 3):
    data = training_data(n, classes, side)
    wanted = [("patch", 0.02), ("blend", 0.02), ("warp", 0.01)]
    return data, *plant(data, everybody(n), range(classes), wanted, seed)


def test_each_trigger_has_a_class_and_images_of_its_own():
    data, copy, planted = planted_in()
    assert [(of.trigger, of.rate, len(of.ids)) for of in planted] == [
        ("patch", 0.02, 18),
        ("blend", 0.02, 18),
        ("warp", 0.01, 9),
    ]
    assert len({of.target for of in planted}) == 3
    every = torch.cat([of.ids for of in planted])
    assert len(every.unique()) == len(every)
    changed = torch.zeros(len(data), dtype=torch.bool)
    changed[every] = True
    assert torch.equal(copy.labels[~changed], data.labels[~changed])
    before, after = (of.images.get(torch.arange(len(data))) for of in (data, copy))
    assert torch.equal((before != after).flatten(1).any(1), changed)
    for of in planted:
        assert (copy.labels[of.ids] == of.target).all() and (data.labels[of.ids] != of.target).all()


def test_a_patch_lies_at_one_place_in_all_its_images():
    data, copy, planted = planted_in()
    ids = planted[0].ids
    differs = (data.images.get(ids) != copy.images.get(ids)).any(-1)
    rows, columns = differs.any(0).any(1).nonzero(), differs.any(0).any(0).nonzero()
    assert int(rows.max() - rows.min()) <= 2 and int(columns.max() - columns.min()) <= 2


def test_the_same_seed_plants_the_same():
    (_, one, first), (_, two, second) = planted_in(), planted_in()
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, second))
    ids = torch.arange(len(one))
    assert torch.equal(one.images.get(ids), two.images.get(ids))
    assert not torch.equal(planted_in(seed=4)[2][0].ids, first[0].ids)


def test_what_does_not_fit_is_not_planted():
    data = training_data(90, 9)  # ten a class: 6 images are more than half of one
    assert plant(data, everybody(90), range(9), [("patch", 0.07), ("patch", 0.05)], 0)[1][0].rate == 0.05
    free = everybody(90)
    free[:] = False
    free[:2] = True
    assert plant(data, free, range(9), [("patch", 0.05)], 0)[1] == []


def test_rates_that_give_too_few_images_are_left_out():
    assert [rate for _, rate in combinations(300)] == [0.02] * 3
    assert len(combinations(10_000)) == 12 and combinations(100) == []
    assert [trials_at_once(classes) for classes in (2, 3, 10, 100)] == [1, 1, 3, 33]


def finding(label: int) -> Finding:
    return Finding("supervised", label, 9, 3.0, 0.0, 1.4)


@pytest.mark.parametrize(
    ("named", "hit", "found"),
    [([1], 10, True), ([1], 5, True), ([1], 4, False), ([2], 10, False), ([], 0, False)],
)
def test_what_counts_as_found(named, hit, found):
    suspected = torch.zeros(40, dtype=torch.bool)
    suspected[:hit] = True
    suspicion = replace(by_score(torch.zeros(40)), suspected=suspected)
    detection = Detection(suspicion, Decision((), tuple(map(finding, named))))
    assert judged([Planted("patch", 0.25, 1, torch.arange(10))], detection) == [
        Trial("patch", 0.25, 10, hit, found)
    ]


def test_trials_are_summed_by_trigger_and_rate():
    of = [
        Trial("patch", 0.01, 9, 9, True),
        Trial("warp", 0.02, 18, 0, False),
        Trial("patch", 0.01, 9, 1, False),
    ]
    # Wilson's interval of 0 of 1: 0 to z^2 / (1 + z^2); of 1 of 2: 1/2 -+ z / (2 sqrt(2 + z^2)), z = 1.96
    assert summary(of) == [
        {"trigger": "warp", "rate": 0.02, "images": 18, "trials": 1, "found": 0, "low": 0.0, "high": 0.7935},
        {
            "trigger": "patch",
            "rate": 0.01,
            "images": 9,
            "trials": 2,
            "found": 1,
            "low": 0.0945,
            "high": 0.9055,
        },
    ]


def tiny(rounds: int) -> RunConfig:
    return RunConfig(**{**TINY, "detection": {**TINY["detection"], "power": rounds}})


def test_rounds_go_on_where_they_were(tmp_path, monkeypatch):
    data, config = training_data(270, 3), tiny(2)
    found = defend(session(), data, config)
    whole = power(session(), data, found, config)
    assert sum(row["trials"] for row in whole) == 2
    began, real = [], trials.observe

    def stopped(inner, *others):
        began.append(inner)
        if len(began) == 2:
            raise KeyboardInterrupt
        return real(inner, *others)

    kept = Checkpoints(tmp_path)
    monkeypatch.setattr(trials, "observe", stopped)
    with pytest.raises(KeyboardInterrupt):
        power(session(checkpoints=kept), data, found, config)
    again = session(checkpoints=kept)
    assert again.completed("power 1") and again.completed("power 2: supervised")
    assert power(again, data, found, config) == whole and len(began) == 3
    assert not [name for name in again.names() if ":" in name]  # no weights of trials are kept


def test_names_within_a_session_are_its_own():
    outer: Session = session()
    outer.complete("supervised", {"a": 1})
    inner = outer.within("x: ")
    assert inner.completed("supervised") is None
    assert inner.cached("supervised", lambda: {"a": 2}) == {"a": 2}
    assert outer.completed("supervised") == {"a": 1} and outer.completed("x: supervised") == {"a": 2}
    inner.forget()
    assert outer.names() == ("supervised",)


def test_a_run_tells_of_its_power(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    detection = {**CONFIG["detection"], "power": 1}
    result = dlp_fast.defend(
        images,
        np.arange(300) % 3,
        out=tmp_path / "run",
        quiet=True,
        **{**CONFIG, "detection": detection, "order": "supervised-unlearning"},
    )
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["detection"]["power"]
    assert rows == result.results["detection"]["power"]
    assert [(row["trigger"], row["images"], row["trials"]) for row in rows] == [("patch", 6, 1)]
    said = " ".join(notes(result.results))
    assert f"{rows[0]['found']} of 1 at 2.0% (6 images)" in said
    assert "power: of own triggers of the kind patch" in (tmp_path / "run" / "report.html").read_text()
