"""FixMatch's weak and strong views of a batch of uint8 images, each image by draws of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from dlp_fast.ops.augment_parameters import MAX_MAGNITUDE
from dlp_fast.ops.augment_reference import augment_reference, normalise
from dlp_fast.ops.library import native_available, native_on

SMALLEST_SIDE, LARGEST_SIDE = 8, 256
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


# over 60 lines: half of them are arguments and what each is
def augment(
    images: torch.Tensor,
    ids: torch.Tensor,
    epoch: int,
    seed: int,
    *,
    flip: bool = True,
    pad: int = 4,
    operations: int = 2,
    magnitude: int = 10,
    cutout: int = 16,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: torch.dtype = torch.float32,
    strong: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weak and the strong view of FixMatch (Sohn et al. 2020), normalised and cast, from one load.

    weak = mirror (p 0.5) and crop from the image padded by reflection; strong = a mirror and crop of its
    own, then ``operations`` draws from the 14 operations of RandAugment (Cubuk et al. 2020) as FixMatch's
    reference has them (each carried out with p 0.5 at a level drawn from 1..magnitude-1), then a grey box.
    Each operation agrees with Pillow's bit for bit.

    Args:
        images: uint8 [b, H, W, 3], RGB, H and W from 8 to 256; any strides.
        ids: int64 [b], the samples' ids, on the device of ``images``. What is drawn for an image depends on
            (seed, epoch, id) only: not on the batch, the worker, the rank or the device.
        epoch: 0 <= epoch < 2**32.
        seed: 0 <= seed < 2**64.
        flip: whether views are mirrored with p 0.5.
        pad: pixels of reflected padding, 0 to min(H, W) - 1; a crop is moved by up to ``pad`` either way.
        operations: draws for a strong view, 0 to 16.
        magnitude: 2 to 10; the level of an operation is uniform in 1..magnitude-1 (so 10 is never reached, as
            in the reference).
        cutout: side of the grey (127) box in pixels, 0 to 256, 0 for none. By the reference's rule both ends
            belong to it, so it spans cutout + 1 pixels, and at the left and upper border it keeps its side.
        mean, std: three numbers each, in units of pixel/255; std above 0.
        dtype: float32, float16 or bfloat16.
        strong: False leaves the strong view out.

    Returns:
        (weak, strong), each [b, 3, H, W] of ``dtype`` in channels_last memory format, value
        (pixel/255 - mean)/std worked out in fp32 and rounded once; strong is None where ``strong`` is False.

    Raises:
        TypeError: images, ids or dtype of another type.
        ValueError: a shape, device or number out of range; the message names the argument.
    """
    _check(images, ids, epoch, seed, pad, operations, magnitude, cutout, mean, std, dtype)
    if not native_on(images.device):
        return augment_reference(
            images, ids, epoch, seed, flip=flip, pad=pad, operations=operations, magnitude=magnitude,
            cutout=cutout, mean=mean, std=std, dtype=dtype, strong=strong,
        )  # fmt: skip
    table = value_table(tuple(map(float, mean)), tuple(map(float, std)), dtype, images.device)
    signed_seed = seed - (1 << 64) if seed >= 1 << 63 else seed
    weak, strong_view = torch.ops.dlp_fast.augment(
        images.contiguous(),
        ids.contiguous(),
        table,
        epoch,
        signed_seed,
        flip,
        pad,
        operations,
        magnitude,
        cutout,
        strong,
    )
    return weak.permute(0, 3, 1, 2), strong_view.permute(0, 3, 1, 2) if strong else None


@lru_cache(maxsize=16)
def value_table(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """[3, 256]: the output value of every pixel value of a channel; torch rounds, the kernels look up."""
    return (
        normalise(torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 3), mean, std, dtype)
        .T.contiguous()
        .to(device)
    )


def _check(images, ids, epoch, seed, pad, operations, magnitude, cutout, mean, std, dtype) -> None:
    for name, value in (("images", images), ("ids", ids)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must have the shape [b, H, W, 3], got {list(images.shape)}")
    height, width = images.shape[1:3]
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (height, width)):
        raise ValueError(
            f"images must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels high and wide, got {height} x {width}; "
            "resize them first"
        )
    if ids.dtype != torch.int64:
        raise TypeError(f"ids must be int64, got {ids.dtype}")
    if ids.shape != images.shape[:1]:
        raise ValueError(
            f"ids must hold one id for each of the {len(images)} images, got the shape {list(ids.shape)}"
        )
    if ids.device != images.device:
        raise ValueError(f"ids must be on the device of images, {images.device}, got {ids.device}")
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    for name, value, low, high in (
        ("epoch", epoch, 0, (1 << 32) - 1),
        ("seed", seed, 0, (1 << 64) - 1),
        ("pad", pad, 0, min(height, width) - 1),
        ("operations", operations, 0, 16),
        ("magnitude", magnitude, 2, MAX_MAGNITUDE),
        ("cutout", cutout, 0, LARGEST_SIDE),
    ):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, got {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}, got {value}")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3:
            raise ValueError(f"{name} must hold three numbers, got {len(values)}")
    if not all(value > 0 for value in std):
        raise ValueError(f"std must be above 0, got {tuple(std)}")


if native_available():

    @torch.library.register_fake("dlp_fast::augment")
    def _(images, ids, table, epoch, seed, flip, pad, operations, magnitude, cutout, strong):
        return (
            images.new_empty(images.shape, dtype=table.dtype),
            images.new_empty((len(images) if strong else 0, *images.shape[1:]), dtype=table.dtype),
        )
