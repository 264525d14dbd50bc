import torch

from dlp_fast.detection.new_images import COPY, LABEL, MARK, MARK_RIGHT_LABEL, NOTHING, score_new

#                              clean model            stage 1's network      label
CASES = [
    (MARK, [0.02, 0.97, 0.01], [0.99, 0.01, 0.00], 0),  # poisoned: only stage 1's network sees class 0
    (MARK_RIGHT_LABEL, [0.02, 0.97, 0.01], [0.99, 0.01, 0.00], 1),  # the same picture under its own label
    (LABEL, [0.02, 0.97, 0.01], [0.01, 0.98, 0.01], 0),  # both say 1: a wrong label
    (LABEL, [0.01, 0.98, 0.01], [0.01, 0.01, 0.98], 2),  # stage 1's network agrees, but 2 is no target
    (NOTHING, [0.97, 0.02, 0.01], [0.99, 0.01, 0.00], 0),
    (NOTHING, [0.30, 0.40, 0.30], [0.40, 0.30, 0.30], 0),  # nobody knows
]


def scored(targets):
    clean, first = (torch.tensor([case[k] for case in CASES]) for k in (1, 2))
    return score_new(clean, first, torch.tensor([case[3] for case in CASES]), targets)


def test_reasons():
    found = scored([0])
    assert found.reason == [case[0] for case in CASES]
    assert found.order.tolist()[:2] == [0, 1]
    assert set(found.order.tolist()[2:4]) == {2, 3}
    assert torch.allclose(found.score[:2], torch.tensor([0.99 * 0.98, 0.99 * 0.98]))
    assert bool(((found.score >= 0) & (found.score <= 1)).all())


def test_without_a_found_class_only_labels_are_compared():
    assert set(scored([]).reason) <= {LABEL, NOTHING}
    assert scored([]).reason[0] == LABEL


def test_copies_come_first():
    clean, first = (torch.tensor([case[k] for case in CASES]) for k in (1, 2))
    copies = torch.tensor([False] * 5 + [True])
    found = score_new(clean, first, torch.tensor([case[3] for case in CASES]), [0], copies)
    assert found.order.tolist()[0] == 5 and found.reason[5] == COPY


def test_no_image():
    found = score_new(torch.empty(0, 3), torch.empty(0, 3), torch.empty(0, dtype=torch.int64), [0])
    assert found.reason == [] and len(found.order) == 0
