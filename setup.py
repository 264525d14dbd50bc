"""Builds the native module by CMake; what cannot be built is said, and the package still installs.

Metadata lives in pyproject.toml. Environment variables read here:
  TORCH_CUDA_ARCH_LIST   CUDA architectures, "9.0" or "8.0;9.0" (default: native with a GPU, else 80, 86, 89, 90)
  DLP_FAST_CUDA          auto (default) | 0 (CPU kernels only) | 1 (fail where CUDA code cannot be built)
  DLP_FAST_SANITIZE      1: AddressSanitizer and UBSan in the CPU kernels (see `make sanitize`)
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def say(message: str) -> None:
    print(f"dlp_fast build: {message}", file=sys.stderr, flush=True)


def torch_root() -> Path | None:
    """Folder of the installed torch, found without importing it (an import takes seconds)."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def cuda_architectures() -> str:
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(",", ";").replace(" ", ";")
    if listed:
        # "8.9+PTX" -> "89": PTX of the last architecture is left out, SASS is what is measured
        return ";".join(a.split("+")[0].replace(".", "") for a in listed.split(";") if a)
    has_gpu = (
        shutil.which("nvidia-smi")
        and subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0
    )
    return "native" if has_gpu else "80;86;89;90"


def find_nvcc(torch_dir: Path) -> str | None:
    """nvcc, where there is one and torch has CUDA libraries to link; else None, and the reason is printed."""
    wanted = os.environ.get("DLP_FAST_CUDA", "auto")
    nvcc = shutil.which("nvcc") or shutil.which(
        "nvcc", path=os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")
    )
    if wanted == "0":
        say("CUDA code left out (DLP_FAST_CUDA=0).")
        return None
    if nvcc is None:
        reason = "no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda"
    elif not any((torch_dir / "lib").glob("libtorch_cuda.*")):
        reason = "the installed torch is a CPU build"
    else:
        return nvcc
    if wanted == "1":
        raise SystemExit(f"dlp_fast build: DLP_FAST_CUDA=1, but {reason}.")
    say(f"CPU kernels only: {reason}. On a GPU the ops then run as plain torch, correct but slower.")
    return None


class CMakeBuild(build_ext):
    """One CMake project builds both modules; the build folder is kept, so a second build compiles only changes."""

    def run(self) -> None:
        torch_dir = torch_root()
        missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]
        if not (
            shutil.which("c++") or shutil.which("g++") or shutil.which("clang++") or os.environ.get("CXX")
        ):
            missing.append("a C++20 compiler")
        if torch_dir is None:
            missing.append("torch")
        if importlib.util.find_spec("pybind11") is None:
            missing.append("pybind11")
        if missing:
            say(
                f"native module NOT built, missing: {', '.join(missing)}. The package works without it in plain torch: "
                "ranking and above all augmentation are then much slower. "
                "Install what is missing and run `pip install .` again."
            )
            return
        import pybind11

        nvcc = find_nvcc(torch_dir)
        sanitize = os.environ.get("DLP_FAST_SANITIZE", "0") == "1"
        target = ROOT / "dlp_fast" if self.inplace else Path(self.build_lib).resolve() / "dlp_fast"
        flavour = ("cuda" if nvcc else "cpu") + ("-sanitize" if sanitize else "")
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-{flavour}"
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
            f"-DDLP_TORCH_DIR={torch_dir}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPython_EXECUTABLE={sys.executable}", f"-DDLP_OUTPUT={target}",
            f"-DDLP_CUDA={'ON' if nvcc else 'OFF'}", f"-DDLP_SANITIZE={'ON' if sanitize else 'OFF'}",
        ]  # fmt: skip
        if nvcc:
            configure += [
                f"-DCMAKE_CUDA_COMPILER={nvcc}",
                f"-DCMAKE_CUDA_ARCHITECTURES={cuda_architectures()}",
            ]
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)

    def get_outputs(self) -> list[str]:
        return [str(p) for p in (Path(self.build_lib) / "dlp_fast").glob("*.so")]


setup(
    ext_modules=[Extension("dlp_fast._native", sources=[]), Extension("dlp_fast._build_facts", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
