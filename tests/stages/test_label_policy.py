"""A label comes back by what detection and the network say of it together; a suspected one never does."""

from __future__ import annotations

import pytest
import torch
from tiny import session, training_data

from dlp_fast.config import FinetuningConfig
from dlp_fast.engine.inference import Scores
from dlp_fast.models.registry import build_model
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import finetuning
from dlp_fast.stages.label_policy import ANY, ASK_FROM, NONE, LabelPolicy, needed_probability

LABELED, EDGE = torch.arange(0, 60), torch.arange(60, 96)


@pytest.mark.parametrize("edge", [0.1, 0.5, 0.9, 0.99])
def test_it_is_bayes_rule(edge):
    """At the probability asked for, the label is right with probability `edge`."""
    posterior = torch.tensor([1e-5, 1e-3, 0.04])
    p = needed_probability(posterior, 0.3, edge).double()
    right = p * (1 - posterior) / (p * (1 - posterior) + posterior)
    torch.testing.assert_close(right, torch.full_like(right, edge), rtol=1e-4, atol=0)


def test_without_a_posterior_it_is_left_to_the_network():
    assert needed_probability(torch.zeros(3), 0.3, 0.9).tolist() == pytest.approx([0.3] * 3)


def test_more_is_asked_of_the_more_suspicious():
    asked = needed_probability(torch.logspace(-5, -0.31, 40), 0.5, 0.5)
    assert (asked.diff() > 0).all()
    assert asked[-1] < 1 < needed_probability(torch.tensor([0.51]), 0.5, 0.5)[0]
    default = needed_probability(torch.tensor([0.0099, 0.0101]), 0.5, FinetuningConfig().reinstate_edge)
    assert default[0] < 1 < default[1]  # whoever is poisoned with more than 1 % never comes back


@pytest.mark.parametrize("posterior", [1e-5, 0.4, 1.0])
def test_never(posterior):
    assert needed_probability(torch.tensor([posterior]), 0.5, 1.0)[0] >= 1
    assert needed_probability(torch.zeros(1), 1.0, 0.5)[0] >= 1


def labels_that_came_back(posterior, edge=0.5):
    data = training_data()
    model = build_model("wrn-10-1", 3, 8, seed=0)
    config = FinetuningConfig(steps=8, batch=16, ema=0.9, learning_rate=1e-6, mu=0, reinstate_edge=edge)
    of = torch.zeros(96)
    of[EDGE] = torch.as_tensor(posterior)
    labels = Labels(LABELED, EDGE, torch.zeros(96, dtype=torch.bool), of)
    result = finetuning(session(), model, data, labels, config, snapshots=4)
    return set(result.labeled.tolist()) - set(LABELED.tolist()), result.loss[-1]


def test_those_hardly_suspected_come_back_at_a_lower_probability():
    """A network that has learnt nothing gives every one of three classes about a third."""
    assert labels_that_came_back(0.0)[0] == set()
    assert labels_that_came_back(1e-5)[0] == set(EDGE.tolist())
    assert labels_that_came_back(0.48)[0] == set()
    assert labels_that_came_back(1e-3, edge=0.99)[0] == set(EDGE.tolist())
    assert labels_that_came_back(6e-3, edge=0.99)[0] == set()


def test_each_by_its_own_posterior():
    posterior = torch.where(EDGE % 2 == 0, 1e-4, 0.49)
    back, loss = labels_that_came_back(posterior)
    asked = needed_probability(posterior, 0.5, 0.5)
    assert back == set(EDGE[loss[EDGE] < -asked.log()].tolist()) == set(EDGE[EDGE % 2 == 0].tolist())


def test_at_1_none_comes_back():
    assert labels_that_came_back(1e-5, edge=1.0)[0] == set()


class TestPolicy:
    """Of six images: 0 and 1 labeled, 2 and 3 withheld, 4 and 5 suspected."""

    GIVEN = torch.tensor([0, 1, 2, 0, 1, 2])

    def policy(self, posterior=None, unlabeled=(2, 3, 4, 5), **over):
        suspected = torch.arange(6) >= 4
        labels = Labels(torch.tensor([0, 1]), torch.tensor(unlabeled), suspected, posterior)
        return LabelPolicy(self.GIVEN, labels, FinetuningConfig(reinstate=0.5, **over))

    def scores(self, probability, prediction=(0, 1, 2, 0, 1, 2)):
        p = torch.tensor(probability)
        return Scores(torch.zeros(6), -p.log(), torch.tensor(prediction))

    SURE = (0.9,) * 6

    def test_begins_with_what_is_labeled(self):
        policy = self.policy()
        assert policy.used.tolist() == [True, True, False, False, False, False]
        assert policy.allowed.tolist() == [ANY, ANY, ANY, ANY, NONE, NONE]

    def test_nothing_is_asked_before_the_network_knows_anything(self):
        policy = self.policy()
        for snapshot in range(1, ASK_FROM):
            assert not policy.update(self.scores(self.SURE, (1,) * 6), snapshot)
        assert policy.used.tolist() == [True, True, False, False, False, False]
        assert policy.allowed.tolist() == [ANY, ANY, ANY, ANY, NONE, NONE]

    def test_withheld_labels_come_and_go_and_suspected_ones_never_come(self):
        policy = self.policy()
        assert policy.update(self.scores(self.SURE), ASK_FROM)
        assert policy.used.tolist() == [True, True, True, True, False, False]
        assert policy.update(self.scores((0.1, 0.1, 0.6, 0.4, 0.9, 0.9)), ASK_FROM + 1)
        assert policy.used.tolist() == [True, True, True, False, False, False]

    def test_each_by_its_posterior(self):
        """By Bayes' rule, 0.9 of the right label and a posterior of 0.1 make 0.89."""
        policy = self.policy(torch.tensor([0, 0, 0.1, 0.1, 0, 0]), reinstate_edge=0.9)
        policy.update(self.scores(self.SURE), ASK_FROM)
        assert not policy.used[[2, 3]].any()
        policy.update(self.scores((0.9, 0.9, 1.0, 0.98, 0.9, 0.9)), ASK_FROM + 1)
        assert not policy.used[[2, 3]].any()  # p = 1 is asked for, and more
        policy = self.policy(torch.tensor([0, 0, 0.09, 0.2, 0, 0]), reinstate_edge=0.9)
        policy.update(self.scores(self.SURE), ASK_FROM)
        assert policy.used[[2, 3]].tolist() == [True, False]

    def test_one_pseudo_label_for_each_suspected_image(self):
        """What it shows at that one snapshot; none where that is the label it came with."""
        policy = self.policy()
        policy.update(self.scores(self.SURE, (2, 2, 1, 1, 0, 2)), ASK_FROM)
        assert policy.allowed.tolist() == [ANY, ANY, ANY, ANY, 0, NONE]
        policy.update(self.scores(self.SURE, (0, 0, 0, 0, 2, 0)), ASK_FROM + 1)
        assert policy.allowed.tolist() == [ANY, ANY, ANY, ANY, 0, NONE]

    def test_state_is_changed_in_place(self):
        """Checkpoints hold on to it."""
        policy = self.policy()
        used, allowed = policy.used, policy.allowed
        policy.update(self.scores(self.SURE, (2, 2, 1, 1, 0, 2)), ASK_FROM)
        assert policy.used is used and policy.allowed is allowed
        assert used[2] and allowed[4] == 0

    def test_an_image_that_is_not_shown_is_not_reinstated(self):
        policy = self.policy(unlabeled=(3, 4))
        policy.update(self.scores(self.SURE), ASK_FROM)
        assert policy.used.tolist() == [True, True, False, True, False, False]
