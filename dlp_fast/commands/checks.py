"""What this machine has, what is missing and what that costs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from dlp_fast import __version__, ops
from dlp_fast.api import defend
from dlp_fast.engine.device import choose_compute
from dlp_fast.errors import NumericError
from dlp_fast.ops.entropy_rank_reference import entropy_rank_reference
from dlp_fast.runs.install import advice as install_advice

REQUIRED = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "pydantic",
    "scikit-learn",
    "safetensors",
    "tyro",
    "rich",
)
EXTRAS = {
    "nvidia-dali-cuda130": ("dali", "--loader dali: files decoded and augmented by DALI"),
    "onnx": ("onnx", "export --format onnx"),
    "onnxscript": ("onnx", "export --format onnx"),
    "pandas": ("pandas", "Result.to_frame()"),
    "pyarrow": ("parquet", "samples.parquet"),
    "s3fs": ("s3", "--data s3://…"),
    "tensorboard": ("tensorboard", "--track tensorboard"),
    "timm": ("timm", "--model timm:NAME"),
}
ROOM = 2.0  # GB that a run folder with its checkpoints may need


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def driver() -> str:
    """The NVIDIA driver's version, or why there is none."""
    if shutil.which("nvidia-smi") is None:
        return "none (no nvidia-smi)"
    command = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown (nvidia-smi does not answer)"
    return (
        done.stdout.strip().replace("\n", "; ") if done.returncode == 0 else "none (nvidia-smi finds no GPU)"
    )


def facts() -> Iterator[tuple[str, str]]:
    """(name, value) of everything that a bug report needs."""
    build = ops.build_info()
    yield "dlp_fast", __version__
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "system", platform.platform()
    yield "cores", f"{len(os.sched_getaffinity(0))} usable, torch uses {torch.get_num_threads()}"
    yield "CPU capability", torch.backends.cpu.get_cpu_capability()
    yield "runs compute on", choose_compute("auto", "auto").describe()
    for package in REQUIRED:
        yield package, version(package) or "MISSING"
    yield "torch's CUDA", torch.version.cuda or "none (a CPU build)"
    yield "NVIDIA driver", driver()
    yield "GPU in torch", torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield "native ops", ", ".join(f"{k}: {v}" for k, v in build.items() if v is not None)
    for package, (extra, use) in EXTRAS.items():
        yield package, version(package) or f"not installed ({use}; {install_advice(extra)})"
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield "free disk here", f"{free:.1f} GB"


def advice() -> Iterator[str]:
    """What a person could mend, one sentence each."""
    build = ops.build_info()
    if not build.get("native"):
        yield (
            "the native ops are not built: ranking and augmentation run as plain torch, 10 to 100 times slower. "
            "Install a C++20 compiler and build again."
        )
    if torch.cuda.is_available() and not build.get("cuda"):
        yield f"there is a GPU, but no CUDA kernels ({build.get('cuda_reason')}): install nvcc and build again."
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        yield "nvidia-smi is there, but torch sees no GPU: driver and torch's CUDA do not match."
    if shutil.disk_usage(Path.cwd()).free / 1e9 < ROOM:
        yield f"under {ROOM:.0f} GB are free here: a run may end with exit code 5."


def smoke() -> str:
    """Run an op against its reference, and the whole method for a few steps."""
    began = time.monotonic()
    logits = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0)) * 8
    found = ops.entropy_rank(logits, lowest=10)
    _, expected, *_ = entropy_rank_reference(logits, 10, 0, None)
    if not torch.equal(found.lowest, expected):
        raise NumericError(
            "entropy_rank and its reference disagree here; please report this with the lines above."
        )
    with tempfile.TemporaryDirectory() as folder:
        result = defend(
            "digits",
            out=Path(folder) / "run",
            quiet=True,
            attack="badnets",
            supervised={"epochs": 2, "min_steps": 0},
            detection={"nothing_found": "suspect"},
            unlearning={"epochs": 1},
            finetuning={"steps": 30, "norm_batches": 10},
        )
        size = (Path(folder) / "run" / "report.html").stat().st_size
    accuracy = result.results["stages"]["finetuning"]["clean_accuracy"]
    return f"passed in {time.monotonic() - began:.1f} s (30 steps: accuracy {accuracy:.0%}, report {size / 1e6:.1f} MB)"
