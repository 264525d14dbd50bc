"""The methods that the paper compares with, and its own: they rank images and say nothing of the set as a whole.

Each gives a Suspicion like our own, ascending = more suspicious, so that one partition turns any of them into ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from torch import Tensor

from dlp_fast.detection.suspicion import Suspicion, by_score

DIMENSIONS = 10  # of the space that activation clustering looks in
SILHOUETTE_OF = 2000  # images of a class, at most: its cost is their square
LEAST = 8  # images; smaller classes are not split


def last_entropy(entropy: Tensor) -> Suspicion:
    """As published: the entropy after the last epoch of stage 1, [epochs, n] bits, decides both ends (DLP Eq. 5)."""
    return by_score(entropy[-1].float())  # columns of large sets are fp16


def training_loss(loss: Tensor) -> Suspicion:
    """The loss after the last epoch of stage 1, [epochs, n] nats: the lowest are suspected (Li et al. 2021, ABL)."""
    return by_score(loss[-1].float())


def _classes(features: Tensor, labels: Tensor, classes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ids, centred features) of each class with at least LEAST images."""
    x, y = features.numpy().astype(np.float64), labels.numpy()
    for label in range(classes):
        ids = np.flatnonzero(y == label)
        if len(ids) >= LEAST:
            yield ids, x[ids] - x[ids].mean(0)


def activation_clustering(features: Tensor, labels: Tensor, classes: int) -> Suspicion:
    """Chen et al. 2019: in each class, ten components and two clusters; classes whose clusters are clearest come first
    (silhouette), and of each the smaller cluster.

    Within a cluster, images nearer to its centre, relative to the other's, come first.
    """
    score = np.full(len(labels), 9.0)
    for ids, x in _classes(features, labels, classes):
        points = PCA(min(DIMENSIONS, *x.shape), random_state=0).fit_transform(x)
        clusters = KMeans(2, n_init=4, random_state=0).fit(points)
        distance = clusters.transform(points)
        rows = np.arange(len(ids))
        near, far = distance[rows, clusters.labels_], distance[rows, 1 - clusters.labels_]
        sizes = np.bincount(clusters.labels_, minlength=2)
        few = (
            len(ids) <= SILHOUETTE_OF or sizes.min() < SILHOUETTE_OF // 40
        )  # a sample might miss the small cluster
        sample = None if few else SILHOUETTE_OF
        clearness = silhouette_score(points, clusters.labels_, sample_size=sample, random_state=0)
        larger = clusters.labels_ == np.argmax(sizes)
        score[ids] = 4.0 * larger - clearness + 0.001 * near / np.maximum(near + far, 1e-12)
    return by_score(torch.from_numpy(score.astype(np.float32)))


def spectral_signatures(features: Tensor, labels: Tensor, classes: int) -> Suspicion:
    """Tran et al. 2018: in each class, the square of the projection on the top singular vector; large = suspicious."""
    outlying = np.zeros(len(labels))
    for ids, x in _classes(features, labels, classes):
        _, _, directions = np.linalg.svd(x, full_matrices=False)
        outlying[ids] = (x @ directions[0]) ** 2
    return by_score(torch.from_numpy(-outlying.astype(np.float32)))


Rank = Callable[[Tensor, Tensor, Tensor, int, Callable[[], Tensor]], Suspicion]

# (entropy, loss, labels, classes, features) -> Suspicion, by the name in `detection.method`
BASELINES: dict[str, Rank] = {
    "entropy": lambda entropy, _loss, _labels, _classes, _features: last_entropy(entropy),
    "loss": lambda _entropy, loss, _labels, _classes, _features: training_loss(loss),
    "activation_clustering": lambda _entropy, _loss, labels, classes, features: activation_clustering(
        features(), labels, classes
    ),
    "spectral_signatures": lambda _entropy, _loss, labels, classes, features: spectral_signatures(
        features(), labels, classes
    ),
}
