"""16-bit files are scaled by what their set uses, and sets whose pictures show nothing are told of."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from corpus import encoded, noise, png_chunk, write
from PIL import Image

from dlp_fast.config import DataConfig
from dlp_fast.data import sources
from dlp_fast.data.appearance import common_depth
from dlp_fast.data.decode import decode_picture
from dlp_fast.data.samples import used_bits
from dlp_fast.data.scan import scan_files

MEGA = 64_000_000


def grey(seed: int = 0) -> np.ndarray:
    """uint16 [24, 32], 0 to 255, with 255 in a corner, so that all of its bits are used."""
    pixels = noise(channels=1, seed=seed)[..., 0].astype(np.uint16)
    pixels[0, 0] = 255
    return pixels


def deep_png(samples: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits: samples uint16 [height, width, channels]; 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        ]
    )


def deep_tiff(samples: np.ndarray, order: str, bits: int = 16) -> bytes:
    """An uncompressed RGB TIFF, samples uint16 [height, width, 3], `order` < or >."""
    height, width = samples.shape[:2]
    body = samples.astype(f"{order}u2").tobytes()
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, 8 + len(body)),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
    ]
    tags += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(body)), (284, 3, 1, 1)]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (
            struct.pack(f"{order}HH", value, 0)
            if kind == 3 and count == 1
            else struct.pack(f"{order}I", value)
        )
        for tag, kind, count, value in tags
    )
    where = 8 + len(body) + 6
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, where)
    depths = struct.pack(f"{order}HHH", bits, bits, bits)
    return head + body + depths + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def shown(data: bytes, bits: int) -> np.ndarray:
    return np.asarray(decode_picture(data, max_pixels=MEGA, bits=bits).image)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
class TestScale:
    def test_grey(self, bits):
        samples = grey() << (bits - 8)
        for file in (
            encoded(samples, "PNG"),
            encoded(samples, "TIFF"),
            encoded(samples.astype(np.int32), "TIFF"),
        ):
            np.testing.assert_array_equal(shown(file, bits), np.dstack([grey()] * 3))

    def test_big_endian(self, bits):
        image = Image.frombytes("I;16B", (32, 24), (grey() << (bits - 8)).astype(">u2").tobytes())
        file = encoded(image, "TIFF")
        assert decode_picture(file, max_pixels=MEGA).mode == "I;16B"
        np.testing.assert_array_equal(shown(file, bits), np.dstack([grey()] * 3))

    @pytest.mark.parametrize("colour_type", [2, 4, 6])
    def test_colour_and_alpha(self, bits, colour_type):
        """Pillow gives the high bytes of these alone."""
        channels = {2: 3, 4: 2, 6: 4}[colour_type]
        samples = np.dstack([grey(seed) for seed in range(channels)]) << (bits - 8)
        expected = samples >> (bits - 8)
        expected = np.dstack([expected[..., 0]] * 3) if colour_type == 4 else expected[..., :3]
        np.testing.assert_array_equal(shown(deep_png(samples, colour_type), bits), expected)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_colour_tiff(self, bits, order):
        samples = np.dstack([grey(seed) for seed in range(3)]) << (bits - 8)
        np.testing.assert_array_equal(shown(deep_tiff(samples, order), bits), samples >> (bits - 8))

    def test_what_the_scan_finds(self, tmp_path, bits):
        samples = grey() << (bits - 8)
        colour = np.dstack([samples] * 3)
        write(tmp_path, {"a": encoded(samples, "PNG"), "b": deep_png(colour, 2), "c": deep_tiff(colour, "<")})
        records, _ = scan_files(tmp_path, ["a", "b", "c"])
        for record in records:
            assert record.look.peak == 255 << (bits - 8)
            assert record.look.mean == pytest.approx(float(samples.mean()), rel=1e-4)


def test_orientation_of_deep_colour():
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = np.dstack([grey(seed) for seed in range(3)])
    plain = deep_png(samples, 2)
    turned = plain[:33] + png_chunk(b"eXIf", exif.tobytes()[6:]) + plain[33:]
    np.testing.assert_array_equal(shown(turned, 8), np.rot90(shown(plain, 8), 3))


def test_eight_bits_have_no_peak(tmp_path):
    write(tmp_path, {"a.png": encoded(noise(), "PNG"), "b.jpg": encoded(noise(), "JPEG")})
    records, _ = scan_files(tmp_path, ["a.png", "b.jpg"])
    assert [record.look.peak for record in records] == [-1, -1]
    assert records[0].look.deviation == pytest.approx(noise().std(axis=(0, 1)).max(), abs=0.01)


@pytest.mark.parametrize(
    ("peak", "bits"), [(0, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (65535, 16)]
)
def test_used_bits(peak, bits):
    assert used_bits(peak) == bits


class TestCommonDepth:
    def test_largest_of_the_set(self):
        assert common_depth([200, 300, 3000], "auto") == 12
        assert common_depth([3000, 200, 300], "auto") == 12

    def test_one_file_does_not_turn_the_rest_black(self):
        assert common_depth([4000] * 199 + [65535], "auto") == 12
        assert common_depth([4000] * 50 + [65535] * 50, "auto") == 16

    def test_none_and_forced(self):
        assert common_depth([], "auto") == 16
        assert common_depth([4000], 8) == 8


def folder(root, make, each: int = 30):
    """Two classes of files; `make(class number, number)` gives the bytes of each."""
    files = {f"{name}/{i:03d}.png": make(k, i) for k, name in enumerate(("cat", "dog")) for i in range(each)}
    return write(root, files)


def load(root, loader="resident", **options):
    return sources.load(root, DataConfig(**options), loader=loader)


def pixels(dataset):
    return torch.cat([dataset.train.images.get(torch.arange(len(dataset.train)))])


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_set_in_sixteen_bits_is_that_of_eight(tmp_path, bits):
    eight = load(folder(tmp_path / "8", lambda k, i: encoded(grey(k + 2 * i).astype(np.uint8), "PNG")))
    deep = folder(tmp_path / "16", lambda k, i: encoded(grey(k + 2 * i) << (bits - 8), "PNG"))
    for loader in ("resident", "torchvision"):
        for workers in (1, 3):
            found = load(deep, loader, workers=workers)
            assert torch.equal(pixels(found), pixels(eight))
            assert found.bit_depth == bits
            assert found.warnings == (
                f"train: 60 files of 16-bit samples read as {bits} bits (found; the largest sample is "
                f"{255 << (bits - 8):,}). Another scale: --dataset.bit-depth 8|10|12|14|16",
            )


def test_true_sixteen_bits_are_not_spoken_of(tmp_path):
    dark = np.full((24, 32), 900, np.uint16) + (np.arange(32, dtype=np.uint16) * 90)
    found = load(
        folder(tmp_path, lambda k, i: encoded(dark if (k, i) == (0, 0) else grey(i) << 8, "PNG"), each=60)
    )
    assert found.bit_depth == 16
    assert "16-bit" not in str(found.warnings)


def test_one_outlier_of_another_depth(tmp_path):
    """It keeps its own scale, and the others theirs."""
    deep = folder(tmp_path, lambda k, i: encoded(grey(i) << (8 if (k, i) == (1, 7) else 4), "PNG"), each=60)
    found = load(deep)
    assert "1 of them uses more, and is scaled alone" in found.warnings[0]
    assert torch.equal(pixels(found)[67], pixels(found)[7])


def test_a_mixture_is_told(tmp_path):
    found = load(folder(tmp_path, lambda k, i: encoded(grey(i) << (8 * k), "PNG")))
    assert "those of few bits come out dark or black (30 use 8 bits, 30 use 16 bits)" in found.warnings[0]
    assert found.warnings[1] == (
        "train: 30 of 60 pictures are of one colour or nearly so, 30 of them black (all of class cat): nothing can be "
        "learnt from them, and no mark be seen"
    )


def test_forced(tmp_path):
    deep = folder(tmp_path, lambda k, i: encoded(grey(i) << 4, "PNG"))
    assert torch.equal(pixels(load(deep, bit_depth=12)), pixels(load(deep)))
    dark = load(deep, bit_depth=16)
    assert int(pixels(dark).max()) == 15
    assert "as asked for" in dark.warnings[0] and "dark or black (60 use 12 bits)" in dark.warnings[0]


def test_test_images_are_scaled_as_the_training_set(tmp_path):
    folder(tmp_path / "train", lambda k, i: encoded(grey(i) << 4, "PNG"))
    folder(tmp_path / "test", lambda k, i: encoded((grey(i) << 4) // 20, "PNG"), each=2)
    found = load(tmp_path)
    expected = np.dstack([((grey() << 4) // 20 >> 4)] * 3)
    np.testing.assert_array_equal(found.test.images.get(torch.tensor([0]))[0].numpy(), expected)


def test_twelve_bits_that_the_file_declares():
    """Pillow unpacks TIFF of 12 bits; a dark one still has 12."""
    row = b"".join(struct.pack(">I", (a << 12 | b) << 8)[:3] for a, b in [(0, 100), (200, 300)] * 4)
    tags = [
        (256, 3, 16),
        (257, 3, 2),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 2),
    ]
    tags += [(279, 4, 48)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II" + struct.pack("<HI", 42, 56) + row * 2 + struct.pack("<H", len(tags)) + entries + bytes(4)
    picture = decode_picture(data, max_pixels=MEGA, bits=12, look=True)
    assert picture.look.peak == 4095
    assert np.asarray(picture.image)[0, :4, 0].tolist() == [0, 100 >> 4, 200 >> 4, 300 >> 4]


class TestTransparency:
    def rgba(self, alpha: int) -> bytes:
        pixels = np.dstack([noise(), np.full((24, 32), 255, np.uint8)])
        pixels[:12, :, 3] = alpha
        return encoded(pixels, "PNG")

    def test_told(self, tmp_path):
        found = load(folder(tmp_path, lambda k, i: self.rgba(0 if k else 255)))
        assert found.warnings[0] == (
            "train: 30 of 60 pictures are transparent in part (50% of the average one): the colours stored there, "
            "which no viewer shows, are trained on; to blend them with a background, convert the files to RGB"
        )

    def test_opaque_alpha_is_not_spoken_of(self, tmp_path):
        (told,) = load(folder(tmp_path, lambda k, i: self.rgba(255))).warnings
        assert told.startswith("train: 60 images with the same")

    def test_palette_and_grey(self):
        image = Image.fromarray(noise()).quantize(16)
        colour = int(np.bincount(np.asarray(image).ravel()).argmax())
        share = float((np.asarray(image) == colour).mean())
        look = decode_picture(encoded(image, "PNG", transparency=colour), max_pixels=MEGA, look=True).look
        assert look.transparent == pytest.approx(share, abs=1e-3)
        half = Image.merge("LA", [Image.new("L", (8, 8), 9), Image.new("L", (8, 8), 0)])
        assert decode_picture(encoded(half, "PNG"), max_pixels=MEGA, look=True).look.transparent == 1


def test_flat_pictures_are_counted(tmp_path):
    def make(k, i):
        if i < 3:
            return encoded(np.full((24, 32, 3), [0, 200][k], np.uint8), "PNG")
        return encoded(noise(seed=i), "PNG")

    assert load(folder(tmp_path, make)).warnings[0] == (
        "train: 6 of 60 pictures are of one colour or nearly so, 3 of them black: nothing can be learnt from them, and "
        "no mark be seen"
    )
