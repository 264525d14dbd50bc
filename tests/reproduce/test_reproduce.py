"""Tables and figures at the smallest scale, cell by cell."""

from __future__ import annotations

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from tiny import command, threads_kept

from dlp_fast.config import merge
from dlp_fast.defenses.registry import DEFENSES
from dlp_fast.engine.device import choose_compute
from dlp_fast.errors import ConfigError, NumericError
from dlp_fast.reproduce import __main__ as reproduction
from dlp_fast.reproduce.cells import LEAST_CLEAN, Bench, Cell, parts_of_test
from dlp_fast.reproduce.published import TABLE3
from dlp_fast.reproduce.scales import SCALES
from dlp_fast.reproduce.tables import TABLES, rate_of, seeds_told, spread, with_seeds
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.time_left import duration


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduce") / "out"


def reproduce(what, out, *more):
    with threads_kept():
        return command("reproduce.__main__", what, "--scale", "smoke", "--seeds", "1", "--out", out, *more)


@pytest.fixture(scope="module")
def bench(out):
    return Bench("digits", "smoke", SCALES["smoke"], out, RunLog(None, quiet=True), "cpu")


class TestCells:
    def test_a_rival_and_its_rows(self, bench):
        """The victim is trained once; a cell is kept, and not measured again."""
        for method in ("none", "fp", "clean"):
            figures = bench.run(Cell(method, "badnets", 0))
            assert 0 <= figures["clean_accuracy"] <= 1
            assert 0 <= figures["attack_success_rate"] <= 1
            assert len(figures["per_class_accuracy"]) == 10
            assert figures["environment"]["torch"]
        assert len(list((bench.out / "victims").glob("*.safetensors"))) == 2
        again = bench.run(Cell("fp", "badnets", 0))
        assert again["seconds"] == bench.run(Cell("fp", "badnets", 0))["seconds"]

    def test_the_clean_subset_is_not_tested_on(self, bench):
        tested, few = parts_of_test(10_000, 250)
        assert not set(tested.tolist()) & set(few.tolist())
        assert (len(tested), len(few)) == (9750, 250)
        assert len(parts_of_test(1000, 500)[1]) == 250  # at most a quarter of the test set
        assert not set(bench.clean_images.paths) & set(bench.dataset.test.paths)
        assert len(bench.clean_images.labels) >= LEAST_CLEAN

    def test_more_clean_images_and_fewer_to_train_on(self, tmp_path):
        scale = dataclasses.replace(SCALES["smoke"], images=400, clean_share=0.2)
        few = Bench("digits", "smoke", scale, tmp_path, RunLog(None, quiet=True), "cpu")
        assert len(few.dataset.train.labels) == 400
        assert len(few.clean_images.labels) == 80
        with pytest.raises(ConfigError, match="another images, settings"):
            Bench("digits", "smoke", SCALES["smoke"], tmp_path, RunLog(None, quiet=True), "cpu")

    def test_ours(self, bench):
        figures = bench.run(Cell("dlp_fast", "badnets", 0))
        last = figures["stages"]["finetuning"]
        assert figures["clean_accuracy"] == pytest.approx(last["clean_accuracy"])
        assert figures["attack_success_rate"] == pytest.approx(last["attack_success_rate"])
        assert len(figures["per_class_accuracy"]) == 10
        assert set(figures["stages"]) == {"supervised", "unlearning", "finetuning"}
        assert figures["verdict"]["kind"]

    def test_every_rival_is_charged_the_victims_training(self, bench):
        alone, repaired = bench.run(Cell("none", "badnets", 0)), bench.run(Cell("fp", "badnets", 0))
        assert repaired["seconds"] > alone["seconds"] > 0

    def test_a_method_that_diverges_is_a_row_and_not_the_end(self, bench, monkeypatch):
        def diverge(_setting):
            raise NumericError("loss is inf")

        monkeypatch.setitem(DEFENSES, "anp", diverge)
        cell = Cell("anp", "badnets", 0)
        assert bench.run(cell)["failed"] == "loss is inf"
        text = TABLES["table3"].write(bench.scale, {cell: bench.run(cell)})
        assert "(1 of 1 failed)" in text
        (bench.out / "cells" / f"{cell.name()}.json").unlink()

    def test_as_published(self, bench):
        values = bench.configured(Cell("dlp", "badnets", 0, gamma=0.05))
        assert values["detection"] == {"method": "entropy", "rate": 0.05, "clean_of": "all", "min_images": 1}
        assert values["finetuning"]["labeled"] == "hardest"
        other = bench.configured(Cell("dlp_per_class", "badnets", 0, gamma=0.05))
        assert other == merge(values, {"detection": {"clean_of": "class"}})
        assert bench.configured(Cell("dlp_fast", "badnets", 0))["detection"] == {"rate": 0.01}

    @pytest.mark.parametrize("precision", ["auto", "fp32"])
    def test_all_methods_compute_in_the_precision_asked_for(self, bench, precision, tmp_path):
        of = Bench("digits", "smoke", bench.scale, tmp_path, RunLog(None, quiet=True), "cpu", precision)
        assert of.configured(Cell("dlp_fast", "badnets", 0))["precision"] == precision
        assert of.compute == choose_compute("cpu", precision)


