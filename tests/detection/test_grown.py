"""Small marks that grow until they stand apart, and that are looked for in other classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_fast.config import StaticPatternsConfig
from dlp_fast.data.storage import ResidentImages
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose.grown import APART, GROWN, grow, grown_marks

CLASSES, EACH, SIDE = 4, 90, 16
LABELS = torch.arange(CLASSES * EACH) % CLASSES
CONFIG = StaticPatternsConfig()


def pictures(seed: int = 0) -> torch.Tensor:
    """uint8 [n, 16, 16, 3]: what a class looks like, in shapes that each picture has more or less of, and noise."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (torch.rand(CLASSES, 6, SIDE * SIDE, generator=generator) < 0.15).float() * 60
    amounts = 1 + 0.4 * torch.randn(len(LABELS), 6, generator=generator)
    drawn = torch.einsum("nk,nkp->np", amounts, shapes[LABELS]).view(-1, SIDE, SIDE, 1)
    noise = torch.randn(len(LABELS), SIDE, SIDE, 3, generator=generator) * 12
    return (drawn + 40 + noise).clamp(0, 255).round().to(torch.uint8)


def with_patch(images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    images = images.clone()
    images[ids, -3:, -3:] = 255
    images[ids, -2, -2] = 0
    return images


def of_class(label: int, count: int, start: int = 0) -> torch.Tensor:
    return torch.where(label == LABELS)[0][start : start + count]


def seed_of(ids: torch.Tensor, purity: float = 0.6, proposal: str = "skewness") -> Group:
    label = int(LABELS[ids[0]])
    numbers = {"purity": purity, "top": 0.0, "left": 0.0, "height": 16.0, "width": 16.0}
    return Group(f"static_patterns.{proposal}", label, ids.numpy(), np.ones(len(ids)), numbers)


def found(images: torch.Tensor, seeds: list[Group], config=CONFIG, least: float = 8.0) -> list[Group]:
    return grown_marks(seeds, ResidentImages(images), LABELS, CLASSES, least, config)


def test_a_part_grows_into_the_whole_mark():
    poison = of_class(1, 12)
    (group,) = found(with_patch(pictures(), poison), [seed_of(poison[:4])])
    assert (group.proposal, group.label) == (GROWN, 1)
    assert group.core.tolist() == poison.tolist()
    assert group.statistics[APART] >= 8 and group.statistics["purity"] >= 0.8
    assert group.statistics["share"] == pytest.approx(12 / EACH)
    assert group.statistics["width"] == 16.0  # where it was seen is carried on


def test_images_without_a_mark_do_not_stand_apart():
    assert found(pictures(), [seed_of(of_class(1, 5)), seed_of(of_class(2, 9))]) == []


def test_the_mark_of_one_class_is_looked_for_in_the_others():
    poison = {c: of_class(c, 8 + c) for c in range(3)}  # class 3 has none
    images = with_patch(pictures(), torch.cat(list(poison.values())))
    groups = found(images, [seed_of(poison[2][:5])])
    assert {g.label: g.core.tolist() for g in groups} == {c: ids.tolist() for c, ids in poison.items()}


def test_another_mark_of_another_class_is_not_taken_for_it():
    images = with_patch(pictures(), of_class(0, 10))
    other = of_class(1, 10)
    images[other, -3:, :] = 255  # lies where the patch does, and is another
    assert [g.label for g in found(images, [seed_of(of_class(0, 5))])] == [0]


def test_one_mark_from_two_parts_is_one_group():
    poison = of_class(0, 14)
    groups = found(with_patch(pictures(), poison), [seed_of(poison[:5]), seed_of(poison[7:12], purity=0.9)])
    assert [g.core.tolist() for g in groups] == [poison.tolist()]


def test_half_of_a_class_grows():
    poison = of_class(1, 45)
    (group,) = found(with_patch(pictures(), poison), [seed_of(poison[5:35])])
    assert group.core.tolist() == poison.tolist()


@pytest.mark.parametrize("proposal", ["windows", "smooth_skewness"])
def test_groups_of_other_kinds_do_not_grow(proposal):
    poison = of_class(1, 12)
    assert found(with_patch(pictures(), poison), [seed_of(poison[:4], proposal=proposal)]) == []


def test_most_of_a_class_is_the_class_itself():
    poison = of_class(1, 60)
    assert found(with_patch(pictures(), poison), [seed_of(poison)]) == []


def test_a_class_that_is_larger_than_what_is_looked_at_is_completed():
    poison = of_class(1, 20)
    images = with_patch(pictures(), poison)
    config = StaticPatternsConfig(fit_images=64)
    seeds = [seed_of(poison)]
    (group,) = found(images, seeds, config)
    assert set(group.core.tolist()) == set(poison.tolist())
    assert group.statistics["share"] < 20 / 64 + 0.05
    small = StaticPatternsConfig(fit_images=64, batch=7)  # and does not depend on how images are read
    (same,) = found(images, seeds, small)
    assert np.array_equal(same.ids, group.ids) and np.allclose(same.membership, group.membership)


def test_the_direction_weighs_what_varies_little():
    """Growing against float64 by hand: one round is a diagonal linear discriminant."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(80, 5, generator=generator) * torch.tensor([1.0, 3.0, 1.0, 1.0, 0.2])
    inside = torch.arange(80) < 20
    x[inside] += torch.tensor([6.0, 6.0, 0.0, 0.0, 1.5])
    direction, group = grow(x, inside)
    assert torch.equal(group, inside)
    a, b = x[inside].double().numpy(), x[~inside].double().numpy()
    within = (a.var(0) * 20 + b.var(0) * 60) / 80
    least = 0.1 * np.sort(within)[2] + 1e-12
    shift = a.mean(0) - b.mean(0)
    error = np.sqrt(a.var(0) / 20 + b.var(0) / 60 + least / 20)
    expected = np.where(abs(shift) > 3 * error, shift / (within + least), 0.0)
    assert np.allclose(direction.weights.numpy(), expected)
    u, w = a @ expected, b @ expected
    apart = (u.mean() - w.mean()) / np.sqrt((u.var() + w.var()) / 2)
    assert direction.separation == pytest.approx(apart)
