"""How to install what is missing: for the Python that runs now, from an editable clone or a wheel alike."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

EXTRAS = {
    "dali": ("nvidia-dali-cuda130>=2.4",),
    "onnx": ("onnx>=1.16", "onnxscript>=0.3"),
    "pandas": ("pandas>=2",),
    "parquet": ("pyarrow>=15",),
    "s3": ("s3fs>=2024.2",),
    "tensorboard": ("tensorboard>=2.16",),
    "timm": ("timm>=1.0",),
}
"""The packages of each extra, as in pyproject.toml."""


def advice(extra: str) -> str:
    """A command to type that installs the packages of an extra, or a package by its own name.

    It names the packages, not `dlp-fast[extra]`: that would build a clone anew, and an index may hold nothing, or
    something else, under the name dlp-fast.
    """
    packages = EXTRAS.get(extra, (extra,))
    return f"{_python()} -m pip install {' '.join(map(shlex.quote, packages))}"


def _python() -> str:
    """This Python; relative where it lies below the current folder, as people type it."""
    here = sys.executable or "python"
    try:
        return shlex.quote(os.path.relpath(here) if Path(here).is_relative_to(Path.cwd()) else here)
    except OSError:
        return shlex.quote(here)
