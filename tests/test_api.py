"""The whole from Python: arrays, a dataset, a folder in; a model and the suspects out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import CONFIG, image_folder, picture, threads_kept

import dlp_fast
from dlp_fast.errors import ConfigError, DataError

QUICK = {
    **CONFIG,
    "supervised": {"epochs": 2, "min_steps": 0, "batch": 32},
    "unlearning": {"epochs": 1},
    "finetuning": {"steps": 4, "batch": 16, "rounds": 1, "norm_batches": 2},
}


@pytest.fixture(autouse=True)
def _threads():
    with threads_kept():
        yield


def arrays(n=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 60, (n, 12, 12, 3)) + 90 * labels[:, None, None, None]
    return images.clip(0, 255).astype(np.uint8), labels


class Pictures:
    """As torchvision's datasets are."""

    classes = ("cat", "dog")

    def __init__(self, n=40):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, row):
        return picture(12, row % 2, "L" if row % 3 else "RGB"), row % 2


def test_arrays(capsys):
    images, labels = arrays()
    test = arrays(12, seed=1)
    found = dlp_fast.defend(images, labels, test=test[0], test_labels=test[1], quiet=True, **QUICK)
    probabilities = found.model.predict(torch.from_numpy(images[:5]))
    assert probabilities.shape == (5, 3)
    assert probabilities.dtype == torch.float32
    assert found.model.classes == ("0", "1", "2")
    assert found.out is None
    assert found.score.shape == (60,)
    assert len(found.paths) == 60
    assert not set(found.suspected_poisoned.tolist()) & set(found.suspected_clean.tolist())
    stages = found.results["stages"]
    assert 0 <= stages["finetuning"]["clean_accuracy"] <= 1
    assert stages["finetuning"]["attack_success_rate"] is None
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == ""


def test_tensors_are_arrays_and_runs_repeat():
    images, labels = arrays()
    one = dlp_fast.defend(images, labels, quiet=True, **QUICK)
    two = dlp_fast.defend(torch.from_numpy(images), torch.from_numpy(labels), quiet=True, **QUICK)
    assert torch.equal(one.score, two.score)
    pictures = torch.from_numpy(images)
    assert torch.equal(one.model.predict(pictures), two.model.predict(pictures))


def test_a_dataset():
    found = dlp_fast.defend(Pictures(), quiet=True, **QUICK)
    assert found.model.classes == ("cat", "dog")
    assert found.model.size == (12, 12)


def test_a_dataset_at_another_size():
    found = dlp_fast.defend(Pictures(), quiet=True, dataset={"image_size": 16}, **QUICK)
    assert found.model.size == (16, 16)


def test_a_folder_and_load(tmp_path):
    data = image_folder(tmp_path / "data", each=20)
    found = dlp_fast.defend(data, out=tmp_path / "run", quiet=True, **QUICK)
    assert found.out == tmp_path / "run"
    assert found.results["stages"]["supervised"]["clean_accuracy"] is None
    assert found.results["detection"]["poisoned_precision"] is None
    assert found.paths[0] == "cat/000.png"
    model = dlp_fast.load(tmp_path / "run")
    assert isinstance(model, torch.nn.Module)
    assert model.classes == ("cat", "dog")
    images = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(model.predict(images), found.model.predict(images))


def test_digits_are_not_attacked_unasked():
    found = dlp_fast.defend("digits", quiet=True, **{**QUICK, "order": "supervised-unlearning"})
    assert found.results["config"]["attack"] == "none"


def test_arrays_can_be_attacked():
    images, labels = arrays()
    found = dlp_fast.defend(images, labels, quiet=True, attack="badnets", target="1", **QUICK)
    assert 0 <= found.results["detection"]["poisoned_precision"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"supervised": {"epoch": 3}},
            "defend.*supervised.epoch: no such option; perhaps you meant supervised.epochs",
        ),
        ({"sead": 3}, "perhaps you meant seed"),
        ({"preset": "papr"}, "perhaps you meant paper"),
        ({"attack": "badnets", "target": "zebra"}, "'zebra' does not exist"),
    ],
)
def test_options_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        dlp_fast.defend(*arrays(), quiet=True, **{**QUICK, **options})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((np.zeros((4, 8, 8, 3)), [0, 1, 0, 1]), "expected uint8"),
        ((np.zeros((4, 8, 8, 3), np.uint8), [0, 1]), "labels: expected \\[4\\]"),
        (("no-such-folder-here",), "no such folder"),
        ((3,), "map-style dataset"),
    ],
)
def test_data_refused(data, message):
    with pytest.raises(DataError, match=message):
        dlp_fast.defend(*data, quiet=True, **QUICK)


def test_names_of_the_package():
    assert callable(dlp_fast.build_info)
    assert dlp_fast.build_info()["native"] in (True, False)
    assert dlp_fast.Result.__name__ == "Result"
    with pytest.raises(AttributeError, match="no attribute 'defent'"):
        dlp_fast.defent  # noqa: B018
