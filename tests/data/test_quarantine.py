"""What is said of files that are left out."""

from __future__ import annotations

import pytest
from corpus import png, two_classes, write

from dlp_fast.config import DataConfig
from dlp_fast.data import sources
from dlp_fast.data.quarantine import cannot_be_used, is_loss, losses_told, reasons_told
from dlp_fast.data.scan_answers import Quarantined
from dlp_fast.errors import DataError

HEIC = Quarantined("a.heic", "unsupported_format", "HEIF; install it or convert it")
CUT = Quarantined("b.jpg", "truncated", "short")


def test_reasons_and_formats():
    assert cannot_be_used([CUT]) == "1 file cannot be used: 1 truncated"
    assert reasons_told([HEIC, HEIC, CUT]) == (
        "3 files: 2 unsupported_format (HEIF: install it or convert it), 1 truncated"
    )
    other = Quarantined("c.psd", "unsupported_format", "Photoshop; convert it")
    assert reasons_told([HEIC, HEIC, other]) == (
        "3 files: 3 unsupported_format (2 HEIF: install it or convert it; 1 Photoshop: convert it)"
    )


@pytest.mark.parametrize(
    ("path", "reason", "loss"),
    [("Thumbs.db", "not_an_image", False), ("x.JPG", "not_an_image", True), ("x", "truncated", True)],
)
def test_a_readme_is_no_loss(path, reason, loss):
    assert is_loss(Quarantined(path, reason, "")) == loss


def test_losses():
    assert losses_told("train", {"cat": 980, "dog": 1000}, ["cat"] * 20) is None
    told = losses_told("train", {"cat": 950, "dog": 1000}, ["cat"] * 50)
    assert told.startswith("train: 50 of 2,000 image files (2%) are left out. The result speaks of the rest")
    told = losses_told("train", {"cat": 5000, "dog": 10}, ["dog"] * 10)
    assert "are left out; class dog lost 10 of 20. " in told


def test_a_folder_of_which_most_is_lost(tmp_path):
    two_classes(tmp_path)
    write(tmp_path, {f"cat/{i}.psd": b"8BPS" + bytes([i]) * 99 for i in range(9)} | {"dog/Thumbs.db": b"x"})
    system, losses = sources.load(tmp_path).warnings
    assert system.endswith("dog/Thumbs.db")
    assert losses.startswith("train: 9 of 13 image files (69%) are left out; class cat lost 9 of 11. ")


def test_a_split_loses_its_own(tmp_path):
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "test")
    write(tmp_path, {"test/cat/9.png": png()[:200]})
    told, leaks = sources.load(tmp_path).warnings
    assert told.startswith("test: 1 of 5 image files (20%) are left out.")
    assert leaks.startswith("test: all 4 images are training images too")


def test_a_test_folder_of_its_own_loses_its_own(tmp_path):
    """By the names of the training classes, in whatever Unicode form the folders are."""
    for folder, name in (("mine", "caf\u00e9"), ("theirs", "cafe\u0301")):
        write(tmp_path / folder, {f"{name}/{i}.png": png(seed=i) for i in range(9)})
        write(tmp_path / folder, {f"dog/{i}.png": png(seed=10 + i) for i in range(9)})
    write(tmp_path, {"theirs/cafe\u0301/cut.png": png()[:200]})
    _, told, _ = sources.load(tmp_path / "mine", DataConfig(test=tmp_path / "theirs")).warnings
    assert told.startswith("test: 1 of 19 image files (5%) are left out. ")


def test_a_class_that_is_gone_says_why(tmp_path):
    two_classes(tmp_path)
    write(tmp_path, {f"owl/{i}.psd": b"8BPS" + bytes([i]) * 99 for i in range(3)})
    with pytest.raises(
        DataError, match=r"owl \(3 files: 3 unsupported_format \(Photoshop: convert it to one of JPEG"
    ):
        sources.load(tmp_path)


def test_films_of_a_phone_are_no_loss():
    assert not is_loss(Quarantined("IMG_1.MOV", "unsupported_format", "a video; convert it"))


def test_details_that_files_share():
    page = Quarantined("a.jpg", "not_an_image", "a web page; its download may have failed")
    other = Quarantined("b.jpg", "not_an_image", "none of JPEG, PNG")
    assert reasons_told([page]) == "1 file: 1 not_an_image (a web page: its download may have failed)"
    assert reasons_told([page, other]).endswith("2 not_an_image (1 a web page: its download may have failed)")
