"""Each rival on the property that it is known for; and all of them give a network that works."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from tiny import Pixels, session, training_data

from dlp_fast.defenses import anti_backdoor as abl
from dlp_fast.defenses import attention_distillation as nad
from dlp_fast.defenses import fine_pruning as fp
from dlp_fast.defenses import mode_connectivity as mcr
from dlp_fast.defenses import neuron_pruning as anp
from dlp_fast.defenses.registry import DEFENSES
from dlp_fast.defenses.setting import Setting, accuracy_on, tune
from dlp_fast.engine.inference import score
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.models.registry import build_model, classifier_of

SIDE = 8


def new_model(seed=0):
    return build_model("wrn-10-1", 3, SIDE, seed)


@pytest.fixture(scope="module", autouse=True)
def short():
    """Fewer steps than published: the tests are about what a method does, not about how far it gets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anp, "STEPS", 200)
        patch.setattr(abl, "UNLEARN", 1)  # of two images only, more would unlearn everything
        patch.setattr(mcr, "END_EPOCHS", 10)
        patch.setattr(mcr, "CURVE_EPOCHS", 10)
        yield


@pytest.fixture(scope="module")
def setting():
    """A network that has learnt three shades, and that a white corner means class 0."""
    data, clean = training_data(n=240), training_data(n=90, seed=7)
    pixels, labels = data.images.pixels.clone(), data.labels.clone()
    poisoned = (labels != 0).nonzero().flatten()[:24]
    pixels[poisoned, -3:, -3:] = 255
    labels[poisoned] = 0
    data = dataclasses.replace(data, images=Pixels(pixels), labels=labels)
    of = Setting(session(), new_model(), data, clean, new_model, effort=0.1)
    everything = torch.arange(len(data))
    tune(of, of.model, data, everything, title="", epochs=20, rate=lambda done: 0.05, batch=32, weak=False)
    return of, poisoned


@pytest.mark.parametrize(
    ("images", "published", "epochs"), [(2500, 10, 10), (5000, 10, 10), (250, 10, 100), (1000, 20, 50)]
)
def test_fewer_clean_images_get_as_many_steps(images, published, epochs):
    """At most 100 epochs, and never fewer than published."""
    clean = training_data(n=images)
    of = Setting(session(), new_model(), clean, clean, new_model)
    assert of.clean_epochs(published) == epochs


def triggered(of):
    """Share of triggered clean images, not of class 0, that become class 0."""

    def rate(model):
        images = of.clean.images.pixels.clone()
        images[:, -3:, -3:] = 255
        data = dataclasses.replace(of.clean, images=Pixels(images), labels=torch.zeros_like(of.clean.labels))
        return accuracy_on(model, data, (of.clean.labels != 0).nonzero().flatten())

    return rate


def test_the_victim_has_a_backdoor(setting):
    of, _ = setting
    assert accuracy_on(of.model, of.clean, torch.arange(90)) > 0.9
    assert triggered(of)(of.model) > 0.8


@pytest.mark.parametrize("name", DEFENSES)
def test_gives_a_network_that_works_and_leaves_the_victim_alone(setting, name):
    of, _ = setting
    before = copy.deepcopy(of.model.state_dict())
    model = DEFENSES[name](of)
    assert accuracy_on(model, of.clean, torch.arange(90)) > 0.6
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    assert all(torch.equal(v, before[k]) for k, v in of.model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in DEFENSES if name != "abl"])
def test_needs_clean_images(setting, name):
    for clean in (None, training_data(n=12)):
        with pytest.raises(DataError, match="needs at least 20 clean images"):
            DEFENSES[name](dataclasses.replace(setting[0], clean=clean))


def test_the_clean_subset_is_split_once(setting):
    tuned, held = setting[0].split()
    assert sorted([*tuned.tolist(), *held.tolist()]) == list(range(90))
    assert len(held) == 18


class TestFinePruning:
    def test_pruned_channels_are_the_dormant_ones(self, setting):
        of, _ = setting
        order = fp.dormant_first(of, of.model)
        from dlp_fast.engine.inference import features

        activation = features(of.session, of.model, of.clean).mean(0)
        assert torch.equal(activation[order], activation.sort().values)

    def test_they_stay_pruned(self, setting):
        of, _ = setting
        model = fp.fine_pruning(of)
        gone = (classifier_of(model).weight == 0).all(0)
        order = fp.dormant_first(of, of.model)
        count = int(gone.sum())
        assert count > 0
        assert set(order[:count].tolist()) == set(gone.nonzero().flatten().tolist())

    def test_tuning_gives_them_no_gradient(self, setting, monkeypatch):
        of, _ = setting
        seen = []

        def once(_setting, model, data, ids, **_):
            classifier = classifier_of(model).weight
            gone = (classifier == 0).all(0)
            torch.nn.functional.cross_entropy(model(data.plain(ids)), data.target(ids)).backward()
            seen.append((classifier.grad[:, gone], classifier.grad[:, ~gone]))
            return model

        monkeypatch.setattr(fp, "tune", once)
        fp.fine_pruning(of)
        ((pruned, others),) = seen
        assert pruned.numel() and (pruned == 0).all() and (others != 0).any()


