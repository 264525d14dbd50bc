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


class TestNvccThatFails:
    """Named by DLP_FAST_NATIVE=1 (`make build`) or DLP_FAST_CUDA=1 it is an error; else the CPU kernels are built."""

    @pytest.fixture
    def tried(self, setup, monkeypatch, tmp_path):
        """(run a build in which nvcc fails, the compilers that it tried)."""
        build = setup["CMakeBuild"]
        tried = []

        def compile_(_self, _torch, _target, nvcc):
            tried.append(nvcc)
            if nvcc:
                raise subprocess.CalledProcessError(1, "cmake")

        inside = build.run.__globals__
        monkeypatch.setitem(inside, "ROOT", tmp_path)
        monkeypatch.setitem(inside, "torch_root", lambda: tmp_path)
        monkeypatch.setitem(inside, "find_nvcc", lambda _: "/cuda/bin/nvcc")
        monkeypatch.setattr(setup["shutil"], "which", lambda name, **_: f"/bin/{name}")
        monkeypatch.setattr(build, "configure_and_compile", compile_)
        for name in ("DLP_FAST_CUDA", "DLP_FAST_NATIVE"):
            monkeypatch.delenv(name, raising=False)
        command = build(setuptools.Distribution())
        command.inplace = True
        return command.run, tried

    @pytest.mark.parametrize("name", ["DLP_FAST_CUDA", "DLP_FAST_NATIVE"])
    def test_it_is_an_error_where_kernels_are_asked_for(self, tried, monkeypatch, name):
        run, compilers = tried
        monkeypatch.setenv(name, "1")
        with pytest.raises(
            SystemExit, match=rf"{name}=1, but the CUDA kernels .* by /cuda/bin/nvcc .*DLP_FAST_CUDA=0"
        ):
            run()
        assert compilers == ["/cuda/bin/nvcc"]

    def test_else_the_cpu_kernels_are_built_and_it_is_noted(self, tried, tmp_path):
        run, compilers = tried
        run()
        assert compilers == ["/cuda/bin/nvcc", None]
        note = (tmp_path / "dlp_fast" / "build_note.txt").read_text()
        assert note == "the CUDA kernels could not be compiled\n"
