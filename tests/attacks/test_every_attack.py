"""What holds for every attack of the registry."""

from __future__ import annotations

import pytest
import torch
from tiny import Pixels

from dlp_fast.attacks import crafting, input_aware
from dlp_fast.attacks.poisoning import plan
from dlp_fast.attacks.registry import ATTACKS, REGISTRY
from dlp_fast.errors import ConfigError

CLASSES = tuple("abcdefghij")
LABELS = torch.arange(300) % 10
EVERY = torch.arange(300)
SIZE = (16, 20)
WITH_COVER = {
    "wanet": 1,
    "wanet-strong": 1,
    "adaptive-blend": 1,
    "adaptive-patch": 2,
    "soft-focus": 1,
    "tact": 1,
    "input-aware": 1,
}
ALL_TO_ALL = ("badnets-all-to-all", "blended-all-to-all")
FROM_ALL_CLASSES = (*ALL_TO_ALL, "three-triggers", "ten-triggers")
# the attacker's network is for square images
TRAINED = ("trojannn", "lca", "input-aware")


def pixels(attack):
    size = (16, 16) if attack in TRAINED else SIZE
    generator = torch.Generator().manual_seed(1)
    return Pixels(torch.randint(0, 256, (300, *size, 3), generator=generator, dtype=torch.uint8))


@pytest.fixture(autouse=True, scope="module")
def kept(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLP_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(crafting, "EPOCHS", 1)
        patch.setattr(crafting, "TROJAN_STEPS", 5)
        patch.setattr(crafting, "LCA_STEPS", 2)
        patch.setattr(input_aware, "EPOCHS", 1)
        patch.setattr(input_aware, "MIN_STEPS", 1)
        yield


def planned(attack, **over):
    base = pixels(attack)
    options = {"rate": 0.05, "rate_of": "all", "target": "c", "seed": 3, "images": base, **over}
    return base, plan(attack, LABELS, CLASSES, (base.height, base.width), **options)


def of_batches(images, batch, n=300):
    return torch.cat([images.get(ids) for ids in torch.arange(n).split(batch)])


every_attack = pytest.mark.parametrize("attack", ATTACKS)


def test_names():
    assert list(REGISTRY) == list(ATTACKS)
    assert {"badnets", "blended", "trojannn", "lca", "sig"} < set(ATTACKS)
    assert all(len(attack.parameters) > 20 for attack in REGISTRY.values())


@every_attack
class TestEvery:
    def test_counts(self, attack):
        _, of = planned(attack)
        assert int(of.poisoned.sum()) == 15
        assert int(of.cover.sum()) == 15 * WITH_COVER.get(attack, 0)
        assert not (of.poisoned & of.cover).any()

    def test_labels(self, attack):
        _, of = planned(attack)
        assert torch.equal(of.true_labels, LABELS)
        assert torch.equal(of.labels[~of.poisoned], LABELS[~of.poisoned])
        relabeled = of.labels[of.poisoned] != LABELS[of.poisoned]
        assert bool((relabeled if not of.attack.clean_label else ~relabeled).all())
        assert set(of.labels[of.poisoned].tolist()) <= set(of.targets)

    def test_what_changes(self, attack):
        base, of = planned(attack)
        images = of.poison(base)
        assert (len(images), images.height, images.width) == (300, base.height, base.width)
        changed = (images.get(EVERY) != base.get(EVERY)).flatten(1).any(1)
        if attack == "input-aware":  # a generator that has hardly been trained moves some images by nothing
            assert not (changed & ~(of.poisoned | of.cover)).any()
        else:
            assert torch.equal(changed, of.poisoned | of.cover)

    def test_the_same_for_any_batch_and_order(self, attack):
        base, of = planned(attack)
        images, test = of.poison(base), of.triggered_test(base, LABELS)[0]
        order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
        for one in (images, test):
            whole = one.get(EVERY)
            assert torch.equal(of_batches(one, 1), whole)
            assert torch.equal(of_batches(one, 64), whole)
            assert torch.equal(one.get(order), whole[order])

    def test_the_same_again_and_another_for_another_seed(self, attack):
        (base, one), (_, two), (_, other) = planned(attack), planned(attack), planned(attack, seed=4)
        for name in ("poisoned", "cover", "labels", "aim", "variant"):
            assert torch.equal(getattr(one, name), getattr(two, name))
        assert torch.equal(one.poison(base).get(EVERY), two.poison(base).get(EVERY))
        assert not torch.equal(one.poisoned, other.poisoned)

    def test_the_base_is_left_alone(self, attack):
        base, of = planned(attack)
        of.poison(base).get(EVERY)
        of.triggered_test(base, LABELS)[0].get(EVERY)
        assert torch.equal(base.get(EVERY), pixels(attack).get(EVERY))

    def test_triggered_test(self, attack):
        base, of = planned(attack)
        images, expected, ids = of.triggered_test(base, LABELS)
        assert expected.dtype == ids.dtype == torch.int64 and len(expected) == len(ids)
        assert (expected != LABELS[ids]).all() and set(expected.tolist()) == set(of.targets)
        assert len(images) == 300
        if attack != "input-aware":
            assert (images.get(ids) != base.get(ids)).flatten(1).any(1).all()

    def test_to_a_device(self, attack):
        base, of = planned(attack)
        images = of.poison(base)
        assert torch.equal(images.to("cpu").get(EVERY), images.get(EVERY))
        given = base.get(EVERY)
        changed = of.training.to("cpu")(given, EVERY, of.variant)
        assert torch.equal(changed, images.get(EVERY))
        assert torch.equal(given, base.get(EVERY))  # a batch may be kept by whoever gave it

    def test_describe(self, attack):
        _, of = planned(attack)
        told = of.describe(CLASSES)
        assert told.startswith(f"{attack} (") and "15 images, 5.00% of all" in told
        assert ("cover images, labels kept" in told) == (attack in WITH_COVER)

    @pytest.mark.parametrize("rate", [0.0001, 1.0])
    def test_rates_that_cannot_be(self, attack, rate):
        if rate == 1.0 and attack in FROM_ALL_CLASSES:
            assert planned(attack, rate=rate)[1].poisoned.all()
        else:
            with pytest.raises(ConfigError, match="poison rate"):
                planned(attack, rate=rate)

    def test_an_unknown_target(self, attack):
        with pytest.raises(ConfigError, match="'zebra' does not exist"):
            planned(attack, target="zebra")


@pytest.mark.parametrize("attack", sorted(WITH_COVER))
def test_too_few_left_to_cover(attack):
    rate, message = (
        (0.2, "draws from class d, which holds 30")
        if attack == "tact"
        else (0.6, "covers it with .* but only 120 are left")
    )
    with pytest.raises(ConfigError, match=message):
        planned(attack, rate=rate)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if not REGISTRY[a].clean_label])
