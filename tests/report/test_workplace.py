"""The gallery of report.html as data, its bounds, the command for decisions, and what a finding's trigger does."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import command

from dlp_fast.errors import DataError
from dlp_fast.report import exhibits, plots, render, workplace
from dlp_fast.report.exhibits import Exhibits, near_duplicates
from dlp_fast.report.render import write_report
from dlp_fast.report.thumbnails import sheets
from dlp_fast.runs.names import csv_cell
from dlp_fast.selection.overrides import read_decisions
from studies._report import CLASSES, PATCH, finished_run

HOSTILE = ("</script><script>alert(1)</script>", '=cmd(),"x"', "'a;b", "new\nline\u2028", "ü <b>&amp;")


def data_of(text: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    )


def sheets_of(text: str) -> list[str]:
    return re.findall(r'src="(data:image/[^"]+)"', text[text.index('id="sheets"') :])


def pixels_of(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    """They take most of the time that a report takes, and none of these tests looks at one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("entropy_histogram", "learning_curves", "stage_curves", "accuracy_bars"):
            patch.setattr(plots, name, lambda *_: "<svg></svg>")
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(run folder, text of its report) with 60 + 20 suspects, hostile names, and three decisions of before."""
    folder = tmp_path_factory.mktemp("made") / "run"
    paths = tuple(f"{HOSTILE[i % 5]}{i}" for i in range(600))
    finished_run(folder, paths=paths, overrides={3: "keep", 500: "drop", 501: "suspect"})
    return folder, write_report(folder).read_text(), paths


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The report of a run in which 30 images are shown and not suspected."""
    folder = tmp_path_factory.mktemp("shown") / "run"
    finished_run(folder, shown=30)
    return write_report(folder).read_text()


