"""No C++ exception leaves the module: bad arguments raise also where it carries an unwinder and a runtime of its own.

The in-place build links the ops' objects a second time with -static-libgcc -static-libstdc++. An exception that leaves
an op of that library is unwound by two unwinders and ends the process (return code -6); the guard makes it an error.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dlp_fast
from dlp_fast.ops import native_available

PACKAGE = Path(dlp_fast.__file__).parent
TESTS = Path(__file__).parent
PYTEST = [
    sys.executable,
    "-m",
    "pytest",
    "tests/ops",
    "-q",
    "-rA",
    "-p",
    "no:cacheprovider",
    "-o",
    "addopts=",
]
RAW = "raw_ops_check_too or native_op_checks_too or native_ops_check_too or op_itself"


@pytest.mark.skipif(not native_available(), reason="the native module is not built")
def test_bad_arguments_raise_with_a_runtime_of_the_modules_own(tmp_path):
    second = PACKAGE / "_native_static_runtime.so"
    assert second.exists(), "run `make build`: it links the ops a second time for this test"
    shutil.copytree(
        PACKAGE, tmp_path / "dlp_fast", ignore=shutil.ignore_patterns("_native*.so", "__pycache__")
    )
    shutil.copy(second, tmp_path / "dlp_fast/_native.so")
    shutil.copytree(TESTS, tmp_path / "tests/ops", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*PYTEST, "-k", RAW], cwd=tmp_path, env=environment, capture_output=True, text=True)
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert len(passed) >= 31 and "skipped" not in done.stdout.splitlines()[-1]
