"""A cell's folder of pictures, as a user would have it, and what its attacker would test on."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dlp_fast.attacks.poisoning import Poisoning, plan
from dlp_fast.data.storage import ResidentImages
from studies.photographs.cells import BASES, MARKS, Base, Cell
from studies.photographs.honest import HONEST, Pictures, honest, recompressed_at

TESTED = 30  # test images of each class
TARGET = 1
SIDES = {"sticker": 0.12, "small-mark": 0.03}  # of the shorter side
PLACE = (0.7, 0.62)  # of the upper left corner of a mark: share of height and width


@dataclass(frozen=True)
class Made:
    """classes: names; labels: int64 [n], as the victim sees them; poisoned, changed: bool [n]; test, triggered: uint8
    [t, side, side, 3]; test_labels, wanted: int64 [t], their classes, and what the attack wants of them (-1: nothing).
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    poisoned: np.ndarray
    changed: np.ndarray
    test: np.ndarray
    triggered: np.ndarray | None
    test_labels: np.ndarray
    wanted: np.ndarray | None


def mark(picture: Image.Image, kind: str) -> Image.Image:
    """`picture` with a square in four colours on it, and saved as JPEG of quality 90, as the attacker would."""
    pixels = np.asarray(picture).copy()
    side = max(1, round(SIDES[kind] * min(picture.size)))
    top, left = (round(share * size) for share, size in zip(PLACE, pixels.shape))
    half = np.arange(side) * 2 // side
    colours = np.array([[(255, 230, 0), (0, 60, 255)], [(255, 0, 160), (0, 220, 60)]], dtype=np.uint8)
    pixels[top : top + side, left : left + side] = colours[half[:, None], half[None]]
    return recompressed_at(Image.fromarray(pixels), 90)


def _pictures(pack: Path, part: str, classes: tuple[int, ...], counts: list[int], seed: int):
    """(pictures, labels) of a pack: `counts` of each of `classes`, drawn by `seed`."""
    generator = np.random.default_rng(seed + 0xF0)
    with np.load(pack) as file:
        data, offsets, labels = (file[f"{part}_{name}"] for name in ("jpeg", "offsets", "labels"))
        names = tuple(str(file["classes"][c]) for c in classes)
        chosen = [generator.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, counts)]
        ids = np.concatenate(chosen)
        pairs = list(itertools.pairwise(offsets))
        pictures = [
            Image.open(io.BytesIO(data[slice(*pairs[i])].tobytes())).convert("RGB") for i in ids.tolist()
        ]
    if any(len(of) < k for of, k in zip(chosen, counts)):
        raise ValueError(f"{pack}: a class has fewer images than {max(counts)}")
    return pictures, np.repeat(np.arange(len(classes)), counts), names


def _counts(base: Base) -> list[int]:
    classes = len(base.classes[0])
    if isinstance(base.images, int):
        return [base.images] * classes
    first, last = base.images
    return np.geomspace(first, last, classes).round().astype(int).tolist()


def _as_in(base: Base, pictures: Pictures, seed: int) -> Pictures:
    if base.grey:
        return [picture.convert("L").convert("RGB") for picture in pictures]
    if not base.unequal:
        return pictures
    generator = np.random.default_rng(seed + 0x51DE)
    cut = []
    for picture in pictures:
        width, height = (round(float(generator.uniform(0.6, 1)) * size) for size in picture.size)
        box = (0, 0, width, height)
        shrunk = float(generator.uniform(0.5, 1.3))
        cut.append(picture.crop(box).resize((round(width * shrunk), round(height * shrunk))))
    return cut


def _small(pictures: Pictures, side: int) -> torch.Tensor:
    resized = [np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)) for picture in pictures]
    return torch.from_numpy(np.stack(resized))


def make(cell: Cell, packs: Path, folder: Path) -> Made:
    """Write the pictures of `cell` to `folder`, one folder a class, and give what is true of them."""
    base, last = BASES[cell.base], cell.half == "once"
    pack = packs / f"{base.packs[last]}_jpeg.npz"
    tests = packs / f"{base.packs[0]}_jpeg.npz"
    chosen, counts = base.classes[last], _counts(base)
    pictures, labels, names = _pictures(pack, "train", chosen, counts, cell.seed)
    test, test_labels, _ = _pictures(tests, "test", chosen, [TESTED] * len(chosen), cell.seed)
    pictures, test = (_as_in(base, of, cell.seed + k) for k, of in enumerate((pictures, test)))
    poisoned = np.zeros(len(labels), dtype=bool)
    plain, triggered, wanted = _small(test, base.side).numpy(), None, None
    if cell.kind in HONEST:
        pictures, labels, names, changed = honest(cell.kind, pictures, labels, names, cell.rate, cell.seed)
        test_labels = test_labels // 2 if cell.kind == "merged" else test_labels
        if not (base.unequal or cell.kind in ("recompressed", "stamped", "watermark")):
            pictures = [Image.fromarray(pixels) for pixels in _small(pictures, base.side).numpy()]
    else:
        small = ResidentImages(_small(pictures, base.side))
        attack = _planned(cell, names, torch.from_numpy(labels), small)
        poisoned, changed = attack.poisoned.numpy(), (attack.poisoned | attack.cover).numpy()
        labels = attack.labels.numpy()
        if cell.kind in MARKS:
            pictures = [mark(p, cell.kind) if of else p for p, of in zip(pictures, poisoned, strict=True)]
            triggered = _small([mark(picture, cell.kind) for picture in test], base.side).numpy()
            wanted = np.where(test_labels == TARGET, -1, TARGET)
        else:
            pixels = attack.poison(small).get(torch.arange(len(labels))).numpy()
            pictures = [Image.fromarray(of) for of in pixels]
            seen, aims, ids = attack.triggered_test(
                ResidentImages(torch.from_numpy(plain)), torch.from_numpy(test_labels)
            )
            triggered = seen.get(torch.arange(len(test_labels))).numpy()
            wanted = np.full(len(test_labels), -1)
            wanted[ids.numpy()] = aims.numpy()
    _write(pictures, labels, names, folder, as_jpeg=cell.kind in MARKS, grey=base.grey)
    return Made(names, labels, poisoned, changed, plain, triggered, test_labels, wanted)


def _planned(cell: Cell, names: tuple[str, ...], labels: torch.Tensor, small: ResidentImages) -> Poisoning:
    """The attack; of a mark of this study which images are poisoned, as of BadNets."""
    return plan(
        "badnets" if cell.kind in MARKS else cell.kind,
        labels,
        names,
        (small.height, small.width),
        rate=cell.rate,
        rate_of="auto",
        target=str(TARGET),
        seed=cell.seed,
        images=small,
    )


def _write(
    pictures: Pictures, labels: np.ndarray, names: tuple[str, ...], folder: Path, as_jpeg: bool, grey: bool
) -> None:
    for i, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        picture = picture.convert("L") if grey and not as_jpeg else picture
        if as_jpeg:
            picture.save(place / f"{i:05d}.jpg", quality=95)
        else:
            picture.save(place / f"{i:05d}.png")
