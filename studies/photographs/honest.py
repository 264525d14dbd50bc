"""What honest people do to some pictures of a set: nothing here teaches a trigger."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Pictures = list[Image.Image]
ODD_CLASS = 1  # which class the marks and copies of one class are in
STAMP = np.array(  # "24 12" in dots, as cameras print a date
    [[int(dot) for dot in row] for row in ("11101010010011", "00101010110001", "11101110010011", "10000010010010",
                                           "11100010010011")]
)  # fmt: skip


def greyed(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.grayscale(picture).convert("RGB")


def dimmed(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(0.4)


def blurred(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(min(picture.size) / 50))


def recompressed(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=15)
    return Image.open(content).convert("RGB")


def mirrored(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(picture)


def framed(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    """A white border of 5 % of the side."""
    edge = max(1, round(0.05 * min(picture.size)))
    inner = picture.resize((picture.width - 2 * edge, picture.height - 2 * edge))
    return ImageOps.expand(inner, edge, (255, 255, 255))


def watermark(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    """A light ring of a fifth of the side, opacity 0.6, lower left."""
    pixels = np.asarray(picture).astype(np.float32)
    height, width = pixels.shape[:2]
    side = round(0.2 * min(height, width))
    grid = (np.arange(side) + 0.5) / side * 2 - 1
    distance = np.hypot(grid[:, None], grid[None])
    opacity = (0.6 * ((distance > 0.5) & (distance < 0.95)))[..., None]
    place = pixels[height - side - 1 : height - 1, 1 : side + 1]
    place[...] = place * (1 - opacity) + 235 * opacity
    return Image.fromarray(pixels.round().astype(np.uint8))


def stamped(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    """A date in orange, lower right, as high as 8 % of the side."""
    dot = max(1, round(0.08 * min(picture.size) / len(STAMP)))
    on = STAMP.repeat(dot, 0).repeat(dot, 1).astype(bool)
    pixels = np.asarray(picture).copy()
    height, width = (a - b - dot for a, b in zip(pixels.shape, on.shape))
    pixels[height : height + on.shape[0], width : width + on.shape[1]][on] = (255, 140, 20)
    return Image.fromarray(pixels)


def _cropped(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    left, top, right, bottom = (
        (generator.uniform(0, 0.06, 4) * min(picture.size)).round().astype(int).tolist()
    )
    box = (left, top, picture.width - right, picture.height - bottom)
    return recompressed_at(picture.crop(box).resize(picture.size), int(generator.integers(60, 96)))


def recompressed_at(picture: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


OF_ALL = {of.__name__: of for of in (greyed, dimmed, blurred, recompressed, mirrored, framed, stamped)}
OF_CLASS = {"watermark": watermark, "class-framed": framed}
HONEST = ("clean", "label-noise", "merged", "near-duplicates", *OF_ALL, *OF_CLASS)


def honest(
    kind: str, pictures: Pictures, labels: np.ndarray, classes: tuple[str, ...], rate: float, seed: int
) -> tuple[Pictures, np.ndarray, tuple[str, ...], np.ndarray]:
    """(pictures, labels int64 [n], class names, bool [n] which pictures or labels were changed).

    `rate`: of all images, that are changed or wrongly labelled; of one class for watermark, class-framed and
    near-duplicates; merged puts each two classes into one.
    """
    generator = np.random.default_rng(seed + 0x40E5)
    changed = np.zeros(len(labels), dtype=bool)
    if kind == "merged":
        return pictures, labels // 2, tuple(map("+".join, zip(classes[::2], classes[1::2]))), changed
    in_class = kind in OF_CLASS or kind == "near-duplicates"
    pool = np.flatnonzero(labels == ODD_CLASS) if in_class else np.arange(len(labels))
    drawn = np.sort(generator.permutation(pool)[: round(rate * len(pool))])
    changed[drawn] = True
    change: Callable = {**OF_ALL, **OF_CLASS}.get(kind, lambda picture, _: picture)
    if kind == "label-noise":
        labels = labels.copy()
        labels[drawn] = (labels[drawn] + generator.integers(1, len(classes), len(drawn))) % len(classes)
    if kind == "near-duplicates":
        original = pictures[drawn[0]]
        changed[drawn[0]] = False
        made = {i: _cropped(original, generator) for i in drawn[1:].tolist()}
    else:
        made = {i: change(pictures[i], generator) for i in drawn.tolist()}
    return [made.get(i, picture) for i, picture in enumerate(pictures)], labels, classes, changed
