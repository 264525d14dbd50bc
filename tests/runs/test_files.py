"""Files and folders are there whole, or not at all."""

from __future__ import annotations

import hashlib

import pytest
from tiny import full_disk

from dlp_fast.errors import ConfigError, ResourceError
from dlp_fast.runs.files import new_folder, refuse_full, sha256, write_atomic


def test_write_atomic_on_a_full_disk(tmp_path):
    file = tmp_path / "results.json"
    write_atomic(file, b"old")
    with full_disk(2000), pytest.raises(ResourceError, match="no room to write"):
        write_atomic(file, b"x" * 4000)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_write_atomic_names_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"Choose another folder with --out"):
        write_atomic(tmp_path / "file" / "below", b"x")


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


class TestNewFolder:
    def test_appears_when_it_is_complete(self, tmp_path):
        with new_folder(tmp_path / "a" / "out") as building:
            (building / "file").write_text("x")
            assert not (tmp_path / "a" / "out").exists()
        assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]
        assert (tmp_path / "a" / "out" / "file").read_text() == "x"

    def test_is_gone_when_something_goes_wrong(self, tmp_path):
        def fail(building):
            (building / "file").write_text("x")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as building:
            fail(building)
        assert list(tmp_path.iterdir()) == []

    def test_an_empty_one_is_filled(self, tmp_path):
        (tmp_path / "out").mkdir()
        before = (tmp_path / "out").stat().st_ino  # somebody may stand in it
        with new_folder(tmp_path / "out") as building:
            (building / "file").write_text("x")
        assert (tmp_path / "out").stat().st_ino == before
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["file"]

    def test_a_full_one_is_refused(self, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        for full in (tmp_path, tmp_path / "mine.txt"):
            with pytest.raises(ConfigError, match="is not empty; nothing is overwritten"):
                refuse_full(full)
            with pytest.raises(ConfigError, match="nothing is overwritten"), new_folder(full):
                pass
        assert (tmp_path / "mine.txt").read_text() == "mine"

    def test_below_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ResourceError, match="cannot be written"), new_folder(tmp_path / "file" / "out"):
            pass
