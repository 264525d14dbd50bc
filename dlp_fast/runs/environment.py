"""Versions, machine and device of a run, for results.json and for whoever compares two runs."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from dlp_fast import __version__
from dlp_fast.ops import build_info


def processor_field(name: str) -> str:
    """A field of /proc/cpuinfo, such as "model name" or "vendor_id", of the first processor; "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def environment(device: str) -> dict[str, Any]:
    """Versions and device, for results.json and for whoever compares two runs."""
    return {
        "dlp_fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "processor": processor_field("model name") or platform.processor(),
        "threads": torch.get_num_threads(),
        "device": device,
        "native": build_info(),
    }
