"""What a network says of images without learning from them, and batch-norm statistics for weights of no step."""

from __future__ import annotations

import pytest
import torch
from tiny import session, training_data
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlp_fast import ops
from dlp_fast.engine import inference
from dlp_fast.engine.inference import (
    accuracy,
    caught_features,
    eval_mode,
    features,
    refit_batch_norm,
    score,
)
from dlp_fast.errors import NumericError
from dlp_fast.models.registry import build_model, classifier_of


class FirstPixels(nn.Module):
    """Some of the input as it is: logits that do not depend on the batch, in any bit."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, x):
        return x[:, : self.count].clone()


class Largest(TorchDispatchMode):
    """Notes the shapes that ops make."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, torch.Tensor):
                self.shapes.add(tuple(one.shape))
        return out

    def rows_of(self, columns):
        return max(shape[0] for shape in self.shapes if len(shape) == 2 and shape[1] == columns)


class TestInference:
    @pytest.mark.parametrize("name", ["wrn-10-1", "torchvision:mobilenet_v2", "torchvision:vgg11_bn"])
    def test_features_of_any_network(self, name):
        data = training_data(n=20, side=32)
        model = build_model(name, 3, 32, 0)
        found = features(session(), model, data)
        assert found.shape == (20, classifier_of(model).in_features)
        with torch.no_grad():
            logits = model.eval()(data.plain(torch.arange(20)))
        again = nn.functional.linear(found, classifier_of(model).weight, classifier_of(model).bias)
        torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-5)

    def test_features_are_caught_only_inside(self):
        model, x = build_model("wrn-10-1", 3, 8, 0), training_data().plain(torch.arange(4))
        with caught_features(model) as caught:
            model(x)
        model(x)
        assert [batch.shape for batch in caught] == [(4, classifier_of(model).in_features)]
        assert caught[0].requires_grad

    def test_scores_by_hand(self):
        data, model = training_data(), build_model("wrn-10-1", 3, 8, 0)
        found = score(session(), model, data)
        with torch.no_grad(), eval_mode(model):
            p = model(data.plain(torch.arange(len(data)))).double().softmax(1)
        torch.testing.assert_close(found.entropy.double(), -(p * p.log2()).sum(1), rtol=1e-4, atol=1e-5)
        own = p[torch.arange(len(data)), data.labels]
        torch.testing.assert_close(found.loss.double(), -own.log(), rtol=1e-4, atol=1e-5)
        assert torch.equal(found.prediction, p.argmax(1))

    @pytest.mark.parametrize("batch", [1, 7, 60, 512])
    def test_scores_rank_as_one_call_on_all_logits_would(self, batch, monkeypatch):
        """A batch of logits at a time: no tensor of all of them, and the same ids for any batch size."""
        data, model = training_data(n=60), nn.Sequential(nn.Flatten(), FirstPixels(3))
        logits = model(data.plain(torch.arange(60)))
        monkeypatch.setitem(inference.BATCH, "cpu", batch)
        with Largest() as largest:
            found = score(session(), model, data)
        assert largest.rows_of(3) <= batch
        want = ops.entropy_rank(logits, 60, 5, data.labels)
        assert torch.equal(found.entropy, want.entropy)
        got = ops.select(found.entropy, 60, 5, data.labels, data.classes)
        assert torch.equal(got.lowest, want.lowest) and torch.equal(got.highest, want.highest)
        assert torch.equal(found.prediction, logits.argmax(1))

    @pytest.mark.parametrize("classes", [2, 3])
    def test_the_loss_with_another_label_only_where_asked_for(self, classes):
        data, model = training_data(classes=classes), build_model("wrn-10-1", classes, 8, 0)
        plain, found = (score(session(), model, data, other=other) for other in (False, True))
        assert plain.other_loss is None
        with torch.no_grad(), eval_mode(model):
            p = model(data.plain(torch.arange(len(data)))).double().softmax(1)
        other = p[torch.arange(len(data)), data.other_label(torch.arange(len(data)))]
        torch.testing.assert_close(found.other_loss.double(), -other.log(), rtol=1e-4, atol=1e-5)
        for name in ("entropy", "loss", "prediction"):
            assert torch.equal(getattr(plain, name), getattr(found, name))

    def test_an_image_without_a_finite_logit_is_named_by_its_number(self, monkeypatch):
        data = training_data(n=60)
        monkeypatch.setitem(inference.BATCH, "cpu", 7)

        class Spoilt(FirstPixels):
            seen = 0

            def forward(self, x):
                self.seen += len(x)
                return super().forward(x) / (self.seen != 49)  # the batch that ends with image 48

        with pytest.raises(NumericError, match="first rows: 42, 43, 44"):
            score(session(), nn.Sequential(nn.Flatten(), Spoilt(3)), data)

    def test_accuracy(self):
        model = nn.Flatten()  # logits are the pixels themselves
        batches = [(torch.eye(3), torch.tensor([0, 1, 1])), (torch.eye(3)[:1], torch.tensor([0]))]
        assert accuracy(model, batches) == 3 / 4
        assert accuracy(model, []) == 0

    @pytest.mark.parametrize("training", [True, False])
    def test_the_mode_comes_back(self, training):
        model = build_model("wrn-10-1", 3, 8, 0).train(training)
        data = training_data()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        score(session(), model, data)
        features(session(), model, data)
        accuracy(model, [(data.plain(torch.arange(4)), data.labels[:4])])
        with eval_mode(model):
            assert not model.training
        assert model.training == training
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def batches(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 4, 4, generator=generator) * 2 + 5 for n in sizes]


def test_statistics_are_those_of_the_batches():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
    given = batches(16, 16, 16)
    seen = [net[0](x).detach() for x in given]
    refit_batch_norm(net, given)
    means = torch.stack([x.mean((0, 2, 3)) for x in seen])
    variances = torch.stack([x.var((0, 2, 3)) for x in seen])
    torch.testing.assert_close(net[1].running_mean, means.mean(0))
    torch.testing.assert_close(net[1].running_var, variances.mean(0))


def test_what_was_there_has_no_say():
    nets = [nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[1][0].running_mean.fill_(100)
    nets[1][2].running_var.fill_(1e6)
    for net in nets:
        refit_batch_norm(net, batches(8, 8))
    assert all(
        torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values())
    )


@pytest.mark.parametrize("training", [True, False])
def test_weights_momentum_and_mode_stay(training):
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, momentum=0.3)).train(training)
    before = [p.detach().clone() for p in net.parameters()]
    refit_batch_norm(net, batches(8))
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before))
    assert net[1].momentum == 0.3 and all(m.training == training for m in net.modules())
    assert not any(p.grad is not None for p in net.parameters())


def test_without_batch_norm_nothing_is_drawn():
    def never():
        raise AssertionError("a batch was drawn")
        yield

    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    refit_batch_norm(net, never())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
