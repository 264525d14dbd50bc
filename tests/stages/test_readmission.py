"""A label comes back by what the filter and the network say of it together."""

import pytest
import torch
from tiny import session, training_data

from dlp_fast.config import FinetuningConfig
from dlp_fast.models.registry import build_model
from dlp_fast.stages.finetuning import finetuning
from dlp_fast.stages.label_policy import needed_probability

LABELED, EDGE = torch.arange(0, 60), torch.arange(60, 96)


@pytest.mark.parametrize("edge", [0.1, 0.5, 0.9, 0.99])
def test_it_is_bayes_rule(edge):
    """At the probability asked for, the label is right with probability `edge`."""
    posterior = torch.tensor([1e-5, 1e-3, 0.04])
    p = needed_probability(posterior, 0.3, edge).double()
    right = p * (1 - posterior) / (p * (1 - posterior) + posterior)
    torch.testing.assert_close(right, torch.full_like(right, edge), rtol=1e-4, atol=0)


def test_a_filter_without_a_word_leaves_it_to_the_network():
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
    result = finetuning(session(), model, data, LABELED, EDGE, config, 4, posterior=of)
    return set(result.labeled.tolist()) - set(LABELED.tolist()), result.loss[-1]


def test_those_the_filter_hardly_suspects_come_back_on_a_weaker_word():
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
