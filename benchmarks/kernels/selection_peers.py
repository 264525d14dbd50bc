"""Native libraries that choose the k smallest, compiled by nvcc when they are first asked for: CUB and RAFT.

    make peers      (installs their headers into build/peers and compiles both, for a machine without a network)

CUDA 13.0 has no cub/device/device_topk.cuh, and torch has neither; pylibraft no longer has select_k. So each is found
in build/peers, or not at all, CUB also in a newer CUDA toolkit.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import parser_of

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build/peers"
Lowest = Callable[[Tensor, int], Tensor]


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def installed(name: str) -> bool:
    """Whether a package can be imported, of this environment or of build/peers."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.util.find_spec(name) is not None


@dataclass(frozen=True)
class Peer:
    """header: what must be among `includes`; libraries: of which packages' lib64 it is linked with."""

    source: str
    header: str
    includes: tuple[str, ...]
    libraries: tuple[tuple[str, str], ...] = ()

    def folders(self) -> list[Path] | None:
        """Where its headers are; None: not here."""
        folders = [FOLDER / name for name in self.includes]
        if not (compiler := nvcc()):
            return None
        folders += [Path(compiler).resolve().parents[1] / "include/cccl"]
        return folders if any((folder / self.header).is_file() for folder in folders) else None

    def available(self) -> bool:
        """Whether it can be compiled here, or was for some architecture."""
        stem = self.source.removesuffix(".cu")
        return self.folders() is not None or any(FOLDER.glob(f"{stem}_sm*.so"))

    def library(self, architecture: str) -> Path:
        return FOLDER / f"{self.source.removesuffix('.cu')}_sm{architecture}.so"

    def compiled(self, architecture: str) -> Path:
        """Its library, from before or made now; RuntimeError with what nvcc said first."""
        target = self.library(architecture)
        if target.is_file():
            return target
        command = [
            nvcc(),
            "-std=c++20",
            "-O3",
            "-shared",
            "-Xcompiler",
            "-fPIC",
            "-w",
            f"-arch=sm_{architecture}",
        ]
        command += [
            "--expt-relaxed-constexpr",
            "--expt-extended-lambda",
            str(HERE / self.source),
            "-o",
            str(target),
        ]
        command += [f"-I{folder}" for folder in self.folders() or ()]
        for package, name in self.libraries:
            place = FOLDER / package / "lib64"
            command += [f"-L{place}", f"-l{name}", "-Xlinker", f"-rpath=$ORIGIN/{package}/lib64"]
        target.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.source}: {(done.stderr.strip() or 'nvcc failed').splitlines()[0]}")
        return target

    def lowest(self) -> Lowest:
        """The function; compiles it, should that not have been done."""
        major, minor = torch.cuda.get_device_capability()
        library = ctypes.CDLL(str(self.compiled(f"{major}{minor}")))

        def of(scores: Tensor, count: int) -> Tensor:
            chosen = torch.empty(count, device=scores.device)
            ids = torch.empty(count, dtype=torch.int32, device=scores.device)
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            size, at = ctypes.c_size_t(0), (ctypes.c_void_p(t.data_ptr()) for t in (scores, chosen, ids))
            given = (*at, ctypes.c_int(len(scores)), ctypes.c_int(count), stream)
            status = library.lowest(None, ctypes.byref(size), *given)
            memory = torch.empty(max(1, size.value), dtype=torch.uint8, device=scores.device)
            status = status or library.lowest(ctypes.c_void_p(memory.data_ptr()), ctypes.byref(size), *given)
            if status:
                raise RuntimeError(f"{self.source}: status {status}")
            return ids

        return of


INCLUDES = tuple(f"{package}/include{more}" for package in ("libraft", "librmm") for more in ("", "/rapids"))
PEERS = {
    "cub::DeviceTopK": Peer("cub_topk.cu", "cub/device/device_topk.cuh", ("nvidia/cu13/include/cccl",)),
    "RAFT select_k": Peer(
        "raft_select_k.cu",
        "raft/matrix/select_k.cuh",
        (*INCLUDES, "rapids_logger/include"),
        (("librmm", "rmm"), ("rapids_logger", "rapids_logger")),
    ),
}


def checked(make: Callable[[], Lowest], scores: Tensor, wanted: Tensor) -> Callable[[], object]:
    """The call, compared once with the scores of `wanted`: ties may fall either way."""
    lowest, count = make(), len(wanted)
    found = scores[lowest(scores, count).long()].sort().values
    assert torch.equal(found, scores[wanted].sort().values), "not the k smallest"
    return lambda: lowest(scores, count)


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.kernels.selection_peers")
    arguments.add_argument(
        "--architecture", nargs="+", default=["90"], help="compute capabilities to compile for"
    )
    return arguments


def main() -> None:
    options = parser().parse_args()
    for name, peer in PEERS.items():
        if peer.folders() is None:
            print(f"{name}: no {peer.header} in {FOLDER} or the CUDA toolkit, or no nvcc")
            continue
        for architecture in options.architecture:
            print(f"{name}: {peer.compiled(architecture)}", flush=True)


if __name__ == "__main__":
    main()
