"""report.html: whole, self-contained, safe with hostile names, and it works in a browser."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CONFIG, command, threads_kept

import dlp_fast
from dlp_fast.report import plots
from dlp_fast.report.exhibits import MOST, Exhibits, gather, near_duplicates
from dlp_fast.report.render import duplicates, per_class, where, write_report
from dlp_fast.selection.partition import Selection

HOSTILE = ("<script>alert(1)</script>", "a&b\"'", "new\nline", "=cmd()", "ü x")


class Page(html.parser.HTMLParser):
    """Which elements a page has, and what they point to."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.sources, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.texts.append(data)


def gallery_of(text: str) -> dict:
    """What the script of a page knows of its images."""
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    )


@pytest.fixture(scope="module")
def page(tiny_run):
    return (tiny_run[0] / "report.html").read_text()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run on classes and files with names that an attacker would choose."""
    root = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    for k, name in enumerate(HOSTILE):
        (root / "data" / name.replace("/", "_")).mkdir(parents=True)
        for i in range(12):
            pixels = (rng.integers(0, 60, (16, 16, 3)) + 40 * k).astype(np.uint8)
            Image.fromarray(pixels).save(
                root / "data" / name.replace("/", "_") / f"<img src=x onerror=1>{i}.png"
            )
    with threads_kept():
        dlp_fast.defend(root / "data", out=root / "run", quiet=True, **CONFIG)
    return root / "run"


class TestPage:
    def test_sections_in_order(self, page):
        places = [
            page.index(f'id="{name}"')
            for name in ("verdict", "entropy", "images", "files", "training", "details")
        ]
        assert places == sorted(places)

    def test_nothing_is_loaded(self, page):
        outside = [s for s in Page(page).sources if not s.startswith(("data:", "#"))]
        assert outside == []
        assert 'http-equiv="Content-Security-Policy"' in page

    def test_pictures(self, page):
        data = gallery_of(page)
        assert 50 < len(data["id"]) <= MOST
        sheets = [s for s in Page(page).sources if s.startswith("data:image/png")]
        assert len(sheets) >= -(-len(data["id"]) // data["across"] ** 2)
        assert len(page) < 15_000_000

    def test_figures(self, page, tiny_run):
        results = json.loads((tiny_run[0] / "results.json").read_text())
        for of in results["stages"].values():
            assert f"{100 * of['clean_accuracy']:.2f} %" in page
        assert f"<strong>{results['detection']['suspected_poisoned']}</strong> images are suspected" in page

    def test_only_a_class_that_is_not_likely_benign_is_called_poisoned(self, tiny_run, tmp_path):
        without = shutil.ignore_patterns("checkpoints", "SHA256SUMS")  # what was edited would be told
        shutil.copytree(tiny_run[0], tmp_path / "run", ignore=without)
        file = tmp_path / "run" / "results.json"
        results = json.loads(file.read_text())
        target = {"label": 0, "images": 9, "stage": "supervised", "score": 2.0, "share_of_all": 0.1}
        targets = [
            {**target, "class": "cat", "likely_benign": False},
            {**target, "class": "dog", "likely_benign": True},
        ]
        results["verdict"] = {"kind": "poisoned", "score": 2.0, "targets": targets, "reasons": ["a", "b"]}
        file.write_text(json.dumps(results))
        text = write_report(tmp_path / "run").read_text()
        assert "target class cat" in text and "target class dog" not in text

    def test_many_classes_are_told_in_one_line(self, tiny_run, tmp_path):
        without = shutil.ignore_patterns("checkpoints", "SHA256SUMS")
        shutil.copytree(tiny_run[0], tmp_path / "run", ignore=without)
        file = tmp_path / "run" / "results.json"
        results = json.loads(file.read_text())
        targets = [
            {
                "label": 0,
                "images": 9,
                "stage": "supervised",
                "score": 2.0,
                "share_of_all": 0.02,
                "class": name,
            }
            | {"likely_benign": name == "e"}
            for name in "abcde"
        ]
        reasons = [f"reason {name}" for name in "abcde"]
        results["verdict"] = {"kind": "poisoned", "score": 2.0, "targets": targets, "reasons": reasons}
        file.write_text(json.dumps(results))
        text = write_report(tmp_path / "run").read_text()
        assert "Poisoned: 4 target classes (a, b, c, d), about 8.0 % of all images." in text
        assert all(f"<li>{reason[:1].upper()}{reason[1:]}</li>" in text for reason in reasons)

    def test_ids_are_unique(self, page):
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids))

    def test_written_anew_it_is_the_same(self, tiny_run, tmp_path, page):
        again = write_report(tiny_run[0], tmp_path / "again.html")
        assert again.read_text() == page


class TestHostileNames:
    def test_no_name_becomes_markup(self, hostile):
        text = (hostile / "report.html").read_text()
        found = Page(text)
        assert found.tags.count("script") == 2  # one holds data and is never run
        assert "<img src=x" not in text
        assert "&lt;script&gt;alert(1)&lt;_script&gt;" in text
        assert any("<img src=x onerror=1>" in path for path in gallery_of(text)["path"])

    def test_not_utf8(self, tmp_path):
        import os

        root = os.fsencode(tmp_path / "data")
        for k, name in enumerate((b"cat", b"d\xff\xfeg")):
            os.makedirs(root + b"/" + name)
            for i in range(6):
                pixels = np.full((16, 16, 3), 90 * k + i, dtype=np.uint8)
                Image.fromarray(pixels).save(os.fsdecode(root + b"/" + name + b"/\xe9%d.png" % i))
        with threads_kept():
            dlp_fast.defend(tmp_path / "data", out=tmp_path / "run", quiet=True, **CONFIG)
        text = (tmp_path / "run" / "report.html").read_bytes().decode("utf-8")
        assert r"d\xff\xfeg" in text


class TestExhibits:
    def exhibits(self, n=900, targets=(1,)):
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(n) % 3
        pixels = torch.randint(0, 200, (n, 8, 8, 3), generator=generator, dtype=torch.uint8)
        suspects = (labels == 1).nonzero().flatten()[:150]
        pixels[suspects, 6:, 6:] = 255
        score = torch.rand(n, generator=generator)
        score[suspects] -= 1
        order = score.argsort()
        rank = torch.empty(n, dtype=torch.int64)
        rank[order] = torch.arange(n)
        some, named = torch.arange(0), torch.zeros(n, dtype=torch.bool)
        chosen = Selection(
            score, rank, order[:150], (labels == 0).nonzero().flatten()[:40], order[:9], some, some, named
        )

        class Images:
            height = width = 8

            def get(self, ids):
                return pixels[ids]

        loss = torch.rand(4, n, generator=generator)
        of = gather(Images(), labels, chosen, list(targets), loss, lambda x: torch.full((len(x), 3), 1 / 3))
        return of, chosen, labels, pixels

    def test_most_suspicious_first_and_both_sides_of_the_cut(self):
        of, chosen, labels, _ = self.exhibits()
        ranks = chosen.rank[of.ids]
        assert torch.equal(ranks, ranks.sort().values)
        assert len(of.ids) == len(of.ids.unique()) <= MOST
        assert set(chosen.suspected_poisoned.tolist()) <= set(of.ids.tolist())
        beyond = of.ids[ranks >= 150]
        assert (labels[beyond] == 1).sum() >= 50  # of the class in question

    def test_the_trigger_shows_in_the_difference(self):
        of, *_ = self.exhibits()
        difference = of.difference[0].mean(-1)
        assert difference[6:, 6:].min() > 100 > difference[:6].abs().max()
        assert where(of.difference[0].numpy()) == "2 x 2 pixels at the bottom right"

    def test_a_blend_is_no_patch(self):
        assert where(np.random.default_rng(0).uniform(20, 30, (16, 16, 3))) == ""

    def test_saved_and_loaded(self, tmp_path):
        of, *_ = self.exhibits()
        of.save(tmp_path)
        again = Exhibits.load(tmp_path)
        for name, tensor in vars(of).items():
            if name == "triggers":
                assert all(torch.equal(t, getattr(again.triggers, k)) for k, t in vars(tensor).items())
            else:
                assert torch.equal(tensor, getattr(again, name)), name

    def test_no_target(self):
        of, *_ = self.exhibits(targets=())
        assert of.difference.shape == (0, 8, 8, 3)

    def test_near_duplicates(self):
        generator = torch.Generator().manual_seed(1)
        pictures = torch.randint(0, 256, (6, 16, 16, 3), generator=generator, dtype=torch.uint8)
        pictures[3] = pictures[0].clamp(max=254) + 1  # the same picture, a little brighter
        pictures[5] = pictures[1]
        among = torch.tensor([True, True, True, True, True, False])
        group = near_duplicates(pictures, among)
        assert group[0] == group[3] >= 0
        assert group[[1, 2, 4, 5]].tolist() == [-1] * 4


class TestFigures:
    def test_both_cuts_are_drawn(self):
        entropy = np.array([0.01, 0.125, 0.5, 1.0, 2.5, 3.0])
        decision = np.array(["suspected_poisoned"] * 2 + ["undecided"] * 2 + ["suspected_clean"] * 2)
        svg = plots.entropy_histogram(entropy, decision, "t", "n")
        assert "cut at 0.125 bits" in svg and "cut at 2.5 bits" in svg
        for title in (
            "猫",
            "😀 <b>& $x$",
            "ขแมว",
        ):  # of no font of Matplotlib's; warnings of the package are errors
            named = plots.entropy_histogram(entropy, decision, title, "n")
            assert f">{html.escape(title)}</text>" in named
        assert "cut" not in plots.entropy_histogram(entropy[2:4], decision[2:4], "t", "n")
        assert (
            ">2</text>" in svg and "10^" not in svg and "mathdefault" not in svg
        )  # counts, and no powers of ten

    def test_near_duplicates_of_a_class(self):
        def shown(i, group, label="a"):
            return {"id": i, "group": group, "label": label}

        gallery = [
            shown(0, 0),
            shown(1, 0),
            shown(2, 1),
            shown(3, 1),
            shown(4, 1),
            shown(5, 0, "b"),
            shown(6, -1),
        ]
        of = duplicates(gallery, "a")
        assert [[p["id"] for p in g["pictures"]] for g in of["duplicates"]] == [[2, 3, 4], [0, 1]]
        assert of["duplicated"] == 5
        assert duplicates(gallery, "b") == {"duplicates": [], "duplicated": 0}

    def test_many_classes_take_no_time(self):
        """1,000 classes: counted in one pass, not one pass a class."""
        names = np.array([f"c{i:04d}" for i in range(1000)])
        sizes, suspected = np.full(1000, 1300), np.arange(1000)
        rows = per_class(names, sizes, {"suspected_poisoned": suspected, "suspected_clean": suspected})
        assert [r["name"] for r in rows[:2]] == ["c0999", "c0998"]
        assert rows[0]["suspected"] == 999 and rows[0]["images"] == 1300


class TestRefused:
    def test_no_folder(self, tmp_path):
        done = command("report.__main__", tmp_path / "none")
        assert done.code == 3
        assert "is no folder" in done.text

    def test_unfinished(self, tmp_path):
        done = command("report.__main__", tmp_path)
        assert done.code == 3
        assert "holds no finished run" in done.text

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("results.json", b"{", "cannot be read"),
            ("results.json", b'{"schema": 99}', "another version"),
            ("samples.csv", b"a,b\n1\n", "missing or damaged"),
            ("exhibits.safetensors", b"no", "is damaged"),
            ("metrics.jsonl", b"{", "is damaged"),
        ],
    )
    def test_damaged(self, tiny_run, tmp_path, name, content, message):
        shutil.copytree(tiny_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
        (tmp_path / "run" / name).write_bytes(content)
        before = (tmp_path / "run" / "report.html").read_bytes()
        done = command("report.__main__", tmp_path / "run")
        assert done.code == 3, done.text
        assert message in " ".join(done.text.split())
        assert (tmp_path / "run" / "report.html").read_bytes() == before

    def test_command(self, tiny_run, tmp_path):
        done = command("report.__main__", tiny_run[0], "--out", tmp_path / "r.html")
        assert done.code == 0, done.text
        assert (tmp_path / "r.html").is_file()