class TestTables:
    @pytest.mark.parametrize("name", TABLES)
    def test_every_cell_has_a_name_of_its_own(self, name):
        cells = with_seeds(TABLES[name].cells(SCALES["full"]), 3)
        assert len({c.name() for c in cells}) == len(cells) == len(set(cells))

    @pytest.mark.parametrize("name", TABLES)
    def test_written_from_what_is_there(self, name):
        scale = SCALES["small"]
        cells = TABLES[name].cells(scale)
        stage = {
            "clean_accuracy": 0.5,
            "attack_success_rate": 0.25,
            "seconds": 2.0,
            "images_per_second": 1500.0,
        }
        of = {
            **stage,
            "seconds": 3,
            "stages": dict.fromkeys(("supervised", "unlearning", "finetuning"), stage),
            "per_class_accuracy": [0.75, None, 0.25],
            "detection": {"poisoned_precision": 1.0, "poisoned_recall": 0.5, "clean_precision": None},
        }
        text = TABLES[name].write(scale, dict.fromkeys(with_seeds(cells, 2), of))
        first, *more = text.split("\n\n")
        rows = first.strip().splitlines()[2:]
        assert len(rows) == len(cells)
        for of_costs in more:
            assert all("25.00 ± 0.00 | 2 s, 1,500/s" in row for row in of_costs.strip().splitlines()[2:])
        assert all("50.00 ± 0.00 | 25.00 ± 0.00" in row for row in rows)
        assert "not run" in TABLES[name].write(scale, {})

    def test_networks_before_and_after(self):
        """Table 6 says what the network could do before anything was unlearnt, and what detection found."""
        scale = dataclasses.replace(SCALES["small"], networks=("torchvision:vgg16_bn",), attacks=("badnets",))
        (cell,) = TABLES["table6"].cells(scale)
        before = {"clean_accuracy": 0.6, "attack_success_rate": 1.0}
        found = {"poisoned_precision": 0.9, "poisoned_recall": 0.8}
        of = {"clean_accuracy": 0.5, "attack_success_rate": 0.02, "seconds": 7, "detection": found}
        text = TABLES["table6"].write(scale, {cell: of | {"stages": {"supervised": before}}})
        assert "| badnets | 60.00 | 100.00 | 50.00 | 2.00 | 90.00 | 80.00 | 92.43, 0.36 | 7 |" in text
        assert "– (1 of 1 failed) | – (1 of 1 failed)" in TABLES["table6"].write(
            scale, {cell: {"failed": "NaN"}}
        )

    def test_seeds_are_told_where_rows_differ(self):
        ours, none, fp = (Cell(m, "badnets", 0) for m in ("dlp_fast", "none", "fp"))
        same: dict = {cell: {} for cell in with_seeds([ours, none], 3)}
        assert seeds_told(same) == "" == seeds_told({})
        told = seeds_told(same | {fp: {}, Cell("none", "sig", 0): {}})
        assert told.strip() == "Seeds a row: dlp_fast (default) 3, no defence 1 or 3, FP 1."

    @pytest.mark.parametrize(
        ("environments", "told"),
        [
            (({}, {}, {"processor": "Xeon"}), "15"),
            (({}, {}, {"native": {"simd": ["avx2"]}}), "15"),  # the same name, another generation
            (({"at_once": 1}, {}, {"at_once": 13}), "15"),  # it shared the machine with twelve others
            (({"at_once": 13},) * 3, "–"),
        ],
    )
    def test_seconds_of_two_machines_have_no_mean(self, environments, told):
        scale = dataclasses.replace(SCALES["small"], attacks=("badnets",))
        cells = with_seeds([Cell("none", "badnets", 0)], 3)
        found = {
            cell: {
                "clean_accuracy": 0.5,
                "attack_success_rate": 1.0,
                "seconds": s,
                "environment": {"processor": "EPYC"} | facts,
            }
            for cell, s, facts in zip(cells, (10, 20, 900), environments, strict=True)
        }
        rows = TABLES["table3"].write(scale, found).splitlines()
        (row,) = (r for r in rows if r.startswith("| badnets | no defence | 50.00 ± 0.00 | 100.00 ± 0.00 |"))
        assert row.endswith(f"| {told} |")

    def test_spread(self):
        assert spread([0.5, 0.7]) == "60.00 ± 14.14"
        assert spread([None, 0.5]) == "50.00"
        assert spread([]) == "–"

    def test_the_papers_numbers(self):
        assert TABLE3["dlp"]["badnets"] == (93.08, 0.24)
        assert TABLE3["fp"]["sig"] == (83.14, 77.80)
        assert {len(row) for row in TABLE3.values()} == {6}

    def test_clean_label_rates_are_of_the_class(self):
        assert (rate_of("badnets"), rate_of("sig"), rate_of("lca")) == (0.1, 0.5, 0.5)


