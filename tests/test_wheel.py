"""The wheel: one for every Python, that works where it is unpacked; and an install where the compiler fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny import ROOT, options

FILES = ("CMakeLists.txt", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
BIN = str(Path(sys.executable).parent)


def tree_at(place: Path) -> Path:
    """A copy of what a build needs."""
    place.mkdir()
    for name in FILES:
        shutil.copy2(ROOT / name, place)
    for name in ("csrc", "dlp_fast"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__", "build_note.txt")
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    return place


def done(*command: object, cwd: Path, **environment: str) -> str:
    """What a command printed, both streams together; it must succeed."""
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "DLP_FAST_CUDA": "0"} | environment
    found = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=1500
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


@pytest.mark.slow
def test_built_installed_and_run(tmp_path):
    tree = tree_at(tmp_path / "tree")
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    done(*build, cwd=tree)
    (wheel,) = tmp_path.glob("*.whl")
    assert re.fullmatch(r"dlp_fast-[\d.]+-py3-none-\w*linux\w*\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as packed:
        libraries = [name for name in packed.namelist() if name.endswith(".so")]
    assert libraries == ["dlp_fast/_native.so"], "one library, which no Python's name is tied to"
    place = tmp_path / "installed"
    done(sys.executable, "-m", "pip", "install", "--no-deps", "--target", place, wheel, cwd=tmp_path)
    dynamic = done("readelf", "-d", place / "dlp_fast" / "_native.so", cwd=tmp_path)
    assert "[$ORIGIN/../torch/lib]" in dynamic
    assert "libpython" not in dynamic
    said = "import dlp_fast; print(dlp_fast.__file__, dlp_fast.build_info()['native'])"
    at = {"PYTHONPATH": str(place)}
    where, native = done(sys.executable, "-c", said, cwd=tmp_path, **at).split()
    assert Path(where).is_relative_to(place)
    assert native == "True"
    run = [sys.executable, "-m", "dlp_fast.run", "--out", tmp_path / "run", *options()]
    assert "verdict:" in done(*run, cwd=tmp_path, **at)


@pytest.mark.slow
def test_a_failing_compiler_leaves_a_package_that_says_so(tmp_path):
    tree = tree_at(tmp_path / "tree")
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    out = tmp_path / "built"
    build = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", out]
    said = done(*build, cwd=tree, CXX=str(broken))
    assert "dlp_fast build: native libraries NOT built, the compiler failed" in said
    note = (out / "dlp_fast" / "build_note.txt").read_text()
    assert note == "it was not built, the compiler failed (see above)\n"
    (tree / "dlp_fast" / "build_note.txt").write_text(note)
    asked = "import warnings; warnings.simplefilter('ignore'); import dlp_fast; print(dlp_fast.build_info())"
    told = done(sys.executable, "-c", asked, cwd=tree, PYTHONPATH=str(tree))
    assert "'native': False" in told
    assert "the compiler failed" in told
