"""Which labels stage 3 begins with, and what it loses in a further round."""

from __future__ import annotations

import pytest
import torch

from dlp_fast.config import RunConfig
from dlp_fast.errors import DataError
from dlp_fast.selection.labels import Labels, labels_to_use, without
from dlp_fast.selection.partition import Selection

IDS = torch.arange(10)
NONE = IDS[:0]
LEAVE_OUT = RunConfig(finetuning={"suspects": "leave_out"})
HARDEST = RunConfig(finetuning={"labeled": "hardest"})


def selection(poisoned=IDS[:2], clean=IDS[8:], trusted=IDS[4:], unlabeled=IDS[2:4], **over):
    named = torch.isin(IDS, poisoned)
    return Selection(
        torch.zeros(10), IDS, poisoned, clean, poisoned[:1], trusted, unlabeled, named=named, **over
    )


def ids(labels):
    return [
        part.tolist() for part in (labels.labeled, labels.unlabeled, labels.suspected.nonzero().flatten())
    ]


class TestLabelsToUse:
    def test_trusted(self):
        assert ids(labels_to_use(selection(), RunConfig())) == [[4, 5, 6, 7, 8, 9], [0, 1, 2, 3], [0, 1]]

    def test_suspects_left_out(self):
        assert ids(labels_to_use(selection(), LEAVE_OUT)) == [[4, 5, 6, 7, 8, 9], [2, 3], [0, 1]]

    def test_hardest(self):
        assert ids(labels_to_use(selection(), HARDEST)) == [[8, 9], list(range(8)), []]

    def test_what_a_person_took_out_is_not_used(self):
        taken = selection(trusted=IDS[5:], left_out=IDS[4:5])
        assert ids(labels_to_use(taken, RunConfig())) == [[5, 6, 7, 8, 9], [0, 1, 2, 3], [0, 1]]
        assert ids(labels_to_use(taken, HARDEST)) == [[8, 9], [0, 1, 2, 3, 5, 6, 7], []]

    @pytest.mark.parametrize("config", [RunConfig(), LEAVE_OUT, HARDEST])
    def test_the_posterior_goes_along(self, config):
        posterior = torch.linspace(0, 0.4, 10)
        assert torch.equal(labels_to_use(selection(posterior=posterior), config).posterior, posterior)

    def test_nothing_left_to_be_clean(self):
        with pytest.raises(
            DataError, match=r"detection.min_images = 10\. Lower it, or use --finetuning.labeled trusted"
        ):
            labels_to_use(selection(poisoned=IDS, clean=NONE), HARDEST)

    def test_nothing_left_to_trust(self):
        with pytest.raises(DataError, match=r"no label is trusted.*raise detection\.min_images"):
            labels_to_use(selection(poisoned=IDS, clean=NONE, trusted=NONE, unlabeled=NONE), RunConfig())


class TestWithout:
    BEFORE = Labels(IDS[4:], IDS[:4], IDS < 2, torch.linspace(0, 0.4, 10))

    def test_they_are_suspected_and_unlabeled(self):
        after = without(self.BEFORE, torch.tensor([3, 5, 9]), RunConfig())
        assert ids(after) == [[4, 6, 7, 8], [0, 1, 2, 3, 5, 9], [0, 1, 3, 5, 9]]
        assert after.posterior is self.BEFORE.posterior

    def test_suspects_left_out(self):
        after = without(self.BEFORE, torch.tensor([3, 5, 9]), LEAVE_OUT)
        assert ids(after) == [[4, 6, 7, 8], [0, 1, 2], [0, 1, 3, 5, 9]]

    def test_the_labels_of_before_stay_as_they_were(self):
        without(self.BEFORE, torch.tensor([5]), RunConfig())
        assert ids(self.BEFORE) == [[4, 5, 6, 7, 8, 9], [0, 1, 2, 3], [0, 1]]
