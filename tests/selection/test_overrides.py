"""A person's decisions: read back with care, and obeyed."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from tiny import CONFIG, command, options

from dlp_fast.errors import DataError
from dlp_fast.selection.overrides import apply, no_overrides, read_decisions
from dlp_fast.selection.partition import Selection, places

PATHS = ("a/1.png", "a/2.png", "=b/3.png", "b/4.png")
CLASSES, LABELS = ("a", "b", "c d"), torch.tensor([0, 0, 1, 1])
HEAD = "sample_id,path,override\n"


def read(tmp_path, text):
    file = tmp_path / "samples.csv"
    file.write_text(text)
    return read_decisions(file, PATHS)


class TestFile:
    def test_labels(self, tmp_path):
        over = read(tmp_path, HEAD + "0,a/1.png,keep\n1,a/2.png,\n2,'=b/3.png,drop\n3,b/4.png, suspect \n")
        assert over.labels() == {0: "keep", 2: "drop", 3: "suspect"}
        assert over.fingerprint != no_overrides().fingerprint == ""

    def test_the_fingerprint_is_that_of_the_decisions(self, tmp_path):
        one = read(tmp_path, HEAD + "0,a/1.png,keep\n1,a/2.png,\n")
        two = read(tmp_path, "override,sample_id\nkeep,0\n")
        assert one.fingerprint == two.fingerprint

    @pytest.mark.parametrize(
        "path", ["'=b/3.png", "=b/3.png", "3.png", "./=b/3.png", "/home/me/set/=b/3.png"]
    )
    def test_a_path_alone(self, tmp_path, path):
        assert read(tmp_path, f"path,override\n{path},drop\n").labels() == {2: "drop"}

    def test_a_path_that_fits_two(self, tmp_path):
        file = tmp_path / "mine.csv"
        file.write_text("path,override\n1.png,drop\n")
        with pytest.raises(DataError, match=r"row 2: path 1.png fits 2 images; give more of it"):
            read_decisions(file, ("a/1.png", "b/1.png"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,override\nc/1.png,keep\n", "path c/1.png is of no image of this set"),
            ("override\nkeep\n", "no column sample_id or path"),
            ("path,override\na/1.png,keep\n1.png,keep\n", "row 3: sample_id 0 stands there twice"),
            ("sample_id,path\n0,a/1.png\n", "no column override"),
            (HEAD + "9,a/1.png,keep\n", r"row 2: sample_id '9' is unknown; ids go from 0 to 3"),
            (HEAD + "-1,a/1.png,keep\n", "sample_id '-1' is unknown"),
            (HEAD + "x,a/1.png,keep\n", "sample_id 'x' is unknown"),
            (HEAD + "9" * 5000 + ",a/1.png,keep\n", "is unknown; ids go from 0 to 3"),
            (HEAD + "²,a/1.png,keep\n", "sample_id '²' is unknown"),
            ("", "the file is empty"),
            (HEAD + "0,a/1.png,keep\n0,a/1.png,keep\n", "row 3: sample_id 0 stands there twice"),
            (HEAD + "0,a/1.png,kep\n", "override 'kep' is unknown; write keep, drop, suspect"),
            (HEAD + "0,a/1.png,=cmd()\n", "begins like a formula"),
            (HEAD + "0,a/2.png,keep\n", "image 0 is a/1.png in this image set"),
            (HEAD + "0,a/1.png\n", "expected 3 cells"),
            (HEAD + "0,a/1.png,keep,more\n", "expected 3 cells"),
            ('sample_id,override\n0,"keep\n', "cannot be read"),
        ],
    )
    def test_refused(self, tmp_path, text, message):
        with pytest.raises(DataError, match=message) as caught:
            read(tmp_path, text)
        assert caught.value.exit_code == 3

    def test_new_labels(self, tmp_path):
        file = tmp_path / "d.csv"
        text = "sample_id,override,label\n3,relabel,a\n0,relabel,b \n1,relabel,a\n2,drop,c d\n"
        file.write_text(text)
        over = read_decisions(file, PATHS, LABELS, CLASSES)
        # the label that it had is no new one
        assert over.labels() == {0: "relabel", 1: "keep", 2: "drop", 3: "relabel"}
        assert over.relabeled(LABELS).tolist() == [1, 0, 1, 0] and LABELS.tolist() == [0, 0, 1, 1]
        assert over.counts == {"keep": 1, "drop": 1, "suspect": 0, "relabel": 2}
        file.write_text(text.replace("3,relabel,a", "3,relabel,c d"))
        assert read_decisions(file, PATHS, LABELS, CLASSES).fingerprint != over.fingerprint

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (
                "0,relabel,x",
                "relabel, and label 'x' is none of a, b, c d; write the right class in the column",
            ),
            ("0,relabel,", "relabel, and no label; write the right class"),
            ("0,,b", "label 'b', and image 0 came as 'a'; write relabel in the column override to change it"),
            ("0,keep,b", "image 0 came as 'a'"),
        ],
    )
    def test_labels_that_are_refused(self, tmp_path, row, message):
        file = tmp_path / "d.csv"
        file.write_text(f"sample_id,override,label\n{row}\n")
        with pytest.raises(DataError, match=message):
            read_decisions(file, PATHS, LABELS, CLASSES)

    def test_other_words_for_labels_change_nothing(self, tmp_path):
        """A table of one's own may number the classes."""
        file = tmp_path / "d.csv"
        file.write_text("path,override,label\na/1.png,keep,7\n3.png,suspect,a\n")
        assert read_decisions(file, PATHS, LABELS, CLASSES).labels() == {0: "keep", 2: "suspect"}

    def test_no_file(self, tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_decisions(tmp_path / "none.csv", PATHS)


class TestAsSpreadsheetsSaveIt:
    ROWS = (("Sample_ID", "Path", "Override"), ("0", "a/1.png", "Keep"), ("2", "'=b/3.png", "DROP"))

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "cp1252"])
    def test_separators_and_codes(self, tmp_path, separator, code):
        file = tmp_path / "samples.csv"
        file.write_bytes("\r\n".join(separator.join(row) for row in self.ROWS).encode(code) + b"\r\n")
        assert read_decisions(file, PATHS).labels() == {0: "keep", 2: "drop"}

    def test_western_names(self, tmp_path):
        file = tmp_path / "samples.csv"
        file.write_bytes("sample_id;path;override\r\n0;é/1.png;keep\r\n".encode("cp1252"))
        assert read_decisions(file, ("é/1.png",)).labels() == {0: "keep"}

    def test_parquet(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        file = tmp_path / "samples.parquet"
        columns = {"sample_id": [0, 1, 2], "path": [PATHS[0], PATHS[1], "'=b/3.png"]}
        parquet.write_table(pyarrow.table(columns | {"override": ["keep", None, "suspect"]}), file)
        assert read_decisions(file, PATHS).labels() == {0: "keep", 2: "suspect"}
        file.write_bytes(file.read_bytes()[:40])
        with pytest.raises(DataError, match="cannot be read"):
            read_decisions(file, PATHS)


def test_applied(tmp_path):
    n = 4
    order = torch.tensor([1, 0, 2, 3])
    none = torch.empty(0, dtype=torch.int64)
    chosen = Selection(
        torch.tensor([-0.5, -0.9, 0.3, 0.8]),
        places(order),
        order[:2],
        order[3:],
        order[:1],
        order[2:],
        none,
        named=torch.tensor([True, True, False, False]),
    )
    over = read(tmp_path, HEAD + "0,a/1.png,keep\n1,a/2.png,drop\n3,b/4.png,suspect\n")
    after = apply(chosen, over, 1)
    assert after.suspected_poisoned.tolist() == after.to_unlearn.tolist() == [3]
    assert after.rank.argsort()[0] == 3
    assert after.trusted.tolist() == [0, 2]
    assert after.left_out.tolist() == [1]
    assert after.named.tolist() == [False, False, False, True]
    assert after.suspected_clean.tolist() == []
    assert sorted(after.rank.tolist()) == list(range(n))
    assert apply(chosen, no_overrides(), 1) is chosen


def test_a_run_goes_on_from_the_detection(tmp_path):
    """Edit samples.csv, give it back: stage 1 is not trained again, and the decisions are obeyed and kept."""
    run, twice = tmp_path / "run", options(detection=CONFIG["detection"] | {"networks": 2})
    assert command("run", "--out", run, *twice).code == 0
    with (run / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    suspects = [r for r in rows if r["decision"] == "suspected_poisoned"]
    other, wrong = [r for r in rows if r["decision"] == "undecided"][:2]
    right = next(r["label"] for r in rows if r["label"] != wrong["label"])
    wrong["label"] = right
    labels = {
        wrong["sample_id"]: "relabel",
        suspects[0]["sample_id"]: "keep",
        suspects[1]["sample_id"]: "drop",
        other["sample_id"]: "suspect",
    }
    edited = run / "samples.csv"  # in place, as a person would
    with edited.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "override"])
        writer.writeheader()
        writer.writerows(row | {"override": labels.get(row["sample_id"], "")} for row in rows)
    done = command("run", "--out", run, *twice, "--decisions", edited)
    assert done.code == 0, done.text
    assert "going on from the detection" in " ".join(done.text.split())
    with edited.open() as file:
        after = {r["sample_id"]: r for r in csv.DictReader(file)}
    assert {i: r["override"] for i, r in after.items() if r["override"]} == labels
    assert after[suspects[0]["sample_id"]]["decision"] != "suspected_poisoned"
    assert after[suspects[1]["sample_id"]]["decision"] != "suspected_poisoned"
    assert after[other["sample_id"]]["decision"] == "suspected_poisoned"
    assert after[wrong["sample_id"]]["label"] == right
    assert after[wrong["sample_id"]]["decision"] not in ("suspected_poisoned", "probably_mislabeled")
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in told if e["kind"] == "epoch" and e["stage"] == "supervised"] == [1, 2]
    assert [e["epoch"] for e in told if e["kind"] == "epoch" and e["stage"] == "ensemble member 2"] == [1, 2]
    assert len([e for e in told if e["kind"] == "detection"]) == 1
    results = json.loads((run / "results.json").read_text())
    assert results["decisions"] == {"keep": 1, "drop": 1, "suspect": 1, "relabel": 1}
    assert "decisions were obeyed (1 keep, 1 drop, 1 suspect, 1 relabel)" in (run / "report.html").read_text()
    assert "decisions were obeyed" in " ".join(done.text.split())
    again = command("run", "--out", run, *twice, "--decisions", edited)
    assert "this run was finished already" in again.text
    without = command("run", "--out", run, *twice)
    assert without.code == 2
    assert "Give it with --decisions" in " ".join(without.text.split())
    assert (run / "results.json").exists()
    exported = command("export", run, "--format", "imagefolder", "--out", tmp_path / "clean")
    assert exported.code == 0, exported.text
    with (tmp_path / "clean" / "images.csv").open() as file:
        of = next(r for r in csv.DictReader(file) if r["sample_id"] == wrong["sample_id"])
    assert of["label"] == right and of["file"].startswith(f"images/{right}/")
    exported = command("export", run, "--format", "csv", "--out", tmp_path / "lists")
    assert f"{wrong['sample_id']},{wrong['path']},{right}," in (tmp_path / "lists" / "kept.csv").read_text()
    (tmp_path / "d.csv").write_text("sample_id,override\n0,keep\n")  # no longer: the label of the set is back
    back = command("run", "--out", run, *twice, "--decisions", tmp_path / "d.csv")
    assert back.code == 0, back.text
    with edited.open() as file:
        assert next(r for r in csv.DictReader(file) if r["sample_id"] == wrong["sample_id"])["label"] != right
