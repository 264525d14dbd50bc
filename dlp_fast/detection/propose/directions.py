"""Directions in which a part of a set of vectors stands apart: for rare parts the skewest, for large ones bimodal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Images of one set are equal where the variance along all directions is below this (rows have length 1, fp32).
LEAST_VARIANCE = 1e-8
# Bins of the histogram that a mixture is fitted to, and its reach in standard deviations to either side.
BINS, REACH = 512, 8.0
# Starts of a mixture: below these shares of the images the first component begins.
CUTS = (0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
LEAST_DEVIATION = 0.01  # of a component, in standard deviations of the whole
MAD = 1.4826  # a normal deviation in units of the median absolute deviation
LEAST_MAD = (
    0.05  # in standard deviations: where most images are equal, so that any other is not infinitely far out
)


@dataclass(frozen=True)
class Principal:
    """Centre [P], leading directions [P, k] (orthonormal, fp32) and the variance along each, float64 [k]."""

    centre: Tensor
    directions: Tensor
    variances: Tensor


@dataclass(frozen=True)
class Direction:
    """One direction and the two parts along it: u = x @ weights - shift; the group is the part at `mean`.

    weights: float64 [P]; share: of the images, of the group; mean, variance; other_mean, other_variance: of the parts.
    purity: 1 where both parts are points, near 0 where nothing stands apart; skewness: of u.
    """

    kind: str
    weights: Tensor
    shift: float
    share: float
    mean: float
    variance: float
    other_mean: float
    other_variance: float
    purity: float
    skewness: float

    @property
    def separation(self) -> float:
        """Ashman's D (Ashman et al. 1994): distance of the means in root mean square deviations; 2 is two modes."""
        return abs(self.mean - self.other_mean) / math.sqrt((self.variance + self.other_variance) / 2)

    def membership(self, vectors: Tensor) -> Tensor:
        """Posterior of the group, float64 [b], of fp32 vectors [b, P]; beyond either mean it stays what it is there."""
        return self.membership_at(vectors.double() @ self.weights - self.shift)

    def membership_at(self, u: Tensor) -> Tensor:
        """`membership` of images that lie at `u`, float64 [b], along the direction."""
        low, high = sorted((self.mean, self.other_mean))
        u = u.clamp(low, high)
        inside = math.log(self.share / math.sqrt(self.variance)) - (u - self.mean) ** 2 / (2 * self.variance)
        outside = math.log((1 - self.share) / math.sqrt(self.other_variance)) - (u - self.other_mean) ** 2 / (
            2 * self.other_variance
        )
        return torch.sigmoid(inside - outside)


def principal(vectors: Tensor, count: int, *, oversampling: int, iterations: int, seed: int) -> Principal:
    """Leading principal directions by randomised subspace iteration (Halko, Martinsson, Tropp 2011).

    Args:
        vectors: fp32 [n, P].
        count: directions wanted; fewer come where the vectors span fewer.
        oversampling: directions more that are carried along. iterations: products with the covariance.
        seed: of the random start.
    """
    n, length = vectors.shape
    width = min(count + oversampling, n, length)
    start = torch.randn(length, width, generator=torch.Generator().manual_seed(seed))
    basis = start.to(vectors.device)
    centre = vectors.mean(0)
    for _ in range(iterations):
        along = vectors @ basis
        along -= along.mean(0)
        basis = torch.linalg.qr(vectors.T @ along - torch.outer(centre, along.sum(0)))[0]
    along = (vectors @ basis).double()
    along -= along.mean(0)
    variances, rotation = torch.linalg.eigh(along.T @ along / n)
    variances, rotation = variances.flip(0)[:count], rotation.flip(1)[:, :count]
    kept = int((variances > LEAST_VARIANCE).sum())
    return Principal(centre, basis @ rotation[:, :kept].float(), variances[:kept])


def skewest(
    vectors: Tensor, found: Principal, *, count: int, starts: int, iterations: int, cut: float, seed: int
):
    """Directions of greatest skewness, one after the other, each at right angles (whitened) to those before.

    The fixed point of FastICA (Hyvärinen 1999) with the contrast u^3 on whitened vectors, w <- E[z (w.z)^2], from the
    third moments, which are summed once. A group of share p that is one point apart has the skewness
    (1 - 2p) / sqrt(p (1 - p)); purity = skewness * sqrt(p) is about 1 for it.

    Args:
        vectors: fp32 [n, P]; found: their principal directions, k of them.
        count: directions wanted; starts: random ones for each, of which the skewest end is kept.
        iterations: at most, of the fixed point. cut: robust deviations from the median at which the group begins.

    Returns:
        list of Direction of the kind "skewness"; one where no image lies beyond the cut is left out.
    """
    k = len(found.variances)
    if k == 0:
        return []
    whitening = found.directions.double() / found.variances.sqrt()
    white = vectors @ whitening.float() - found.centre @ whitening.float()
    moments = _third_moments(white).flatten(0, 1)  # [k * k, k]
    generator = torch.Generator().manual_seed(seed)
    before = moments.new_zeros(k, 0)
    directions = []
    for _ in range(min(count, k)):
        w = torch.randn(k, starts, generator=generator, dtype=torch.float64).to(moments.device)
        w = _unit(w - before @ (before.T @ w))
        for _ in range(iterations):
            new = ((moments @ w).view(k, k, -1) * w).sum(1)
            new = _unit(new - before @ (before.T @ new))
            moved = (new - w).abs().amax()
            w = new
            if moved < 1e-6:
                break
        skewness = (((moments @ w).view(k, k, -1) * w).sum(1) * w).sum(0)
        best = w[:, int(skewness.argmax())]
        before = torch.cat([before, best[:, None]], 1)
        direction = _beyond(white.double() @ best, whitening @ best, found.centre, cut)
        if direction is not None:
            directions.append(direction)
    return directions


