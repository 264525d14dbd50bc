"""Where it does not run, an import says so."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny import ROOT


def imported(platform: str, module: str = "dlp_fast") -> subprocess.CompletedProcess:
    """`import module` where Python says that it runs on `platform`."""
    code = f"import importlib, sys; sys.platform = {platform!r}; importlib.import_module({module!r})"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", ["dlp_fast", "dlp_fast.run"])
def test_windows(module):
    done = imported("win32", module)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: dlp_fast does not run on Windows")
    assert "WSL" in done.stderr


def test_macos():
    done = imported("darwin")
    assert done.returncode == 0 and "Apple's GPU is not used" in done.stderr


def test_linux_says_nothing():
    done = imported("linux")
    assert (done.returncode, done.stderr) == (0, "")
