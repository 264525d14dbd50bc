"""The wheel: one for every Python, that works where it is unpacked; and an install where the compiler fails."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny import ROOT, options

import dlp_fast

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


@pytest.fixture(scope="module")
def setup_module():
    spec = importlib.util.spec_from_file_location("setup_of_dlp_fast", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestTag:
    """What the file name of a wheel promises is what its libraries need."""

    @pytest.mark.parametrize(
        ("glibc", "cxx", "tag"),
        [
            ((2, 14), (3, 4, 19), "manylinux_2_17_x86_64"),
            ((2, 14), (3, 4, 21), "manylinux_2_24_x86_64"),
            ((2, 34), (3, 4, 21), "manylinux_2_34_x86_64"),
            ((2, 29), (3, 4, 30), "manylinux_2_35_x86_64"),
            ((2, 99), (3, 4, 21), "linux_x86_64"),
            (None, None, "linux_x86_64"),
        ],
    )
    def test_by_what_is_needed(self, setup_module, monkeypatch, glibc, cxx, tag):
        needed = {"GLIBC": glibc, "GLIBCXX": cxx}
        monkeypatch.setattr(setup_module, "newest_symbols", lambda _library, family: needed[family])
        assert setup_module.platform_tag([Path("a.so")], "linux_x86_64") == tag

    def test_of_another_system_or_without_libraries(self, setup_module):
        assert setup_module.platform_tag([Path("a.so")], "macosx_14_0_arm64") == "macosx_14_0_arm64"
        assert setup_module.platform_tag([], "linux_x86_64") == "linux_x86_64"

    def test_symbols_are_read_from_the_library(self, setup_module):
        library = Path(dlp_fast.__file__).with_name("_native.so")
        if not library.exists() or shutil.which("readelf") is None:
            pytest.skip("no native library, or no readelf")
        glibc = setup_module.newest_symbols(library, "GLIBC")
        assert (2, 2, 5) <= glibc < (3,)
        table = subprocess.run(["readelf", "-V", library], capture_output=True, text=True).stdout
        assert f"GLIBC_{'.'.join(map(str, glibc))}" in table
        major, minor = map(int, setup_module.platform_tag([library], "linux_x86_64").split("_")[1:3])
        assert (major, minor) >= glibc[:2]


@pytest.mark.slow
def test_built_installed_and_run(tmp_path):
    tree = tree_at(tmp_path / "tree")
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    done(*build, cwd=tree)
    (wheel,) = tmp_path.glob("*.whl")
    assert re.fullmatch(r"dlp_fast-[\d.]+-py3-none-\w*linux\w*\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as packed:
        libraries = [name for name in packed.namelist() if name.endswith(".so")]
    assert "manylinux" in wheel.name
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
