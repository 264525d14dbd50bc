"""Grown marks: groups of static patterns, completed until they stand apart from the rest of their class.

A class of a small set has too few images for directions that hold a rare mark whole: they find a part of its images, no
purer than the styles of digits or letters. But the pixels in which such a part differs from its class are known well
enough to find the others by, and once all of them are found, they lie farther apart than a style does. A mark that is
known from one class is looked for in the others too, since all-to-all attacks put the same one on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlp_fast.config import StaticPatternsConfig
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose.directions import LEAST_DEVIATION, MAD, Direction
from dlp_fast.detection.propose.neighbours import STRANGERS
from dlp_fast.detection.propose.views import Images, ResidualView, mean_residual, read, views_of

GROWN = "static_patterns.grown"  # the proposal
APART = "apart"  # its statistic: Ashman's D of the group and the rest of its class
BEGIN = ("static_patterns.skewness", "static_patterns.principal", STRANGERS)  # proposals that grow
HELD = 20  # bytes of a value: fp32, and twice fp64 while a group is told apart
MOST = 0.6  # of its class, that a group has at most: a larger one is the class itself
FEWEST = 3  # images that a group begins with
ROUNDS = 8  # of growing, at most
DIFFERS = 3.0  # standard errors from which a pixel belongs to the mark
LEAST_SHARE = 0.1  # of the usual variance of a pixel, that none falls below
FAR = 6.0  # robust deviations from which an image of another class may carry the mark
SAME = 0.5  # cosine of two marks from which they are one


@dataclass(frozen=True)
class _Class:
    """ids: int64 [n], of the images looked at, all or a drawn part; vectors: fp32 [n, P]."""

    label: int
    ids: Tensor
    vectors: Tensor

    def of(self, direction: Direction, inside: Tensor, seed: Group | None) -> Group:
        """The group at `inside`, bool [n], as found along `direction`, from the `seed` of the same class."""
        membership = torch.where(inside, direction.membership(self.vectors).clamp_min(0.51), 0.0)
        numbers = {
            "purity": direction.purity,
            APART: direction.separation,
            "skewness": direction.skewness,
            "share": direction.share,
        }
        if seed:  # where it was seen
            numbers |= {k: v for k, v in seed.statistics.items() if k in ("top", "left", "height", "width")}
        return Group(GROWN, self.label, self.ids[inside].numpy(), membership[inside].cpu().numpy(), numbers)


@dataclass(frozen=True)
class _Found:
    group: Group
    direction: Direction


def grown_marks(
    groups: Sequence[Group],
    images: Images,
    labels: Tensor,
    classes: int,
    least_apart: float,
    config: StaticPatternsConfig,
) -> list[Group]:
    """Marks that `groups` of static patterns grow into, and the same marks in other classes.

    Args: labels: int64 [n]; least_apart: Ashman's D that a grown group has at least.

    Returns: list of Group, class by class; statistics: `apart`, `purity` (share of the variance along its direction
    that the distance of the two parts explains), `skewness`, `share` of the images looked at.
    """
    search = _Search(images, labels.cpu(), classes, config)
    begun = [group for group in groups if search.may_grow(group)]
    own: list[_Found] = []
    for label in sorted({group.label for group in begun}):
        of = search.of_class(label)
        parts = [
            (torch.isin(of.ids, torch.from_numpy(group.core)), group)
            for group in begun
            if group.label == label
        ]
        own += [found for part, group in parts if (found := search.grown(of, part, group, least_apart))]
    own = _distinct(own)
    others: list[_Found] = []
    for label in range(classes) if own else ():
        of = search.of_class(label)
        for entry in own:
            if entry.group.label != label:
                found = search.grown(of, _carriers(of, entry.direction), None, least_apart)
                others += [found] if found and _same_mark(found.direction, entry.direction) else []
    found = [search.completed(entry) for entry in _distinct([*own, *others])]
    return [entry.group for entry in sorted(found, key=lambda e: (e.group.label, -e.direction.separation))]


def distinct_groups(marks: Sequence[Group]) -> list[Group]:
    """Those of grown `marks` that have no majority in common with one that is farther apart."""
    chosen: list[Group] = []
    for mark in sorted(marks, key=lambda mark: -mark.statistics[APART]):
        if not any(other.has_most_of(mark) or mark.has_most_of(other) for other in chosen):
            chosen.append(mark)
    return sorted(chosen, key=lambda mark: (mark.label, -mark.statistics[APART]))


def _distinct(found: list[_Found]) -> list[_Found]:
    """Those of `found` that have no majority in common with one that is farther apart."""
    chosen: list[_Found] = []
    for entry in sorted(found, key=lambda entry: -entry.direction.separation):
        of = entry.group
        if not any(other.group.has_most_of(of) or of.has_most_of(other.group) for other in chosen):
            chosen.append(entry)
    return chosen


def _same_mark(one: Direction, two: Direction) -> bool:
    return float(torch.cosine_similarity(one.weights, two.weights, dim=0)) >= SAME


class _Search:
    """What growing needs of the set: residuals of the whole picture, class by class, of at most `most` images each."""

    def __init__(self, images: Images, labels: Tensor, classes: int, config: StaticPatternsConfig):
        self.images, self.labels, self.config = images, labels, config
        view = views_of(images.height, images.width, config.scan_side, config.tile)[0]
        side = view.resized or (view.height, view.width)
        values = 3 * max(HELD * side[0] * side[1], images.height * images.width)  # bytes of an image
        self.most = max(64, min(config.fit_images, config.hold_megabytes * 2**20 // values))
        drawn = self._drawn(torch.arange(len(labels)))
        pixels = torch.cat([pixels for _, pixels in read(images, drawn, config.batch)])
        self.view = ResidualView(view, mean_residual(pixels, view))
        self.sizes = torch.bincount(labels, minlength=classes)

    def _drawn(self, ids: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.config.seed)
        return ids[torch.randperm(len(ids), generator=generator)[: self.most].sort().values]

    def may_grow(self, group: Group) -> bool:
        """Whether a group of one class may be a part of a mark, or hold one."""
        return (
            group.label is not None
            and group.proposal in BEGIN
            and FEWEST <= len(group.core) <= MOST * int(self.sizes[group.label])
        )

    def of_class(self, label: int) -> _Class:
        ids = self._drawn((self.labels == label).nonzero().flatten())
        vectors = torch.cat(
            [self.view.vectors(pixels) for _, pixels in read(self.images, ids, self.config.batch)]
        )
        return _Class(label, ids, vectors)

    def grown(self, of: _Class, inside: Tensor, seed: Group | None, least_apart: float) -> _Found | None:
        """What `inside`, bool [n], grows into; None where that is too large, too small or not far enough apart."""
        most = MOST * len(of.ids)
        if not FEWEST <= int(inside.sum()) <= most:
            return None
        direction, inside = grow(of.vectors, inside.to(of.vectors.device))
        if direction.separation < least_apart or not FEWEST <= int(inside.sum()) <= most:
            return None
        return _Found(of.of(direction, inside.cpu(), seed), direction)

    def completed(self, entry: _Found) -> _Found:
        """`entry` with those images of its class that were not looked at."""
        group = entry.group
        everything = (self.labels == group.label).nonzero().flatten()
        left = everything[torch.isin(everything, self._drawn(everything), invert=True)]
        parts = [(torch.from_numpy(group.ids), torch.from_numpy(group.membership))]
        for ids, pixels in read(self.images, left, self.config.batch):
            membership = entry.direction.membership(self.view.vectors(pixels)).cpu()
            parts.append((ids[membership > 0.5], membership[membership > 0.5]))
        ids, membership = (torch.cat(part) for part in zip(*parts, strict=True))
        order = ids.argsort()
        return replace(
            entry, group=replace(group, ids=ids[order].numpy(), membership=membership[order].numpy())
        )


def grow(vectors: Tensor, inside: Tensor) -> tuple[Direction, Tensor]:
    """(the direction that tells a group apart, bool [n] the group), grown from `inside`, bool [n].

    Each round weighs the pixels by how much the group differs in them, in units of their variance within both parts (a
    linear discriminant with a diagonal covariance, which few images suffice for), and takes in what is likelier to
    belong than not. The rest is told by its mean and deviation in one try, by median and median deviation in another,
    which images that still belong to the group do not widen. The round that is farthest apart counts.

    Args: vectors: fp32 [n, P].
    """
    tries = [entry for robust in (False, True) for entry in _rounds(vectors, inside, robust)]
    return max(tries, key=lambda entry: entry[0].separation)


def _rounds(vectors: Tensor, inside: Tensor, robust: bool) -> list[tuple[Direction, Tensor]]:
    done = []
    for _ in range(ROUNDS):
        direction, u = _told_apart(vectors, inside)
        done.append((direction, inside))
        if robust:
            rest = u[~inside]
            middle = rest.median()
            deviation = MAD * (rest - middle).abs().median()
            usual = {"other_mean": float(middle), "other_variance": max(_least(u), float(deviation**2))}
            direction = replace(direction, **usual)
        new = direction.membership_at(u) > 0.5
        if bool((new == inside).all()) or not FEWEST <= int(new.sum()) <= len(new) // 2:
            break
        inside = new
    return done


def diagonal_discriminant(group: Tensor, rest: Tensor) -> Tensor:
    """fp64 [P]: weights that tell fp64 [k, P] from [m, P], zero where they differ by no more than chance."""
    size, others = len(group), len(rest)
    one, two = group.var(0, correction=0), rest.var(0, correction=0)
    within = (one * size + two * others) / (size + others)
    varying = within[within > 0]
    least = LEAST_SHARE * (varying.median() if len(varying) else 1.0) + 1e-12
    shift = group.mean(0) - rest.mean(0)
    error = (one / size + two / others + least / size).sqrt()
    return torch.where(shift.abs() > DIFFERS * error, shift / (within + least), 0.0)


def _told_apart(vectors: Tensor, inside: Tensor) -> tuple[Direction, Tensor]:
    """(the Direction of the group `inside`, fp64 [n] the vectors along it)."""
    group, rest = vectors[inside].double(), vectors[~inside].double()
    size, n = len(group), len(vectors)
    weights = diagonal_discriminant(group, rest)
    u = vectors.double() @ weights
    a, b, floor = u[inside], u[~inside], _least(u)
    between = size / n * (1 - size / n) * float(a.mean() - b.mean()) ** 2
    variance, other = (max(floor, float(of.var(correction=0))) for of in (a, b))
    spread = (u - u.mean()).square().mean().clamp_min(1e-30)
    direction = Direction(
        "grown",
        weights,
        0.0,
        size / n,
        float(a.mean()),
        variance,
        float(b.mean()),
        other,
        between / max(between + size / n * variance + (1 - size / n) * other, 1e-30),
        float(((u - u.mean()) ** 3).mean() / spread**1.5),
    )
    return direction, u


def _least(u: Tensor) -> float:
    """Variance that no part along a direction falls below."""
    return max(LEAST_DEVIATION**2 * float(u.var(correction=0)), 1e-12)


def _carriers(of: _Class, direction: Direction) -> Tensor:
    """bool [n]: images of another class that lie as far out along `direction` as its own group does."""
    u = of.vectors.double() @ direction.weights
    middle = u.median()
    deviation = (MAD * (u - middle).abs().median()).clamp_min(_least(u) ** 0.5)
    return (u > middle + FAR * deviation) & (u > (direction.mean + direction.other_mean) / 2)
