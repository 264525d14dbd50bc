"""A class that lost labels to suspicion is not predicted less often for it."""

from __future__ import annotations

import pytest
import torch
from tiny import session, training_data
from torch import nn

from dlp_fast.config import FinetuningConfig, build, read_preset
from dlp_fast.models.registry import build_model
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import finetuning
from dlp_fast.stages.logit_adjustment import lost_odds, raise_odds


def odds(given, used, most=2.0):
    return lost_odds(torch.tensor(given), torch.tensor(used), most).tolist()


class TestLostOdds:
    def test_nothing_lost(self):
        assert odds([500, 90, 3000], [500, 90, 3000]) == [1, 1, 1]

    def test_pictures_of_the_class_were_taken(self):
        """Half of a class is suspected under its own label."""
        assert odds([500, 500, 500], [250, 500, 500]) == [2, 1, 1]
        assert odds([250, 250, 250], [138, 250, 250]) == pytest.approx([250 / 138, 1, 1])

    def test_poison_under_a_wrong_label_was_taken(self):
        """500 images of its own and 55 of each other class: what is left is no less than the others have."""
        assert odds([1000, 445, 445], [500, 445, 445]) == [1, 1, 1]

    def test_a_class_that_is_small_by_nature(self):
        assert odds([90, 1000, 1000], [60, 1000, 1000]) == [1.5, 1, 1]

    def test_little_lost(self):
        """The edge of a group of poison is no reason to touch the model."""
        assert odds([1000, 450, 450], [390, 450, 450]) == [1, 1, 1]
        assert odds([1000, 450, 450], [360, 450, 450]) == [1.25, 1, 1]

    def test_at_most(self):
        assert odds([600, 450, 450], [100, 450, 450]) == [2, 1, 1]
        assert odds([600, 450, 450], [100, 450, 450], most=9.0) == [4.5, 1, 1]
        assert odds([600, 450, 450], [0, 450, 450]) == [2, 1, 1]
        assert odds([500, 500, 500], [250, 500, 500], most=1.0) == [1, 1, 1]


class TestRaiseOdds:
    @pytest.mark.parametrize("name", ["wrn-10-1", "torchvision:mobilenet_v2"])
    def test_the_odds_of_one_class(self, name):
        model = build_model(name, 3, 32, seed=0).eval()
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            before = model(x).double().softmax(1)
            assert raise_odds(model, torch.tensor([2.0, 1.0, 1.0]))
            after = model(x).double().softmax(1)
        ratio = (after[:, 0] / after[:, 1]) / (before[:, 0] / before[:, 1])
        assert ratio.tolist() == pytest.approx([2] * 4, rel=1e-4)
        assert (after[:, 2] / after[:, 1]).tolist() == pytest.approx(
            (before[:, 2] / before[:, 1]).tolist(), rel=1e-4
        )

    @pytest.mark.parametrize(
        "model",
        [nn.Conv2d(3, 3, 1), nn.Linear(4, 3, bias=False), nn.Linear(4, 5)],
        ids=["none", "no bias", "inner"],
    )
    def test_a_network_without_such_a_layer_is_left_alone(self, model):
        before = [p.clone() for p in model.parameters()]
        assert not raise_odds(model, torch.tensor([2.0, 1.0, 1.0]))
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class TestStage3:
    def trained(self, most, model=None):
        """On 96 images of 3 classes, half of those of class 0 suspected; (model, result, what was warned of)."""
        data = training_data()
        of_0 = (data.labels == 0).nonzero().flatten()
        suspected = torch.isin(torch.arange(len(data)), of_0[: len(of_0) // 2])
        labels = Labels((~suspected).nonzero().flatten(), suspected.nonzero().flatten(), suspected)
        model = model or build_model("wrn-10-1", 3, 8, seed=0)
        config = FinetuningConfig(steps=3, batch=16, reinstate=1, logit_adjustment=most)
        at, warned = session(), []
        at.log.warn = warned.append
        result = finetuning(at, model, data, labels, config, snapshots=3)
        return model, result, warned

    def test_only_the_last_bias_of_the_class(self):
        raised, result, _ = self.trained(2.0)
        left, other, _ = self.trained(1.0)
        assert (
            result.odds[0] > 1.5 and result.odds[1:].tolist() == [1, 1] and other.odds.tolist() == [1, 1, 1]
        )
        for (name, one), two in zip(raised.state_dict().items(), left.state_dict().values(), strict=True):
            if name == "classifier.bias":
                assert (one - two).tolist() == pytest.approx(result.odds.log().tolist(), abs=1e-6)
            else:
                assert torch.equal(one, two), name

    def test_a_network_that_has_no_bias_is_told_of(self):
        model = build_model("wrn-10-1", 3, 8, seed=0)
        model.classifier = nn.Linear(model.classifier.in_features, 3, bias=False)
        _, result, warned = self.trained(2.0, model)
        assert result.odds.tolist() == [1, 1, 1]
        assert any("finetuning.logit_adjustment" in line for line in warned)

    def test_not_in_the_published_method(self):
        assert build(read_preset("paper"), "preset").finetuning.logit_adjustment == 1
