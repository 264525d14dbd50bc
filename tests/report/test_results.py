"""What a finished run writes and gives back, with a run that is made up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import training_data

from dlp_fast.config import RunConfig
from dlp_fast.detection.findings import Finding
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.inference import Scores
from dlp_fast.pipeline import Defense
from dlp_fast.report import results
from dlp_fast.report.results import Finished, result_of, results_of, write_run
from dlp_fast.selection.overrides import Overrides
from dlp_fast.selection.partition import Selection

N, FOUND = 90, 10
CLASSES = ("ant", "bee", "cat")
NOBODY = torch.empty(0, dtype=torch.int64)


@pytest.fixture
def finished():
    """A run in which FOUND images of class 1 are found, and a person gives all of that class to class 0."""
    data, everybody = training_data(N), torch.arange(N)
    train = SimpleNamespace(paths=tuple(map(str, range(N))), labels=data.labels.clone(), classes=CLASSES)
    whole_class = (train.labels == 1).nonzero().flatten()
    over = Overrides(NOBODY, NOBODY, NOBODY, whole_class, torch.zeros_like(whole_class))
    data.labels[:] = over.relabeled(data.labels)
    suspects, trusted = whole_class[:FOUND], everybody[train.labels != 1]
    named = torch.isin(everybody, suspects)
    chosen = Selection(torch.rand(N), everybody, suspects, trusted, suspects, trusted, NOBODY, named)
    curves = torch.rand(3, N, generator=torch.Generator().manual_seed(0))
    first = SimpleNamespace(entropy=curves, loss=curves, prediction=train.labels)
    found = Defense(None, chosen, first, {}, (Finding("supervised", 1, FOUND, 6.0, 0.1, 2.0),), 0.0)
    prepared = SimpleNamespace(
        dataset=SimpleNamespace(train=train, test=None, loader="resident"), attack=None, data=data, start={}
    )
    scores = Scores(curves[0], curves[0], train.labels, curves[0])
    return Finished(prepared, found, scores, over, choose_compute("cpu", "fp32"))


def test_classes_are_as_large_as_detection_saw_them(finished):
    """Of a class that a person has given away whole, what was found in it is a share of what it was."""
    said = results_of(finished, RunConfig())["verdict"]
    assert said["kind"] == "poisoned"
    (target,) = said["targets"]
    assert target["class"] == "bee" and target["share_of_class"] == FOUND / (N // 3)


def test_the_table_of_images_is_made_once(finished, monkeypatch, tmp_path):

    def nothing(*_):
        return None

    made, written, shown = [], [], []
    table = results.samples_table
    monkeypatch.setattr(results, "samples_table", lambda *of: made.append(of) or table(*of))
    for name in ("write_sums", "write_report"):
        monkeypatch.setattr(results, name, lambda *_: None)
    monkeypatch.setattr(results, "gather", lambda *of: shown.append(of) or SimpleNamespace(save=nothing))

    folder = SimpleNamespace(
        path=tmp_path, write_samples=written.append, write_predictions=nothing, write_json=nothing
    )
    model = SimpleNamespace(save=nothing, predict=nothing)
    write_run(folder, finished, model, {"verdict": {"targets": []}}, SimpleNamespace(event=nothing))
    back = result_of(finished, model, {}, tmp_path)
    assert len(made) == 1 and len(back.samples["path"]) == N
    assert written[0]["label"] == back.samples["label"] and set(back.samples["label"]) == {"ant", "cat"}
    # pictures and curves of a class are those that detection saw under its label
    assert torch.equal(shown[0][1], finished.prepared.dataset.train.labels)
