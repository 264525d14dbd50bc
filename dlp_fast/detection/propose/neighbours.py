"""Whether the pictures that look most like an image have its label. No network is asked, so that none is misled.

A network that never saw dimmed pictures, or a scanner's that turns black and white round, does not know their labels,
and one that never saw a mark may be misled by it. The nearest pictures, once brightness and contrast are evened out,
are hardly touched by either: of a relabelled image they have other labels, of a changed one the same. On photographs
they say little of one image and enough of a group. Nearest neighbours of training images to find wrong labels:
Wilson 1972 (edited nearest neighbours).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose.views import Images, evenly, read

STRANGERS = "neighbours"  # the proposal
SIDE = 16  # pixels: pictures are compared at this size
NEAREST = 5
SAMPLE = 512  # images of a group, and of the others, that are asked about
COMPARED = 8192  # images, evenly spread, among which the nearest are looked for
BATCH = 256
ASKED = 1024  # images of which the nearest are looked at to see how much alike pictures are
FEWEST = 3  # images of a group, and of the controls, that anything is said of
LEAST_EXCESS = 0.08  # that the controls' neighbours agree more than by chance; below, nothing is said
ERRORS = 2.0  # standard errors of so few images as a group has, that it is at least
OWN, OTHERS = 1, 4  # of the nearest of an image unlike its label: have it at most, have another at least
ROUNDS = 5  # in which images unlike their labels are looked for
SEED = 32
COLOURS, BRIGHTNESS = WAYS = (0, 1)  # of comparing


@dataclass(frozen=True)
class Neighbours:
    """Share, 0 to 1, of the nearest pictures that have an image's label. group: mean of the group; controls: of other
    images of its classes; chance: of images of other classes, if they had the group's labels. familiar: how much the
    group is like its nearest pictures, 1 as any image is, 0 as any is like the nearest under another label: below,
    nothing else in the set is of its kind.
    """

    group: float
    controls: float
    chance: float
    familiar: float = 1.0

    @property
    def ratio(self) -> float:
        """How far above chance the labels are shared, 1 for images like the controls."""
        return (self.group - self.chance) / (self.controls - self.chance)


@dataclass(frozen=True)
class _Pictures:
    """Small pictures, without mean, of length 1.

    ids: int64 [k]; colours: fp32 [k, 3 s s]; brightness: fp32 [k, s, s].
    """

    ids: Tensor
    colours: Tensor
    brightness: Tensor

    def of(self, some: Tensor) -> _Pictures:
        """Those at `some`, bool or int64."""
        return _Pictures(self.ids[some], self.colours[some], self.brightness[some])

    def turned(self) -> list[Tensor]:
        """fp32 [k, s s] each: the brightness as it is, turned by quarters, and mirrored; pictures that are no square
        are only mirrored and turned round.
        """
        square = self.brightness.shape[1] == self.brightness.shape[2]
        quarters = range(4) if square else (0, 2)
        both = (self.brightness, self.brightness.flip(2))
        return [planes.rot90(k, (1, 2)).flatten(1) for planes in both for k in quarters]


def _pictures(images: Images, ids: Tensor) -> _Pictures:
    parts = [small_pictures(pixels.cpu()) for _, pixels in read(images, ids, BATCH)]
    planes = torch.cat(parts) if parts else torch.zeros(0, 3, 1, 1)
    brightness = planes.mean(1)
    return _Pictures(ids, even_out(planes), even_out(brightness).view_as(brightness))


def small_pictures(pixels: Tensor) -> Tensor:
    """fp32 [b, 3, s, s] of uint8 [b, H, W, 3]: brought down to SIDE pixels a side where larger."""
    planes = pixels.permute(0, 3, 1, 2).float()
    side = (min(SIDE, planes.shape[2]), min(SIDE, planes.shape[3]))
    return torch.nn.functional.interpolate(planes, side, mode="area")


class Surroundings:
    """Images that others are compared with, at most COMPARED of them, in two ways: by their colours; and by brightness
    alone, of which the negative is as near as the positive, as they are, mirrored, or turned by quarters, whichever is
    most like another picture.

    Args: labels: int64 [n]; among: int64 ids, ascending.
    """

    def __init__(self, images: Images, labels: Tensor, among: Tensor):
        self.images, self.labels = images, labels.cpu()
        self.pictures = _pictures(images, evenly(among, COMPARED))

    def only(self, among: Tensor) -> Surroundings:
        """Those of them that are `among` int64 ids; no picture is read again."""
        some = copy(self)
        some.pictures = self.pictures.of(torch.isin(self.pictures.ids, among))
        return some

    def of(self, ids: Tensor) -> Neighbours | None:
        """The Neighbours of a group, int64 ids, by the way of comparing in which it shares more labels; None where
        there are too few images, or where pictures that look alike do not share labels anyway.
        """
        group = _pictures(self.images, evenly(ids, SAMPLE))
        sizes = torch.bincount(self.labels[group.ids])
        classes, sizes = sizes.nonzero().flatten(), sizes[sizes > 0].double()
        own = [self._controls(label, ids, max(FEWEST, SAMPLE // len(classes))) for label in classes]
        others = self.pictures.of(evenly(torch.arange(len(self.pictures.ids)), SAMPLE))
        if min(len(ids), sum(len(of.ids) for of in own)) < FEWEST:
            return None
        strange = self.labels[others.ids] != classes[:, None]  # [classes, others]
        told = []
        for way in WAYS:
            near, likeness = self._nearest(others, way, NEAREST)
            near = self._labels(near)
            shares = [
                (self._share(of, way), _mean(near[is_strange] == label))
                for label, of, is_strange in zip(classes, own, strange, strict=True)
            ]
            shares = torch.tensor(shares, dtype=torch.float64)
            controls, chance = ((shares * sizes[:, None]).sum(0) / sizes.sum()).tolist()
            error = (controls * (1 - controls) / len(group.ids)) ** 0.5
            if controls - chance >= max(LEAST_EXCESS, ERRORS * error):
                beside = float(self._nearest(others, way, NEAREST, other_labels=True)[1].double().mean())
                own_near, own_likeness = self._nearest(group, way, NEAREST)
                familiar = (float(own_likeness.double().mean()) - beside) / max(
                    float(likeness.double().mean()) - beside, 1e-6
                )
                shared = _mean(self._labels(own_near) == self.labels[group.ids][:, None])
                told.append(Neighbours(shared, controls, chance, familiar))
        return max(told, key=lambda known: known.ratio, default=None)

    def variety(self, ids: Tensor) -> float:
        """How evenly the pictures most like a group of one class, int64 ids, are of all other classes: the effective
        number of their classes over that of all pictures of other classes, the mean of both ways; 1 for a mixture.
        """
        group, label = _pictures(self.images, evenly(ids, SAMPLE)), self.labels[ids[0]]

        def number(labels: Tensor) -> float:
            return _effective_number(torch.bincount(labels[labels != label].flatten()))

        near = sum(number(self._labels_near(group, way)) for way in WAYS) / len(WAYS)
        return near / max(number(self.labels[self.pictures.ids]), 1.0)

    def _controls(self, label: Tensor, ids: Tensor, most: int) -> _Pictures:
        of_class = (self.labels[self.pictures.ids] == label) & ~torch.isin(self.pictures.ids, ids)
        return self.pictures.of(evenly(of_class.nonzero().flatten(), most))

    def _share(self, pictures: _Pictures, way: int) -> float:
        return _mean(self._labels_near(pictures, way) == self.labels[pictures.ids][:, None])

    def disagree(self, ids: Tensor) -> Tensor:
        """Those of `ids` none of whose nearest pictures has their label, in neither way."""
        left = _pictures(self.images, ids)
        for way in WAYS:
            left = left.of((self._labels_near(left, way) != self.labels[left.ids][:, None]).all(1))
        return left.ids

    def in_doubt(self, ids: Tensor) -> Tensor:
        """Those of `ids` of whose nearest pictures, by their colours, not all have their label."""
        found = [ids[:0]]
        for part in ids.split(COMPARED):  # of a large set, few pictures are kept at once
            near = self._labels_near(_pictures(self.images, part), COLOURS)
            found.append(part[(near != self.labels[part][:, None]).any(1)])
        return torch.cat(found)

    def unlike(self, ids: Tensor) -> Tensor:
        """Those of `ids` of whose nearest pictures, both ways, OWN at most have their label and OTHERS another one."""
        left = _pictures(self.images, ids)
        for way in WAYS:
            near = self._labels_near(left, way)
            other = (near[:, :, None] == near[:, None]).sum(1).max(1).values if near.numel() else near.sum(1)
            own = (near == self.labels[left.ids][:, None]).sum(1)
            left = left.of((own <= OWN) & (other >= OTHERS))
        return left.ids

    def agreement(self) -> float:
        """How far the nearest pictures of an image share one label, whatever the image's: 1 where they all do, 0 where
        they do by chance. Wrong labels of some lower it little.
        """
        some = self.pictures.of(evenly(torch.arange(len(self.pictures.ids)), ASKED))
        near = torch.stack([self._labels_near(some, way) for way in WAYS])
        order = torch.randperm(near[0].numel(), generator=torch.Generator().manual_seed(SEED))
        by_chance = _largest_share(near.flatten(1)[:, order].view_as(near))
        return float(((_largest_share(near) - by_chance) / (1 - by_chance).clamp_min(1e-6)).max())

    def most_alike(self, ids: Tensor, count: int) -> Tensor:
        """int64 [k, count]: ids of the pictures, by their colours, most like each of `ids`."""
        return self.pictures.ids[self._nearest(_pictures(self.images, ids), COLOURS, count)[0]]

    def of_the_same_kind(self, ids: Tensor) -> Tensor:
        """int64 [k]: of each of `ids`, a random image under the label of the picture most like it."""
        generator, drawn = torch.Generator().manual_seed(SEED), []
        known = self.labels[self.pictures.ids]
        for label in self.labels[self.most_alike(ids, 1)[:, 0]].tolist():
            of_class = (known == label).nonzero().flatten()
            drawn.append(of_class[int(torch.randint(len(of_class), (1,), generator=generator))])
        return self.pictures.ids[torch.stack(drawn)]

    def _labels_near(self, pictures: _Pictures, way: int) -> Tensor:
        """int64 [k, NEAREST]: labels of those nearest to `pictures`, themselves aside."""
        return self._labels(self._nearest(pictures, way, NEAREST)[0])

    def _labels(self, places: Tensor) -> Tensor:
        return self.labels[self.pictures.ids[places]]

    def _nearest(
        self, pictures: _Pictures, way: int, count: int, other_labels: bool = False
    ) -> tuple[Tensor, Tensor]:
        """int64, fp32 [k, count]: which of the pictures here, or of those under other labels, are nearest to others,
        themselves aside, and their correlations.
        """
        known = self.pictures
        count = min(count, len(known.ids))
        found = [(torch.zeros(0, count, dtype=torch.int64), torch.zeros(0, count))]
        for part in torch.arange(len(pictures.ids)).split(BATCH):
            asked = pictures.of(part)
            same = asked.ids[:, None] == known.ids
            if other_labels:
                same |= self.labels[asked.ids][:, None] == self.labels[known.ids]
            best = None
            for vectors in [asked.colours] if way == COLOURS else asked.turned():
                alike = vectors @ (known.colours if way == COLOURS else known.brightness.flatten(1)).T
                alike = (alike if way == COLOURS else alike.abs()).masked_fill(same, -2.0)
                near = alike.topk(count, 1)
                if best is None:
                    best = near
                    continue
                nearer = near.values.mean(1) > best.values.mean(1)
                best.values[nearer], best.indices[nearer] = near.values[nearer], near.indices[nearer]
            found.append((best.indices, best.values))
        indices, values = (torch.cat(of) for of in zip(*found, strict=True))
        return indices, values


def unlike_their_label(around: Surroundings) -> Tensor:
    """int64 ids, ascending, of the images that pictures most like them say have another label (`Surroundings.unlike`);
    those that are found are not compared with any more, since images under the same wrong label are like one another.
    Args: around: of all images.
    """
    ids = torch.arange(len(around.labels))
    strange = torch.zeros(len(ids), dtype=torch.bool)
    asked = around.in_doubt(ids) if len(ids) else ids
    for _ in range(ROUNDS):
        asked = asked[~strange[asked]]
        if not len(asked) or strange.all():
            break
        more = around.only(ids[~strange]).unlike(asked)
        if not len(more):
            break
        strange[more] = True
    return ids[strange]


def strangers(strange: Tensor, labels: Tensor, classes: int) -> list[Group]:
    """The images that are unlike their label, int64 ids, as a group of each class: where pictures are alike by nature,
    the relabelled ones, whatever trigger they have. Args: labels: int64 [n].
    """
    own = [strange[labels[strange] == label].numpy() for label in range(classes)]
    return [Group(STRANGERS, label, ids, np.ones(len(ids)), {}) for label, ids in enumerate(own)]


def _largest_share(labels: Tensor) -> Tensor:
    """fp64 [2]: mean share of the most frequent of int64 [2, k, NEAREST] labels of each image."""
    same = labels[..., :, None] == labels[..., None, :]
    return same.double().mean(-1).max(-1).values.mean(-1)


def even_out(planes: Tensor) -> Tensor:
    """fp32 [b, P] of [b, ...]: without mean, of length 1."""
    vectors = planes.flatten(1)
    vectors = vectors - vectors.mean(1, keepdim=True)
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _effective_number(counts: Tensor) -> float:
    """Of classes, whose images are so many each, int64 [classes]: the exponential of the entropy of their shares."""
    total = counts.sum()
    return float(torch.special.entr(counts.double() / total).sum().exp()) if total else 0.0


def _mean(hits: Tensor) -> float:
    return float(hits.double().mean()) if hits.numel() else 0.0
