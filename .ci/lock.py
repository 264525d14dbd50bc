"""Writes .ci/requirements.lock: what `make env` installs on this machine, each file with its SHA-256.

`LOCKED=1 make env` installs exactly these, or fails. Run by `make lock`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE / "requirements.lock"
BUILD = ("setuptools>=77", "wheel", "ninja", "pybind11>=2.13", "cmake>=3.25")  # as in the Makefile
EXTRAS = ("dev", "dali")
# as in the Makefile, which goes on without them where nothing is locked
FORMATS = ("pillow-heif>=1.0", "pyarrow>=15", "seccompy>=0.2")


def wanted(pyproject: Path) -> list[str]:
    """What `make env` asks for."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    return [*BUILD, *project["dependencies"], *extras, *FORMATS]


def lines_of(report: dict) -> list[str]:
    """Lines of a lock from pip's report of what it would install."""
    lines = []
    for item in report["install"]:
        about, digests = item["metadata"], item["download_info"]["archive_info"]["hashes"]
        lines.append(f"{about['name'].lower().replace('_', '-')}=={about['version']} --hash=sha256:{digests['sha256']}")
    return sorted(lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        ask = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        subprocess.run([*ask, "--report", file, *wanted(HERE.parent / "pyproject.toml")], check=True)
        lines = lines_of(json.loads(file.read_text()))
    major, minor = sys.version_info[:2]
    head = f"# CPython {major}.{minor}, {sys.platform}; written by .ci/lock.py\n"
    LOCK.write_text(head + "\n".join(lines) + "\n")
    print(f"{LOCK.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
