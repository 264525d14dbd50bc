"""Every script of benchmarks/ and studies/ starts, and every study says what it asked, how, and what came out."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from tiny import ROOT

STUDIES = sorted(p for p in (ROOT / "studies").iterdir() if p.is_dir() and not p.name.startswith("__"))
SCRIPTS = [
    *(ROOT / "studies").glob("*/run.py"),
    *(ROOT / "benchmarks" / "system").glob("[!_]*.py"),
    *(ROOT / name for name in ("studies/learning_curves/report.py", "benchmarks/results_page.py")),
    *(ROOT / "benchmarks" / "kernels" / name for name in ("cuda_events.py", "summarize.py")),
]
HEADINGS = ["Question", "Command", "Conclusion"]
CALLED = re.compile(r"^ *python -m ((?:studies|benchmarks)\.[\w.]+)((?:.*\\\n)*.*)$", re.MULTILINE)


def module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


@pytest.fixture
def help_of(monkeypatch):
    """A function: module -> what `python -m module --help` prints; run in this process."""
    monkeypatch.syspath_prepend(str(ROOT))

    def shown(name: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        monkeypatch.delitem(sys.modules, name, raising=False)
        text = io.StringIO()
        with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as end:
            runpy.run_module(name, run_name="__main__", alter_sys=False)
        assert not end.value.code, f"{name}: exit code {end.value.code}"
        return text.getvalue()

    return shown


@pytest.mark.parametrize("script", SCRIPTS, ids=module)
def test_script_tells_its_options(script, help_of):
    assert help_of(module(script)).startswith(f"usage: python -m {module(script)} ")


@pytest.mark.parametrize("study", STUDIES, ids=lambda p: p.name)
class TestStudy:
    def test_headings(self, study):
        found = re.findall(r"^## (.+)$", (study / "README.md").read_text(), re.MULTILINE)
        assert [heading for heading in found if heading in HEADINGS] == HEADINGS

    def test_result(self, study):
        assert json.loads((study / "result.json").read_text())

    def test_its_commands_take_their_options(self, study, help_of):
        called = CALLED.findall((study / "README.md").read_text())
        assert any(name.startswith(f"studies.{study.name}.") for name, _ in called)
        for name, words in called:
            known = help_of(name)
            for option in re.findall(r"(?<!\S)--[\w-]+", words):
                assert re.search(rf"{option}\b(?!-)", known), f"{study.name}: {name} has no {option}"


def test_studies_are_listed():
    page = (ROOT / "studies" / "README.md").read_text()
    assert all(f"({study.name}/README.md)" in page for study in STUDIES)


def test_the_part_of_a_set_that_studies_share(monkeypatch):
    """With an attack on it, and both rates to be measured."""
    monkeypatch.syspath_prepend(str(ROOT))
    from dlp_fast.data import sources
    from dlp_fast.models.registry import build_model
    from studies._common import prepare

    of = prepare(sources.load("digits"), "badnets", 0.1, seed=0, images=100, tested=50)
    assert (len(of.data), int(of.poisoned.sum())) == (100, 10)
    found = of.measure(build_model("wrn-10-1", 10, 8, seed=0))
    assert 0 <= found["clean_accuracy"] <= 1 and 0 <= found["attack_success_rate"] <= 1
