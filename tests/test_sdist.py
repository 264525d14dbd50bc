"""The source distribution: whoever builds from it has all that the build needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile

from tiny import ROOT

FILES = (
    "CHANGELOG.md",
    "CMakeLists.txt",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "pyproject.toml",
    "setup.py",
)
FOLDERS = ("csrc", "dlp_fast")


def test_it_holds_every_source_and_every_file_of_the_package(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (*FILES, "mkdocs.yml"):
        shutil.copy2(ROOT / name, tree)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path / "out"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / "out").iterdir()
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {
        file.relative_to(tree).as_posix()
        for name in FOLDERS
        for file in (tree / name).rglob("*")
        if file.is_file()
    }
    assert wanted - packed == set()
    assert set(FILES) <= packed
