import json

import numpy as np
import pytest
import torch

from dlp_fast.errors import DataError
from dlp_fast.models.classifier import Classifier, load
from dlp_fast.models.registry import build_model


@pytest.fixture
def classifier():
    net = build_model("wrn-10-1", 3, 16, seed=4)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    return Classifier(net, "wrn-10-1", ("a", "b", "ü"), (12, 16), mean, std).eval()


@pytest.fixture
def images():
    return torch.randint(
        0, 256, (5, 12, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_predict(classifier, images):
    found = classifier.predict(images)
    assert found.shape == (5, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(5))
    torch.testing.assert_close(classifier.predict(images, batch=2), found)
    torch.testing.assert_close(classifier.predict(images.numpy()), found)
    assert classifier.predict(images[:0]).shape == (0, 3)
    x = (images.double() / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.25])
    with torch.no_grad():
        expected = classifier.net(x.permute(0, 3, 1, 2).float()).softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_predict_judges_as_trained_even_in_train_mode(classifier, images):
    expected = classifier.predict(images)
    classifier.train()
    torch.testing.assert_close(classifier.predict(images), expected)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(1, 12, 16, 3), r"image 0: float32 \[12, 16, 3\]; expected uint8"),
        (torch.zeros(1, 3, 12, 16, dtype=torch.uint8), r"uint8 \[3, 12, 16\]; .*permute\(1, 2, 0\)"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), r"uint8 \[2, 2, 8, 8, 3\]; expected"),
        ([np.zeros((8, 8, 3), np.uint8), {"image": 1}], r"image 1: a dict; expected a path, a Pillow image"),
        (7, r"a int; expected paths, Pillow images, arrays"),
        ("nowhere/a.png", r"nowhere/a.png: unreadable, No such file"),
    ],
)
def test_predict_refuses(classifier, bad, message):
    with pytest.raises(DataError, match=message):
        classifier.predict(bad)


def test_save_and_load(classifier, images, tmp_path):
    classifier.save(tmp_path)
    again = load(tmp_path)
    assert again.classes == ("a", "b", "ü")
    assert again.size == (12, 16)
    assert not again.training
    assert torch.equal(again.predict(images), classifier.predict(images))
    first = (tmp_path / "model.safetensors").read_bytes()
    again.save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == first


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"holds no finished model .*Finish the run first"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "classes.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\x00\xff" * 40])
def test_damaged(classifier, tmp_path, name, content):
    classifier.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        load(tmp_path)


def test_weights_of_another_network(classifier, tmp_path):
    classifier.save(tmp_path)
    facts = json.loads((tmp_path / "classes.json").read_text())
    (tmp_path / "classes.json").write_text(json.dumps({**facts, "classes": ["a", "b"]}))
    with pytest.raises(DataError, match="is damaged"):
        load(tmp_path)
