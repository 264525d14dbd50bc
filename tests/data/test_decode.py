import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from corpus import AVIF, bad_crc_png, bomb_png, encoded, jpeg, lying_png, noise, png, png_chunk
from PIL import Image
from torchvision.transforms import v2

from dlp_fast.data.decode import ImageRejected, decode_image, decode_picture, fit, read_regular, to_rgb
from dlp_fast.data.fitting import FITS
from dlp_fast.data.scan_pool import WORKER

MEGA = 64_000_000


def decode(data: bytes) -> np.ndarray:
    return decode_image(data, max_pixels=MEGA)


def rejected(data: bytes, max_pixels: int = MEGA) -> ImageRejected:
    with pytest.raises(ImageRejected) as caught:
        decode_image(data, max_pixels=max_pixels)
    return caught.value


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(file_format):
    pixels = noise()
    picture = decode_picture(encoded(pixels, file_format), max_pixels=MEGA)
    assert picture.format == file_format
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture.image), pixels)


def test_lossless_webp():
    np.testing.assert_array_equal(decode(encoded(noise(), "WEBP", lossless=True, exact=True)), noise())


def test_jpeg_is_what_pillow_says():
    np.testing.assert_array_equal(decode(jpeg()), np.asarray(Image.open(io.BytesIO(jpeg()))))


def test_result_is_uint8_hwc():
    pixels = decode(jpeg(height=5, width=7))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (5, 7, 3))


def test_alpha_is_dropped_and_not_blended():
    rgba = np.dstack([noise(), np.full((24, 32), 0, np.uint8)])
    np.testing.assert_array_equal(decode(encoded(rgba, "PNG")), noise())


def test_grey_with_alpha():
    grey = noise(channels=1)[..., 0]
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(np.full_like(grey, 9))])
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), np.dstack([grey] * 3))


def test_grey():
    grey = noise(channels=1)[..., 0]
    np.testing.assert_array_equal(decode(encoded(grey, "PNG")), np.dstack([grey] * 3))


def test_one_bit():
    bits = noise(channels=1)[..., 0] > 127
    data = encoded(Image.fromarray(bits), "PNG")
    assert decode_picture(data, max_pixels=MEGA).mode == "1"
    np.testing.assert_array_equal(decode(data), np.dstack([bits * np.uint8(255)] * 3))


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(256))])
def test_palette_with_and_without_transparency(transparency):
    image = Image.fromarray(noise()).quantize(64)
    options = {} if transparency is None else {"transparency": transparency}
    data = encoded(image, "PNG", **options)
    assert decode_picture(data, max_pixels=MEGA).mode == "P"
    np.testing.assert_array_equal(decode(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk(file_format):
    image = Image.fromarray(noise()).convert("CMYK")
    picture = decode_picture(encoded(image, file_format), max_pixels=MEGA)
    assert picture.mode == "CMYK"
    difference = np.abs(np.asarray(picture.image).astype(int) - noise())
    assert difference.max() <= (0 if file_format == "TIFF" else 40)


def test_sixteen_bit_grey_keeps_the_high_byte():
    grey = noise(channels=1)[..., 0]
    deep = (grey.astype(np.uint16) << 8) | 0x7F
    for file_format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(deep, file_format)), np.dstack([grey] * 3))


def test_sixteen_bit_grey_ppm():
    deep = noise(channels=1)[..., 0].astype(np.uint16) * 257
    data = b"P5 32 24 65535\n" + deep.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode(data), np.dstack([noise(channels=1)[..., 0]] * 3))


