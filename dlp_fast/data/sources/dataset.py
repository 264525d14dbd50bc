"""What a source gives: the splits, and what a person should know about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlp_fast.data.scan import Quarantined
from dlp_fast.data.storage import FileImages, ResidentImages
from dlp_fast.runs.names import counted, printable

SMALL_SIDE = 96
"""Images that all have one size, at most this many pixels a side, are used at that size."""
LARGE_SIDE = 224
"""All others are brought to squares of this many pixels a side."""

Images = ResidentImages | FileImages


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split; position is id.

    Attributes:
        images: uint8 [b, height, width, 3] by ids.
        labels: int64 [n], positions in `classes`.
        paths: where each image comes from: relative to the folder that was given, or `name/split/00012`.
        classes: names.
        sha256: of the file's bytes, or of the pixels where there is no file.
        conflicts: groups of ids with the same bytes under different labels.
    """

    images: Images
    labels: torch.Tensor
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    sha256: tuple[str, ...]
    conflicts: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a run works on.

    Attributes:
        name: `digits`, `cifar10`, or the name of the folder.
        train, test: the splits; test is None where there is none.
        quarantine: files that were left out, with reasons.
        warnings: what a person should know, one sentence each.
        flip: whether a mirrored image shows the same class (digits do not).
        loader: which one reads the images, and why.
        fit, bit_depth: how pictures of another shape get their size (`DataConfig.fit`), and the bits that files of
            16-bit samples use; what other pictures have to be read by, for the same network.
        root: folder that paths are relative to; None where the images are no files.
    """

    name: str
    train: ImageSet
    test: ImageSet | None
    quarantine: tuple[Quarantined, ...] = ()
    warnings: tuple[str, ...] = ()
    flip: bool = True
    loader: str = "resident: all images are in memory"
    fit: str = "squash"
    bit_depth: int = 16
    root: str | None = None


def target_size(sizes: set[tuple[int, int]], image_size: int | None) -> tuple[int, int]:
    """(height, width) for pictures of these (width, height)."""
    if image_size is not None:
        return image_size, image_size
    if len(sizes) == 1:
        ((width, height),) = sizes
        if max(width, height) <= SMALL_SIDE:
            return height, width
    return LARGE_SIDE, LARGE_SIDE


def tell_twins(sets: dict[str, ImageSet]) -> list[str]:
    """What to say of images that are there more than once: under different labels, or in training and test set."""
    told = [tell_conflicts(split, images) for split, images in sets.items() if images.conflicts]
    return told + (tell_leaks(sets["train"], sets["test"]) if "test" in sets else [])


def tell_conflicts(split: str, images: ImageSet) -> str:
    """One sentence about the images of a split that have the same bytes under different labels."""
    ids = images.conflicts[0]
    other = next(i for i in ids if images.labels[i] != images.labels[ids[0]])
    example = f"{printable(images.paths[ids[0]])} and {printable(images.paths[other])}"
    count, pictures = sum(map(len, images.conflicts)), len(images.conflicts)
    return (
        f"{split}: {count:,} images with the same bytes under different labels ({counted(pictures, 'picture')}), such "
        f"as {example}: mistakes, or a sign of poison"
    )


def tell_leaks(train: ImageSet, test: ImageSet) -> list[str]:
    """At most one sentence: how many test images are training images, byte for byte, and how many of them under other
    labels than there.
    """
    labels: dict[str, set[int]] = {}
    for digest, label in zip(train.sha256, train.labels.tolist()):
        labels.setdefault(digest, set()).add(label)
    shared = [i for i, digest in enumerate(test.sha256) if digest in labels]
    if not shared:
        return []
    wrong = [i for i in shared if int(test.labels[i]) not in labels[test.sha256[i]]]
    all_of = len(shared) == len(test)
    return [
        f"test: {'all' if all_of else f'{len(shared):,} of'} {len(test):,} images are training images too, byte for "
        f"byte, such as {printable(test.paths[(wrong or shared)[0]])}"
        + (f"; {len(wrong):,} of them under another label there" if wrong else "")
        + ": accuracies say less than they seem to"
    ]
