"""The loss of stage 3 (DLP Eq. 7), by hand."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from dlp_fast.config import FinetuningConfig
from dlp_fast.stages.fixmatch import fixmatch_loss, unlabeled_loss
from dlp_fast.stages.label_policy import ANY, NONE


class TestFixmatchLoss:
    """Two labeled images, then weak and strong views of four unlabeled ones, of three classes."""

    TARGET = torch.tensor([0, 1])
    WEAK = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0], [0.1, 0, 0]])  # the last one is not sure

    def loss(self, allowed, **over):
        logits = torch.cat([torch.randn(2, 3), self.WEAK, torch.randn(4, 3)]).requires_grad_()
        loss, mask = fixmatch_loss(logits, self.TARGET, torch.tensor(allowed), FinetuningConfig(**over))
        return logits, loss, mask

    def test_pseudo_labels_that_count(self):
        assert self.loss([ANY] * 4)[2].tolist() == [1, 1, 1, 0]  # tau
        assert self.loss([ANY] * 4, tau=0.0)[2].tolist() == [1, 1, 1, 1]
        assert self.loss([0, 2, NONE, ANY], tau=0.0)[2].tolist() == [1, 0, 0, 1]

    def test_by_hand(self):
        logits, loss, _ = self.loss([ANY, ANY, NONE, ANY], lambda_u=0.5)
        of_labeled = F.cross_entropy(logits[:2], self.TARGET)
        of_strong = F.cross_entropy(logits[6:8], torch.tensor([0, 1]), reduction="sum") / 4
        torch.testing.assert_close(loss, of_labeled + 0.5 * of_strong)

    def test_weak_views_are_not_learnt_from(self):
        logits, loss, _ = self.loss([ANY] * 4, tau=0.0)
        loss.backward()
        assert not logits.grad[2:6].any() and logits.grad[6:].any()

    def test_labeled_images_alone(self):
        logits = torch.randn(2, 3)
        none = torch.empty(0, dtype=torch.int64)
        loss, mask = fixmatch_loss(logits, self.TARGET, none, FinetuningConfig())
        assert mask is None and torch.equal(loss, F.cross_entropy(logits, self.TARGET))


class TestUnlabeledLoss:
    def gradient(self, unlabeled, labeled=4):
        """Of the loss by each unlabeled image's logits, and by each labeled one's."""
        logits = torch.randn(labeled + unlabeled, 3, dtype=torch.float64, requires_grad=True)
        target = torch.arange(labeled + unlabeled) % 3
        mask = torch.ones(unlabeled, dtype=torch.float64)
        of_labeled = F.cross_entropy(logits[:labeled], target[:labeled])
        (of_labeled + unlabeled_loss(logits[labeled:], target[labeled:], mask, labeled)).backward()
        off = logits.detach().softmax(1) - F.one_hot(target, 3)
        return (logits.grad / off).mean(1)

    def test_a_mean_from_mu_1_on(self):
        for unlabeled in (4, 28):
            assert torch.allclose(self.gradient(unlabeled)[4:], torch.tensor(1 / unlabeled).double())

    def test_of_fewer_none_outweighs_a_labeled_one(self):
        assert torch.allclose(self.gradient(unlabeled=1), torch.tensor(1 / 4).double())

    def test_mask(self):
        logits, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
        mask = torch.tensor([1.0, 0, 0, 1, 0, 0])
        assert torch.isclose(
            unlabeled_loss(logits, target, mask, 4) * 6, F.cross_entropy(logits[[0, 3]], target[[0, 3]]) * 2
        )
