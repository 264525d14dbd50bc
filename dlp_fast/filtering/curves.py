"""Learning curves cluster: poisoned images share one shortcut, so a class that holds them falls into two groups.

Every image has a curve: the logarithms of its loss and of its entropy after each epoch. Images of one class that
were learnt for their own sake form one broad cloud of curves. Images that were learnt by one trigger were learnt
at the same moment and to the same depth: a second, tight cloud, far from the first. Whether they were learnt
early or late does not matter, which is where a snapshot, a mean and the size of a fall each fail (docs/filter.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils._testing import ignore_warnings

FLOOR = (
    0.02  # nats and bits; below this a curve has nothing more to say, and the logarithm would only add noise
)
COMPONENTS = 3  # principal components that the clouds are looked for in
LEAST = 40  # images; smaller classes have no clouds to tell apart
LATE = 3  # epochs at the end that decide which of two clouds was learnt deeper


@dataclass(frozen=True)
class Split:
    """The two clouds of one class.

    members: int64 ids of the class; posterior: probability of each to belong to the deeper-learnt cloud;
    distance: between the centres, in standard deviations (Mahalanobis, mean covariance); doubt: mean binary entropy
    of the posteriors, bits (0: every image clearly in one cloud); gain: of two clouds over one, BIC a sample, nats.
    """

    label: int
    members: np.ndarray
    posterior: np.ndarray
    distance: float
    doubt: float
    gain: float

    def strength(self, min_distance: float, max_doubt: float) -> float:
        """How clearly these are two clouds rather than one cut in two: from 1 on they count as found."""
        return min(self.distance / min_distance, max_doubt / max(self.doubt, 1e-6))

    def found(self, min_distance: float, max_doubt: float) -> bool:
        return self.strength(min_distance, max_doubt) >= 1


def curves(entropy: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """[n, 2 epochs] from entropy (bits) and loss (nats), each [epochs, n]."""
    return np.concatenate([np.log(loss + FLOOR), np.log(entropy + FLOOR)]).T.astype(np.float64)


@ignore_warnings(category=ConvergenceWarning)
def split_class(label: int, members: np.ndarray, of: np.ndarray, late: np.ndarray) -> Split:
    """Fit one and two Gaussian clouds to the curves `of` [n_c, d] of one class; `late` [n_c]: how deep each goes."""
    points = PCA(min(COMPONENTS, of.shape[1]), random_state=0).fit_transform(of)
    points /= max(points[:, 0].std(), 1e-9)
    one = GaussianMixture(1, reg_covar=1e-4).fit(points)
    two = GaussianMixture(2, reg_covar=1e-4, n_init=3, random_state=0).fit(points)
    posterior = two.predict_proba(points)
    depth = [np.average(late, weights=posterior[:, j] + 1e-12) for j in (0, 1)]
    deeper = int(np.argmin(depth))
    between = two.means_[0] - two.means_[1]
    distance = float(np.sqrt(between @ np.linalg.solve(two.covariances_.mean(0), between)))
    clipped = np.clip(posterior, 1e-12, 1)
    doubt = float(-(clipped * np.log2(clipped)).sum(1).mean())
    gain = float((one.bic(points) - two.bic(points)) / (2 * len(points)))
    return Split(label, members, posterior[:, deeper], distance, doubt, gain)


def split_classes(entropy: np.ndarray, loss: np.ndarray, labels: np.ndarray, classes: int) -> list[Split]:
    """The Split of every class with at least LEAST images; needs two epochs or more, else there are none."""
    if len(entropy) < 2:
        return []
    everything = curves(entropy, loss)
    late = np.log(loss[-LATE:] + FLOOR).mean(0)
    splits = []
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        if len(members) >= LEAST and everything[members].std(0).max() > 1e-6:
            splits.append(split_class(label, members, everything[members], late[members]))
    return splits
