"""docs/notebook.ipynb runs as it stands, with few steps; and every name in it exists."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import dlp_fast
from dlp_fast.config import RunConfig

NOTEBOOK = json.loads((Path(__file__).parents[1] / "docs/notebook.ipynb").read_text(encoding="utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_form():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids) and NOTEBOOK["cells"][0]["cell_type"] == "markdown"
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_names():
    """Attributes of the package, of a result and of a model; options of the run."""
    homes = {"dlp_fast": dlp_fast, "result": dlp_fast.Result, "model": dlp_fast.Classifier}
    attributes = {"model": {"classes", "holds", "size"}}
    seen = set()
    for cell in CELLS:
        for node in ast.walk(ast.parse(cell)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in homes
            ):
                seen.add((node.value.id, node.attr))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "dlp_fast.defend":
                options = {
                    word.arg: ast.literal_eval(word.value)
                    for word in node.keywords
                    if word.arg in ("attack",)
                }
                RunConfig(data="digits", **options)
    for home, name in seen:
        assert name in attributes.get(home, ()) or hasattr(homes[home], name), f"{home}.{name}"
    assert {name for home, name in seen if home == "result"} >= {"verdict", "poisoned", "to_frame"}
    assert {
        ("dlp_fast", "defend"),
        ("dlp_fast", "load"),
        ("model", "predict"),
        ("model", "preprocess"),
    } <= seen


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in CELLS:
        exec(re.sub(r"STEPS, PASSES = \d+, \d+", "STEPS, PASSES = 4, 1", cell), names)
    told = capsys.readouterr().out
    assert names["result"].verdict in told and "report.html" in told
    assert (tmp_path / "runs/notebook/report.html").stat().st_size > 10_000
