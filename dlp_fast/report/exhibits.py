"""The pictures and curves that a report shows, picked while the images are at hand and kept in the run folder.

Afterwards a report can be written anew from the run folder alone, wherever the images are by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dlp_fast.detection.verify.demonstration import Demonstration
from dlp_fast.errors import DataError
from dlp_fast.report.thumbnails import shrink
from dlp_fast.report.triggers import Triggers, kept
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.schema import EXHIBITS
from dlp_fast.runs.sums import check_sum
from dlp_fast.selection.partition import Selection

FILE = EXHIBITS
TRIGGERS = "trigger."  # before the names of the tensors of Triggers
SUSPECTS = 5000  # thumbnails: the most suspicious
MISLABELED = 1000  # the first
BORDER, CLEAN, OTHERS, DECIDED = 60, 60, 60, 120  # each side of the cut, controls, what a person decided
SHOWN = 600  # that are shown and not suspected, of all groups together
MOST = SUSPECTS + 2 * BORDER + CLEAN + OTHERS + DECIDED + SHOWN  # thumbnails in all
SIDE = 96  # pixels of a thumbnail's longer side, at most
AREA = 12_000_000  # pixels of all thumbnails together: many are smaller
MEAN_OF = 512  # images that a class's mean picture is taken over, at most
QUARTILES_OF = 100_000  # images that the curve of a class is taken over, at most
MOST_CLASSES = 12  # suspicious classes that are shown with pictures
NEAR = 6  # of 64 bits of difference hash: near-duplicates (Hamming distance)


@dataclass(frozen=True)
class Exhibits:
    """What is shown, k pictures, c suspicious classes, and f findings and then groups that are shown, not suspected.

    ids: int64 [k], most suspicious first; thumbnails: uint8 [k, h, w, 3]; prediction: int64 [k] and confidence: fp32
    [k], of the clean model; duplicate_of: int64 [k], number of the group of near-duplicates or -1; border: bool [k],
    next to the cut; members: bool [f, k], which pictures are of each of these; class_labels: int64 [c]; mean_suspects,
    mean_rest: uint8 [c, h, w, 3]; difference: fp32 [c, h, w, 3], suspects minus rest, 0..255; curves: fp32 [c, 2, 3,
    epochs], loss in nats of (suspects, rest): lower quartile, median, upper; triggers: see Triggers.
    """

    ids: Tensor
    thumbnails: Tensor
    prediction: Tensor
    confidence: Tensor
    duplicate_of: Tensor
    border: Tensor
    members: Tensor
    class_labels: Tensor
    mean_suspects: Tensor
    mean_rest: Tensor
    difference: Tensor
    curves: Tensor
    triggers: Triggers

    def save(self, folder: Path) -> None:
        own = {name: tensor for name, tensor in vars(self).items() if name != "triggers"}
        own |= {TRIGGERS + name: tensor for name, tensor in vars(self.triggers).items()}
        write_atomic(folder / FILE, save({name: tensor.contiguous() for name, tensor in own.items()}))

    @classmethod
    def load(cls, folder: Path) -> Exhibits:
        try:
            stored = load_file(folder / FILE)
            of = {name: stored.pop(name) for name in list(stored) if name.startswith(TRIGGERS)}
            triggers = Triggers(**{name.removeprefix(TRIGGERS): tensor for name, tensor in of.items()})
            check_sum(folder, FILE)
            return cls(**stored, triggers=triggers)
        except FileNotFoundError:
            raise DataError(
                f"{folder} holds no {FILE}: the run is unfinished, or of a version without reports. Give the command "
                "that began it once more."
            ) from None
        except (OSError, SafetensorError, TypeError) as error:
            raise DataError(f"{folder / FILE} is damaged ({error}). Run again into another folder.") from None

    def check(self, folder: Path, images: int, classes: int, findings: int, shown: int) -> None:
        """DataError where these are not the exhibits of a run on `images` images of `classes` classes, with so many
        findings and groups that are shown.
        """
        k, c = len(self.ids), len(self.class_labels)
        of_pictures = (self.thumbnails, self.prediction, self.confidence, self.duplicate_of, self.border)
        of_classes = (self.mean_suspects, self.mean_rest, self.difference, self.curves)
        known = (
            (self.ids, images),
            (self.prediction, classes),
            (self.class_labels, classes),
            (self.triggers.finding, findings),
        )
        if (
            any(len(t) != k for t in of_pictures)
            or any(len(t) != c for t in of_classes)
            or self.members.shape != (findings + shown, k)
            or not self.triggers.whole(images, classes)
            or any(bool(((ids < 0) | (ids >= n)).any()) for ids, n in known)
        ):
            raise DataError(f"{folder / FILE} is damaged, or of another run. Run again into another folder.")


def gather(
    images,
    labels: Tensor,
    selection: Selection,
    targets: list[int],
    loss: Tensor,
    predict: Callable[[Tensor], Tensor],
    findings: Sequence[Tensor] = (),
    demonstrations: Sequence[Demonstration] = (),
    decided: Tensor | None = None,
    shown: Sequence[Tensor] = (),
) -> Exhibits:
    """Pick the exhibits of a run.

    Args: images: by ids, uint8 [b, h, w, 3]; labels: int64 [n]; targets: suspicious classes; loss: fp32 [epochs, n], of
    stage 1, nats; predict: uint8 pictures -> class probabilities; findings: int64 ids of the images of each;
    demonstrations: of findings; decided: int64 ids of images that a person decided; shown: int64 ids of each group that
    is shown and not suspected.
    """
    each = max(1, SHOWN // max(len(shown), 1))
    further = [*(of[:each] for of in shown[:SHOWN]), *([] if decided is None else [decided[:DECIDED]])]
    ids, border = _choose(labels, selection, targets, further)
    longest = min(SIDE, max(8, int((AREA / max(len(ids), 1)) ** 0.5)))
    probabilities, pixels = [], []
    for part in ids.split(256):
        pictures = images.get(part)
        probabilities.append(predict(pictures).cpu())
        pixels.append(shrink(pictures.cpu(), longest))
    confidence, prediction = torch.cat(probabilities).max(1)
    thumbnails = torch.cat(pixels)
    suspected = torch.zeros(len(labels), dtype=torch.bool)
    suspected[selection.suspected_poisoned] = True
    members = [torch.isin(ids, of) for of in (*findings, *shown)]
    return Exhibits(
        ids,
        thumbnails,
        prediction,
        confidence,
        near_duplicates(thumbnails, suspected[ids]),
        border,
        torch.stack(members) if members else torch.zeros(0, len(ids), dtype=torch.bool),
        *_classes(images, labels, suspected, targets, loss),
        kept(demonstrations, images),
    )


def _classes(
    images, labels: Tensor, suspected: Tensor, targets: list[int], loss: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """class_labels, mean_suspects, mean_rest, difference and curves of Exhibits, for the classes `targets`."""
    shown, means, curves = [], [], []
    for label in targets[:MOST_CLASSES]:
        inside = (labels == label).nonzero().flatten()
        those, rest = inside[suspected[inside]], inside[~suspected[inside]]
        if len(those) and len(rest):
            shown.append(label)
            means.append((_mean(images, those), _mean(images, rest)))
            curves.append(torch.stack([_quartiles(loss[:, those]), _quartiles(loss[:, rest])]))
    nothing = torch.zeros(0, images.height, images.width, 3)
    ours = torch.stack([m[0] for m in means]) if means else nothing
    others = torch.stack([m[1] for m in means]) if means else nothing
    return (
        torch.tensor(shown, dtype=torch.int64),
        ours.round().to(torch.uint8),
        others.round().to(torch.uint8),
        ours - others,
        torch.stack(curves) if curves else torch.zeros(0, 2, 3, len(loss)),
    )


def _choose(
    labels: Tensor, selection: Selection, targets: list[int], further: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Ids to show: the most suspicious, both sides of the cut, mislabeled and suspected clean ones, `further` ids, and
    some that are neither; and whether each is one of those next to the cut.
    """
    order = torch.empty_like(selection.rank)
    order[selection.rank] = torch.arange(len(order))
    count = len(selection.suspected_poisoned)
    suspects, others = order[:count], order[count:]
    if targets:  # just beyond the cut of the classes in question
        inside = torch.isin(labels[others], torch.tensor(targets))
        others = torch.cat([others[inside], others[~inside]])
    stride = max(1, len(others) // OTHERS)
    parts = [
        suspects[:SUSPECTS] if count else order[:BORDER],
        suspects[SUSPECTS:][-BORDER:],
        others[:BORDER],
        selection.mislabeled[:MISLABELED],
        selection.suspected_clean[:: max(1, len(selection.suspected_clean) // CLEAN)][:CLEAN],
        others[BORDER::stride][:OTHERS],
        *further,
    ]
    chosen = torch.cat(parts).unique()
    chosen = chosen[selection.rank[chosen].argsort()]
    return chosen, torch.isin(chosen, torch.cat([suspects[-BORDER:], others[:BORDER]]))


def _mean(images, ids: Tensor) -> Tensor:
    """Mean picture fp32 [h, w, 3] of `ids`, of MEAN_OF evenly spread ones where there are more."""
    ids = ids[torch.linspace(0, len(ids) - 1, min(len(ids), MEAN_OF)).round().long()]
    total = torch.zeros(images.height, images.width, 3, dtype=torch.float64)
    for part in ids.split(128):
        total += images.get(part).cpu().to(torch.float64).sum(0)
    return (total / len(ids)).float()


def _quartiles(loss: Tensor) -> Tensor:
    """fp32 [3, epochs] of [epochs, n]."""
    n = loss.shape[1]
    if n > QUARTILES_OF:
        loss = loss[:, torch.linspace(0, n - 1, QUARTILES_OF).round().long()]
    return torch.quantile(loss.float(), torch.tensor([0.25, 0.5, 0.75]), dim=1)


def difference_hash(pictures: Tensor) -> np.ndarray:
    """bool [k, 64]: whether a pixel of the 9 x 8 grey picture is darker than its right neighbour (dHash)."""
    grey = [
        np.asarray(
            Image.fromarray(p.numpy()).convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16
        )
        for p in pictures
    ]
    stack = np.stack(grey) if grey else np.zeros((0, 8, 9), dtype=np.int16)
    return (stack[:, :, :-1] < stack[:, :, 1:]).reshape(len(stack), 64)


def near_duplicates(pictures: Tensor, among: Tensor) -> Tensor:
    """int64 [k]: number of the group of near-duplicates that a picture is in, -1 for none; only `among`, bool [k]."""
    from scipy.sparse import coo_array  # comes with scikit-learn
    from scipy.sparse.csgraph import connected_components

    group = torch.full((len(pictures),), -1, dtype=torch.int64)
    rows = among.nonzero().flatten()
    if not len(rows):
        return group
    bits = torch.from_numpy(difference_hash(pictures[rows])).float() * 2 - 1
    # two hashes that differ in d of 64 bits have the inner product 64 - 2 d
    near = torch.cat([part @ bits.T >= 64 - 2 * NEAR for part in bits.split(512)]).nonzero().T.numpy()
    pairs = coo_array((np.ones(near.shape[1], dtype=bool), near), shape=(len(rows), len(rows)))
    _, member = connected_components(pairs, directed=False)
    number = 0
    for component in np.unique(member):
        inside = np.flatnonzero(member == component)
        if len(inside) > 1:
            group[rows[torch.from_numpy(inside)]] = number
            number += 1
    return group
