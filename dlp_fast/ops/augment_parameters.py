"""What ``augment`` draws for an image, in Python: to feed Pillow or DALI the same, or to explain an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dlp_fast.ops.philox import Block, integers, philox

# The pool of FixMatch's reference RandAugment, in its order; the position is its number in the kernels.
OPERATIONS = (
    "auto_contrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "identity",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "translate_x",
    "translate_y",
)
MAX_MAGNITUDE = 10
_SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@dataclass(frozen=True, kw_only=True)
class AugmentParameters:
    """The draws of ``augment`` for n images. All tensors are on the CPU.

    A crop offset (dx, dy) says that pixel (x, y) of the view is pixel (x + dx, y + dy) of the (flipped) image
    padded by ``pad`` reflected pixels. The cutout box is (x0, y0, x1, y1) in pixels, both ends included.
    """

    weak_flip: torch.Tensor
    """bool [n]: mirror left to right, before the crop."""
    weak_offset: torch.Tensor
    """int64 [n, 2]: dx, dy of the crop, 0..2*pad."""
    strong_flip: torch.Tensor
    """bool [n]."""
    strong_offset: torch.Tensor
    """int64 [n, 2]."""
    operation: torch.Tensor
    """int64 [n, operations]: position in ``OPERATIONS``, drawn with replacement."""
    applied: torch.Tensor
    """bool [n, operations]: whether the draw is carried out (p = 0.5)."""
    level: torch.Tensor
    """int64 [n, operations]: 1..magnitude-1, out of ``MAX_MAGNITUDE``."""
    negative: torch.Tensor
    """bool [n, operations]: sign of rotations, shears and translations."""
    cutout: torch.Tensor
    """int64 [n, 4]: the grey box, or all -1 where nothing is cut out."""


def augment_parameters(
    ids: torch.Tensor,
    epoch: int,
    seed: int,
    *,
    height: int,
    width: int,
    flip: bool = True,
    pad: int = 4,
    operations: int = 2,
    magnitude: int = 10,
    cutout: int = 16,
) -> AugmentParameters:
    """The parameters that ``augment`` draws for ``ids`` (int64 [n]); they depend on (seed, epoch, id) alone.

    ``height`` and ``width`` in pixels place the cutout; the other arguments are those of ``augment``. Raises
    ValueError where ``seed``, ``epoch`` or ``ids`` is out of range.
    """
    ids = np.asarray(ids.cpu())

    def view(block: Block) -> tuple[torch.Tensor, torch.Tensor]:
        words = philox(seed, epoch, ids, block)
        mirrored = (words[:, 0] >> np.uint32(31)).astype(bool) & flip
        return torch.from_numpy(mirrored), torch.from_numpy(integers(words[:, 1:3], 2 * pad + 1))

    weak_flip, weak_offset = view(Block.WEAK)
    strong_flip, strong_offset = view(Block.STRONG)
    drawn = [philox(seed, epoch, ids, Block.OPERATION + k) for k in range(operations)]
    words = np.stack(drawn, axis=1) if drawn else np.empty((len(ids), 0, 4), np.uint32)
    return AugmentParameters(
        weak_flip=weak_flip,
        weak_offset=weak_offset,
        strong_flip=strong_flip,
        strong_offset=strong_offset,
        operation=torch.from_numpy(integers(words[..., 0], len(OPERATIONS))),
        level=torch.from_numpy(1 + integers(words[..., 1], magnitude - 1)),
        applied=torch.from_numpy((words[..., 2] >> np.uint32(31)).astype(bool)),
        negative=torch.from_numpy((words[..., 3] >> np.uint32(31)).astype(bool)),
        cutout=torch.from_numpy(_cutout_box(philox(seed, epoch, ids, Block.CUTOUT), width, height, cutout)),
    )


def _cutout_box(words: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """FixMatch's reference rule: a uniform centre, half the side off it but not below 0, then a full side on.

    Both ends belong to the box, so it spans size + 1 pixels where the border allows. The centre is a 24-bit
    fraction of the side, so integers do the rule exactly.
    """
    if size == 0:
        return np.full((len(words), 4), -1, np.int64)
    sides = np.array([width, height], np.int64)
    start = np.maximum((words[:, :2] >> np.uint32(8)).astype(np.int64) * sides - (size << 23), 0) >> 24
    return np.concatenate([start, np.minimum(start + size, sides - 1)], axis=1)


def operation_value(operation: str, level: int, negative: bool = False, side: int = 0) -> float | int | None:
    """The number that Pillow's operation takes for a level 1..9, in the value ranges of FixMatch's reference.

    Blend factor in 0.14..0.86 (brightness, color, contrast, sharpness), bits kept (posterize), degrees
    (rotate), slope (shears), threshold (solarize), pixels of a ``side`` (translations: of the width for x, of
    the height for y); None for an operation without a number.
    """
    sign = -1 if negative and operation in _SIGNED else 1
    match operation:
        case "brightness" | "color" | "contrast" | "sharpness":
            return level * 0.9 / MAX_MAGNITUDE + 0.05
        case "posterize":
            return level * 4 // MAX_MAGNITUDE + 4
        case "rotate":
            return sign * (level * 30 // MAX_MAGNITUDE)
        case "shear_x" | "shear_y":
            return sign * (level * 0.3 / MAX_MAGNITUDE)
        case "solarize":
            return 256 - level * 256 // MAX_MAGNITUDE
        case "translate_x" | "translate_y":
            return int(sign * (level * 0.3 / MAX_MAGNITUDE) * side)
        case _:
            return None
