import hashlib

import pytest
import torch
from tiny import Pixels

from dlp_fast import ops
from dlp_fast.attacks import triggers
from dlp_fast.attacks.poisoning import TriggeredImages, find_target, plan
from dlp_fast.errors import ConfigError

# those that need no network of the attacker's; the others are in test_crafting.py
PLAIN = {"badnets": triggers.badnets, "blended": triggers.blended, "sig": triggers.sig}
CLASSES = ("cat", "dog", "hen", "owl")
LABELS = torch.arange(400) % 4
SIZE = (16, 20)


def planned(attack="badnets", **over):
    options = {"rate": 0.1, "rate_of": "auto", "target": "dog", "seed": 3, **over}
    return plan(attack, LABELS, CLASSES, SIZE, **options)


class TestPlan:
    @pytest.mark.parametrize("attack", ["badnets", "blended"])
    def test_labels_change(self, attack):
        of = planned(attack)
        assert int(of.poisoned.sum()) == 40
        assert (of.labels[of.poisoned] == 1).all()
        assert (of.true_labels[of.poisoned] != 1).all()  # the target class has nothing to gain
        assert torch.equal(of.labels[~of.poisoned], LABELS[~of.poisoned])
        assert torch.equal(of.true_labels, LABELS)
        assert torch.equal(LABELS, torch.arange(400) % 4)

    def test_sig_keeps_labels(self):
        of = planned("sig", rate=0.5)
        assert int(of.poisoned.sum()) == 50  # auto: of the target class
        assert torch.equal(of.labels, LABELS)
        assert (LABELS[of.poisoned] == 1).all()

    def test_sig_of_all(self):
        assert int(planned("sig", rate=0.1, rate_of="all").poisoned.sum()) == 40

    @pytest.mark.parametrize("attack", sorted(PLAIN))
    def test_drawn_from_the_seed(self, attack):
        one, two, other = planned(attack), planned(attack), planned(attack, seed=4)
        assert torch.equal(one.poisoned, two.poisoned)
        assert not torch.equal(one.poisoned, other.poisoned)

    @pytest.mark.parametrize(
        ("attack", "digest"),
        [("badnets", "2df0696d6ad21507"), ("blended", "0ac8b22595147942"), ("sig", "068b7f84767d9939")],
    )
    def test_the_same_bytes_as_ever(self, attack, digest):
        """Of commit 9dab54a: results that were published with these images stay comparable."""
        generator = torch.Generator().manual_seed(5)
        base = Pixels(torch.randint(0, 256, (120, *SIZE, 3), generator=generator, dtype=torch.uint8))
        of = plan(
            attack, torch.arange(120) % 4, CLASSES, SIZE, rate=0.2, rate_of="auto", target="dog", seed=3
        )
        parts = (of.poison(base).get(torch.arange(120)), of.labels, of.poisoned)
        content = b"".join(part.numpy().tobytes() for part in parts)
        assert hashlib.sha256(content).hexdigest()[:16] == digest

    def test_what_callers_read(self):
        of = planned("sig")
        assert (of.target, of.targets, len(of.table)) == (1, (1,), 1)
        assert (of.trigger.name, of.trigger.clean_label) == ("sig", True)
        assert not of.cover.any()

    def test_describe(self):
        assert planned().describe(CLASSES) == (
            "badnets (3x3 checkerboard, white corners, lower right corner, cell = side/32): 40 images, 10.00% of all, "
            "relabeled dog"
        )
        assert "labels kept" in planned("sig").describe(CLASSES)

    @pytest.mark.parametrize(
        ("attack", "over", "message"),
        [
            (
                "sig",
                {"rate": 0.3, "rate_of": "all"},
                r"rate 0.3 of all 400 images is 120 images, .*dog, which holds 100",
            ),
            ("badnets", {"rate": 0.8}, r"320 images, .*classes other than dog, which holds 300: .*1 to 300"),
            ("badnets", {"rate": 0.001}, "is 0 images"),
            (
                "blended",
                {"rate_of": "class"},
                "--poison-of class is for attacks that keep labels; blended changes",
            ),
            ("badnet", {}, "'badnet' does not exist; perhaps you meant badnets; there are: badnets, blended"),
        ],
    )
    def test_refused(self, attack, over, message):
        with pytest.raises(ConfigError, match=message):
            planned(attack, **over)


class TestTarget:
    def test_by_name_or_number(self):
        assert find_target("hen", CLASSES) == 2
        assert find_target("2", CLASSES) == 2
        assert find_target("7", ("9", "8", "7")) == 2  # a name goes first

    @pytest.mark.parametrize("target", ["zebra", "4", "-1", "²", ""])
    def test_unknown(self, target):
        with pytest.raises(
            ConfigError, match=r"does not exist; the classes are: cat, dog, hen, owl \(or 0 to 3\)"
        ):
            find_target(target, CLASSES)

    def test_many_classes_are_not_all_told(self):
        with pytest.raises(ConfigError, match="…"):
            find_target("x", tuple(f"c{i}" for i in range(100)))


class TestTriggeredImages:
    @pytest.mark.parametrize("attack", sorted(PLAIN))
    def test_equals_the_reference(self, attack):
        of = planned(attack)
        base = Pixels(torch.randint(0, 256, (400, *SIZE, 3), dtype=torch.uint8))
        images = TriggeredImages(base, of.poisoned, of.table)
        ids = torch.tensor([5, 0, 399, 17, *of.poisoned.nonzero().flatten()[:5].tolist()])
        which = torch.where(of.poisoned[ids], 0, -1)
        expected = ops.inject_trigger_reference(base.get(ids), of.table, which)
        assert torch.equal(images.get(ids), expected)
        changed = (images.get(ids) != base.get(ids)).flatten(1).any(1)
        assert torch.equal(changed, of.poisoned[ids])
        assert (len(images), images.height, images.width) == (400, 16, 20)


class TestTriggers:
    @pytest.mark.parametrize("attack", sorted(PLAIN))
    @pytest.mark.parametrize("size", [(8, 8), (16, 20), (224, 224)])
    def test_deterministic_for_every_size(self, attack, size):
        images = torch.full((1, *size, 3), 100, dtype=torch.uint8)
        which = torch.zeros(1, dtype=torch.int64)
        one, two = (ops.inject_trigger(images, PLAIN[attack](size, 9), which) for _ in range(2))
        assert torch.equal(one, two)
        assert not torch.equal(one, images)

    def test_only_the_noise_depends_on_the_seed(self):
        images = torch.full((1, 16, 16, 3), 100, dtype=torch.uint8)
        which = torch.zeros(1, dtype=torch.int64)
        for attack, make in PLAIN.items():
            one, two = (ops.inject_trigger(images, make((16, 16), seed), which) for seed in (1, 2))
            assert torch.equal(one, two) == (attack != "blended")

    def test_badnets_is_a_checkerboard_in_the_corner(self):
        images = torch.full((1, 32, 32, 3), 100, dtype=torch.uint8)
        found = ops.inject_trigger(images, triggers.badnets((32, 32), 0), torch.zeros(1, dtype=torch.int64))
        assert found[0, 29:, 29:, 0].tolist() == [[255, 0, 255], [0, 255, 0], [255, 0, 255]]
        found[0, 29:, 29:] = 100
        assert torch.equal(found, images)
