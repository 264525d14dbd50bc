"""Whether what images show supports their labels: what a network says of them that was given none of their labels.

One more network is trained, without the labels of all groups in question, of placebo groups and of a random share of
every class (the controls). The label of a typical picture, of a near-duplicate or of an easy view is still known when
it was held out. A label that only the group itself teaches is not. How well an image is known when held out depends on
how hard it is, so each group is compared with controls whose learning curves are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import mannwhitneyu
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from dlp_fast.detection import columns
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose.learning_curves import by_class
from dlp_fast.detection.propose.views import Images

THUMBNAIL = 8  # pixels: of this size two pictures are compared
COMPARED = 1024  # images of a group, evenly spread, each of which is compared with each
LIKENESS = 0.95  # correlation of two thumbnails from which they show the same picture
LIKENESS_CLASSES, LIKENESS_IMAGES = 20, 200  # compared to see how much alike images of a class are by nature
LIKENESS_QUANTILE = 0.98  # of the pairs of a class, that are less alike than copies
CURVE_COMPONENTS = 3  # of the learning curves, as the mixtures have
NEIGHBOURS = 20  # controls whose curves are most alike


@dataclass(frozen=True)
class HeldOut:
    """probability: float64 [n], of the given label by the network; controls: bool [n], images whose labels were held
    out at random; usual: float64 [n], the probability of controls whose learning curves are alike; likeness: from
    which two images are copies, see `least_likeness`.
    """

    probability: np.ndarray
    controls: np.ndarray
    usual: np.ndarray
    likeness: float = LIKENESS


@dataclass(frozen=True)
class LabelSupport:
    """probability: mean held-out probability of the labels of a group's images; usual: of controls whose learning
    curves are alike; of_class: of the controls of the same class; p: probability, by chance, that images of the class
    are known as little; distinct: how many different pictures they are.
    """

    probability: float
    usual: float
    of_class: float
    p: float
    distinct: int

    @property
    def ratio(self) -> float:
        """How well the labels are known, 1 for images like the others of the class."""
        return self.probability / max(self.of_class, 1e-6)

    @property
    def gap(self) -> float:
        """How much less they are known than those of images that were learnt alike."""
        return self.usual - self.probability


def draw_controls(labels: np.ndarray, in_question: np.ndarray, share: float, seed: int) -> np.ndarray:
    """bool [n]: of the images of each class that are not `in_question` (bool [n]), a random `share`, 5 at least, and
    half of them at most.
    """
    controls = np.zeros(len(labels), dtype=bool)
    generator = np.random.default_rng(seed)
    for of_class in by_class(labels, int(labels.max(initial=-1)) + 1):
        ids = of_class[~in_question[of_class]]
        count = min(max(5, round(share * len(ids))), len(ids) // 2)
        controls[generator.permutation(ids)[:count]] = True
    return controls


def usual_probability(
    curves: Callable[[slice], np.ndarray], probability: np.ndarray, controls: np.ndarray
) -> np.ndarray:
    """float64 [n]: mean `probability` of the controls whose curves are most alike, itself aside; curves: gives those of
    some images, [k, d].
    """
    points, ids = _places(curves, len(probability)), np.flatnonzero(controls)
    count = min(NEIGHBOURS, len(ids) - 1)
    if count < 1:
        return np.full(len(points), float(probability[ids].mean()) if len(ids) else 0.0)
    neighbours, usual = NearestNeighbors(n_neighbors=count + 1).fit(points[ids]), np.empty(len(points))
    for piece in columns.pieces(len(points), NEIGHBOURS):
        near = neighbours.kneighbors(points[piece], return_distance=False)
        own = ids[near] == np.arange(piece.start, piece.stop)[:, None]
        own[:, -1] |= ~own.any(1)  # an image that is no control has one neighbour too many
        usual[piece] = np.where(own, 0.0, probability[ids][near]).sum(1) / count
    return usual


def _places(curves: Callable[[slice], np.ndarray], n: int) -> np.ndarray:
    """float64 [n, components]: principal components of the curves, of many fitted to evenly spread ones."""
    step = -(-n // columns.PIECE)
    first = curves(slice(0, n, max(step, 1)))
    with threadpool_limits(1):  # sums shall not depend on the number of threads
        analysis = PCA(min(CURVE_COMPONENTS, *first.shape), random_state=0)
        points = analysis.fit_transform(first)
        if step <= 1:
            return points
        del first
        return np.concatenate([analysis.transform(curves(piece)) for piece in columns.pieces(n)])


def label_support(images: Images, group: Group, labels: np.ndarray, held_out: HeldOut) -> LabelSupport:
    """The LabelSupport of a group's images. Copies of one picture count once, since they are one observation."""
    ids = group.core
    first = np.unique(distinct_pictures(images, ids, held_out.likeness), return_index=True)[1]
    ids = ids[first]
    of_class, compared = [], []
    for label, count in zip(*np.unique(labels[ids], return_counts=True), strict=True):
        known = held_out.probability[held_out.controls & (labels == label)]
        compared.append(known)
        of_class.append((known.mean() if len(known) else 0.0, count))
    known = held_out.probability[ids]
    others = np.concatenate(compared)
    p = float(mannwhitneyu(known, others, alternative="less").pvalue) if len(others) else 1.0
    return LabelSupport(
        float(known.mean()),
        float(held_out.usual[ids].mean()),
        float(np.average([mean for mean, _ in of_class], weights=[count for _, count in of_class])),
        p,
        len(ids),
    )


