"""The table of a large set: Parquet alone, which everything reads that reads samples.csv."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import torch
from tiny import ROOT

from dlp_fast.commands.exported import kept
from dlp_fast.errors import DataError, ResourceError
from dlp_fast.report.render import write_report
from dlp_fast.report.workplace import command
from dlp_fast.runs import sums, writer
from dlp_fast.runs.reader import read_samples
from dlp_fast.runs.schema import samples_name
from dlp_fast.runs.writer import RunFolder
from dlp_fast.selection import table
from dlp_fast.selection.overrides import read_decisions

pytest.importorskip("pyarrow")

KEPT = ("probably_mislabeled", "suspected_clean", "undecided")


@pytest.fixture
def finished_run(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from studies._report import finished_run

    return finished_run


@pytest.fixture
def both(tmp_path, monkeypatch, finished_run):
    """The same run, as a small and as a large set."""
    small, decided = tmp_path / "small", {3: "keep", 9: "drop"}
    torch.manual_seed(0)
    finished_run(small, overrides=decided).close()
    torch.manual_seed(0)
    for module in (writer, table):
        monkeypatch.setattr(module, "CSV_ROWS", 100)
    finished_run(tmp_path / "large", overrides=decided).close()
    return small, tmp_path / "large"


def test_is_parquet_alone(both):
    small, large = both
    assert samples_name(small) == "samples.csv" and samples_name(large) == "samples.parquet"
    assert not (large / "samples.csv").exists()
    assert (small / "samples.parquet").read_bytes() == (large / "samples.parquet").read_bytes()


def test_holds_the_same(both):
    one, two = map(read_samples, both)
    for name in ("path", "label", "decision", "override"):
        assert list(one[name]) == list(two[name])
    for name in ("sample_id", "rank", "score", "entropy"):
        np.testing.assert_allclose(np.array(one[name], dtype=np.float64), two[name], rtol=1e-8)


def test_makes_the_same_report(both):
    pages = [write_report(run).read_text().replace(samples_name(run), "the table") for run in both]
    hashes = [hashlib.sha256((run / samples_name(run)).read_bytes()).hexdigest()[:32] for run in both]
    for page, run, own in zip(pages, both, hashes, strict=True):
        assert own in page and run.name in page
    assert all("of the table.</p></noscript>" in page for page in pages)
    assert abs(len(pages[0]) - len(pages[1])) < 40  # last digits of places in its figures


def test_decisions_are_seen_and_read(both):
    run = both[1]
    assert RunFolder(run).edited() == run / "samples.parquet"
    paths = tuple(read_samples(run)["path"])
    assert read_decisions(run / "samples.parquet", paths).labels() == {3: "keep", 9: "drop"}


def test_its_sum_is_kept(both):
    for run in both:
        (run / "model.safetensors").write_bytes(b"x")
        (run / "predictions.safetensors").write_bytes(b"x")
        sums.write_sums(run)
        assert sums.samples_changed(run) is None
    large = both[1] / "samples.parquet"
    large.write_bytes(large.read_bytes() + b" ")
    assert "samples.parquet is not as the run wrote it" in sums.samples_changed(both[1])
    (both[0] / "samples.csv").unlink()  # what got lost is told, though its copy is there
    with pytest.raises(DataError, match=r"samples\.csv is missing"):
        read_samples(both[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda columns: columns["rank"].__setitem__(0, 5), "ranks are missing or doubled"),
        (lambda columns: columns["sample_id"].__setitem__(0, 5), "ids are missing or doubled"),
        (lambda columns: columns["decision"].__setitem__(0, "maybe"), "a decision is none of"),
        (lambda columns: columns.pop("entropy"), "no column 'entropy'"),
    ],
)
def test_damage_is_told(both, change, said):
    columns = {name: list(column) for name, column in read_samples(both[1]).items()}
    change(columns)
    RunFolder(both[1]).write_samples(columns)
    with pytest.raises(DataError, match=said):
        read_samples(both[1])


def test_sorted_otherwise_it_is_the_same(both):
    columns = read_samples(both[1])
    RunFolder(both[1]).write_samples({name: list(column)[::-1] for name, column in columns.items()})
    again = read_samples(both[1])
    assert list(again["path"]) == list(columns["path"]) and list(again["override"]) == list(
        columns["override"]
    )


@pytest.mark.parametrize("override", ["none", "nan", "some"])
def test_as_pandas_leaves_it(both, override):
    """Whose column without a word is of nulls."""
    run = both[1]
    columns = dict(read_samples(run))
    n = len(columns["path"])
    columns["override"] = {
        "none": [None] * n,
        "nan": np.full(n, np.nan),
        "some": ["drop", *[None] * (n - 1)],
    }[override]
    RunFolder(run).write_samples(columns)
    words = ["drop" if override == "some" and not i else "" for i in range(n)]
    assert read_samples(run)["override"] == words
    assert (0 in kept(read_samples(run))) == (override != "some" and columns["decision"][0] in KEPT)
    assert bool(RunFolder(run).edited()) == (override == "some")


def test_decisions_stay_where_the_table_cannot_be_written(both, monkeypatch):
    run = both[1]
    columns = read_samples(run)
    (run / "samples.csv").write_text("a person's words")

    def full(*_):
        raise ResourceError("no room")

    monkeypatch.setattr(writer, "write_atomic_by", full)
    with pytest.raises(ResourceError):
        RunFolder(run).write_samples(columns)
    assert (run / "samples.csv").read_text() == "a person's words"


def test_texts_name_the_table_that_is_there(both):
    small, large = (command(run, {"data": "x"})["sentence"] for run in both)
    assert "new samples.csv" in small and "new samples.parquet" in large
    columns = {**read_samples(both[1]), "override": ["maybe"]}
    with pytest.raises(DataError, match=r"^the table of images: override 'maybe' is unknown"):
        kept(columns)


def test_without_pyarrow_it_is_csv(tmp_path, monkeypatch, finished_run):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(writer, "CSV_ROWS", 100)
    finished_run(tmp_path / "run").close()
    assert samples_name(tmp_path / "run") == "samples.csv"
