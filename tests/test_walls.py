"""Who may import whom, what no file of the package may do, and how long it may be."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

import dlp_fast
import dlp_fast.config

PACKAGE = Path(dlp_fast.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
UNPICKLER = (
    "data/cifar.py"  # reads CIFAR-10's own files with an unpickler that can make arrays and nothing else
)
LOADER = "ops/library.py"


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
    loads = [c for c in loads if ast.unparse(c.args[0]) != "None"]  # of this process itself: the C library
    if relative(file) == LOADER:
        assert len(loads) == 1
        return
    assert not loads
    assert "_native" not in imported(tree)
    if not relative(file).startswith("ops/"):
        assert "torch.ops." not in text


SHIMS = ("run", "predict", "scan_new", "poison", "evaluate", "export", "doctor", "report.__main__")
MAY_IMPORT_COMMANDS = {f"{name.replace('.', '/')}.py" for name in SHIMS} | {"reproduce/__main__.py"}


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_nothing_imports_a_command(file):
    """Nobody imports a shim; what the shims call is imported by them, by reproduce, and by the commands themselves."""
    found = imported(ast.parse(file.read_text()))
    assert not found & {f"dlp_fast.{name}" for name in SHIMS}
    commands = {m for m in found if m == "dlp_fast.commands" or m.startswith("dlp_fast.commands.")}
    allowed = relative(file) in MAY_IMPORT_COMMANDS or relative(file).startswith("commands/")
    assert allowed or not commands


@pytest.mark.parametrize("name", SHIMS)
def test_a_shim_is_one_call(name):
    file = PACKAGE / f"{name.replace('.', '/')}.py"
    command = name.partition(".")[0]
    assert f"from dlp_fast.commands.{command} import main\n" in file.read_text()
    assert len(file.read_text().splitlines()) < 10


def test_the_truth_stays_outside_of_the_defence():
    """What chooses, trains or detects never sees who is poisoned, nor the test set."""
    for room in ("engine", "detection", "selection", "stages", "models"):
        files = list((PACKAGE / room).rglob("*.py"))
        assert files
        for file in files:
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


MOST = {"pipeline.py": 199, "api.py": 149}  # lines; any other 350


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_length_of_a_module(file):
    lines = len(file.read_text().splitlines())
    assert lines <= MOST.get(relative(file), 350)


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_length_of_a_function(file):
    """At most 60 lines, unless the line above it says why not: `# over 60 lines: …`."""
    lines = file.read_text().splitlines()
    for node in functions(ast.parse("\n".join(lines))):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        long = node.end_lineno - node.lineno + 1 > 60
        excused = lines[first - 2].strip().startswith("# over 60 lines: ")
        assert long == excused, f"{node.name}, line {node.lineno}"


def private(word: str) -> bool:
    """`_x`; but neither `__x__` nor a protocol's `_x_`, such as a notebook's `_repr_html_`."""
    return word.startswith("_") and not word.endswith("_")


def roots(tree: ast.AST) -> set[str]:
    """Names under which a test imports what is not ours: their private names are not our matter."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] != "dlp_fast":
                    found.add(alias.asname or alias.name.split(".")[0])
    return found


def reached(tree: ast.AST) -> list[str]:
    """Private names of the package that a test imports, reads from an object, or patches by a string."""
    found, theirs = [], roots(tree) | {"self", "cls"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dlp_fast":
            words = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.split(".")[0] == "dlp_fast"]
            words = [word for name in ours for word in name.split(".")]
        elif isinstance(node, ast.Attribute):
            words = [] if name(node).split(".")[0] in theirs else [node.attr]
        elif isinstance(node, ast.Call) and name(node.func).split(".")[-1] in (
            "setattr",
            "getattr",
            "delattr",
        ):
            texts = [a.value for a in node.args[:2] if isinstance(a, ast.Constant)]
            words = [word for text in texts if isinstance(text, str) for word in text.split(".")]
        else:
            continue
        found += [f"line {node.lineno}: {word}" for word in words if private(word)]
    return found


def test_private_names_are_seen():
    for text in (
        "from dlp_fast.api import _prepare",
        "from dlp_fast.ops import _library",
        "import dlp_fast.ops._library",
        "from dlp_fast import api\napi._prepare()",
        "made()._begin",
        "monkeypatch.setattr('dlp_fast.api._prepare', None)",
        "monkeypatch.setattr(images, '_decode', None)",
    ):
        assert reached(ast.parse(text)), text
    for text in ("import os\nos._exit(3)", "self._mine", "result._repr_html_()", "a.__dict__", "f(_, '_x')"):
        assert not reached(ast.parse(text)), text


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.relative_to(ROOT / "tests").as_posix())
def test_no_test_reaches_into_the_package(file):
    """A test of what is private holds the inside still, and says nothing of what a user has."""
    assert not reached(ast.parse(file.read_text()))


THRESHOLDS = {
    "min_separation", "min_group", "max_share", "rare_base", "rare_each", "rare_max_share", "stands_out",
    "unclear_score", "near_score", "clear_score", "late_max_share", "late_beside", "membership", "ensemble_from",
    "ensemble_to", "main_share", "min_window_nats", "min_distinct", "min_attack_success", "min_lead", "verify_from",
    "max_label_support", "max_support_p", "min_gap", "max_gap_support", "false_alarm_rate", "clear_purity",
    "max_marked_classes", "min_outlasting", "max_copies", "mislabeled_quantile",
    "half_from", "min_foreign", "min_abounding", "min_apart", "min_grown_purity", "min_together",
    "min_unknown", "max_taken_for_one", "min_shared_labels", "min_apart_from_alike", "min_agreement", "min_taught",
    "min_mark_apart", "min_familiar", "min_variety",
}  # fmt: skip


DECIDES = tuple(
    f"detection/{name}.py"
    for name in ("decide", "convict", "marks", "together", "settle", "mislabeled", "cause", "rules", "late")
)


def test_thresholds_of_the_decision_are_used_in_one_place():
    """Options of DetectionConfig, read off something called config or options, in the decision's files alone."""
    assert set(dlp_fast.config.DetectionConfig.model_fields) >= THRESHOLDS
    used: set[str] = set()
    for file in FILES:
        read = {
            node.attr
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Attribute)
            and name(node.value).split(".")[-1] in ("config", "options", "detection")
        }
        decides = relative(file) in DECIDES
        assert decides or not read & THRESHOLDS, relative(file)
        used |= read if decides else set()
    assert used >= THRESHOLDS
