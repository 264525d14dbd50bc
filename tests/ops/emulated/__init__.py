"""CUDA kernels of csrc/cuda on the CPU: compiled by g++ against the headers here, for tests without a GPU."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[2] / "csrc"

LAUNCH = re.compile(r"(\w+(?:<[^;<>]*>)?)<<<(.*?)>>>\((.*?)\);", re.DOTALL)
DYNAMIC = re.compile(r"extern __shared__ (\w+) (\w+)\[\];")


def translated(text: str) -> str:
    """A .cu file as C++: launches and dynamic shared memory become calls of the emulation."""

    def launch(match: re.Match[str]) -> str:
        kernel, where, arguments = match.groups()
        grid, block, size, _stream = (part.strip() for part in _split(where))
        return f"emulated::launch({grid}, {block}, {size}, [=] {{ {kernel}({arguments}); }});"

    text = DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(emulated::dynamic_shared);", text)
    return LAUNCH.sub(launch, text)


def _split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "(<[{") - (c in ")>]}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def build(folder: Path) -> ctypes.CDLL:
    """Compile everything into `folder` and load it."""
    sources = [HERE / "fibers.cpp", HERE / "calls.cpp"]
    for kernel in sorted((CSRC / "cuda").glob("*.cu")):
        target = folder / f"{kernel.stem}.cpp"
        target.write_text(f'#include "cuda_runtime_api.h"\n{translated(kernel.read_text())}')
        sources.append(target)
    flags = ["-std=c++20", "-O1", "-mfma", "-ffp-contract=off", "-fPIC", "-w"]
    include = [f"-I{HERE}", f"-I{CSRC}"]
    objects = []
    for source in sources:
        objects.append(folder / f"{source.stem}.o")
        subprocess.run(["g++", *flags, *include, "-c", str(source), "-o", str(objects[-1])], check=True)
    library = folder / "emulated.so"
    subprocess.run(["g++", "-shared", "-o", str(library), *map(str, objects)], check=True)
    return ctypes.CDLL(str(library))