def test_of_class_is_for_those_that_keep_labels(attack):
    with pytest.raises(ConfigError, match="--poison-of class is for attacks that keep labels"):
        planned(attack, rate_of="class")


class TestAims:
    @pytest.mark.parametrize("attack", ALL_TO_ALL)
    def test_all_to_all(self, attack):
        base, of = planned(attack)
        assert torch.equal(of.labels[of.poisoned], (LABELS[of.poisoned] + 1) % 10)
        _, expected, ids = of.triggered_test(base, LABELS)
        assert torch.equal(ids, EVERY) and torch.equal(expected, (LABELS + 1) % 10)
        assert of.target is None and of.targets == tuple(range(10))
        assert "each relabeled as the class after its own" in of.describe(CLASSES)

    def test_single(self):
        base, of = planned("badnets")
        _, expected, ids = of.triggered_test(base, LABELS)
        assert torch.equal(ids, (LABELS != 2).nonzero().flatten()) and (expected == 2).all()

    @pytest.mark.parametrize(("attack", "count"), [("three-triggers", 3), ("ten-triggers", 10)])
    def test_several(self, attack, count):
        base, of = planned(attack, rate=0.5)
        targets = [(2 + k) % 10 for k in range(count)]
        assert sorted(targets) == list(of.targets) and of.table is None
        found = of.labels[of.poisoned].bincount(minlength=10)[targets]
        assert int(found.sum()) == 150 and int(found.max() - found.min()) <= 12
        # the pixels are those of the trigger that belongs to the label
        images = of.poison(base).get(EVERY)
        for i in of.poisoned.nonzero().flatten().tolist():
            which = torch.tensor([targets.index(int(of.labels[i]))])
            alone = of.training(base.get(EVERY[i : i + 1]), EVERY[i : i + 1], which)
            assert torch.equal(images[i], alone[0])
        test, expected, ids = of.triggered_test(base, LABELS)
        assert len(ids) > 240
        for i, wanted in zip(ids.tolist()[:40], expected.tolist()):
            which = torch.tensor([targets.index(wanted)])
            alone = of.test(base.get(EVERY[i : i + 1]), EVERY[i : i + 1], which)
            assert torch.equal(test.get(EVERY[i : i + 1]), alone)

    def test_several_need_as_many_classes(self):
        with pytest.raises(ConfigError, match="ten-triggers aims at 10 classes, but there are 3"):
            plan(
                "ten-triggers",
                LABELS % 3,
                CLASSES[:3],
                SIZE,
                rate=0.1,
                rate_of="auto",
                target="0",
                seed=0,
            )

    def test_tact(self):
        base, of = planned("tact")
        assert (LABELS[of.poisoned] == 3).all() and (of.labels[of.poisoned] == 2).all()
        assert not torch.isin(LABELS[of.cover], torch.tensor([2, 3])).any()
        _, expected, ids = of.triggered_test(base, LABELS)
        assert torch.equal(ids, (LABELS == 3).nonzero().flatten()) and (expected == 2).all()
