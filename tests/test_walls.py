"""Who may import whom, and what no file of the package may do."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

import dlp_fast

PACKAGE = Path(dlp_fast.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
UNPICKLER = (
    "data/cifar.py"  # reads CIFAR-10's own files with an unpickler that can make arrays and nothing else
)
LOADER = "ops/_library.py"


def name(node: ast.expr) -> str:
    """`a.b.c` of an attribute or a name; "" for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def relative(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def test_contracts_of_the_house():
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_nothing_is_unpickled_or_evaluated(file):
    tree = ast.parse(file.read_text())
    if relative(file) != UNPICKLER:
        assert not {
            m
            for m in imported(tree)
            if m.split(".")[0] in ("pickle", "dill", "cloudpickle", "shelve", "joblib")
        }
    for call in calls(tree):
        called = name(call.func)
        assert called not in ("eval", "exec", "compile", "__import__"), f"line {call.lineno}: {called}"
        assert called not in ("torch.load", "torch.jit.load", "torch.hub.load"), (
            f"line {call.lineno}: {called}"
        )
        assert called not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"), (
            f"line {call.lineno}: {called}"
        )
        assert called not in ("pickle.load", "pickle.loads", "os.system", "os.popen"), (
            f"line {call.lineno}: {called}"
        )
        words = {keyword.arg: keyword.value for keyword in call.keywords}
        for forbidden in ("allow_pickle", "shell"):
            value = words.get(forbidden)
            assert value is None or (isinstance(value, ast.Constant) and value.value is False), (
                f"line {call.lineno}: {forbidden}"
            )


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_only_the_ops_load_the_extension(file):
    text, tree = file.read_text(), ast.parse(file.read_text())
    loads = [c for c in calls(tree) if name(c.func).endswith(("load_library", "CDLL"))]
    if relative(file) == LOADER:
        assert len(loads) == 1
        return
    assert not loads
    assert "_native" not in imported(tree)
    if not relative(file).startswith("ops/"):
        assert "torch.ops." not in text


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_nothing_imports_a_command(file):
    commands = {"dlp_fast.run", "dlp_fast.poison", "dlp_fast.evaluate"}
    assert not imported(ast.parse(file.read_text())) & commands


def test_the_truth_stays_outside_of_the_defence():
    """What chooses, trains or filters never sees who is poisoned, nor the test set."""
    for room in ("engine", "filtering", "stages", "models"):
        for file in (PACKAGE / room).rglob("*.py"):
            names = {
                node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)
            }
            assert not names & {"poisoned", "true_labels", "attack_success_rate"}, relative(file)


def test_every_module_says_what_it_is_for():
    for file in FILES:
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree) or not tree.body, relative(file)


def test_no_module_of_a_machine():
    """Paths of one machine have no place in a package."""
    for file in FILES:
        for place in ("/work" + "/", "/tmp" + "/", "/root" + "/", "/home" + "/"):
            assert place not in file.read_text(), relative(file)
