"""Builds the wheel for other machines once, from nothing: its time, its size, and what is in it for which GPU.

python -m benchmarks.system.release_build --out FILE

Needs nvcc, CMake and ninja, and no GPU. Exit code 1 where a build fails, or an architecture of the list is missing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.common import add_out, parser_of, write_result

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("csrc", "dlp_fast", "CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "setup.py")
LEFT_OUT = shutil.ignore_patterns("*.so", "__pycache__", "build_note.txt")


def as_torch_list(release: tuple[str, ...]) -> str:
    """CMake's list in the words of TORCH_CUDA_ARCH_LIST: "90-real" is 9.0, "120" is 12.0+PTX."""
    return ";".join(
        f"{number[:-1]}.{number[-1]}{'' if real else '+PTX'}"
        for number, _, real in (one.partition("-") for one in release)
    )


def contents(usage: str, listed_ptx: str) -> dict[str, Any]:
    """From what cuobjdump says: for each architecture how many kernels there are, the most registers and bytes of stack
    of a thread among them, and which architectures have PTX.
    """
    found: dict[str, dict[str, int]] = {}
    for part in re.split(r"^arch = sm_", usage, flags=re.MULTILINE)[1:]:
        mine = found.setdefault(part.split()[0], {"kernels": 0, "most_registers": 0, "most_stack": 0})
        for registers, stack in re.findall(r"^ *REG:(\d+) STACK:(\d+)", part, re.MULTILINE):
            mine["kernels"] += 1
            mine["most_registers"] = max(mine["most_registers"], int(registers))
            mine["most_stack"] = max(mine["most_stack"], int(stack))
    return {"architectures": found, "ptx": sorted(set(re.findall(r"\.sm_(\w+)\.ptx", listed_ptx)))}


def cuobjdump() -> str:
    """Of the CUDA toolkit, or the one that Triton brings."""
    triton = importlib.util.find_spec("triton")
    beside = (
        Path(triton.origin).parent / "backends" / "nvidia" / "bin" if triton and triton.origin else Path()
    )
    tool = shutil.which("cuobjdump") or shutil.which("cuobjdump", path=f"/usr/local/cuda/bin:{beside}")
    if tool is None:
        raise SystemExit(
            "release_build: no cuobjdump on PATH, in /usr/local/cuda/bin or in Triton; install one."
        )
    return tool


def built(folder: Path, architectures: str) -> Path:
    """The wheel of a copy of the sources."""
    tree = folder / "tree"
    tree.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tree / part, ignore=LEFT_OUT)
        else:
            shutil.copy(source, tree / part)
    asked = {"DLP_FAST_CUDA": "1", "DLP_FAST_NATIVE": "1", "TORCH_CUDA_ARCH_LIST": architectures}
    wheel = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", folder]
    if subprocess.run(wheel, cwd=tree, env=os.environ | asked).returncode:
        raise SystemExit("release_build: the build failed (see above)")
    (wheel,) = folder.glob("*.whl")
    return wheel


def main() -> None:
    arguments = parser_of(__doc__, "benchmarks.system.release_build")
    add_out(arguments)
    options = arguments.parse_args()
    tool = cuobjdump()
    release = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["RELEASE"]
    architectures = as_torch_list(release)
    with tempfile.TemporaryDirectory() as name:
        folder, began, before = Path(name), time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        wheel = built(folder, architectures)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        with zipfile.ZipFile(wheel) as packed:
            libraries = [one for one in packed.infolist() if one.filename.endswith(".so")]
            packed.extract("dlp_fast/_native_cuda.so", folder)
        library = folder / "dlp_fast" / "_native_cuda.so"

        def said(what: str) -> str:
            return subprocess.run([tool, what, library], capture_output=True, text=True, check=True).stdout

        result = {
            "asked_for": architectures,
            "seconds": seconds,
            "processor_seconds": sum(after[:2]) - sum(before[:2]),
            "wheel": wheel.name,
            "wheel_bytes": wheel.stat().st_size,
            "library_bytes": {one.filename: one.file_size for one in libraries},
            **contents(said("--dump-resource-usage"), said("--list-ptx")),
        }
    write_result(options.out, result, "CPU")
    print(result)
    numbers = [one.partition("-") for one in release]
    missing = {number for number, _, _ in numbers} - set(result["architectures"])
    missing |= {f"{number} (PTX)" for number, _, real in numbers if not real and number not in result["ptx"]}
    if missing:
        raise SystemExit(f"release_build: nothing for {', '.join(sorted(missing))} in {wheel.name}")


if __name__ == "__main__":
    main()