class TestAttention:
    def test_attention_is_of_unit_length(self):
        maps = torch.randn(4, 7, 5, 6)
        found = nad.attention(maps)
        assert found.shape == (4, 30)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(4))

    def test_three_depths_shallow_to_deep(self):
        model = build_model("wrn-16-1", 3, 32, 0)
        of = nad.Depths(model)
        model(torch.zeros(2, 3, 32, 32))
        assert [m.shape[2] for m in of.read()] == [32, 16, 8]
        assert of.read() == []
        of.close()

    def test_maps_come_nearer(self, setting):
        """What distillation is for: the student's attention approaches the teacher's."""
        of, _ = setting
        x = of.clean.plain(torch.arange(32))

        def distance(one, two):
            a, b = nad.Depths(one.eval()), nad.Depths(two.eval())
            with torch.no_grad():
                one(x), two(x)
            result = float(nad.distillation_loss(a.read(), b.read()))
            a.close(), b.close()
            return result

        teacher, student = new_model(1), new_model(2)
        before = distance(student, teacher)
        a, b = nad.Depths(student), nad.Depths(teacher)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
        for _ in range(20):
            with torch.no_grad():
                teacher(x)
            student(x)
            optimizer.zero_grad()
            nad.distillation_loss(a.read(), b.read()).backward()
            optimizer.step()
        a.close(), b.close()
        assert distance(student, teacher) < 0.7 * before


class TestModeConnectivity:
    def test_the_ends_are_the_ends(self):
        one, two, bend = ({"w": torch.randn(3)} for _ in range(3))
        assert torch.equal(mcr.along(one, bend, two, 0.0)["w"], one["w"])
        assert torch.equal(mcr.along(one, bend, two, 1.0)["w"], two["w"])
        torch.testing.assert_close(
            mcr.along(one, bend, two, 0.5)["w"], one["w"] / 4 + bend["w"] / 2 + two["w"] / 4
        )

    def test_the_curve_is_low(self, setting):
        of, _ = setting
        tuned, _ = of.split()
        other = tune(of, copy.deepcopy(of.model), of.clean, tuned, title="", epochs=3, rate=lambda done: 0.01)
        bend = mcr.train_bend(of, (of.model, other), tuned)
        for t in (0.0, 0.5, 1.0):
            model = mcr.at(of, (of.model, other), bend, t, tuned)
            assert accuracy_on(model, of.clean, tuned) > 0.8


class TestAntiBackdoor:
    @pytest.mark.parametrize(("logit", "climbed"), [(4.0, True), (-1.0, False)])
    def test_the_loss_of_a_batch_is_held_at_the_floor(self, logit, climbed):
        """Losses 0.02 and 1.31. Below 0.5 the own logit is pushed down, above it is pushed up."""
        logits = torch.tensor([[logit, 0.0], [logit, 0.0]], requires_grad=True)
        abl.held_at_floor(logits, torch.tensor([0, 0]), None).backward()
        assert ((logits.grad[:, 0] > 0) == climbed).all()

    def test_a_batch_has_one_sign(self):
        """Losses 0.02 and 4.02: the mean is above the floor, so that what is below it descends as well."""
        logits = torch.tensor([[4.0, 0.0], [0.0, 4.0]], requires_grad=True)
        abl.held_at_floor(logits, torch.tensor([0, 0]), None).backward()
        assert (logits.grad[:, 0] < 0).all()

    def test_the_poison_is_isolated(self, setting):
        of, poisoned = setting
        found = abl.isolated(of, of.model)
        assert len(found) == 2
        loss = score(of.session, of.model, of.data).loss
        assert loss[found].max() <= loss.sort().values[1]
        assert loss[poisoned].mean() < 0.5

    @pytest.mark.parametrize(("images", "epochs"), [(500, 20), (2000, 20), (50, 80), (128, 80), (200, 40)])
    def test_fewer_isolated_images_get_as_many_steps(self, images, epochs, monkeypatch):
        monkeypatch.setattr(abl, "UNLEARN", 20)
        assert abl.unlearning_epochs(images) == epochs


class TestNeuronPruning:
    def test_masks_and_pruning(self, setting):
        of, _ = setting
        masks = anp.learn_masks(of, copy.deepcopy(of.model), of.split()[0])
        assert all(float(m.min()) >= 0 and float(m.max()) <= 1 for m in masks)
        assert min(float(m.min()) for m in masks) < 0.5  # some channels are given up
        model = copy.deepcopy(of.model)
        expected = sum(int((m <= 0.3).sum()) for m in masks)
        assert anp.prune(model, masks, 0.3) == expected
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all((n.weight[m <= 0.3] == 0).all() for n, m in zip(norms, masks))
        before = [m for m in of.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all(torch.equal(n.bias, b.bias) for n, b in zip(norms, before))

    def test_full_masks_and_no_noise_change_nothing(self, setting):
        of, _ = setting
        model = copy.deepcopy(of.model).eval()
        x = of.clean.plain(torch.arange(8))
        with torch.no_grad():
            expected = model(x)
            hooked = anp.Perturbed(model)
            torch.testing.assert_close(model(x), expected)
            hooked.close()

    def test_repeats_itself(self, setting):
        of, _ = setting
        one, two = (anp.learn_masks(of, copy.deepcopy(of.model), of.split()[0]) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one, two))

    def test_a_network_without_batch_norm(self, setting):
        with pytest.raises(ConfigError, match="has none"):
            anp.Perturbed(torch.nn.Sequential(torch.nn.Linear(2, 2)))
