"""Learning curves cluster: poisoned images share one shortcut, so a class that holds them falls into two groups.

Every image has a curve: after each epoch the log-odds of its label, and the logarithm of its entropy. Images of one
class that
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

FLOOR = 0.02  # bits; below this an entropy has nothing more to say, and the logarithm would only add noise
SURE, LOST = 1e-4, 1e-6  # probabilities that log-odds end at, above and below
REGULAR = 1e-4  # added to variances, in units of the first component's
COMPONENTS = 3  # principal components that the clouds are looked for in
LEAST = 40  # images; smaller classes have no clouds to tell apart
LEAST_CLOUD = 10  # images; fewer are outliers
MOST_SHARE = (
    0.9  # of a class that the deeper-learnt cloud may have: beyond, the other is a few that were not learnt
)
# Rare poison: a small cloud is not where a fit to the whole class ends up, so that fits are begun in the tails too.
RARE_COMPONENTS = 6
RARE_EPOCHS = 8  # that curves need: after three, chance alone made clouds of up to 1.5 times what counts
RARE_SHARES = (0.03, 0.1)  # of the class, in a tail that a fit begins in
RARE_TRIES, RARE_FITS = 8, 3  # iterations of every start, and how many of the likeliest go on to the end
# Chance makes small clouds too, the fewer images the clearer: measured on clean sets (docs/filter.md), a cloud of k
# images counts from RARE_BASE + RARE_EACH / k times `min_separation` on.
RARE_BASE, RARE_EACH = 1.1, 30.0
RARE_MOST = 0.3  # of the class; a larger cloud is the plain fit's to find
# A large network that knows few images by heart swings from class to class, and most classes fall into two by it.
# Poison is in one class or few: in 27 learnt poisonings its class was over 2.2 times as far apart as any other
# (docs/verdict.md).
STANDS_OUT = 2.0  # times the median of the other classes
UNCLEAR = 0.9  # strength of a class that falls into two but does not stand out: not found, and nothing to be sure of
MOST_LATE = 0.5  # of the class: more than that, stage 1 would have learnt; it is the images already known
# Where stage 1 has found poison, there is less reason to look for more. All seven clouds that stage 3 found beside it
# were false, at strengths of 1.0 to 1.6 (docs/filter.md).
LATE_BESIDE = 2.0  # strength from which a late cloud counts there
LATE = 3  # epochs at the end that decide which of two clouds was learnt deeper


@dataclass(frozen=True)
class Split:
    """The two clouds of one class.

    members: int64 ids of the class; posterior: probability of each to belong to the deeper-learnt cloud;
    separation: Bhattacharyya distance of the clouds (0: the same cloud; the error of telling them apart is at most
    exp(-separation) / 2); doubt: mean binary entropy of the posteriors, bits (0: every image clearly in one cloud);
    rare: whether it was found from a tail.
    """

    label: int
    members: np.ndarray
    posterior: np.ndarray
    separation: float
    doubt: float
    rare: bool = False

    def strength(self, min_separation: float) -> float:
        """How clearly these are two clouds rather than one cut in two: from 1 on they count as found."""
        count = int((self.posterior > 0.5).sum())
        if count < LEAST_CLOUD or count > MOST_SHARE * len(self.members):
            return 0.0
        if not self.rare:
            return self.separation / min_separation
        if count > RARE_MOST * len(self.members):
            return 0.0
        return self.separation / min_separation / (RARE_BASE + RARE_EACH / count)

    def apart(self, min_separation: float) -> bool:
        """Two clouds by itself; whether it counts as found is for `strengths` to say, which sees the other classes."""
        return self.strength(min_separation) >= 1


def strengths(splits: list[Split], min_separation: float) -> list[float]:
    """`strength` of each, lowered where the other classes fall apart too: from 1 on one is found."""
    own = np.array([s.strength(min_separation) for s in splits])
    beside = []
    for k, strength in enumerate(own):
        others = float(np.median(np.delete(own, k))) if len(own) > 1 else 0.0
        lowered = strength / max(1.0, STANDS_OUT * others)
        beside.append(float(max(lowered, UNCLEAR) if strength >= 1 else lowered))
    return beside


def found(splits: list[Split], min_separation: float) -> list[Split]:
    """Those whose `strengths` is 1 or more."""
    return [s for s, of in zip(splits, strengths(splits, min_separation), strict=True) if of >= 1]


def late_strengths(splits: list[Split], min_separation: float, early: bool) -> list[float]:
    """`strengths` of clouds in the curves of stage 3: 0 for a cloud of most of its class; `early`: stage 1 has found a
    class already.
    """
    beside = zip(splits, strengths(splits, min_separation), strict=True)
    bar = LATE_BESIDE if early else 1.0
    return [of / bar if (split.posterior > 0.5).mean() <= MOST_LATE else 0.0 for split, of in beside]


def curves(entropy: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """[n, 2 epochs] from entropy (bits) and loss (nats), each [epochs, n].

    Log-odds, not the loss itself: the logarithm of a loss flattens what sets a backdoor apart, that its images go on to
    be surer and surer.
    """
    p = np.exp(-loss.astype(np.float64))
    odds = np.log(np.clip(p, LOST, 1) / np.clip(1 - p, SURE, 1))
    return np.concatenate([odds, np.log(entropy.astype(np.float64) + FLOOR)]).T


def bhattacharyya(mixture: GaussianMixture) -> float:
    """Distance of the two Gaussians of `mixture`: by their centres, and by how unlike their shapes are."""
    one, two = mixture.covariances_
    mean = (one + two) / 2
    between = mixture.means_[0] - mixture.means_[1]
    determinants = [np.linalg.slogdet(of)[1] for of in (mean, one, two)]
    centres = between @ np.linalg.solve(mean, between) / 8
    return float(centres + (determinants[0] - (determinants[1] + determinants[2]) / 2) / 2)


@ignore_warnings(category=ConvergenceWarning)
def split_class(label: int, members: np.ndarray, of: np.ndarray, late: np.ndarray) -> Split:
    """Fit two Gaussian clouds to the curves `of` [n_c, d] of one class; `late` [n_c]: how deep each goes."""
    points = PCA(min(COMPONENTS, of.shape[1]), random_state=0).fit_transform(of)
    points /= max(points[:, 0].std(), 1e-9)
    mixture = GaussianMixture(2, reg_covar=REGULAR, n_init=3, random_state=0).fit(points)
    return _split(label, members, points, late, mixture)


def _split(
    label: int,
    members: np.ndarray,
    points: np.ndarray,
    late: np.ndarray,
    mixture: GaussianMixture,
    rare: bool = False,
) -> Split:
    posterior = mixture.predict_proba(points)
    depth = [np.average(late, weights=posterior[:, j] + 1e-12) for j in (0, 1)]
    deeper = int(np.argmin(depth))
    clipped = np.clip(posterior, 1e-12, 1)
    doubt = float(-(clipped * np.log2(clipped)).sum(1).mean())
    return Split(label, members, posterior[:, deeper], bhattacharyya(mixture), doubt, rare)


@ignore_warnings(category=ConvergenceWarning)
def rare_splits(label: int, members: np.ndarray, of: np.ndarray, late: np.ndarray) -> list[Split]:
    """Splits of one class that fits from the tails of its principal components end in, the likeliest ones."""
    points = PCA(min(RARE_COMPONENTS, *of.shape), random_state=0).fit_transform(of)
    points /= max(points[:, 0].std(), 1e-9)
    n, d = points.shape
    tried = []
    for axis in range(d):
        order = points[:, axis].argsort(kind="stable")
        for share in RARE_SHARES:
            count = max(LEAST_CLOUD, int(share * n))
            for tail in (order[:count], order[-count:]):
                inside = np.zeros(n, dtype=bool)
                inside[tail] = True
                groups = points[inside], points[~inside]
                start = GaussianMixture(
                    2,
                    reg_covar=REGULAR,
                    max_iter=RARE_TRIES,
                    weights_init=[count / n, 1 - count / n],
                    means_init=np.stack([g.mean(0) for g in groups]),
                    precisions_init=np.stack([np.linalg.inv(np.cov(g.T) + 1e-3 * np.eye(d)) for g in groups]),
                    random_state=0,
                )
                tried.append(start.fit(points))
    tried.sort(key=lambda mixture: -mixture.lower_bound_)
    found = []
    for mixture in tried[:RARE_FITS]:
        whole = GaussianMixture(
            2,
            reg_covar=REGULAR,
            weights_init=mixture.weights_,
            means_init=mixture.means_,
            precisions_init=mixture.precisions_,
            random_state=0,
        )
        found.append(_split(label, members, points, late, whole.fit(points), rare=True))
    return found


def split_classes(
    entropy: np.ndarray,
    loss: np.ndarray,
    labels: np.ndarray,
    classes: int,
    min_separation: float | None = None,
) -> list[Split]:
    """The Split of every class with at least LEAST images; needs two epochs or more, else there are none.

    With `min_separation`, a class that shows no two clouds by it in RARE_EPOCHS or more is looked at for rare poison as
    well; the clearest of its splits is given.
    """
    if len(entropy) < 2:
        return []
    everything = curves(entropy, loss)
    late = np.log(loss[-LATE:] + FLOOR).mean(0)
    splits = []
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        if len(members) >= LEAST and everything[members].std(0).max() > 1e-6:
            split = split_class(label, members, everything[members], late[members])
            if min_separation is not None and len(entropy) >= RARE_EPOCHS and not split.apart(min_separation):
                rare = rare_splits(label, members, everything[members], late[members])
                split = max([split, *rare], key=lambda s: s.strength(min_separation))
            splits.append(split)
    return splits