class TestGallery:
    def test_every_suspect_is_there(self, made):
        _, text, _ = made
        data = data_of(text)
        suspected = data["decisions"].index("suspected_poisoned")
        assert data["decision"].count(suspected) == 80
        assert "All 80 suspected images are here" in text
        assert workplace.sentence(47, 0, 0, "samples.csv").startswith(
            "No image is suspected poisoned. 47 are here"
        )
        assert data["rank"] == sorted(data["rank"])
        assert {
            len(data[name]) for name in ("id", "path", "label", "prediction", "entropy", "findings_of")
        } == {len(data["id"])}

    def test_findings_of_images(self, made):
        data = data_of(made[1])
        by_finding = [{i for i, of in zip(data["id"], data["findings_of"]) if k in of} for k in (0, 1)]
        assert by_finding[0] == set(range(60)) and len(by_finding[1]) == 20
        assert data["benign"] == [False, True]

    def test_sheets_hold_the_pictures_as_they_are(self, made):
        folder, text, _ = made
        data, of = data_of(text), Exhibits.load(folder)
        shown = [pixels_of(address) for address in sheets_of(text)]
        side, across = data["width"], data["across"]
        for k in (0, 57, len(data["id"]) - 1):
            row, column = divmod(k % across**2, across)
            cell = shown[k // across**2][row * side : (row + 1) * side, column * side : (column + 1) * side]
            assert np.array_equal(cell, of.thumbnails[k].numpy())
        assert (of.thumbnails[data["id"].index(5)][-PATCH:, -PATCH:] == 255).all()

    def test_decisions_of_before_are_handed_on(self, made):
        data = data_of(made[1])
        assert [(i, word) for i, _, word in data["given"]] == [(3, "keep"), (500, "drop"), (501, "suspect")]
        assert {3, 500, 501} <= set(data["id"])  # and can be seen and changed

    def test_a_new_label_is_handed_on(self, tmp_path):
        finished_run(tmp_path / "run", overrides={1: "relabel"})
        data = data_of(write_report(tmp_path / "run").read_text())
        of = {i: word for i, _, word in data["given"]}[1]
        assert of == f"relabel:{data['label'][data['id'].index(1)]}" and data["classes"] == len(CLASSES)

    def test_too_many_decisions_of_before_are_told(self, made, monkeypatch):
        monkeypatch.setattr(workplace, "MOST_GIVEN", 2)
        folder, _, _ = made
        text = write_report(folder, folder / "again.html").read_text()
        assert data_of(text)["given"] == []
        assert "3 decisions of this run are not in this page" in text

    def test_what_the_download_has_is_what_decisions_take(self, made, tmp_path):
        """The cells that the page writes, as read_decisions reads them."""
        _, text, paths = made
        data = data_of(text)
        assert [data["path"][data["id"].index(i)] for i in (0, 1, 2)] == [csv_cell(p) for p in paths[:3]]
        import csv

        with (tmp_path / "d.csv").open("w", newline="") as file:
            rows = [(i, path, "keep") for i, path in zip(data["id"], data["path"])]
            csv.writer(file).writerows([("sample_id", "path", "override"), *rows])
        assert read_decisions(tmp_path / "d.csv", paths).keep.tolist() == sorted(data["id"])

    def test_names_are_data_and_never_markup(self, made):
        _, text, _ = made
        assert text.count("<script") == 2 and "alert(1)</script>" not in text

    def test_policy_lets_this_one_script_run(self, made):
        _, text, _ = made
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
        script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
        assert len(script) == 1 and "unsafe-inline" not in policy.split("script-src")[1]

    def test_another_run_has_another_key(self, made, tmp_path):
        finished_run(tmp_path / "run", suspects=50)
        other = data_of(write_report(tmp_path / "run").read_text())
        assert other["run"] != data_of(made[1])["run"]
        assert other["file"] == "decisions-run.csv"


class TestShown:
    """What is shown and not suspected can be looked at in the report."""

    def test_its_images_are_there_and_can_be_chosen(self, text):
        data = data_of(text)
        ids = [i for i, of in zip(data["id"], data["findings_of"], strict=True) if 2 in of]
        assert len(ids) == 30 and {data["names"][data["label"][data["id"].index(i)]] for i in ids} == {
            CLASSES[2]
        }
        suspected = data["decisions"].index("suspected_poisoned")
        assert all(data["decision"][data["id"].index(i)] != suspected for i in ids)
        assert (
            f'<option value="2">not suspected: class {CLASSES[2]}, 30 images, by learning curves</option>'
            in text
        )
        assert 'data-finding="2">show 30 of its images below</button>' in text
        assert data["benign"] == [False, True, False]

    def test_several_reasons_are_a_list(self, text):
        reasons = re.findall(r"<li>(.*?)</li>", text[: text.index('id="entropy"')])
        assert len(reasons) == 2 and all(of.startswith("In class") for of in reasons)

    def test_the_notes_say_where(self, text):
        assert "report.html has them under that heading" in text and ">Shown, not suspected</h2>" in text

    def test_nothing_is_shown_where_there_is_nothing(self, made):
        assert "Shown, not suspected" not in made[1] and "not suspected: class" not in made[1]

    def test_exhibits_of_a_run_without_it_are_refused(self, tmp_path):
        finished_run(tmp_path / "with", shown=30)
        finished_run(tmp_path / "run")
        shutil.copy(tmp_path / "with" / "results.json", tmp_path / "run" / "results.json")
        with pytest.raises(DataError, match="damaged, or of another run"):
            write_report(tmp_path / "run")

    def test_of_large_groups_as_many_as_there_is_room_for(self, monkeypatch, tmp_path):
        monkeypatch.setattr(exhibits, "SHOWN", 12)
        finished_run(tmp_path / "run", shown=40)
        text = write_report(tmp_path / "run").read_text()
        shown = sum(2 in of for of in data_of(text)["findings_of"])
        assert 12 <= shown < 40  # those that are here for other reasons are marked as well
        assert f">show {shown} of its images below</button>" in text


class TestBounds:
    def test_the_most_suspicious_and_a_sentence_where_there_are_more(self, monkeypatch, tmp_path):
        monkeypatch.setattr(exhibits, "SUSPECTS", 30)
        finished_run(tmp_path / "run", suspects=200, images=900)
        text = write_report(tmp_path / "run").read_text()
        data = data_of(text)
        assert data["rank"][:30] == list(range(30))
        suspected = data["decision"].count(data["decisions"].index("suspected_poisoned"))
        assert suspected == 30 + exhibits.BORDER
        assert f"The {suspected} most suspicious of the 220 suspected images are here" in text

    def test_a_page_is_never_too_large(self, made, monkeypatch):
        """The last sheets go first, and the gallery says so."""
        folder, text, _ = made
        monkeypatch.setattr(render, "ACROSS", 2)
        monkeypatch.setattr("dlp_fast.report.thumbnails.ACROSS", 2)
        most = len(text) - 4 * sum(map(len, sheets_of(text))) // 5
        monkeypatch.setattr(render, "MOST_BYTES", most)
        smaller = write_report(folder, folder / "smaller.html").read_text()
        assert most - 40_000 < len(smaller) <= most
        shown = len(data_of(smaller)["id"])
        assert 0 < shown < 80 and shown % 4 == 0
        assert f"The {shown} most suspicious of the 80 suspected images are here" in smaller

    def test_what_no_size_changes_is_found_once(self, made, monkeypatch):
        """However often the page is drawn until it fits."""
        folder, text, _ = made
        asked, drawn = [], []
        for name in ("sha256", "names_of", "left_out"):
            function = getattr(workplace, name)
            noted = lambda *of, name=name, function=function: asked.append(name) or function(*of)  # noqa: E731
            monkeypatch.setattr(workplace, name, noted)
        gallery = render.gallery_data
        monkeypatch.setattr(render, "gallery_data", lambda *of: drawn.append(1) or gallery(*of))
        monkeypatch.setattr(render, "MOST_BYTES", len(text) - 1000)
        write_report(folder, folder / "once.html")
        assert len(drawn) > 1 and sorted(asked) == ["left_out", "names_of", "sha256"]
        assert data_of(text)["run"] == hashlib.sha256((folder / "samples.csv").read_bytes()).hexdigest()[:32]

    def test_sheets_get_coarser_before_they_are_left_out(self):
        noise = torch.randint(0, 256, (400, 32, 32, 3), dtype=torch.uint8)
        whole = sheets(noise, 10_000_000)
        assert len(whole) == 4 and all(s.startswith("data:image/png") for s in whole)
        some = sheets(noise, 1_200_000)
        assert len(some) == 4 and any("jpeg" in s[:20] for s in some) and sum(map(len, some)) <= 1_200_000
        assert len(sheets(noise, 500_000)) < 4

    def test_many_pictures_are_smaller_ones(self, monkeypatch, tmp_path):
        monkeypatch.setattr(exhibits, "AREA", 320 * 12 * 12)
        finished_run(tmp_path / "run")
        k, height, width, _ = Exhibits.load(tmp_path / "run").thumbnails.shape
        assert 0.8 * exhibits.AREA < k * height * width <= exhibits.AREA and height < 16

    def test_near_duplicates_of_thousands(self):
        pictures = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8).repeat(1500, 1, 1, 1)
        pictures[::2] = pictures[0].flip(1)
        group = near_duplicates(pictures, torch.ones(1500, dtype=torch.bool))
        assert set(group[::2].tolist()) == {0} and set(group[1::2].tolist()) == {1}


