"""Builds the native libraries by CMake; what cannot be built is said, and the package still installs.

A wheel is for every Python: its libraries are of torch's stable ABI. In a tree that is worked in (`build_ext
--inplace`) the build facts come as a pybind11 module too, where pybind11 is installed.

Metadata lives in pyproject.toml. Environment variables read here:
  TORCH_CUDA_ARCH_LIST   CUDA architectures, "9.0" or "8.0;9.0+PTX" (default: native with a GPU, else RELEASE below)
  DLP_FAST_CUDA          auto (default) | 0 (CPU kernels only) | 1 (fail where CUDA code cannot be built)
  DLP_FAST_NATIVE        auto (default: where a compiler fails, the package works without) | 1 (fail there)
  DLP_FAST_SANITIZE      1: AddressSanitizer and UBSan in the CPU kernels (see `make sanitize`)
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def say(message: str) -> None:
    print(f"dlp_fast build: {message}", file=sys.stderr, flush=True)


def torch_root() -> Path | None:
    """Folder of the installed torch, found without importing it (an import takes seconds)."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


# What a build for other machines holds: machine code for each, and PTX of the last for those to come.
RELEASE = ("80-real", "86-real", "89-real", "90-real", "100-real", "120")
BLACKWELL = (12, 8)  # the first CUDA toolkit that knows 100 and 120


