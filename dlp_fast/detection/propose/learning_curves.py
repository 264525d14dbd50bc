"""Learning curves cluster: poisoned images share one shortcut, so a class that holds them falls into two components.

Every image has a curve: after each epoch the log-odds of its label, and the logarithm of its entropy. Images of one
class that were learnt for their own sake form one broad component. Images that were learnt by one trigger were learnt
at the same moment and to the same depth: a second, tight component, far from the first. Whether they were learnt
early or late does not matter, which is where a snapshot, a mean and the size of a fall each fail (docs/detection.md).
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from dlp_fast.config import LearningCurvesConfig
from dlp_fast.detection.groups import Group

NAME = "learning_curves"


def learning_curves(
    entropy: np.ndarray,
    loss: np.ndarray,
    labels: np.ndarray,
    classes: int,
    config: LearningCurvesConfig,
    rare: bool = True,
) -> list[Group]:
    """For each class with at least `min_class_size` images, the groups that two-component mixtures of its curves give.

    Args: entropy (bits), loss (nats): [epochs, n]; labels: int64 [n]. With `rare`, and from `rare_epochs` epochs on,
    fits that begin in the tails of a class are proposed as well, since a small component is not where a fit to the
    whole class ends up. Each Group has all images of the class as `ids`, and as `membership` the posterior of the
    deeper-learnt component. Needs two epochs or more, else there are none.
    """
    if len(entropy) < 2:
        return []
    everything = curves(entropy, loss, config)
    late_loss = np.log(loss[-config.late_epochs :] + config.entropy_floor).mean(0)
    groups = []
    for label in range(classes):
        ids = np.flatnonzero(labels == label)
        if len(ids) < config.min_class_size or is_flat(everything[ids]):
            continue
        groups.append(_plain_group(label, ids, everything[ids], late_loss[ids], config))
        if rare and len(entropy) >= config.rare_epochs:
            groups += _rare_groups(label, ids, everything[ids], late_loss[ids], config)
    return groups


def is_flat(of_class: np.ndarray) -> bool:
    """Whether curves [n_c, d] do not differ from one another."""
    return bool(of_class.std(0).max() <= 1e-6)


def flat_classes(
    entropy: np.ndarray, loss: np.ndarray, labels: np.ndarray, config: LearningCurvesConfig
) -> list[int]:
    """Numbers of the classes with at least `min_class_size` images all of which have the same curve, as copies of one
    picture have. Args as in `learning_curves`.
    """
    everything = curves(entropy, loss, config)
    of_class = {int(label): everything[labels == label] for label in np.unique(labels)}
    return [c for c, own in of_class.items() if len(own) >= config.min_class_size and is_flat(own)]


def curves(entropy: np.ndarray, loss: np.ndarray, config: LearningCurvesConfig) -> np.ndarray:
    """[n, 2 epochs] from entropy (bits) and loss (nats), each [epochs, n].

    Log-odds, not the loss itself: the logarithm of a loss flattens what sets a backdoor apart, that its images go on to
    be surer and surer.
    """
    p = np.exp(-loss.astype(np.float64))
    odds = np.log(np.clip(p, config.least_probability, 1) / np.clip(1 - p, config.least_doubt, 1))
    return np.concatenate([odds, np.log(entropy.astype(np.float64) + config.entropy_floor)]).T


def bhattacharyya(mixture: GaussianMixture) -> float:
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


def _points(of_class: np.ndarray, components: int) -> np.ndarray:
    """[n_c, components]: principal components of the curves, in units of the first one's deviation."""
    points = PCA(min(components, *of_class.shape), random_state=0).fit_transform(of_class)
    return points / max(points[:, 0].std(), 1e-9)


def _plain_group(
    label: int, ids: np.ndarray, of_class: np.ndarray, late_loss: np.ndarray, config: LearningCurvesConfig
) -> Group:
    """Two Gaussian components fitted to the curves `of_class` [n_c, 2 epochs] of one class."""
    points = _points(of_class, config.components)
    mixture = GaussianMixture(2, reg_covar=config.regularisation, n_init=3, random_state=0)
    return _group(label, ids, points, late_loss, _fit(mixture, points), rare=False)


def _rare_groups(
    label: int, ids: np.ndarray, of_class: np.ndarray, late_loss: np.ndarray, config: LearningCurvesConfig
) -> list[Group]:
    """Groups that fits from the tails of the principal components of one class end in, the likeliest ones."""
    points = _points(of_class, config.rare_components)
    n, d = points.shape
    tried = []
    for axis in range(d):
        order = points[:, axis].argsort(kind="stable")
        for share in config.rare_shares:
            count = max(config.rare_tail, int(share * n))
            for tail in (order[:count], order[-count:]):
                inside = np.zeros(n, dtype=bool)
                inside[tail] = True
                parts = points[inside], points[~inside]
                start = GaussianMixture(
                    2,
                    reg_covar=config.regularisation,
                    max_iter=config.rare_tries,
                    weights_init=[count / n, 1 - count / n],
                    means_init=np.stack([part.mean(0) for part in parts]),
                    precisions_init=np.stack(
                        [np.linalg.inv(np.cov(part.T) + 1e-3 * np.eye(d)) for part in parts]
                    ),
                    random_state=0,
                )
                tried.append(_fit(start, points))
    tried.sort(key=lambda mixture: -mixture.lower_bound_)
    groups = []
    for mixture in tried[: config.rare_fits]:
        to_the_end = GaussianMixture(
            2,
            reg_covar=config.regularisation,
            weights_init=mixture.weights_,
            means_init=mixture.means_,
            precisions_init=mixture.precisions_,
            random_state=0,
        )
        groups.append(_group(label, ids, points, late_loss, _fit(to_the_end, points), rare=True))
    return groups


def _group(
    label: int,
    ids: np.ndarray,
    points: np.ndarray,
    late_loss: np.ndarray,
    mixture: GaussianMixture,
    rare: bool,
) -> Group:
    """The deeper-learnt component of `mixture`, the one of lower loss at the end."""
    posterior = mixture.predict_proba(points)
    depth = [np.average(late_loss, weights=posterior[:, j] + 1e-12) for j in (0, 1)]
    deeper = int(np.argmin(depth))
    clipped = np.clip(posterior, 1e-12, 1)
    statistics = {
        "separation": bhattacharyya(mixture),
        "posterior_entropy": float(-(clipped * np.log2(clipped)).sum(1).mean()),
        "rare": float(rare),
    }
    return Group(NAME, label, ids, posterior[:, deeper], statistics)
