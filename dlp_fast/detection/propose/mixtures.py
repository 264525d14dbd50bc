"""Mixtures of two Gaussians from many starts at once: the same steps as scikit-learn's, in a few matrix products.

Twenty-four starts of a class of a thousand images are 200 steps of half a millisecond each in scikit-learn, most of it
not arithmetic. Of a point only 1, x and the products of its coordinates matter, so that one product with these gives
the logarithms of all densities of all starts, and one with their transpose all moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-3  # nats a point: a fit that gains less in a step has ended, as in scikit-learn
CHUNK = 1 << 14  # points worked on at once


@dataclass(frozen=True)
class Mixture:
    """Of one mixture: means_ [2, d], covariances_ [2, d, d]."""

    means_: np.ndarray
    covariances_: np.ndarray


@dataclass(frozen=True)
class Mixtures:
    """Of s mixtures: weights_ [s, 2], means_ [s, 2, d], covariances_ [s, 2, d, d], lower_bound_ [s], nats a point."""

    weights_: np.ndarray
    means_: np.ndarray
    covariances_: np.ndarray
    lower_bound_: np.ndarray

    def __len__(self) -> int:
        return len(self.weights_)

    def take(self, which: np.ndarray) -> Mixtures:
        """The mixtures `which`, int64 or bool, in that order."""
        return Mixtures(*(values[which] for values in vars(self).values()))

    def one(self, k: int) -> Mixture:
        return Mixture(self.means_[k], self.covariances_[k])

    def posterior(self, points: np.ndarray) -> np.ndarray:
        """float64 [s, n, 2]: of each of `points` [n, d], the probability of each component."""
        coefficients = _coefficients(self.weights_, self.means_, self.covariances_)
        parts = [
            np.exp(_log_posterior(_monomials(part) @ coefficients)[0])
            for part in np.split(points, range(CHUNK, len(points), CHUNK))
        ]
        return np.concatenate(parts).reshape(len(points), len(self), 2).transpose(1, 0, 2)


def fit(points: np.ndarray, start: Mixtures, regularisation: float, iterations: int) -> Mixtures:
    """Expectation-maximisation on `points` [n, d] from each of `start`, whose lower bounds do not matter; each ends by
    TOLERANCE or after `iterations` steps. `regularisation` is added to the variances.
    """
    done = Mixtures(*(values.copy() for values in vars(start).values()))
    done.lower_bound_[:] = -np.inf
    active = np.arange(len(start))
    features = _monomials(points)
    for _ in range(iterations):
        now = done.take(active)
        bound, moments = _expectation(features, now)
        new = _maximisation(moments, points.shape[1], regularisation)
        for name, values in (("weights_", new[0]), ("means_", new[1]), ("covariances_", new[2])):
            getattr(done, name)[active] = values
        done.lower_bound_[active] = bound
        active = active[~(np.abs(bound - now.lower_bound_) < TOLERANCE)]
        if not len(active):
            break
    return done


def from_parts(points: np.ndarray, inside: np.ndarray, weights: np.ndarray, added: float) -> Mixtures:
    """Mixtures whose first component is the points `inside`, bool [s, n], the second the others; `added` to variances.

    weights: [s], of the first component.
    """
    means, covariances = [], []
    for mask in inside:
        parts = points[mask], points[~mask]
        means.append([part.mean(0) for part in parts])
        covariances.append([np.cov(part.T).reshape(points.shape[1], -1) for part in parts])
    floor = added * np.eye(points.shape[1])
    both = np.stack([weights, 1 - weights], axis=1)
    return Mixtures(both, np.array(means), np.array(covariances) + floor, np.full(len(inside), -np.inf))


def _monomials(points: np.ndarray) -> np.ndarray:
    """[n, 1 + d + d (d + 1) / 2]: 1, the coordinates, and their products."""
    one, two = np.triu_indices(points.shape[1])
    return np.concatenate([np.ones((len(points), 1)), points, points[:, one] * points[:, two]], axis=1)


def _coefficients(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """[monomials, 2 s]: by which these give log(weight density) of each component of each mixture."""
    d = means.shape[-1]
    one, two = np.triu_indices(d)
    factor = np.linalg.cholesky(covariances.reshape(-1, d, d))
    roots = np.linalg.inv(factor)
    precision = roots.transpose(0, 2, 1) @ roots
    centre = means.reshape(-1, d)
    linear = (precision @ centre[..., None])[..., 0]
    log_root = -np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)
    constant = (
        np.log(weights.reshape(-1)) - d / 2 * np.log(2 * np.pi) + log_root - (linear * centre).sum(1) / 2
    )
    square = -precision[:, one, two] * np.where(one == two, 0.5, 1.0)
    return np.concatenate([constant[:, None], linear, square], axis=1).T


def _log_posterior(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log of the posterior [n, 2 s], log density [n, s]) from log(weight density) [n, 2 s]."""
    pairs = logs.reshape(len(logs), -1, 2)
    both = np.logaddexp(pairs[..., 0], pairs[..., 1])
    return (pairs - both[..., None]).reshape(logs.shape), both


def _expectation(features: np.ndarray, now: Mixtures) -> tuple[np.ndarray, np.ndarray]:
    """(mean log density [s], sums [2 s, monomials] of the features weighted by the posterior)."""
    coefficients = _coefficients(now.weights_, now.means_, now.covariances_)
    bound, moments = np.zeros(len(now)), np.zeros(coefficients.T.shape)
    for first in range(0, len(features), CHUNK):
        part = features[first : first + CHUNK]
        logs, density = _log_posterior(part @ coefficients)
        bound += density.sum(0)
        moments += np.exp(logs).T @ part
    return bound / len(features), moments


def _maximisation(
    moments: np.ndarray, d: int, regularisation: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """weights, means and covariances from the sums of `_expectation`."""
    one, two = np.triu_indices(d)
    count = moments[:, 0] + 10 * np.finfo(np.float64).eps
    mean = moments[:, 1 : d + 1] / count[:, None]
    product = moments[:, d + 1 :] / count[:, None] - mean[:, one] * mean[:, two]
    covariance = np.empty((len(moments), d, d))
    covariance[:, one, two] = covariance[:, two, one] = product
    covariance[:, range(d), range(d)] = np.maximum(covariance[:, range(d), range(d)], 0) + regularisation
    weights = count.reshape(-1, 2)
    return weights / weights.sum(1, keepdims=True), mean.reshape(-1, 2, d), covariance.reshape(-1, 2, d, d)
