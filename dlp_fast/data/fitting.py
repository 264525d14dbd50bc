"""How a picture of any shape gets the height and width that the network takes.

`squash` resizes both sides on their own: all of the picture is seen, as large as can be. `pad` resizes both by one
factor and adds black. `crop` resizes the shorter side to fit and cuts the rest off; what is cut off is not seen.
Imports nothing of dlp_fast and no torch: the scan's child processes load it.
"""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

FITS = ("squash", "pad", "crop")


class Placement(NamedTuple):
    """Which part of a picture goes where: (left, top, right, bottom) of the picture, in its pixels; (height, width)
    that this part is resized to; (top, left) where it lies within the result.
    """

    region: tuple[float, float, float, float]
    size: tuple[int, int]
    offset: tuple[int, int]


def region(
    source_width: int, source_height: int, height: int, width: int
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels of a picture: what is left of it, unscaled, by resizing the shorter side to
    fit `height` x `width` and cropping the centre.
    """
    if source_width * height >= source_height * width:
        whole_height, whole_width = height, max(width, source_width * height // source_height)
    else:
        whole_height, whole_width = max(height, source_height * width // source_width), width
    left, top = round((whole_width - width) / 2), round((whole_height - height) / 2)
    across, down = source_width / whole_width, source_height / whole_height
    return (
        left * across,
        top * down,
        min((left + width) * across, source_width),
        min((top + height) * down, source_height),
    )


def placement(source_width: int, source_height: int, height: int, width: int, how: str) -> Placement:
    """Where a picture of `source_width` x `source_height` goes within `height` x `width`; `how` is one of `FITS`."""
    if how == "crop":
        return Placement(region(source_width, source_height, height, width), (height, width), (0, 0))
    whole = (0.0, 0.0, float(source_width), float(source_height))
    if how == "squash":
        return Placement(whole, (height, width), (0, 0))
    scale = min(height / source_height, width / source_width)
    inner_height = min(height, max(1, round(source_height * scale)))
    inner_width = min(width, max(1, round(source_width * scale)))
    return Placement(
        whole, (inner_height, inner_width), ((height - inner_height) // 2, (width - inner_width) // 2)
    )


def fit(image: Image.Image, height: int, width: int, how: str) -> Image.Image:
    """An RGB image brought to `height` x `width`, bilinear with antialiasing; `how` is one of `FITS`.

    Only the part that stays is computed: a picture of 1 x 10,000,000 pixels costs no more than another. An image that
    has the size already is returned as it is.
    """
    if image.size == (width, height):
        return image
    box, (inner_height, inner_width), (top, left) = placement(*image.size, height, width, how)
    inner = image.resize((inner_width, inner_height), Image.Resampling.BILINEAR, box=box)
    if inner.size == (width, height):
        return inner
    canvas = Image.new("RGB", (width, height))
    canvas.paste(inner, (left, top))
    return canvas


def share_cut_off(source_width: int, source_height: int, height: int, width: int) -> float:
    """Share of a picture's pixels that `crop` does not show."""
    left, top, right, bottom = region(source_width, source_height, height, width)
    return max(0.0, 1 - (right - left) * (bottom - top) / (source_width * source_height))