class TestFinding:
    def test_its_trigger_is_kept_and_shown(self, made):
        folder, text, _ = made
        of = Exhibits.load(folder).triggers
        assert of.finding.tolist() == [0] and len(of.victims) == 5 == len(of.suspects)
        corner, rest = of.mask[0, -PATCH:, -PATCH:].float(), of.mask[0, :-PATCH, :-PATCH].float()
        assert corner.min() > rest.max() and corner.max() == 255  # the rest: suspects are of other shades
        assert (of.pattern[0, -PATCH:, -PATCH:] > 245).all()
        labels = np.array(data_of(text)["label"])
        assert len(labels) and (of.marked != of.plain).any()
        said = of.said.tolist()  # after stage 1 without and with it, clean model without and with it
        assert all(first_marked == 0 for _, first_marked, _, _ in said)
        assert all(clean == clean_marked or clean_marked != 0 for _, _, clean, clean_marked in said)
        assert "pattern: what it puts there" in text and text.count("as it is") == 5

    def test_rates_before_and_after(self, made):
        block = made[1][made[1].index('id="finding-1"') : made[1].index('id="finding-2"')]
        for rate in ("98.0 %", "2.0 %", "12.0 %"):
            assert rate in block
        assert "acts as a trigger: put on images of other classes, it sends 98% of them" in block

    def test_no_trigger_is_said_in_a_sentence(self, made):
        block = made[1][made[1].index('id="finding-2"') : made[1].index('id="images"')]
        assert "No trigger is reconstructed for what the learning curves of stage 3 find." in block
        assert "<img" not in block and "(likely benign)" in block

    def test_a_real_run_keeps_them(self, tiny_run):
        """Where a tiny run finds nothing there is nothing to keep; the folder holds the tensors all the same."""
        of = Exhibits.load(tiny_run[0])
        results = json.loads((tiny_run[0] / "results.json").read_text())
        assert len(of.members) == len(results["detection"]["findings"])

    def test_of_another_run(self, made, tmp_path):
        shutil.copytree(made[0], tmp_path / "run")
        of = Exhibits.load(tmp_path / "run")
        of.triggers.victims[0] = 10**6
        of.save(tmp_path / "run")
        with pytest.raises(DataError, match="damaged, or of another run"):
            write_report(tmp_path / "run")


