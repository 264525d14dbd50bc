"""The input-aware attack: a trigger of each image's own."""

from __future__ import annotations

import pytest
import torch
from tiny import Pixels

from dlp_fast.attacks import input_aware
from dlp_fast.attacks.input_aware import Generator, carrying, train_generator, with_triggers
from dlp_fast.attacks.poisoning import plan
from dlp_fast.errors import ConfigError

N = 240
LABELS = torch.arange(N) % 3


@pytest.fixture(autouse=True)
def few(monkeypatch, tmp_path):
    monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path))
    monkeypatch.setattr(input_aware, "EPOCHS", 1)
    monkeypatch.setattr(input_aware, "MIN_STEPS", 4)


def images():
    generator = torch.Generator().manual_seed(0)
    shade = (LABELS * 60 + 40)[:, None, None, None]
    return Pixels((shade + torch.randint(0, 50, (N, 16, 16, 3), generator=generator)).to(torch.uint8))


def planned(**over):
    options = {"rate": 0.1, "rate_of": "auto", "target": "0", "seed": 3, "images": images(), **over}
    return plan("input-aware", LABELS, ("a", "b", "c"), (16, 16), **options)


def test_a_mask_of_nothing_leaves_the_image():
    x = torch.rand(2, 3, 8, 8)
    colours = torch.rand(2, 3, 8, 8)
    assert torch.equal(carrying(x, (colours, torch.zeros(2, 1, 8, 8))), x)
    assert torch.allclose(carrying(x, (colours, torch.ones(2, 1, 8, 8))), colours)


def test_poison_carries_its_own_trigger_and_covers_anothers():
    of, base = planned(), images()
    generator = of.test.generator
    ids = torch.arange(N)
    moved = of.poison(base).get(ids)
    own = with_triggers(generator, base.get(ids), base.get(ids))
    assert torch.equal(moved[of.poisoned], own[of.poisoned])
    assert (moved[of.cover] != own[of.cover]).flatten(1).any(1).all()
    cover = of.cover.nonzero().flatten()
    for i in cover.tolist():
        crossed = with_triggers(
            generator, base.get(ids[i : i + 1]).expand(len(cover), -1, -1, -1), base.get(cover)
        )
        assert (crossed == moved[i]).flatten(1).all(1).any()
    assert torch.equal(of.triggered_test(base, LABELS)[0].get(ids), own)


def test_made_once(monkeypatch):
    one = planned()
    monkeypatch.setattr(input_aware, "train_generator", None)  # would fail
    two, base = planned(), images()
    assert torch.equal(*(of.poison(base).get(torch.arange(N)) for of in (one, two)))
    with pytest.raises(TypeError):
        planned(seed=4)


@torch.no_grad()
def test_the_mask_shares_out_its_density():
    colours, mask = Generator()(torch.rand(5, 3, 16, 20))
    assert (colours.shape, mask.shape) == ((5, 3, 16, 20), (5, 1, 16, 20))
    assert float(mask.min()) >= 0 and float(mask.max()) <= 1
    assert torch.allclose(mask.mean((1, 2, 3)), torch.full((5,), input_aware.DENSITY))


def spread(monkeypatch, **over):
    """How much the triggers of different images differ after 20 steps of training, or what `over` sets."""
    for name, value in {"MIN_STEPS": 20, **over}.items():
        monkeypatch.setattr(input_aware, name, value)
    x = images().get(torch.arange(60)).permute(0, 3, 1, 2).double() / 255
    colours, mask = train_generator(images(), LABELS, 3, 0, 0, "cpu")(x)
    return float((colours * mask).std(0).mean())


def test_training_makes_triggers_that_differ(monkeypatch):
    trained = spread(monkeypatch)
    assert trained == spread(monkeypatch)
    assert trained > 4 * spread(monkeypatch, MIN_STEPS=1)
    assert trained > 1.5 * spread(monkeypatch, DIVERSITY_WEIGHT=0.0)


def test_needs_images():
    with pytest.raises(ConfigError, match="input-aware needs the images"):
        planned(images=None)
