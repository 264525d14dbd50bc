"""Muon: orthogonal steps for convolutions, as torch.optim.Muon makes them for matrices, and SGD for all others."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlp_fast.engine.muon import Muon, orthogonal


def network(dtype=torch.float32) -> nn.Sequential:
    torch.manual_seed(3)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 40, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 4)).to(dtype)


def batch(step: int, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    of = torch.Generator().manual_seed(step)
    return torch.randn(8, 3, 6, 6, generator=of).to(dtype), torch.randint(0, 4, (8,), generator=of)


def trained(model, optimizers, steps=4, dtype=torch.float32):
    for step in range(steps):
        x, y = batch(step, dtype)
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()
    return model


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 5, 40), (2, 40, 5), (1, 1, 9)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    of = torch.randn(*shape, dtype=torch.float64)
    made = orthogonal(of)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3 and values.max() < 1.3
    u, _, v = torch.linalg.svd(of, full_matrices=False)
    assert F.cosine_similarity(made.flatten(1), (u @ v).flatten(1)).min() > 0.95


def test_of_nothing_is_nothing():
    assert torch.equal(orthogonal(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (16, 16, 3, 3), (40, 8, 1, 1), (40, 2, 3, 3)])
def test_convolutions_move_as_torch_moves_their_matrices(shape, dtype):
    """torch.optim.Muon takes matrices alone, and computes in bf16."""
    torch.manual_seed(1)
    start, gradients = torch.randn(shape), torch.randn(3, *shape)
    mine = nn.Conv2d(shape[1], shape[0], shape[2], bias=False)
    mine.weight.data.copy_(start)
    theirs = nn.Parameter(start.flatten(1).clone())
    ours = Muon(mine, 0.02, 0.9, decay=0.3, weight_decay=0.0, dtype=dtype)
    reference = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=0.3, nesterov=True)
    for gradient in gradients:
        before = (
            mine.weight.detach().flatten() * (1 - 0.02 * 0.3),
            theirs.detach().flatten() * (1 - 0.02 * 0.3),
        )
        mine.weight.grad, theirs.grad = gradient.clone(), gradient.flatten(1).clone()
        ours.step()
        reference.step()
        a, b = mine.weight.detach().flatten() - before[0], theirs.detach().flatten() - before[1]
        assert F.cosine_similarity(a, b, dim=0) > 0.995
        assert float(a.norm() / b.norm()) == pytest.approx(1, abs=0.02)


def test_all_others_move_as_by_sgd():
    """Linear layers decay, biases do not."""
    mine = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    theirs = copy.deepcopy(mine)
    weights = [theirs[1].weight, theirs[3].weight]
    others = [p for p in theirs.parameters() if p.dim() < 2]
    groups = [{"params": weights, "weight_decay": 1e-3}, {"params": others}]
    trained(mine, [Muon(mine, 0.05, 0.9, decay=0.3, weight_decay=1e-3)])
    trained(theirs, [torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)])
    for p, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, other, rtol=0, atol=1e-6)


def test_decay_alone_shrinks_convolutions_and_no_bias():
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = Muon(model, 0.1, 0.9, decay=0.5, weight_decay=0.0)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for was, p in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(p, was * (0.95 if p.dim() == 4 else 1.0))


def test_a_step_size_in_memory_is_the_same():
    plain, kept = network(), network()
    trained(plain, [Muon(plain, 0.05, 0.9, 0.2, 5e-4)])
    trained(kept, [Muon(kept, torch.tensor(0.05), 0.9, 0.2, 5e-4)])
    for a, b in zip(plain.parameters(), kept.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_layout_changes_nothing():
    """Channels-last weights, as on every device here, take the same steps."""
    plain, last = network(torch.float64), network(torch.float64).to(memory_format=torch.channels_last)
    for model in (plain, last):
        trained(model, [Muon(model, 0.05, 0.9, 0.2, 5e-4)], dtype=torch.float64)
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_goes_on_from_its_state():
    whole = network()
    trained(whole, [Muon(whole, 0.05, 0.9, 0.2, 5e-4)], steps=4)
    again = network()
    second = Muon(again, 0.05, 0.9, 0.2, 5e-4)
    for step in range(4):
        if step == 2:
            third = Muon(again, 0.05, 0.9, 0.2, 5e-4)
            third.load_state_dict(copy.deepcopy(second.state_dict()))
            second = third
        x, y = batch(step)
        second.zero_grad()
        F.cross_entropy(again(x), y).backward()
        second.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_what_has_no_gradient_stays():
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    trained(model, [Muon(model, 0.05, 0.9, 0.2, 5e-4)], steps=1)
    assert torch.equal(model[0].weight, before)


def test_a_network_without_convolutions():
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    before = model[1].weight.detach().clone()
    trained(model, [Muon(model, 0.05, 0.9, 0.2, 5e-4)], steps=1)
    assert not torch.equal(model[1].weight, before)