class TestCommand:
    def test_it_runs_and_obeys(self, tiny_run, tmp_path):
        """As the page shows it, given to the shell: the decisions are in the new samples.csv."""
        shutil.copytree(tiny_run[0], tmp_path / "my run")
        before = (tmp_path / "my run" / "report.html").read_text()
        shown = re.search(r"python -m dlp_fast.run (--config .*? decisions-tiny\.csv)", before)[1]
        words = [w.replace(str(tiny_run[0]), str(tmp_path / "my run")) for w in shlex.split(shown)]
        data = data_of(before)
        first, second = data["id"][0], data["id"][1]
        file = tmp_path / "decisions-tiny.csv"
        file.write_text(
            f"sample_id,path,override\n{first},{data['path'][0]},keep\n{second},{data['path'][1]},drop\n"
        )
        done = command("run", *words[:-1], file)
        assert done.code == 0, done.text
        after = data_of((tmp_path / "my run" / "report.html").read_text())
        assert sorted((i, word) for i, _, word in after["given"]) == sorted(
            [(first, "keep"), (second, "drop")]
        )
        assert after["run"] != data["run"]  # marks of the page before are not mixed with those of this one

    def test_from_python(self, tmp_path):
        shown = workplace.command(tmp_path / "r", {"data": "array", "out": "runs/it's"})
        assert shown["text"] == "dlp_fast.defend(..., out=\"runs/it's\", decisions='decisions-r.csv')"

    def test_names_are_quoted(self, tmp_path):
        shown = workplace.command(tmp_path / "$(rm x)", {"data": "photos", "out": "runs/$(rm x)"})
        assert shlex.split(shown["text"])[-6:] == [
            "--config", "runs/$(rm x)/config.resolved.yaml", "--out", "runs/$(rm x)", "--decisions",
            "decisions-rm-x.csv",
        ]  # fmt: skip


def test_classes_of_the_folder_are_those_of_the_helper(made):
    assert data_of(made[1])["names"] == list(CLASSES)
