"""The filters that the paper compares with: training loss, activation clustering, spectral signatures.

Each gives a Suspicion like our own, ascending = more suspicious, so that one `select` turns any of them into ids.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from torch import Tensor

from dlp_fast.filtering.suspicion import Suspicion

DIMENSIONS = 10  # of the space that activation clustering looks in
SILHOUETTE_OF = 2000  # images of a class, at most: its cost is their square
LEAST = 8  # images; smaller classes are not split


def _ranked(score: np.ndarray) -> Suspicion:
    nobody = torch.zeros(len(score), dtype=torch.bool)
    values = torch.from_numpy(score.astype(np.float32))
    values = values - values.min()  # `select` takes a score below zero for a named suspect
    return Suspicion(values, values, nobody, nobody)


def training_loss(loss: Tensor) -> Suspicion:
    """The loss after the last epoch of stage 1, [epochs, n] nats: the lowest are suspected (Li et al. 2021, ABL)."""
    return _ranked(loss[-1].numpy().astype(np.float64))


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
    return _ranked(score)


def spectral_signatures(features: Tensor, labels: Tensor, classes: int) -> Suspicion:
    """Tran et al. 2018: in each class, the square of the projection on the top singular vector; large = suspicious."""
    outlying = np.zeros(len(labels))
    for ids, x in _classes(features, labels, classes):
        _, _, directions = np.linalg.svd(x, full_matrices=False)
        outlying[ids] = (x @ directions[0]) ** 2
    return _ranked(-outlying)
