"""``augment`` by Pillow, image after image: the form to trust, and what runs without the native module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from dlp_fast.ops.augment_parameters import OPERATIONS, AugmentParameters, augment_parameters, operation_value

GREY = (127, 127, 127)
_ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


def normalise(
    pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype
) -> torch.Tensor:
    """uint8 [..., 3] -> (pixel/255 - mean)/std, worked out in fp32 and rounded once to ``dtype``."""
    mean_, std_ = (torch.tensor(list(v), dtype=torch.float32, device=pixels.device) for v in (mean, std))
    return ((pixels.float() / 255 - mean_) / std_).to(dtype)


def flip_and_crop(image: Image.Image, mirrored: bool, dx: int, dy: int, pad: int) -> Image.Image:
    """The weak view: mirror, pad by reflection (the border pixel is not repeated), cut at (dx, dy)."""
    pixels = np.asarray(ImageOps.mirror(image) if mirrored else image)
    padded = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    return Image.fromarray(np.ascontiguousarray(padded[dy : dy + image.height, dx : dx + image.width]))


def apply_operation(image: Image.Image, operation: str, level: int, negative: bool) -> Image.Image:
    """One operation of the pool by Pillow; the affine ones take the nearest pixel and fill with black."""
    side = image.height if operation == "translate_y" else image.width
    value = operation_value(operation, level, negative, side)
    match operation:
        case "auto_contrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "identity":
            return image
        case "posterize":
            return ImageOps.posterize(image, value)
        case "rotate":
            return image.rotate(value)
        case "solarize":
            return ImageOps.solarize(image, value)
        case "shear_x":
            matrix = (1, value, 0, 0, 1, 0)
        case "shear_y":
            matrix = (1, 0, 0, value, 1, 0)
        case "translate_x":
            matrix = (1, 0, value, 0, 1, 0)
        case "translate_y":
            matrix = (1, 0, 0, 0, 1, value)
        case _:
            return _ENHANCERS[operation](image).enhance(value)
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def strong_view(image: Image.Image, parameters: AugmentParameters, row: int, pad: int) -> Image.Image:
    """The strong view of one image by row ``row`` of ``parameters``."""
    mirrored, offset = bool(parameters.strong_flip[row]), parameters.strong_offset[row].tolist()
    image = flip_and_crop(image, mirrored, *offset, pad)
    draws = (parameters.operation, parameters.level, parameters.negative, parameters.applied)
    for operation, level, negative, applied in zip(*(d[row].tolist() for d in draws)):
        if applied:
            image = apply_operation(image, OPERATIONS[operation], level, negative)
    box = parameters.cutout[row].tolist()
    if box[0] >= 0:
        image = image.copy()
        ImageDraw.Draw(image).rectangle(box, GREY)
    return image


def augment_reference(
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
    """``augment`` by Pillow on the CPU; arguments, results and draws are those of ``augment``, unchecked."""
    n, height, width, _ = images.shape
    parameters = augment_parameters(
        ids, epoch, seed, height=height, width=width, flip=flip, pad=pad,
        operations=operations, magnitude=magnitude, cutout=cutout,
    )  # fmt: skip
    pixels = images.cpu().contiguous().numpy()
    views = [np.empty_like(pixels) for _ in range(1 + strong)]
    for row in range(n):
        image = Image.fromarray(pixels[row])
        mirrored, offset = bool(parameters.weak_flip[row]), parameters.weak_offset[row].tolist()
        views[0][row] = np.asarray(flip_and_crop(image, mirrored, *offset, pad))
        if strong:
            views[1][row] = np.asarray(strong_view(image, parameters, row, pad))
    # on the CPU, whose division is the correctly rounded one
    done = [
        normalise(torch.from_numpy(v), mean, std, dtype).to(images.device).permute(0, 3, 1, 2) for v in views
    ]
    return done[0], done[1] if strong else None