def gap_p_value(gap: float, placebos: Sequence[float], least_deviation: float) -> float:
    """Probability that a group without anything in particular has such a gap, by those of placebo groups of the same
    set: a prediction interval of Student's t. 1 where there are fewer than three.
    """
    from scipy.stats import t

    if len(placebos) < 3:
        return 1.0
    deviation = max(float(np.std(placebos, ddof=1)), least_deviation)
    at = (gap - float(np.mean(placebos))) / (deviation * (1 + 1 / len(placebos)) ** 0.5)
    return float(t.sf(at, len(placebos) - 1))


def least_likeness(images: Images, labels: np.ndarray) -> float:
    """Correlation of two thumbnails from which they show the same picture, in this set: LIKENESS, or more where the
    images of a class are as much alike by nature; the median of the classes, so that copies in one do not count.
    """
    generator = np.random.default_rng(0)
    usual = []
    for label in np.argsort(-np.bincount(labels), kind="stable")[:LIKENESS_CLASSES]:
        ids = np.flatnonzero(labels == label)
        small = _thumbnails(images, np.sort(generator.permutation(ids)[:LIKENESS_IMAGES]))
        pairs = (small @ small.T)[np.triu_indices(len(small), 1)]
        if len(pairs):
            usual.append(float(pairs.quantile(LIKENESS_QUANTILE)))
    return max(LIKENESS, float(np.median(usual))) if usual else LIKENESS


def share_of_copies(images: Images, ids: np.ndarray, likeness: float = LIKENESS) -> float:
    """Share of `ids`, 0 to 1, in the largest set of near-duplicates, each of which is alike one other at least: copies
    that were cropped differently need not all be alike one another. Of a large group, COMPARED images are looked at.
    """
    ids = ids[np.linspace(0, len(ids) - 1, min(len(ids), COMPARED)).round().astype(np.int64)]
    small = _thumbnails(images, ids)
    alike = coo_array((small @ small.T >= likeness).numpy())
    return float(np.bincount(connected_components(alike, directed=False)[1]).max() / len(ids))


def distinct_pictures(images: Images, ids: np.ndarray, likeness: float = LIKENESS) -> np.ndarray:
    """int64 [k]: number of the picture that each of `ids` shows, from 0; near-duplicates have the same."""
    small = _thumbnails(images, ids)
    number = np.full(len(ids), -1)
    found = 0
    for i in range(len(ids)):
        if number[i] < 0:
            alike = ((small @ small[i]) >= likeness).numpy() & (number < 0)
            alike[i] = True
            number[alike] = found
            found += 1
    return number


def _thumbnails(images: Images, ids: np.ndarray) -> torch.Tensor:
    """fp32 [k, d]: small pictures of `ids` without their mean, of length 1."""
    parts = []
    for part in torch.from_numpy(ids).split(256):
        planes = images.get(part).cpu().permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(planes, (THUMBNAIL, THUMBNAIL), mode="area").flatten(1)
        parts.append(small - small.mean(1, keepdim=True))
    small = torch.cat(parts)
    return small / small.norm(dim=1, keepdim=True).clamp_min(1e-6)
