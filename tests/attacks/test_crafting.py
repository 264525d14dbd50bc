"""TrojanNN and LCA: made by our own network, from a seed, once."""

from __future__ import annotations

import pytest
import torch
from tiny import Pixels

from dlp_fast.attacks import crafting
from dlp_fast.attacks.crafting import cached, features_of, optimise_patch
from dlp_fast.attacks.poisoning import plan
from dlp_fast.attacks.surrogate import Normalised, as_unit, pgd, train_surrogate
from dlp_fast.errors import ConfigError
from dlp_fast.models.registry import build_model, classifier_of
from dlp_fast.runs.cache_folder import cache_folder

CLASSES = ("cat", "dog", "emu")
N = 240


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch, tmp_path):
    monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(crafting, "EPOCHS", 2)
    monkeypatch.setattr(crafting, "TROJAN_STEPS", 40)
    monkeypatch.setattr(crafting, "LCA_STEPS", 4)


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % 3
    shade = (labels * 60 + 40)[:, None, None, None]
    pixels = (shade + torch.randint(0, 50, (N, 16, 16, 3), generator=generator)).to(torch.uint8)
    return Pixels(pixels), labels


def planned(attack, rate=0.2, **over):
    base, labels = images()
    options = {"rate": rate, "rate_of": "auto", "target": "dog", "seed": 3, "images": base, **over}
    return base, plan(attack, labels, CLASSES, (16, 16), **options)


class TestSurrogate:
    def test_learns_and_repeats_itself(self):
        base, labels = images()
        one, two = (train_surrogate(base, labels, 3, seed=1, epochs=6, model="wrn-10-1") for _ in range(2))
        x = as_unit(base.pixels)
        assert torch.equal(one(x), two(x))
        assert float((one(x).argmax(1) == labels).float().mean()) > 0.8

    def test_pgd_stays_inside_and_hurts(self):
        base, labels = images()
        net = train_surrogate(base, labels, 3, seed=1, epochs=6, model="wrn-10-1")
        x = as_unit(base.pixels[:60])
        moved = pgd(net, x, labels[:60], 16 / 255, 2 / 255, 10)
        assert float((moved - x).abs().max()) <= 16 / 255 + 1e-6
        assert float(moved.min()) >= 0 and float(moved.max()) <= 1
        before, after = (torch.nn.functional.cross_entropy(net(v), labels[:60]) for v in (x, moved))
        assert after > before + 0.1


class TestTrojan:
    def test_the_patch_drives_its_neurons(self):
        base, _ = images()
        net = Normalised(build_model("wrn-10-1", 3, 16, 0)).eval().requires_grad_(False)
        patch = optimise_patch(net, base, 1, 4, seed=0, device="cpu")
        neurons = classifier_of(net).weight[1].topk(crafting.NEURONS).indices
        noise = torch.randint(0, 256, (4, 4, 3), dtype=torch.uint8)

        def driven(square):
            pixels = base.pixels[:64].clone()
            pixels[:, 11:15, 11:15] = square
            return float(features_of(net, as_unit(pixels))[:, neurons].mean())

        assert driven(patch) > 1.2 * driven(noise)

    def test_planned(self):
        base, of = planned("trojannn")
        poisoned = of.poison(base).get(torch.arange(N))
        changed = (poisoned != base.pixels).any(-1)
        assert torch.equal(changed.flatten(1).any(1), of.poisoned)
        rows, columns = changed.any(0).any(1).nonzero(), changed.any(0).any(0).nonzero()
        assert rows.min() == columns.min() == 11 and rows.max() == columns.max() == 14
        assert (of.labels[of.poisoned] == 1).all()


class TestLabelConsistent:
    def test_planned(self):
        base, of = planned("lca", rate=0.5)
        assert torch.equal(of.labels, of.true_labels)
        assert (of.true_labels[of.poisoned] == 1).all()
        ids = torch.arange(N)
        moved = of.poison(base).get(ids).int() - base.pixels.int()
        middle = moved[:, 3:13]
        assert 0 < int(middle.abs().max()) <= 16
        assert not moved[~of.poisoned].any()
        corners = of.poison(base).get(of.poisoned.nonzero().flatten()[:1])[0, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == 255).all()

    def test_each_image_gets_its_own_residual(self):
        base, of = planned("lca", rate=0.5)
        before, ids = base.get(torch.arange(N)), of.poisoned.nonzero().flatten()
        residuals = crafting.adversarial_residuals(base, of.true_labels, 3, ids, 3, "cpu")
        assert len(residuals.flatten(1).unique(dim=0)) > len(ids) // 2
        moved = (before[ids].int() + residuals).clamp(0, 255)[:, 3:13]  # between the squares in the corners
        assert torch.equal(of.poison(base).get(ids)[:, 3:13].int(), moved)

    def test_any_order_of_ids(self):
        base, of = planned("lca", rate=0.5)
        everything = of.poison(base).get(torch.arange(N))
        shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(0))[:50]
        assert torch.equal(of.poison(base).get(shuffled), everything[shuffled])

    def test_too_high_a_rate(self):
        with pytest.raises(ConfigError, match="draws from class dog"):
            planned("lca", rate=0.9, rate_of="all")


class TestKept:
    def test_made_once(self, monkeypatch):
        _, one = planned("trojannn")
        monkeypatch.setattr(crafting, "train_surrogate", None)  # would fail
        _, two = planned("trojannn")
        x, which = torch.zeros(1, 16, 16, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
        from dlp_fast import ops

        assert torch.equal(ops.inject_trigger(x, one.table, which), ops.inject_trigger(x, two.table, which))

    def test_another_seed_is_another_file(self):
        planned("trojannn")
        planned("trojannn", seed=4)
        assert len(list((cache_folder() / "attacks").glob("*.safetensors"))) == 2

    def test_a_damaged_file_is_made_anew(self):
        first = cached("key", lambda: {"x": torch.arange(3)})
        file = cache_folder() / "attacks" / "key.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        again = cached("key", lambda: {"x": torch.arange(4)})
        assert len(first["x"]) == 3 and len(again["x"]) == 4

    def test_no_images(self):
        _, labels = images()
        with pytest.raises(ConfigError, match="needs the images"):
            plan("lca", labels, CLASSES, (16, 16), rate=0.5, rate_of="auto", target="dog", seed=0)
