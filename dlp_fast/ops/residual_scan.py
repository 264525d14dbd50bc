"""What a static trigger leaves in images: their high-pass residuals, and hashes of small windows of high contrast."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.ops.library import native_available, native_on

LARGEST_SIDE = 256
WINDOW = 3
WEIGHTS = (1, 14, 62, 102, 62, 14, 1)
"""A Gaussian of one pixel in 256ths: its sums are whole numbers, so every device and order gives the same blur."""
_LANES = 256
_FACTORS = (
    0x243F6A8885A308D3, 0x13198A2E03707345, 0xA4093822299F31D1, 0x082EFA98EC4E6C89, 0x452821E638D01377,
    0xBE5466CF34E90C6D, 0xC0AC29B7C97C50DD, 0x3F84D5B5B5470917, 0x9216D5D98979FB1B,
)  # fmt: skip
_LAST_FACTOR = 0xD6E8FEB86659FD93


def high_pass_residual(images: Tensor, mean: Tensor | None = None) -> Tensor:
    """Images minus their Gaussian blur of one pixel, minus ``mean``, each scaled to length 1.

    The blur has the weights 1, 14, 62, 102, 62, 14, 1 (256ths) along rows and columns; beyond the border stand the
    border's pixels. It is exact in whole numbers; after it every step is one fp32 rounding in a fixed order (squares
    in 256 partial sums), so the CPU and CUDA kernels and ``high_pass_residual_reference`` give the same bits.

    Args:
        images: uint8 [b, H, W, 3], H and W from 1 to 256 pixels; any strides.
        mean: fp32 [H, W, 3] on the device of ``images``, levels of 1/255: the mean residual; None: zeros.

    Returns:
        fp32 [b, H * W * 3]; a row of zeros stays zeros.

    Raises:
        TypeError: ``images`` not uint8, ``mean`` not fp32.
        ValueError: a shape or device that does not fit; the message names the argument.
    """
    _check(images, 1)
    if mean is None:
        mean = torch.zeros(images.shape[1:], dtype=torch.float32, device=images.device)
    if mean.dtype != torch.float32:
        raise TypeError(f"mean must be float32, got {mean.dtype}")
    if mean.shape != images.shape[1:]:
        raise ValueError(
            f"mean must have the shape of one image, {list(images.shape[1:])}, got {list(mean.shape)}"
        )
    if mean.device != images.device:
        raise ValueError(f"mean must be on the device of images, {images.device}, got {mean.device}")
    if not native_on(images.device):
        return high_pass_residual_reference(images, mean)
    return torch.ops.dlp_fast.high_pass_residual(images.contiguous(), mean.contiguous())


def high_pass_residual_reference(images: Tensor, mean: Tensor) -> Tensor:
    """``high_pass_residual`` in plain torch, to the bit."""
    values = (high_pass(images) - mean).flatten(1)
    length = values.shape[1]
    squares = values.new_zeros(len(values), -(-length // _LANES) * _LANES)
    squares[:, :length] = values * values
    sums = values.new_zeros(len(values), _LANES)
    for part in squares.split(_LANES, 1):
        sums = sums + part
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    # by way of float64, which rounds both steps as IEEE fp32 does: torch's own fp32 square root may be off by a bit
    lengths = sums.double().sqrt().float().double()
    return values * torch.where(sums > 0, 1 / lengths, 0.0).float()


def high_pass(images: Tensor) -> Tensor:
    """Images minus their Gaussian blur of one pixel, in levels; uint8 [b, H, W, 3] to fp32 of that shape, exact."""
    pixels = images.to(torch.int32)
    return (pixels * 65536 - _weighted(_weighted(pixels, 2), 1)).float() / 65536


def _weighted(values: Tensor, dim: int) -> Tensor:
    """Sum of seven neighbours along ``dim`` by their weights; the border is repeated."""
    size, radius = values.shape[dim], len(WEIGHTS) // 2
    places = torch.arange(size, device=values.device)
    shifts = range(-radius, radius + 1)
    return sum(
        weight * values.index_select(dim, (places + shift).clamp(0, size - 1))
        for weight, shift in zip(WEIGHTS, shifts)
    )


def window_hashes(images: Tensor, contrast: int) -> Tensor:
    """A hash of every 3 x 3 window, its pixels quantised to 3 bits a channel; -1 where the contrast is low.

    Args:
        images: uint8 [b, H, W, 3], H and W from 3 to 256 pixels; any strides.
        contrast: levels, 1 to 255: a window counts where one channel spans at least as many.

    Returns:
        int64 [b, (H - 2) * (W - 2)], row by row; equal windows have equal hashes (0 and above) on every device.

    Raises:
        TypeError, ValueError: dtype or shape of ``images``; ``contrast`` out of range.
    """
    _check(images, WINDOW)
    if not isinstance(contrast, int) or isinstance(contrast, bool):
        raise TypeError(f"contrast must be an int, got {type(contrast).__name__}")
    if not 1 <= contrast <= 255:
        raise ValueError(f"contrast must be from 1 to 255, got {contrast}")
    if not native_on(images.device):
        return window_hashes_reference(images, contrast)
    return torch.ops.dlp_fast.window_hashes(images.contiguous(), contrast)


def window_hashes_reference(images: Tensor, contrast: int) -> Tensor:
    """``window_hashes`` in plain torch, to the bit."""
    pixels = images.to(torch.int64)
    windows = pixels.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1).flatten(4)  # [b, lines, columns, 3, 9]
    spread = (windows.amax(4) - windows.amin(4)).amax(3)
    red, green, blue = (windows >> 5).unbind(3)
    factors = torch.tensor([_signed(f) for f in _FACTORS], device=images.device)
    mixed = ((red << 6 | green << 3 | blue) * factors).sum(3)  # products and sums modulo 2**64
    mixed = (mixed ^ _shifted(mixed, 32)) * _signed(_LAST_FACTOR)
    mixed = _shifted(mixed ^ _shifted(mixed, 32), 1)
    return torch.where(spread >= contrast, mixed, -1).flatten(1)


def _signed(bits: int) -> int:
    """The int64 of the same 64 bits."""
    return bits - (1 << 64) if bits >= 1 << 63 else bits


def _shifted(values: Tensor, by: int) -> Tensor:
    """int64 shifted to the right as if it had no sign."""
    return (values >> by) & ((1 << (64 - by)) - 1)


def _check(images: Tensor, least: int) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, got {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must have the shape [b, H, W, 3], got {list(images.shape)}")
    height, width = images.shape[1:3]
    if not all(least <= side <= LARGEST_SIDE for side in (height, width)):
        raise ValueError(
            f"images must be {least} to {LARGEST_SIDE} pixels high and wide, got {height} x {width}; resize them first"
        )


if native_available():

    @torch.library.register_fake("dlp_fast::high_pass_residual")
    def _(images, mean):
        b, height, width, channels = images.shape
        return images.new_empty((b, height * width * channels), dtype=torch.float32)

    @torch.library.register_fake("dlp_fast::window_hashes")
    def _(images, contrast):
        b, height, width, _ = images.shape
        return images.new_empty((b, (height - WINDOW + 1) * (width - WINDOW + 1)), dtype=torch.int64)
