"""Learning curves cluster: poisoned images share one shortcut, so a class that holds them falls into two components.

Every image has a curve: after each epoch the log-odds of its label, and the logarithm of its entropy. Images of one
class that were learnt for their own sake form one broad component. Images that were learnt by one trigger were learnt
at the same moment and to the same depth: a second, tight component, far from the first. Whether they were learnt
early or late does not matter, which is where a snapshot, a mean and the size of a fall each fail (docs/detection.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from dlp_fast.config import LearningCurvesConfig
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose.mixtures import Mixture, fit, from_parts

NAME = "learning_curves"
WORTH_A_THREAD = (
    5_000  # images of a class on average: work on fewer is mostly Python's, of which one thread runs
)
STEPS = 100  # of a fit to the end, as in scikit-learn
Made = TypeVar("Made")


def learning_curves(
    entropy: np.ndarray,
    loss: np.ndarray,
    labels: np.ndarray,
    classes: int,
    config: LearningCurvesConfig,
    rare: bool = True,
    threads: int = 1,
    kept: Callable[[list[Group]], list[Group]] = list,
) -> list[Group]:
    """For each class with at least `min_class_size` images, the groups that two-component mixtures of its curves give.

    Args: entropy (bits), loss (nats): [epochs, n], of any floating type; labels: int64 [n]; threads: classes looked at
    at a time, which changes no group; kept: those of the groups of a class that are wanted, chosen as soon as there are
    any, since each has a number an image. With `rare`, and from `rare_epochs` epochs on, fits that begin in the tails
    of a class are proposed as well, since a small component is not where a fit to the whole class ends up. Each Group
    has all images of the class as `ids`, and as `membership` the posterior of the deeper-learnt component. Needs two
    epochs or more, else there are none.
    """
    if len(entropy) < 2:
        return []

    def look(label: int, ids: np.ndarray) -> list[Group]:
        of_class = curves(entropy[:, ids], loss[:, ids], config)
        if is_flat(of_class):
            return []
        late_loss = np.log(loss[-config.late_epochs :, ids].astype(np.float32) + config.entropy_floor).mean(0)
        groups = [_plain_group(label, ids, of_class, late_loss, config)]
        if rare and len(entropy) >= config.rare_epochs:
            groups += _rare_groups(label, ids, of_class, late_loss, config)
        return kept(groups)

    looked = _of_classes(look, labels, classes, config.min_class_size, threads)
    return [group for groups in looked for group in groups]


def by_class(labels: np.ndarray, classes: int) -> Iterator[np.ndarray]:
    """int64 ids of the images of each class, ascending, by one sort; labels: int64 [n]."""
    smallest = np.min_scalar_type(max(classes - 1, 0))  # of 16 bits and fewer, the sort is by radix
    order = np.argsort(labels.astype(smallest), kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=classes))
    return iter(np.split(order, ends[:-1]))


def _of_classes(
    look: Callable[[int, np.ndarray], Made], labels: np.ndarray, classes: int, least: int, threads: int
) -> list[Made]:
    """What `look` gives for (label, ids) of each class with at least `least` images, in their order."""
    wanted = [(c, ids) for c, ids in enumerate(by_class(labels, classes)) if len(ids) >= least]
    with threadpool_limits(1):  # matrices are small, and sums shall not depend on the number of threads
        if threads <= 1 or sum(len(ids) for _, ids in wanted) < WORTH_A_THREAD * len(wanted):
            return [look(*one) for one in wanted]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda one: look(*one), wanted))


def is_flat(of_class: np.ndarray) -> bool:
    """Whether curves [n_c, d] do not differ from one another."""
    return bool(of_class.std(0).max() <= 1e-6)


def flat_classes(
    entropy: np.ndarray, loss: np.ndarray, labels: np.ndarray, config: LearningCurvesConfig
) -> list[int]:
    """Numbers of the classes with at least `min_class_size` images all of which have the same curve, as copies of one
    picture have. Args as in `learning_curves`.
    """

    def look(label: int, ids: np.ndarray) -> list[int]:
        return [label] if is_flat(curves(entropy[:, ids], loss[:, ids], config)) else []

    classes = int(labels.max(initial=0)) + 1
    return [c for found in _of_classes(look, labels, classes, config.min_class_size, 1) for c in found]


def curves(entropy: np.ndarray, loss: np.ndarray, config: LearningCurvesConfig) -> np.ndarray:
    """[n, 2 epochs] from entropy (bits) and loss (nats), each [epochs, n].

    Log-odds, not the loss itself: the logarithm of a loss flattens what sets a backdoor apart, that its images go on to
    be surer and surer.
    """
    p = np.exp(-loss.astype(np.float64))
    odds = np.log(np.clip(p, config.least_probability, 1) / np.clip(1 - p, config.least_doubt, 1))
    return np.concatenate([odds, np.log(entropy.astype(np.float64) + config.entropy_floor)]).T


def bhattacharyya(mixture: GaussianMixture | Mixture) -> float:
    """Distance of the two Gaussians of `mixture`: by their centres, and by how unlike their shapes are."""
    one, two = mixture.covariances_
    mean = (one + two) / 2
    between = mixture.means_[0] - mixture.means_[1]
    determinants = [np.linalg.slogdet(covariance)[1] for covariance in (mean, one, two)]
    centres = between @ np.linalg.solve(mean, between) / 8
    return float(centres + (determinants[0] - (determinants[1] + determinants[2]) / 2) / 2)


def _fit(mixture: GaussianMixture, points: np.ndarray) -> GaussianMixture:
    """Fits are cut short on purpose, which is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(points)