@pytest.mark.parametrize("what", ["fig1", "fig3", "fig5"])
def test_figures(out, what):
    done = reproduce(what, out)
    assert done.code == 0, done.text
    assert (out / f"{what}.png").stat().st_size > 5000
    text = (out / f"{what}.md").read_text()
    assert "scale smoke" in text and "| badnets |" in text.replace("badnets | activation", "badnets |")
    assert (f"torch {torch.__version__}" in text) == (what != "fig3")


@pytest.mark.parametrize("what", ["fig1", "fig5"])
def test_figures_of_what_is_done(out, tmp_path, what):
    """Nothing is run for them, and the page names the machine of the cells, not this one."""
    done = reproduce(what, tmp_path / "none", "--only-done")
    assert done.code == 3 and "holds no stage 1" in done.text
    assert not (tmp_path / "none" / "cells").exists()
    assert reproduce("fig1", out).code == 0
    shutil.copytree(out, tmp_path / "kept")
    for file in (tmp_path / "kept" / "cells").glob("stage1-*"):
        saved = json.loads(file.read_text())
        del saved["environment"]
        file.write_text(json.dumps(saved))
    done = reproduce(what, tmp_path / "kept", "--only-done")
    assert done.code == 0, done.text
    assert "a machine that its cells do not name" in (tmp_path / "kept" / f"{what}.md").read_text()


def test_figure_1_of_an_attack_it_does_not_show(out):
    done = reproduce("fig1", out, "--attacks", "blended")
    assert done.code == 2 and "badnets and sig" in done.text


@pytest.mark.slow
@pytest.mark.parametrize("what", ["table1", "table3", "table5", "table6", "fig4"])
def test_tables(out, what):
    done = reproduce(what, out)
    assert done.code == 0, done.text
    assert "not run" not in (out / f"{what}.md").read_text()


def test_a_table_of_what_is_done(bench, out):
    """Nothing is run for it."""
    bench.run(Cell("none", "badnets", 0))
    before = sorted(p.name for p in (out / "cells").iterdir())
    done = reproduce("table3", out, "--only-done")
    assert done.code == 0, done.text
    assert f"of {len(TABLES['table3'].cells(SCALES['smoke']))} cells are done" in done.text
    text = (out / "table3.md").read_text()
    assert "not run" in text and "| badnets | no defence | " in text
    assert sorted(p.name for p in (out / "cells").iterdir()) == before


class TestRefused:
    def test_another_scale_in_the_same_folder(self, bench, out):
        done = command("reproduce.__main__", "fig3", "--scale", "small", "--out", out)
        assert done.code == 2
        assert "another" in done.text and "nothing is overwritten" in " ".join(done.text.split())
        assert json.loads((out / "reproduction.json").read_text())["scale"] == "smoke"

    def test_unknown_table(self, tmp_path):
        done = command("reproduce.__main__", "table9", "--out", tmp_path / "out")
        assert done.code == 2
        assert not (tmp_path / "out").exists()

    def test_no_test_set(self, tmp_path):
        from tiny import image_folder

        image_folder(tmp_path / "data", each=4)
        done = command("reproduce.__main__", "fig3", "--data", tmp_path / "data", "--out", tmp_path / "out")
        assert done.code == 3
        assert "has no test set" in done.text


def test_reckoned_by_method_and_network(monkeypatch):
    """A deep network's cell does not cost what a small one's does; without any like it, our method is tried with it."""
    tried = []

    class Trial:
        def configured(self, cell):
            return {"data": "embedded", "model": cell.model}

        dataset = None

    def dry_run(config, dataset, quiet):
        tried.append(config.model)
        return SimpleNamespace(total=1000.0)

    monkeypatch.setattr(reproduction, "dry_run", dry_run)
    done = {
        Cell("fp", "badnets", 0, model="vgg"): {"seconds": 10.0},
        Cell("dlp", "badnets", 0, model="vgg"): {"seconds": 50.0},
        Cell("anp", "badnets", 0, model="vgg"): {"failed": "diverged"},
    }
    left = [
        Cell("fp", "sig", 0, model="vgg"),  # 10 s
        Cell("anp", "sig", 0, model="vgg"),  # 30 s, the mean of its network
        Cell("fp", "sig", 0, model="wrn-16-1"),  # 1,000 s, tried
        Cell("anp", "sig", 0, model="wrn-16-1"),  # 1,000 s, not tried again
    ]
    told = reproduction.reckon(Trial(), [*done, *left], done)
    assert told == f"4 of 7 cells to run, about {duration(2040)}"
    assert tried == ["wrn-16-1"]
    assert reproduction.reckon(Trial(), list(done), done) == "all cells are done already"
