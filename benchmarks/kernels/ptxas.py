"""What ptxas says of every CUDA kernel, and how many blocks of it fit an SM, by arithmetic; needs nvcc, no GPU.

    python -m benchmarks.kernels.ptxas --out benchmarks/results/ptxas_sm90_<date>.md [--csrc DIR]

    python -m benchmarks.kernels.ptxas --architecture 80 86 89 90 100 120 --out FILE      (a column for each)

Resident blocks are bound by threads, registers (given out to warps by 256) and shared memory (by 128 bytes, and 1 KiB
of the system's a block). Shared memory that a launch asks for comes on top: see the comment at the launch.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import parser_of
from dlp_fast.runs.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]
EXACT = {"augment", "batch_norm_relu"}  # compiled without contraction, see CMakeLists.txt


@dataclass(frozen=True)
class Processor:
    """Limits of a streaming multiprocessor (CUDA C++ programming guide, "compute capabilities"); bytes, threads."""

    threads: int
    blocks: int
    registers: int
    shared: int


PROCESSORS = {
    "80": Processor(2048, 32, 65536, 164 * 1024),
    "86": Processor(1536, 16, 65536, 100 * 1024),
    "89": Processor(1536, 24, 65536, 100 * 1024),
    "90": Processor(2048, 32, 65536, 228 * 1024),
    "100": Processor(2048, 32, 65536, 228 * 1024),
    "120": Processor(1536, 24, 65536, 100 * 1024),
}


@dataclass(frozen=True)
class Kernel:
    """threads: of a block, at most; registers: a thread; stack, spills, shared (static): bytes."""

    name: str
    threads: int
    registers: int
    stack: int
    spills: int
    shared: int

    def resident(self, on: Processor) -> tuple[int, str]:
        """(blocks on an SM, what bounds them)."""
        warps = -(-self.threads // 32)
        of_warp = -(-self.registers * 32 // 256) * 256
        bounds = {
            "threads": on.threads // (warps * 32),
            "registers": on.registers // of_warp // warps,
            "shared memory": on.shared // (-(-self.shared // 128) * 128 + 1024),
            "blocks": on.blocks,
        }
        least = min(bounds, key=bounds.__getitem__)
        return bounds[least], least


def demangled(names: list[str]) -> list[str]:
    """Names of kernels without namespaces and arguments; what is of an enumeration is its number."""
    told = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    shorter = (re.sub(r"\(anonymous namespace\)::|^void ", "", line) for line in told.stdout.splitlines())
    shorter = (re.sub(r"\([\w:]+\)(?=\d)", "", line).split("(")[0] for line in shorter)
    return [re.sub(r"\b\w+::", "", line) for line in shorter]


def parsed(told: str, ptx: str) -> list[Kernel]:
    """The kernels of one file, from what `nvcc -Xptxas -v` printed and the PTX beside it."""
    threads = dict(re.findall(r"\.entry (\w+)\([^{]*?\.maxntid (\d+)", ptx, re.DOTALL))
    found = []
    for part in told.split("Compiling entry function '")[1:]:
        mangled = part.split("'")[0]
        stack, stores, loads = map(
            int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part).groups()
        )  # fmt: skip
        shared = re.search(r"(\d+) bytes smem", part)
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        size = int(threads.get(mangled, 1024))
        found.append(Kernel(mangled, size, registers, stack, stores + loads, int(shared[1]) if shared else 0))
    names = demangled([kernel.name for kernel in found])
    return [Kernel(name, *list(vars(kernel).values())[1:]) for name, kernel in zip(names, found, strict=True)]


def compiled(source: Path, csrc: Path, nvcc: str, architecture: str) -> list[Kernel]:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", f"-I{csrc}", f"-arch=sm_{architecture}"]
        flags += ["-fmad=false"] if source.stem in EXACT else []
        flags += [
            "--keep",
            f"--keep-dir={folder}",
            "-Xptxas",
            "-v",
            "-c",
            str(source),
            "-o",
            f"{folder}/out.o",
        ]
        done = subprocess.run([nvcc, *flags], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"ptxas: {source.name} could not be compiled:\n{done.stderr}")
        return parsed(done.stderr, (Path(folder) / f"{source.stem}.ptx").read_text())


def table(kernels: list[Kernel], architecture: str) -> str:
    on = PROCESSORS[architecture]
    lines = [
        "| kernel | threads | registers | stack, bytes | spilled, bytes | static shared, bytes | blocks an SM | "
        "occupancy | bound by |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for k in sorted(kernels, key=lambda k: k.name):
        blocks, bound = k.resident(on)
        lines.append(
            f"| `{k.name}` | {k.threads} | {k.registers} | {k.stack} | {k.spills} | {k.shared:,} | {blocks} | "
            f"{100 * blocks * k.threads / on.threads:.0f} % | {bound} |"
        )
    return "\n".join(lines) + "\n"


def cell(kernel: Kernel, on: Processor) -> str:
    """Registers, blocks an SM, occupancy; bytes of stack and spilled ones where there are any."""
    blocks, _ = kernel.resident(on)
    text = f"{kernel.registers}, {blocks}, {100 * blocks * kernel.threads / on.threads:.0f} %"
    text += f", stack {kernel.stack}" if kernel.stack else ""
    return text + (f", **spilled {kernel.spills}**" if kernel.spills else "")


def side_by_side(of: dict[str, list[Kernel]]) -> str:
    """A row for each kernel, a column for each architecture."""
    named = {architecture: {k.name: k for k in kernels} for architecture, kernels in of.items()}
    lines = [
        "Each cell: registers, blocks an SM, occupancy; stack and spilled bytes where there are any.",
        "",
        "| kernel | threads | static shared, bytes | " + " | ".join(f"sm_{a}" for a in of) + " |",
        "|---|---:|---:|" + "---|" * len(of),
    ]
    for name in sorted(set().union(*named.values())):
        found = {a: kernels[name] for a, kernels in named.items() if name in kernels}
        any_of = next(iter(found.values()))
        shared = "/".join(sorted({f"{k.shared:,}" for k in found.values()}))
        cells = [cell(found[a], PROCESSORS[a]) if a in found else "" for a in of]
        lines.append(f"| `{name}` | {any_of.threads} | {shared} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.kernels.ptxas")
    arguments.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file, Markdown")
    arguments.add_argument(
        "--csrc", type=Path, default=ROOT / "csrc", metavar="DIR", help="sources to compile"
    )
    arguments.add_argument(
        "--architecture",
        choices=list(PROCESSORS),
        nargs="+",
        default=["90"],
        help="compute capability; several: side by side",
    )
    return arguments


def main() -> None:
    options = parser().parse_args()
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        raise SystemExit("ptxas: no nvcc on PATH or in /usr/local/cuda/bin; install the CUDA toolkit.")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout.splitlines()[-2]
    of = {
        architecture: [
            kernel
            for source in sorted((options.csrc / "cuda").glob("*.cu"))
            for kernel in compiled(source, options.csrc, nvcc, architecture)
        ]
        for architecture in options.architecture
    }
    facts = f"{', '.join(f'sm_{a}' for a in of)}. {version}\n\n"
    if len(of) > 1:
        text = facts + side_by_side(of)
    else:
        ((architecture, kernels),) = of.items()
        text = facts + table(kernels, architecture)
    write_atomic(options.out, text.encode())
    print(text, end="")


if __name__ == "__main__":
    main()
