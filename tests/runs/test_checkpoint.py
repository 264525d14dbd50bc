"""A checkpoint is whole or passed over, and nothing in it is ever run."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny import full_disk

from dlp_fast.errors import DataError, ResourceError
from dlp_fast.runs import columns, mapped
from dlp_fast.runs.checkpoint import FORMAT, Checkpoints


def state(number: int = 0) -> dict:
    return {
        "step": number,
        "rate": 0.1 + number,
        "text": "ä [x]",
        "nothing": None,
        "flags": [True, False],
        "by_number": {0: {"momentum": torch.arange(6.0).reshape(2, 3) + number}, 1: {}},
        "tensors": {
            "empty": torch.zeros(0, 4),
            "scalar": torch.tensor(2.5),
            "ids": torch.tensor([3, 1]),
            "flags": torch.tensor([True, False]),
            "half": torch.ones(3, dtype=torch.bfloat16),
            "channels_last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        },
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b and type(a) is type(b)


@pytest.fixture
def two(tmp_path):
    """The folder of two checkpoints, of state 1 and of state 2."""
    for number in (1, 2):
        Checkpoints(tmp_path / "checkpoints").save(state(number))
    return tmp_path / "checkpoints"


def test_round_trip(tmp_path):
    saved = state()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(saved)
    assert same(checkpoints.load(), saved)
    assert checkpoints.warnings == []


def test_nothing_there(tmp_path):
    assert Checkpoints(tmp_path / "none").load() is None


def test_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for number in range(5):
        checkpoints.save(state(number))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4", "5"]
    assert checkpoints.load()["step"] == 4


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
def test_a_flipped_byte_falls_back(two, name, place):
    file = two / "2" / name
    content = bytearray(file.read_bytes())
    content[int(len(content) * place)] ^= 0x11
    file.write_bytes(content)
    checkpoints = Checkpoints(two)
    assert same(checkpoints.load()["by_number"], state(1)["by_number"])
    assert len(checkpoints.warnings) == 1
    assert "2 is damaged" in checkpoints.warnings[0]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_missing_or_cut_file_falls_back(two, name):
    file = two / "2" / name
    file.write_bytes(file.read_bytes()[:-3])
    assert Checkpoints(two).load()["step"] == 1
    file.unlink()
    assert Checkpoints(two).load()["step"] == 1


def test_all_damaged_is_none(two):
    for number in ("1", "2"):
        (two / number / "state.json").write_bytes(b"{}")
    checkpoints = Checkpoints(two)
    assert checkpoints.load() is None
    assert len(checkpoints.warnings) == 2


def test_an_unfinished_one_is_ignored(two):
    (two / "building").mkdir()
    (two / "building" / "tensors.safetensors").write_bytes(b"half")
    checkpoints = Checkpoints(two)
    assert checkpoints.load()["step"] == 2
    assert checkpoints.warnings == []
    checkpoints.save(state(3))
    assert checkpoints.load()["step"] == 3
    assert not (two / "building").exists()


def test_another_format_is_refused(two):
    file = two / "2" / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "format": FORMAT + 1}))
    with pytest.raises(DataError, match=f"format {FORMAT + 1}, this version of dlp_fast reads {FORMAT}"):
        Checkpoints(two).load()


@pytest.mark.parametrize("what", ["tensors", "json"])
def test_full_disk(two, what):
    big = {"x": torch.zeros(4000)} if what == "tensors" else {"x": "y" * 4000}
    checkpoints = Checkpoints(two)
    with full_disk(2000), pytest.raises(ResourceError, match=r"free some space") as caught:
        checkpoints.save(big)
    assert caught.value.exit_code == 5
    assert same(checkpoints.load()["tensors"]["ids"], state(2)["tensors"]["ids"])
    assert sorted(p.name for p in two.iterdir()) == ["1", "2"]


def test_one_of_another_run_is_passed_over(tmp_path):
    ours, other = Checkpoints(tmp_path / "a", "ours"), Checkpoints(tmp_path / "b", "other")
    ours.save({"of": "ours"})
    shutil.copytree(other.save({"of": "other"}), tmp_path / "a/2")
    assert ours.load() == {"of": "ours"}
    assert "it is of another run" in ours.warnings[0]
    assert Checkpoints(tmp_path / "a").load() == {"of": "other"}  # a reader that has no run of its own


@pytest.mark.parametrize(
    "manifest",
    ["[]", "1", "null", '{"format": 1}', '{"format": 1, "sha256": []}', "\x00", '{"format": 1, "rum": "x"}'],
)
def test_a_manifest_of_another_form_falls_back(two, manifest):
    (two / "2/manifest.json").write_text(manifest)
    checkpoints = Checkpoints(two)
    assert checkpoints.load()["step"] == 1
    assert "2 is damaged" in checkpoints.warnings[0]


class TestColumns:
    """Of large sets, a checkpoint writes the columns that changed and no others."""

    @pytest.fixture
    def long(self, monkeypatch):
        monkeypatch.setattr(columns, "LONG", 64)

    def test_only_what_changed_is_written(self, tmp_path, long):
        checkpoints, seen = Checkpoints(tmp_path), torch.rand(3, 50).half()
        checkpoints.save({"seen": seen, "small": torch.ones(3)})
        before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "columns").iterdir()}
        seen[1] = 7
        checkpoints.save({"seen": seen, "small": torch.ones(3)})
        after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "columns").iterdir()}
        assert len(after) == 4 and before.items() <= after.items()
        assert same(checkpoints.load(), {"seen": seen, "small": torch.ones(3)})
        for _ in range(2):
            checkpoints.save({"seen": seen})
        assert len(list((tmp_path / "columns").iterdir())) == 3  # nobody needs the first one of row 1

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.bool, torch.float16])
    def test_every_type_comes_back(self, tmp_path, long, dtype):
        kept = {"x": (torch.rand(2, 90) * 2).to(dtype), "y": torch.rand(100).to(dtype)}
        Checkpoints(tmp_path).save(kept)
        assert same(Checkpoints(tmp_path).load(), kept)

    def test_a_damaged_column_falls_back(self, tmp_path, long):
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save({"step": 1, "x": torch.zeros(100)})
        checkpoints.save({"step": 2, "x": torch.ones(100)})
        (new,) = set(json.loads((tmp_path / "2/manifest.json").read_text())["columns"])
        file = tmp_path / "columns" / new
        file.write_bytes(b"x" + file.read_bytes()[1:])
        assert checkpoints.load()["step"] == 1
        assert "does not match its SHA-256" in checkpoints.warnings[0]

    def test_full_disk(self, tmp_path, long):
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save({"step": 1, "x": torch.zeros(100)})
        with full_disk(2000), pytest.raises(ResourceError, match="free some space"):
            checkpoints.save({"step": 2, "x": torch.ones(4000)})
        assert checkpoints.load()["step"] == 1
        assert len(list((tmp_path / "columns").iterdir())) == 1

    def test_columns_in_a_file(self, tmp_path, long, monkeypatch):
        for module in (columns, mapped):
            monkeypatch.setattr(module, "MAPPED_FROM", 100)
        assert not mapped.is_mapped(mapped.column_table(2, 99, tmp_path))
        table = mapped.column_table(2, 100, tmp_path)
        assert mapped.is_mapped(table[1:]) and table.dtype == torch.float16
        table[1] = 3
        Checkpoints(tmp_path).save({"x": table})
        read = Checkpoints(tmp_path).load()["x"]
        assert mapped.is_mapped(read) and torch.equal(read, table)
        assert not list(tmp_path.glob("**/.columns*"))  # nothing to be left behind

    def test_a_file_that_has_no_room(self, tmp_path):
        with full_disk(2000), pytest.raises(ResourceError, match="bytes needed"):
            mapped.mapped((10, 1000), torch.float16, tmp_path)
        assert not list(tmp_path.iterdir())
