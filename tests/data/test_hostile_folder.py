"""The whole corpus of hostile files through the front door: one load, every file where it belongs."""

import csv
import os

import pytest
import torch
from corpus import AVIF, bad_crc_png, bomb_png, encoded, jpeg, lying_png, noise, png, two_classes, write
from PIL import Image

from dlp_fast.config import DataConfig
from dlp_fast.data import load, write_quarantine

GOOD = {
    "plain.jpg": jpeg(),
    "png_named.jpg": png(),
    "cmyk.jpg": encoded(Image.fromarray(noise()).convert("CMYK"), "JPEG"),
    "grey.jpg": encoded(Image.fromarray(noise()).convert("L"), "JPEG"),
    "progressive.jpg": encoded(noise(), "JPEG", progressive=True),
    "la.png": encoded(Image.fromarray(noise()).convert("LA"), "PNG"),
    "palette.png": encoded(Image.fromarray(noise()).quantize(9), "PNG"),
    "one_bit.png": encoded(Image.fromarray(noise()).convert("1"), "PNG"),
    "rgba.png": encoded(Image.fromarray(noise()).convert("RGBA"), "PNG"),
    "deep.png": encoded(Image.fromarray(noise(channels=1)[..., 0].astype("uint16") * 257), "PNG"),
    "a.bmp": encoded(noise(), "BMP"),
    "a.webp": encoded(noise(), "WEBP"),
    "a.tiff": encoded(noise(), "TIFF"),
    "a.ppm": encoded(noise(), "PPM"),
    "a.gif": encoded(noise(), "GIF"),
    "gif_named.jpg": encoded(noise(), "GIF"),
    "good.avif": encoded(noise(), "AVIF"),
    "a.jp2": encoded(noise(), "JPEG2000"),
    "<script>alert(1)</script>".replace("/", "_"): jpeg(),
    "=cmd|' !A0.jpg": jpeg(),
    "new\nline.jpg": jpeg(),
    os.fsdecode(b"latin-\xe9-\xff.jpg"): jpeg(),
    "n" * 251 + ".jpg": jpeg(),
}
BAD = {
    "cut30.jpg": (jpeg()[: len(jpeg()) * 3 // 10], "truncated"),
    "cut99.jpg": (jpeg()[: len(jpeg()) * 99 // 100], "truncated"),
    "header.jpg": (jpeg()[:100], "truncated"),
    "cut.png": (png()[:500], "truncated"),
    "zero.jpg": (b"", "empty"),
    "random.jpg": (bytes(range(256)) * 20, "not_an_image"),
    "page.jpg": (b"<html><body>Not found</body></html>", "not_an_image"),
    "crc.png": (bad_crc_png(), "unreadable"),
    "a.psd": (b"8BPS" + bytes(100), "unsupported_format"),
    "psd_named.jpg": (b"8BPS" + bytes(100), "unsupported_format"),
    "a.avif": (AVIF, "unreadable"),
    "bomb.png": (bomb_png(9000, 8000), "too_large"),
    "lie.png": (lying_png(2**31 - 1, 2**31 - 1), "too_large"),
    "+evil\n.jpg": (b"text", "not_an_image"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "images"
    two_classes(root)
    write(root, {f"cat/{name}": data for name, data in GOOD.items()})
    write(root, {f"cat/{name}": data for name, (data, _) in BAD.items()})
    write(root.parent, {"secret.jpg": jpeg()})
    os.mkfifo(root / "cat/fifo.jpg")
    os.symlink("/dev/zero", root / "cat/zero_device.jpg")
    os.symlink(root.parent / "secret.jpg", root / "cat/out.jpg")
    os.symlink("loop.jpg", root / "cat/loop.jpg")
    os.symlink("..", root / "cat/folder_loop")
    os.link(root / "cat/plain.jpg", root / "dog/hard_link.jpg")
    return root


def test_every_file_where_it_belongs(folder, tmp_path):
    data = load(folder, DataConfig(image_size=16))
    refused = {item.path: item.reason for item in data.quarantine}
    assert refused == {
        **{f"cat/{name}": reason for name, (_, reason) in BAD.items()},
        "cat/fifo.jpg": "not_a_regular_file",
        "cat/zero_device.jpg": "link_leaves_folder",
        "cat/out.jpg": "link_leaves_folder",
        "cat/loop.jpg": "unreadable",
        "cat/folder_loop": "not_a_regular_file",
    }
    usable = {f"cat/{name}" for name in GOOD} | {f"{c}/{i}.jpg" for c in ("cat", "dog") for i in (0, 1)}
    assert set(data.train.paths) == usable | {"dog/hard_link.jpg"}
    assert any("same bytes under different labels" in warning for warning in data.warnings)
    assert data.train.images.get(torch.arange(len(data.train))).shape[1:] == (16, 16, 3)
    for warning in data.warnings:
        assert warning.isprintable()

    write_quarantine(tmp_path / "quarantine.csv", data.quarantine)
    with open(tmp_path / "quarantine.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + len(refused)
    assert all(len(row) == 3 and not row[0].startswith(("=", "+", "-", "@")) for row in rows)


def test_same_result_again(folder):
    first = load(folder, DataConfig(image_size=16))
    second = load(folder, DataConfig(image_size=16, workers=1))
    assert first.train.paths == second.train.paths
    assert first.quarantine == second.quarantine
    torch.testing.assert_close(first.train.images.pixels, second.train.images.pixels)
