"""Static patterns: images that share a mark at one place, or a small patch at any; no network is asked.

A trigger that is the same in all images leaves the same high-pass residual in each, or, where it is smooth, the same
smooth part (smooth.py). Per class, and over all images together, the directions of greatest skewness find rare marks
and bimodal principal directions frequent ones; windows of a few pixels that repeat find patches at changing places.
Marks of other origin (frames, copies, watermarks) are found alike: these are proposals, to be verified.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dlp_fast.config import StaticPatternsConfig
from dlp_fast.detection.groups import Group
from dlp_fast.detection.propose import directions
from dlp_fast.detection.propose.directions import Direction, principal
from dlp_fast.detection.propose.smooth import SmoothParts, SmoothView, has_smooth_part
from dlp_fast.detection.propose.views import Images, ResidualView, mean_residual, read, views_of
from dlp_fast.detection.propose.windows import RepeatedWindow, holds, repeated_windows
from dlp_fast.errors import DataError

_RANK_OF_COMMON_WINDOWS = 20


@dataclass
class _Candidate:
    """A group in the making: what measures membership, and the ids and memberships found so far."""

    kind: str
    rank: float  # purity, or for windows nats or excess: what groups of one kind are sorted by
    statistics: dict[str, float]
    measured: Tensor  # ids of the images that were looked at
    ids: list[Tensor] = field(default_factory=list)
    membership: list[Tensor] = field(default_factory=list)
    view: ResidualView | SmoothView | None = None
    direction: Direction | None = None
    counter: int | None = None
    level: float = 1.0  # membership of an image that holds the window

    def members(self) -> frozenset[int]:
        return frozenset(torch.cat(self.ids).tolist())


def static_patterns(
    images: Images, labels: Tensor, classes: int, config: StaticPatternsConfig | None = None
) -> list[Group]:
    """Groups of images that share a static pattern, of each class and of all images together.

    Args:
        images: `get(ids)` gives uint8 [b, H, W, 3], H and W from 8 to 256; `height`, `width` and `len` say how much.
        labels: int64 [n], 0 <= label < classes. classes: how many there are.
        config: the constants.

    Returns:
        list of Group, class by class, then those of several classes (label None); within each the purest first, windows
        last. The proposal is "static_patterns.skewness", ".principal", both also with "smooth_" before, or ".windows";
        statistics: `purity` (1: a point,
        apart), `separation` (Ashman's D), `skewness`, `share` of the images searched, and the rectangle `top`, `left`,
        `height`, `width` in pixels of the view that shows it; of windows `purity` (the share of its images that chance
        does not explain), `nats` or `excess`, and `share`.

    Raises:
        DataError: labels that do not fit the images or the classes.
    """
    config = config or StaticPatternsConfig()
    n = len(images)
    if labels.dtype != torch.int64 or labels.shape != (n,):
        raise DataError(
            f"labels: expected int64 [{n}], one for each image, got {labels.dtype} {list(labels.shape)}"
        )
    labels = labels.cpu()
    if n and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels: expected 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}; "
            "pass the number of classes that the labels were made for"
        )
    if n < config.min_class_images:
        return []
    scan = _Scan(images, labels, config)
    windows = scan.windows(labels, classes)
    found: list[tuple[int | None, list[_Candidate]]] = []
    for label in range(classes):
        ids = (labels == label).nonzero().flatten()
        found.append((label, scan.groups(label, ids, windows.get(label, []), config.groups_per_class, [])))
    known = [candidate.members() for _, chosen in found for candidate in chosen]
    found.append(
        (None, scan.groups(None, torch.arange(n), windows.get(None, []), config.groups_overall, known))
    )
    return [_group(label, candidate, labels) for label, chosen in found for candidate in chosen]


class _Scan:
    """What all classes share: the views, and what is usual in each over the images of all classes."""

    def __init__(self, images: Images, labels: Tensor, config: StaticPatternsConfig):
        self.images, self.config = images, config
        views = views_of(images.height, images.width, config.scan_side, config.tile)
        held = config.hold_megabytes * 2**20 // (images.height * images.width * 3)
        self.most = max(64, min(config.fit_images, held))
        drawn = self._drawn(torch.arange(len(images)))
        pixels = self._pixels(drawn)
        self.views = [ResidualView(view, mean_residual(pixels, view)) for view in views]
        whole = views[0]
        self.smooth = SmoothParts(whole, pixels, labels[drawn]) if has_smooth_part(whole) else None
        self.smooth_view = self.smooth.beside_all() if self.smooth else None

    def _drawn(self, ids: Tensor) -> Tensor:
        """At most `most` of `ids`, ascending."""
        if len(ids) <= self.most:
            return ids
        generator = torch.Generator().manual_seed(self.config.seed)
        return ids[torch.randperm(len(ids), generator=generator)[: self.most].sort().values]

    def _pixels(self, ids: Tensor) -> Tensor:
        return torch.cat([pixels for _, pixels in read(self.images, ids, self.config.batch)])

    def directions(self, label: int | None, ids: Tensor) -> list[_Candidate]:
        """Candidates of all views, from at most `most` of `ids`, which are class `label`, or all."""
        drawn = self._drawn(ids)
        pixels = self._pixels(drawn)
        found = [
            entry
            for view in self.views
            for entry in self._along(view, drawn, pixels, bimodal=True, skewest=True)
        ]
        if self.smooth is None:
            return found
        apart = None if label is None else self.smooth.beside_others(label)
        small = label is not None and apart is None  # beside itself, what most of a set has is not apart
        found += self._along(self.smooth_view, drawn, pixels, bimodal=small, skewest=True)
        if apart is not None:
            found += self._along(apart, drawn, pixels, bimodal=True, skewest=False)
        return found

    def _along(
        self, view: ResidualView | SmoothView, drawn: Tensor, pixels: Tensor, bimodal: bool, skewest: bool
    ) -> list[_Candidate]:
        """Candidates of one view of the images `drawn`, uint8 `pixels`, of the kinds that are asked for."""
        config, vectors = self.config, view.vectors(pixels)
        count = min(config.components, len(drawn) // config.images_per_component)
        leading = principal(
            vectors,
            count,
            oversampling=config.oversampling,
            iterations=config.subspace_iterations,
            seed=config.seed,
        )
        found = directions.bimodal(vectors, leading, config.bimodal_directions) if bimodal else []
        if skewest:
            found += directions.skewest(
                vectors,
                leading,
                count=config.skew_directions,
                starts=config.starts,
                iterations=config.iterations,
                cut=config.robust_deviations,
                seed=config.seed,
            )
        candidates = []
        for direction in found:
            if direction.purity < config.min_purity:
                continue
            candidate = _Candidate(
                _kind(direction, view), direction.purity, _numbers(direction, view), drawn, view=view
            )
            candidate.direction = direction
            _add(candidate, drawn, direction.membership(vectors))
            candidates.append(candidate)
        return candidates

    def windows(self, labels: Tensor, classes: int) -> dict[int | None, list[_Candidate]]:
        """Candidates of windows that repeat, by class; None: in all. Large pictures: counted in a part of them."""
        config, everything = self.config, torch.arange(len(labels))
        counted = everything if len(self.views) == 1 else self._drawn(everything)
        if min(self.images.height, self.images.width) < 3:
            return {}
        found = repeated_windows(
            lambda: read(self.images, counted, config.batch), config.window_contrast, config.min_images
        )
        sizes = torch.bincount(labels[counted], minlength=classes).double()
        candidates: dict[int | None, list[_Candidate]] = {}
        for window in found:
            marked = _window_of_class(window, counted, labels, sizes, config)
            if marked is not None:
                candidates.setdefault(marked[0], []).append(marked[1])
        most = _most_frequent(found, _RANK_OF_COMMON_WINDOWS)
        common = len(most[-1].ids) if len(most) == _RANK_OF_COMMON_WINDOWS else config.min_images
        for window in most:
            excess = len(window.ids) / common
            if excess >= config.window_excess:
                numbers = {
                    "purity": 1 - 1 / excess,
                    "excess": excess,
                    "share": len(window.ids) / len(counted),
                }
                candidate = _Candidate(
                    "windows", excess, numbers, counted, [window.ids], counter=window.counter
                )
                candidate.membership = [torch.full((len(window.ids),), 1.0, dtype=torch.float64)]
                candidates.setdefault(None, []).append(candidate)
        return candidates

    def groups(
        self,
        label: int | None,
        ids: Tensor,
        windows: list[_Candidate],
        most: int,
        known: list[frozenset[int]],
    ) -> list[_Candidate]:
        """The purest `most` along directions and the most telling windows that differ from one another and `known`."""
        config, members, chosen = self.config, list(known), []
        along = self.directions(label, ids) if len(ids) >= config.min_class_images else []
        for candidates, count in ((along, most), (windows, config.windows_each)):
            before = len(chosen)
            for candidate in sorted(candidates, key=lambda c: -c.rank):
                own = candidate.members()
                if len(chosen) - before == count:
                    break
                if len(own) >= config.min_images and not any(_alike(own, other) for other in members):
                    chosen.append(candidate)
                    members.append(own)
        self._complete(chosen, ids)
        return chosen

    def _complete(self, chosen: list[_Candidate], ids: Tensor) -> None:
        """Measures those of `ids` that were not drawn: one pass over them for all of `chosen`."""
        missing = torch.zeros(len(ids), dtype=torch.bool)
        for candidate in chosen:
            missing |= torch.isin(ids, candidate.measured, invert=True)
        for part, pixels in read(self.images, ids[missing], self.config.batch):
            for candidate in chosen:
                if candidate.direction is not None:
                    membership = candidate.direction.membership(candidate.view.vectors(pixels)).cpu()
                else:
                    held = holds(pixels, candidate.counter, self.config.window_contrast)
                    membership = held.double() * candidate.level
                new = torch.isin(part, candidate.measured, invert=True)
                _add(candidate, part[new], membership[new])


def _most_frequent(windows: list[RepeatedWindow], count: int) -> list[RepeatedWindow]:
    """The first `count` windows of `windows` whose images are not those of one before: a patch has many windows."""
    chosen: list[tuple[RepeatedWindow, frozenset[int]]] = []
    for window in windows:
        own = frozenset(window.ids.tolist())
        if not any(_alike(own, other) for _, other in chosen):
            chosen.append((window, own))
        if len(chosen) == count:
            break
    return [window for window, _ in chosen]


def _window_of_class(
    window: RepeatedWindow, counted: Tensor, labels: Tensor, sizes: Tensor, config: StaticPatternsConfig
) -> tuple[int, _Candidate] | None:
    """The class that `window` marks, and the candidate; None where its images are spread as the classes are."""
    own = labels[window.ids]
    inside = torch.bincount(own, minlength=len(sizes)).double()
    label = int(inside.argmax())
    count, everywhere, images = float(inside[label]), float(sizes.sum()), float(sizes[label])
    nats = count * float(np.log(count / len(window.ids) * everywhere / images))
    outside = (len(window.ids) - count) / max(1.0, everywhere - images)
    level = 1 - outside * images / count
    if count < config.min_images or nats < config.window_nats or level < config.min_purity:
        return None
    numbers = {"purity": level, "nats": nats, "share": count / images}
    candidate = _Candidate("windows", nats, numbers, counted, counter=window.counter)
    candidate.level = level
    candidate.ids = [window.ids[own == label]]
    candidate.membership = [torch.full((int(count),), level, dtype=torch.float64)]
    return label, candidate


def _add(candidate: _Candidate, ids: Tensor, membership: Tensor) -> None:
    """Images whose membership is one half or more, or, of a window, above 0."""
    membership = membership.cpu()
    inside = membership >= 0.5 if candidate.direction is not None else membership > 0
    candidate.ids.append(ids[inside])
    candidate.membership.append(membership[inside])


def _alike(one: frozenset[int], other: frozenset[int]) -> bool:
    """Whether half of the images of both together are in both (Jaccard)."""
    return 2 * len(one & other) >= len(one | other)


def _kind(direction: Direction, view: ResidualView | SmoothView) -> str:
    return f"smooth_{direction.kind}" if isinstance(view, SmoothView) else direction.kind


def _numbers(direction: Direction, view: ResidualView | SmoothView) -> dict[str, float]:
    place = view.view
    return {
        "purity": direction.purity,
        "separation": direction.separation,
        "skewness": direction.skewness,
        "share": direction.share,
        "top": float(place.top),
        "left": float(place.left),
        "height": float(place.height),
        "width": float(place.width),
    }


def _group(label: int | None, candidate: _Candidate, labels: Tensor) -> Group:
    ids, membership = torch.cat(candidate.ids), torch.cat(candidate.membership)
    order = ids.argsort()
    return Group(
        f"static_patterns.{candidate.kind}",
        label,
        ids[order].numpy(),
        membership[order].numpy(),
        candidate.statistics,
        labels[ids[order]].numpy() if label is None else None,
    )
