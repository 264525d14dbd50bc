"""The CPU kernels on several threads under ThreadSanitizer: no data race, and what one thread gives."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = ["-std=c++20", "-O1", "-g", "-ffp-contract=off", "-fsanitize=thread", "-w", f"-I{CSRC}"]
LEVELS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx2", "-mfma", "-mf16c", *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))],
}
# the memory that the sanitizer keeps for itself must not be where the system puts a program at random
FIXED = ["setarch", platform.machine(), "-R"] if shutil.which("setarch") else []

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("g++"), reason="no g++")]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("threads")
    (folder / "try.cpp").write_text("int main() {}")
    if run("g++", "-fsanitize=thread", folder / "try.cpp", "-o", folder / "try").returncode:
        pytest.skip("this g++ has no ThreadSanitizer")
    objects = []
    for source in [HERE / "threads.cpp", *sorted((CSRC / "cpu").glob("*.cpp"))]:
        level = source.stem.rpartition("_")[2]
        if level in LEVELS and platform.machine() not in ("x86_64", "AMD64"):
            continue
        objects.append(folder / f"{source.stem}.o")
        done = run("g++", *FLAGS, *LEVELS.get(level, ()), "-c", source, "-o", objects[-1])
        assert done.returncode == 0, done.stderr
    done = run("g++", "-fsanitize=thread", *objects, "-o", folder / "threads", "-pthread")
    assert done.returncode == 0, done.stderr
    return folder / "threads"


def test_no_race_and_the_same_on_several_threads(program):
    done = run(*FIXED, program)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stdout + done.stderr
    assert done.stdout.count(": same\n") == 12


def test_a_race_is_reported(program):
    done = run(*FIXED, program, "race")
    assert done.returncode == 66 and "data race" in done.stderr