def cuda_architectures(nvcc: str) -> str:
    """In CMake's words: "90-real" is machine code alone, "90" has PTX too."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(",", ";").replace(" ", ";")
    if listed:
        return ";".join(_architecture(a) for a in listed.split(";") if a)
    has_gpu = (
        shutil.which("nvidia-smi")
        and subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0
    )
    if has_gpu:
        return "native"
    if toolkit_version(nvcc) >= BLACKWELL:
        return ";".join(RELEASE)
    return ";".join((*RELEASE[:3], "90"))


def _architecture(name: str) -> str:
    number, plus, rest = name.partition("+")
    digits = number.replace(".", "")
    if not digits.rstrip("af").isdecimal() or (plus and rest != "PTX"):
        raise SystemExit(
            f"dlp_fast build: TORCH_CUDA_ARCH_LIST names {name!r}; give numbers such as 9.0 or 9.0+PTX, "
            "separated by semicolons."
        )
    return digits if plus else f"{digits}-real"


def toolkit_version(nvcc: str) -> tuple[int, int]:
    """Of the CUDA toolkit that nvcc belongs to; (0, 0) where nvcc does not say."""
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release (\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0, 0)


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


NOTE = "build_note.txt"
"""Beside the package: why a part was not built, for `dlp-fast doctor`."""
LIBRARIES = ("_native.so", "_native_cuda.so")


class CMakeBuild(build_ext):
    """One CMake project builds the libraries; the build folder is kept, so a second build compiles only changes."""

    def run(self) -> None:
        torch_dir = torch_root()
        target = ROOT / "dlp_fast" if self.inplace else Path(self.build_lib).resolve() / "dlp_fast"
        target.mkdir(parents=True, exist_ok=True)
        missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]
        if not (
            shutil.which("c++") or shutil.which("g++") or shutil.which("clang++") or os.environ.get("CXX")
        ):
            missing.append("a C++20 compiler")
        if torch_dir is None:
            missing.append("torch")
        if missing:
            self._without(target, f"missing: {', '.join(missing)}")
            return
        nvcc = find_nvcc(torch_dir)
        for compiler in [nvcc, None] if nvcc else [None]:
            try:
                self.configure_and_compile(torch_dir, target, compiler)
            except subprocess.CalledProcessError:
                asked = [name for name in ("DLP_FAST_CUDA", "DLP_FAST_NATIVE") if os.environ.get(name) == "1"]
                if compiler and asked:
                    raise SystemExit(
                        f"dlp_fast build: {asked[0]}=1, but the CUDA kernels could not be compiled by {compiler} "
                        "(see above). Mend that, or leave them out: DLP_FAST_CUDA=0."
                    ) from None
                if compiler:
                    (target / NOTE).write_text("the CUDA kernels could not be compiled\n")
                    say("the CUDA kernels could NOT be compiled (see above); once more without them.")
                continue
            if compiler == nvcc:
                (target / NOTE).unlink(missing_ok=True)
            return
        self._without(target, "the compiler failed (see above)")

    def _without(self, target: Path, reason: str) -> None:
        """Say that there are no native libraries, also to `dlp-fast doctor`; those of another build do not stay."""
        if os.environ.get("DLP_FAST_NATIVE") == "1":
            raise SystemExit(f"dlp_fast build: DLP_FAST_NATIVE=1, but {reason}.")
        for name in LIBRARIES:
            (target / name).unlink(missing_ok=True)
        (target / NOTE).write_text(f"it was not built, {reason}\n")
        say(
            f"native libraries NOT built, {reason}. The package works without them in plain torch: ranking and above "
            "all augmentation are then much slower. Mend that and run `pip install .` again."
        )

    def configure_and_compile(self, torch_dir: Path, target: Path, nvcc: str | None) -> None:
        """Configure and compile; CalledProcessError where either fails."""
        sanitize = os.environ.get("DLP_FAST_SANITIZE", "0") == "1"
        facts = self.inplace and importlib.util.find_spec("pybind11") is not None
        flavour = ("cuda" if nvcc else "cpu") + ("-sanitize" if sanitize else "")
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-{flavour}"
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
            f"-DDLP_TORCH_DIR={torch_dir}", f"-DPython_EXECUTABLE={sys.executable}", f"-DDLP_OUTPUT={target}",
            f"-DDLP_CUDA={'ON' if nvcc else 'OFF'}", f"-DDLP_SANITIZE={'ON' if sanitize else 'OFF'}",
            f"-DDLP_STATIC_RUNTIME={'ON' if self.inplace and not sanitize else 'OFF'}",
            f"-DDLP_PYBIND11={'ON' if facts else 'OFF'}",
        ]  # fmt: skip
        if facts:
            import pybind11

            configure.append(f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
        if nvcc:
            configure += [
                f"-DCMAKE_CUDA_COMPILER={nvcc}",
                f"-DCMAKE_CUDA_ARCHITECTURES={cuda_architectures(nvcc)}",
            ]
        else:
            (target / "_native_cuda.so").unlink(missing_ok=True)  # of a build before, for other CPU kernels
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)

    def get_outputs(self) -> list[str]:
        built = Path(self.build_lib) / "dlp_fast"
        return [str(p) for p in (*built.glob("*.so"), *built.glob(NOTE))]


MANYLINUX = {
    (2, 17): (3, 4, 19),
    (2, 24): (3, 4, 22),
    (2, 27): (3, 4, 24),
    (2, 28): (3, 4, 25),
    (2, 31): (3, 4, 28),
    (2, 34): (3, 4, 29),
    (2, 35): (3, 4, 30),
    (2, 39): (3, 4, 33),
}
"""Version of glibc (PEP 600) to the newest symbols of libstdc++ on the systems that have it (auditwheel's policies)."""


def newest_symbols(library: Path, family: str) -> tuple[int, ...] | None:
    """The newest version of `family` (GLIBC, GLIBCXX) that a library needs, (0,) for none; None without readelf."""
    try:
        done = subprocess.run(
            ["readelf", "-V", "-W", str(library)], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.findall(rf"\b{family}_(\d+(?:\.\d+)*)", done.stdout)
    return max((tuple(map(int, version.split("."))) for version in found), default=(0,))


def platform_tag(libraries: list[Path], built_on: str) -> str:
    """The oldest systems that have all that `libraries` need (torch's own aside, which torch brings), as a tag of
    PEP 600; `built_on` where that cannot be told.
    """
    if not built_on.startswith("linux_") or not libraries:
        return built_on
    needs = [[newest_symbols(library, family) for library in libraries] for family in ("GLIBC", "GLIBCXX")]
    if any(version is None for of in needs for version in of):
        return built_on
    for (major, minor), newest in sorted(MANYLINUX.items()):
        if max(needs[0]) <= (major, minor) and max(needs[1]) <= newest:
            return f"manylinux_{major}_{minor}_{built_on.removeprefix('linux_')}"
    return built_on


class Wheel(bdist_wheel):
    """Tagged for any Python 3, and for the platforms on which the libraries in it can be loaded."""

    def get_tag(self) -> tuple[str, str, str]:
        libraries = sorted(Path(self.bdist_dir).glob("dlp_fast/_native*.so")) if self.bdist_dir else []
        return "py3", "none", platform_tag(libraries, super().get_tag()[2])


if __name__ == "__main__":  # as pip runs it too
    setup(
        ext_modules=[Extension("dlp_fast._native", sources=[])],
        cmdclass={"build_ext": CMakeBuild, "bdist_wheel": Wheel},
    )