def _points(
    of_class: np.ndarray, components: int, config: LearningCurvesConfig
) -> tuple[np.ndarray, np.ndarray]:
    """[n_c, components]: principal components of the curves, in units of the first one's deviation, and those of them
    that are fitted to: `fit_images` drawn ones where there are more.
    """
    analysis = PCA(min(components, *of_class.shape), random_state=0)
    n = len(of_class)
    if n <= config.fit_images:
        points = analysis.fit_transform(of_class)
        points = points / max(points[:, 0].std(), 1e-9)
        return points, points
    drawn = np.sort(np.random.default_rng(0).choice(n, config.fit_images, replace=False))
    fitted = analysis.fit_transform(of_class[drawn])
    unit = max(fitted[:, 0].std(), 1e-9)
    return analysis.transform(of_class) / unit, fitted / unit


def _plain_group(
    label: int, ids: np.ndarray, of_class: np.ndarray, late_loss: np.ndarray, config: LearningCurvesConfig
) -> Group:
    """Two Gaussian components fitted to the curves `of_class` [n_c, 2 epochs] of one class."""
    points, fitted = _points(of_class, config.components, config)
    mixture = GaussianMixture(2, reg_covar=config.regularisation, n_init=3, max_iter=STEPS, random_state=0)
    _fit(mixture, fitted)
    return _group(label, ids, mixture.predict_proba(points), late_loss, bhattacharyya(mixture), rare=False)


def _rare_groups(
    label: int, ids: np.ndarray, of_class: np.ndarray, late_loss: np.ndarray, config: LearningCurvesConfig
) -> list[Group]:
    """Groups that fits from the tails of the principal components of one class end in, the likeliest ones."""
    points, fitted = _points(of_class, config.rare_components, config)
    tails = _tails(fitted, config)
    start = from_parts(fitted, tails, tails.mean(1), 1e-3)
    tried = fit(fitted, start, config.regularisation, config.rare_tries)
    likeliest = (-tried.lower_bound_).argsort(kind="stable")[: config.rare_fits]
    ended = fit(fitted, tried.take(likeliest), config.regularisation, STEPS)
    return [
        _group(label, ids, posterior, late_loss, bhattacharyya(ended.one(k)), rare=True)
        for k, posterior in enumerate(ended.posterior(points))
    ]


def _tails(points: np.ndarray, config: LearningCurvesConfig) -> np.ndarray:
    """bool [s, n]: both ends of each axis of `points` [n, d], of each share."""
    n, d = points.shape
    tails = []
    for axis in range(d):
        order = points[:, axis].argsort(kind="stable")
        for share in config.rare_shares:
            count = max(config.rare_tail, int(share * n))
            for tail in (order[:count], order[-count:]):
                inside = np.zeros(n, dtype=bool)
                inside[tail] = True
                tails.append(inside)
    return np.stack(tails)


def _group(
    label: int,
    ids: np.ndarray,
    posterior: np.ndarray,
    late_loss: np.ndarray,
    separation: float,
    rare: bool,
) -> Group:
    """The deeper-learnt of two components, the one of lower loss at the end; posterior: [n_c, 2]."""
    depth = [np.average(late_loss, weights=posterior[:, j] + 1e-12) for j in (0, 1)]
    deeper = int(np.argmin(depth))
    clipped = np.clip(posterior, 1e-12, 1)
    statistics = {
        "separation": separation,
        "posterior_entropy": float(-(clipped * np.log2(clipped)).sum(1).mean()),
        "rare": float(rare),
    }
    return Group(NAME, label, ids, posterior[:, deeper].copy(), statistics)