def test_sixteen_bit_colour_is_treated_as_sixteen_bit_grey():
    deep = np.random.default_rng(3).integers(0, 65536, (6, 5), dtype=np.uint16)
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in deep)
    colour = b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)),
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        ]
    )
    np.testing.assert_array_equal(decode(colour), decode(encoded(deep, "PNG")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation(orientation, file_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    plain = decode(encoded(noise(), file_format, **options))
    turned = decode(encoded(noise(), file_format, exif=exif.tobytes(), **options))
    steps = {1: (0, 0), 2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (3, 0), 7: (1, 1), 8: (1, 0)}
    turns, mirrored = steps[orientation]
    expected = np.rot90(plain, turns)
    expected = expected[:, ::-1] if mirrored else expected
    np.testing.assert_array_equal(turned, expected)


@pytest.mark.parametrize("file_format", ["MPO", "TIFF", "PNG", "WEBP"])
def test_first_picture_counts(file_format):
    second = Image.fromarray(noise(seed=5))
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    data = encoded(noise(), file_format, save_all=True, append_images=[second], **options)
    picture = decode_picture(data, max_pixels=MEGA)
    assert picture.format == ("JPEG" if file_format == "MPO" else file_format)
    difference = np.abs(np.asarray(picture.image).astype(int) - noise())
    assert difference.max() <= (60 if file_format == "MPO" else 0)


def test_damaged_exif_does_not_matter():
    data = encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xee" * 40)
    assert decode(data).shape == (24, 32, 3)


@pytest.mark.parametrize("percent", [30, 50, 60, 90, 99])
@pytest.mark.parametrize("side", [32, 200])
def test_cut_jpeg(percent, side):
    data = jpeg(height=side, width=side)
    assert rejected(data[: len(data) * percent // 100]).reason == "truncated"


@pytest.mark.parametrize("percent", [30, 60, 99])
@pytest.mark.parametrize("file_format", ["PNG", "BMP", "WEBP", "PPM"])
def test_other_cut_files(file_format, percent):
    data = encoded(noise(100, 100), file_format)
    assert rejected(data[: len(data) * percent // 100]).reason == "truncated"


def test_a_video_beside_the_pictures_is_no_lost_picture():
    with pytest.raises(ImageRejected, match="not_an_image: a video"):
        decode(b"\0\0\0\x14ftypqt  " + bytes(100))


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}])
def test_raw_files_of_cameras_are_no_tiff(tags):
    data = encoded(noise(16, 16), "TIFF", tiffinfo=tags)
    with pytest.raises(ImageRejected, match="unsupported_format: a camera's raw file"):
        decode(data)
    decode(encoded(noise(16, 16), "TIFF", tiffinfo={254: 1}))


def test_cut_tiff():
    data = encoded(noise(100, 100), "TIFF", compression="tiff_lzw")
    assert rejected(data[: len(data) // 2]).reason in ("truncated", "unreadable", "not_an_image")


def test_header_only():
    assert rejected(jpeg()[:100]).reason == "truncated"
    assert rejected(png()[:33]).reason == "truncated"


def test_empty():
    assert rejected(b"").reason == "empty"


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(0).bytes(5000),
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"just text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x80\x04\x95pickle",
    ],
)
def test_not_an_image(data):
    assert rejected(data).reason == "not_an_image"


def test_bad_crc():
    error = rejected(bad_crc_png())
    assert (error.reason, error.detail) == ("unreadable", "wrong checksum of chunk IDAT")


@pytest.mark.parametrize("lost", [1, 4, 12])
def test_png_without_its_end(lost):
    assert rejected(png()[:-lost]).reason == "truncated"


def test_lab_is_converted():
    assert decode(encoded(Image.fromarray(noise()).convert("LAB"), "TIFF")).shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftyp????" + bytes(100), "a video"),
        (encoded(Image.fromarray(np.full((4, 4), -5, np.int32)), "TIFF"), "negative"),
        (b"qoif" + bytes(100), "QOI"),
        (encoded(noise(), "ICO"), "ICO"),
        (b"8BPS" + bytes(100), "Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"SIMPLE  =                    T", "FITS"),
        (encoded(Image.fromarray(noise(channels=1)[..., 0].astype(np.float32)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"), "32-bit"),
    ],
)
def test_unsupported_formats_are_named(data, name):
    error = rejected(data)
    assert error.reason == "unsupported_format"
    assert name in error.detail


def test_too_many_pixels_is_told_from_the_header():
    error = rejected(lying_png(9000, 9000))
    assert (error.reason, error.detail) == ("too_large", "9000 x 9000 pixels, the limit is 64 million")


def test_bomb_beyond_pillows_own_limit():
    assert rejected(lying_png(30_000, 30_000)).reason == "too_large"


def test_limit_is_inclusive():
    data = bomb_png(1000, 1000)
    assert decode_image(data, max_pixels=1_000_000).shape == (1000, 1000, 3)
    assert rejected(data, max_pixels=999_999).reason == "too_large"


def test_to_rgb_of_a_grey_image():
    assert to_rgb(Image.new("L", (3, 2), 7)).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 33), (500, 31), (32, 32), (17, 90), (8, 8)])
def test_fit_is_resize_and_centre_crop(shape):
    pixels = noise(*shape)
    ours = np.asarray(fit(Image.fromarray(pixels), 32, 32, "crop")).astype(int)
    peer = v2.Compose([v2.Resize(32, antialias=True), v2.CenterCrop(32)])
    theirs = np.asarray(peer(Image.fromarray(pixels))).astype(int)
    assert ours.shape == (32, 32, 3)
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("how", FITS)
def test_fit_to_a_rectangle(how):
    assert fit(Image.fromarray(noise(100, 50)), 20, 30, how).size == (30, 20)


@pytest.mark.parametrize("how", FITS)
def test_fit_of_a_thread_of_pixels_costs_nothing(how):
    assert fit(Image.new("RGB", (1_000_000, 1)), 224, 224, how).size == (224, 224)


@pytest.mark.parametrize("how", FITS)
def test_fit_leaves_the_right_size_alone(how):
    image = Image.fromarray(noise(32, 32))
    assert fit(image, 32, 32, how) is image


def test_read_regular(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    data, status = read_regular(str(tmp_path), "a", max_bytes=3)
    assert (data, status.st_size) == (b"123", 3)
    for name, limit, reason in [
        ("a", 2, "too_large"),
        ("b", 9, "unreadable"),
        (".", 9, "not_a_regular_file"),
        ("../" * 40 + "etc/hostname", 1 << 20, "link_leaves_folder"),
    ]:
        with pytest.raises(ImageRejected) as caught:
            read_regular(str(tmp_path), name, max_bytes=limit)
        assert caught.value.reason == reason


def test_torch_is_not_needed():
    """The scan's children load the module alone: it must start fast and small."""
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code, str(WORKER)], check=True)


@pytest.mark.parametrize("file_format", ["GIF", "AVIF", "JPEG2000"])
def test_formats_of_phones_and_browsers(file_format):
    options = {"quality": 100, "subsampling": "4:4:4"} if file_format == "AVIF" else {}
    picture = decode_picture(encoded(noise(), file_format, **options), max_pixels=MEGA)
    assert picture.format == file_format
    difference = np.abs(np.asarray(picture.image).astype(int) - noise())
    assert difference.mean() < {"GIF": 6, "AVIF": 4, "JPEG2000": 0.1}[file_format]


def test_first_picture_of_an_animated_gif():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data) == [255, 0, 0]).all()


