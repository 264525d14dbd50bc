"""Smooth patterns: what a trigger without fine detail leaves, seen beside the smooth shapes that pictures have.

A high-pass residual does not show a pattern that changes slowly over the picture, and the pixels drown it: pictures
vary most where they are smooth. But how they vary there is known from the other images of the set. In cosine terms of
low frequency, whitened by the covariance of the others, a pattern of 24 levels lies five and more deviations away,
since no picture has its colours at its places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast.detection.propose.views import CHUNK, View

TERMS = 8  # half-waves along each side, from 0: faster ones are seen in the high-pass residual
PIXELS_PER_TERM = (
    4  # pictures are at least so many times as large; a smaller one has no smooth part of its own
)
MOST_SHRUNK = 0.5  # of the correlations, towards none, however few images they are estimated from
ROUNDING = 0.29  # deviation of a term, in levels, that pixels rounded to whole levels give it; a constant has no less
LEAST_LENGTH = (
    1.0  # of whitened terms, whose usual length is the root of their number: next to no smooth part at all
)
LEAST_EIGENVALUE = 1e-3  # of a correlation matrix: what does not vary is not blown up
SEEN_APART = (
    0.05  # share of the images from which a class is left out of the covariance that it is seen beside
)


@dataclass(frozen=True)
class SmoothView:
    """A view whose vectors are low-frequency cosine terms, whitened, of length 1.

    basis: fp32 [K, h] and [K, w]; mean fp32 [d] and whitening fp32 [d, d] of the terms, d = 3 (K^2 - 1).
    """

    view: View
    basis: tuple[Tensor, Tensor]
    mean: Tensor
    whitening: Tensor

    def vectors(self, pixels: Tensor) -> Tensor:
        """fp32 [n, d] of uint8 [n, H, W, 3]."""
        white = (_terms(pixels, self.view, self.basis) - self.mean) @ self.whitening
        return white / white.norm(dim=1, keepdim=True).clamp_min(LEAST_LENGTH)


class SmoothParts:
    """The smooth parts of the images that everything is fitted to, by class."""

    def __init__(self, view: View, pixels: Tensor, labels: Tensor):
        """pixels: uint8 [n, H, W, 3]; labels: int64 [n]."""
        self.view, self.labels = view, labels
        sides = view.resized or (view.height, view.width)
        self.basis = tuple(_cosines(side) for side in sides)
        self.terms = _terms(pixels, view, self.basis)

    def beside_all(self) -> SmoothView:
        """As seen beside all images: rare patterns stand out."""
        return self._beside(torch.arange(len(self.terms)))

    def beside_others(self, label: int) -> SmoothView | None:
        """As seen beside the other classes: a pattern that much of class `label` has is not what is usual. None for a
        small class, which `beside_all` does for, and for the only one.
        """
        others = (self.labels != label).nonzero().flatten()
        share = 1 - len(others) / max(len(self.labels), 1)
        return self._beside(others) if SEEN_APART <= share < 1 else None

    def _beside(self, chosen: Tensor) -> SmoothView:
        terms = self.terms[chosen.to(self.terms.device)].double()
        mean = terms.mean(0)
        covariance = (terms - mean).T @ (terms - mean) / len(terms)
        deviations = covariance.diag().sqrt().clamp_min(ROUNDING)
        correlations = covariance / deviations[:, None] / deviations
        correlations.fill_diagonal_(1.0)
        shrunk = min(MOST_SHRUNK, len(correlations) / len(terms))
        correlations = (1 - shrunk) * correlations + shrunk * torch.eye(
            len(correlations), dtype=torch.float64, device=correlations.device
        )
        values, vectors = torch.linalg.eigh(correlations)
        root = vectors / values.clamp_min(LEAST_EIGENVALUE).sqrt() @ vectors.T
        return SmoothView(self.view, self.basis, mean.float(), (root / deviations).T.contiguous().float())


def has_smooth_part(view: View) -> bool:
    """Whether pictures under `view` are large enough for a smooth part that differs from the whole."""
    return min(view.resized or (view.height, view.width)) >= TERMS * PIXELS_PER_TERM


def _cosines(side: int) -> Tensor:
    """fp32 [TERMS, side]: the first rows of an orthonormal discrete cosine transform, but for the constant's factor."""
    waves = torch.arange(TERMS, dtype=torch.float64)[:, None]
    at = torch.arange(side, dtype=torch.float64) + 0.5
    return (torch.cos(math.pi * waves * at / side) * (2 / side) ** 0.5).float()


def _terms(pixels: Tensor, view: View, basis: tuple[Tensor, Tensor]) -> Tensor:
    """fp32 [n, 3 (K^2 - 1)] of uint8 [n, H, W, 3]: all but the mean of each channel, which lighting decides."""
    along_height, along_width = (of.to(pixels.device) for of in basis)
    parts = []
    for part in pixels.split(CHUNK):
        planes = view.of(part).permute(0, 3, 1, 2).float()
        planes = planes - planes.mean(
            (2, 3), keepdim=True
        )  # so that a constant picture has none, to the last bit
        parts.append((along_height @ (planes @ along_width.T)).flatten(2)[:, :, 1:].flatten(1))
    return torch.cat(parts)