def _third_moments(white: Tensor) -> Tensor:
    """fp64 [k, k, k]: means of the products of three of the k columns of fp32 `white`, [n, k]."""
    k = white.shape[1]
    moments = white.new_empty(k, k, k, dtype=torch.float64)
    for j in range(k):
        half = ((white[:, j:] * white[:, j, None]).T @ white / len(white)).double()
        moments[j, j:] = half
        moments[j:, j] = half
    return moments


def bimodal(vectors: Tensor, found: Principal, count: int) -> list[Direction]:
    """The leading `count` principal directions, each with a mixture of two normal parts fitted to it.

    The group is the part farther from 0: `vectors` are residuals less the mean of all images, so that images without a
    common mark lie about 0 in any direction, whatever share of a class bears the mark. purity: the share of the
    variance that the distance of the parts explains.
    """
    along = (vectors @ found.directions[:, :count]).double()
    if along.shape[1] == 0:
        return []
    share, mean, variance = _mixtures(along)
    directions = []
    for d in range(along.shape[1]):
        group = int(mean[d].abs().argmax())
        p, between = float(share[d, group]), float(mean[d, 0] - mean[d, 1]) ** 2
        if not 0 < p < 1:
            continue
        explained = p * (1 - p) * between
        u = along[:, d] - along[:, d].mean()
        directions.append(
            Direction(
                "principal",
                found.directions[:, d].double(),
                0.0,
                p,
                float(mean[d, group]),
                float(variance[d, group]),
                float(mean[d, 1 - group]),
                float(variance[d, 1 - group]),
                explained / (explained + float((share[d] * variance[d]).sum())),
                float((u**3).mean() / u.square().mean() ** 1.5),
            )
        )
    return directions


def _unit(columns: Tensor) -> Tensor:
    return columns / columns.norm(dim=0).clamp_min(1e-30)


def _beyond(u: Tensor, weights: Tensor, centre: Tensor, cut: float) -> Direction | None:
    """The group of what lies more than `cut` robust deviations above the median of u (mean 0, deviation 1)."""
    middle = u.median()
    deviation = ((u - middle).abs().median() * MAD).clamp_min(LEAST_MAD)
    group = u > middle + cut * deviation
    size, n = int(group.sum()), len(u)
    if size == 0 or size == n:
        return None
    least = LEAST_DEVIATION**2
    inside, outside, skewness = u[group], u[~group], float((u**3).mean())
    return Direction(
        "skewness",
        weights,
        float(centre.double() @ weights),
        size / n,
        float(inside.mean()),
        max(least, float(inside.var(correction=0))),
        float(outside.mean()),
        max(least, float(outside.var(correction=0))),
        _purity(skewness * math.sqrt(size / n)),
        skewness,
    )


def _purity(of: float) -> float:
    """Beyond 1, a few images lie so far out that the group is no point: it falls again."""
    return of if of <= 1 else 1 / of


def _mixtures(along: Tensor, iterations: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Shares, means and variances [d, 2] of two normal parts of each column [n, d], by EM on histograms.

    All columns and starts at once; of the starts the likeliest end counts.
    """
    n, d = along.shape
    middle, scale = along.mean(0), along.std(0, correction=0)
    place = ((along - middle) / scale).clamp(-REACH, REACH) + REACH
    bins = (place * (BINS / (2 * REACH))).long().clamp_max(BINS - 1)
    counts = torch.zeros(d, BINS, dtype=torch.float64, device=along.device)
    counts.scatter_add_(1, bins.T.contiguous(), torch.ones(d, n, dtype=torch.float64, device=along.device))
    x = (torch.arange(BINS, dtype=torch.float64, device=along.device) + 0.5) * (2 * REACH / BINS) - REACH
    powers = torch.stack([torch.ones_like(x), x, x * x], 1)  # [bins, 3]
    cuts = torch.tensor(CUTS, dtype=torch.float64, device=along.device)
    # responsibility of the first part, [d, starts, bins]; sums over bins of 1, x and x^2, [d, starts, 3]
    first = (counts.cumsum(1)[:, None] - counts[:, None] / 2 <= cuts[:, None] * n).double()
    counts, totals = counts[:, None], (counts @ powers)[:, None]
    for _ in range(iterations):
        sums = (first * counts) @ powers
        sums = torch.stack([sums, totals - sums], -1)  # [d, starts, 3, 2]
        mass = sums[:, :, 0].clamp_min(1e-9)
        mean = sums[:, :, 1] / mass
        variance = (sums[:, :, 2] / mass - mean**2).clamp_min(LEAST_DEVIATION**2)
        # log density of a part at a bin: a quadratic in x
        parts = [
            mass.log() - variance.log() / 2 - mean**2 / (2 * variance),
            mean / variance,
            -1 / (2 * variance),
        ]
        quadratics = torch.stack(parts, 2)  # [d, starts, 3, 2]
        first = torch.sigmoid((quadratics[..., 0] - quadratics[..., 1]) @ powers.T)
    logs = (quadratics.transpose(2, 3) @ powers.T).logsumexp(2)
    best = (logs * counts).sum(-1).argmax(1)
    rows = torch.arange(d, device=along.device)
    share, mean, variance = (part[rows, best] for part in (mass / n, mean, variance))
    return share, mean * scale[:, None] + middle[:, None], variance * scale[:, None] ** 2