def test_gif_with_transparency_counts_it():
    image = Image.new("P", (8, 6), 1)
    image.putpalette([0, 255, 0, 255, 0, 0])
    image.paste(0, (0, 0, 4, 6))
    look = decode_picture(encoded(image, "GIF", transparency=0), max_pixels=MEGA, look=True).look
    assert look.transparent == 0.5


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16"])
def test_jpeg_2000_of_other_modes(mode):
    image = Image.fromarray(noise(channels=1)[..., 0].astype(np.uint16) * 257) if mode == "I;16" else None
    image = image or Image.fromarray(noise()).convert(mode)
    expected = image if mode == "I;16" else image.convert("RGB")
    expected = np.dstack([np.asarray(image) >> 8] * 3) if mode == "I;16" else np.asarray(expected)
    np.testing.assert_array_equal(decode(encoded(image, "JPEG2000")), expected)


@pytest.mark.parametrize("file_format", ["GIF", "AVIF", "JPEG2000"])
def test_limits_hold_for_them_too(file_format):
    data = encoded(noise(200, 200), file_format)
    assert rejected(data, max_pixels=39_999).reason == "too_large"
    assert rejected(data[: len(data) // 2]).reason in ("truncated", "unreadable")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (AVIF, "unreadable"),
        (bytes.fromhex("0000000c6a5020200d0a870a") + bytes(100), "unreadable"),
        (bytes.fromhex("ff4fff51") + bytes(100), "unreadable"),
        (b"GIF89a" + bytes(3), "unreadable"),
    ],
)
def test_damaged_headers_of_them(data, reason):
    assert rejected(data).reason == reason


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def test_heif_without_its_library(monkeypatch):
    monkeypatch.setattr("dlp_fast.data.formats.heif_missing", lambda: "pillow-heif is not installed")
    error = rejected(HEIC)
    assert (error.reason, error.detail) == (
        "unsupported_format",
        "HEIF; pillow-heif is not installed: install pillow-heif (pip install pillow-heif) or convert it",
    )


def test_heif():
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (4, 6, 3)), np.ones((16, 16, 1))).astype(
        np.uint8
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    made = pillow_heif.from_pillow(Image.fromarray(pixels))
    made.save(buffer, quality=-1, exif=exif.tobytes())
    picture = decode_picture(buffer.getvalue(), max_pixels=MEGA)
    assert picture.format == "HEIF"
    assert np.abs(np.asarray(picture.image).astype(int) - np.rot90(pixels, 3)).mean() < 4
    assert rejected(buffer.getvalue(), max_pixels=100).reason == "too_large"
    assert rejected(HEIC).reason == "unreadable"


def long_text(kind: bytes, size: int = 5_000_000) -> bytes:
    start = {b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\1\0\0\0", b"iCCP": b"icc\0\0"}[kind]
    return png_chunk(kind, start + zlib.compress(bytes(size)))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_png_with_a_long_text_or_profile(kind, place):
    plain = png()
    at = 33 if place == "before" else len(plain) - 12
    np.testing.assert_array_equal(decode(plain[:at] + long_text(kind) + plain[at:]), decode(plain))


def test_what_says_how_a_png_stands_is_kept():
    plain = png()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    turned = (
        plain[:33]
        + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        + long_text(b"zTXt")
        + plain[33:]
    )
    np.testing.assert_array_equal(decode(turned), np.rot90(decode(plain), 3))
