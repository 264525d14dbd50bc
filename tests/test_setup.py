"""What setup.py builds for, without building."""

from __future__ import annotations

import runpy
import subprocess

import pytest
import setuptools
from tiny import ROOT


@pytest.fixture
def setup(monkeypatch):
    """The functions of setup.py."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    return runpy.run_path(str(ROOT / "setup.py"))


def test_architectures_that_are_listed(setup, monkeypatch):
    """Machine code alone, unless PTX is asked for."""
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0 9.0a,12.0+PTX")
    assert setup["cuda_architectures"]("nvcc") == "80-real;90a-real;120"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0;Hopper")
    with pytest.raises(SystemExit, match=r"names 'Hopper'; give numbers such as 9.0"):
        setup["cuda_architectures"]("nvcc")


@pytest.mark.parametrize(
    ("release", "expected"),
    [("13.0", "80-real;86-real;89-real;90-real;100-real;120"), ("12.6", "80-real;86-real;89-real;90")],
)
def test_without_a_gpu_a_build_is_for_all(setup, monkeypatch, release, expected):
    """PTX of the last, for those to come; an older toolkit does not know the newest."""
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(setup["shutil"], "which", lambda _name: None)
    told = subprocess.CompletedProcess(
        [], 0, stdout=f"Cuda compilation tools, release {release}, V{release}.1"
    )
    monkeypatch.setattr(setup["subprocess"], "run", lambda *_, **__: told)
    assert setup["cuda_architectures"]("nvcc") == expected
