"""Loads the native module; the only place that does. Without it every op runs its plain-torch reference."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import torch

_STATE: dict[str, object] = {}


def native_available() -> bool:
    """Whether the compiled ops are loaded; loads them at the first call, and warns once where that fails."""
    if "loaded" not in _STATE:
        _STATE["loaded"] = _load()
    return bool(_STATE["loaded"])


def _load() -> bool:
    module = Path(__file__).resolve().parent.parent / "_native.so"
    if not module.exists():
        reason = "it was not built"
    else:
        try:
            torch.ops.load_library(module)
            return True
        except OSError as error:  # built for another torch, or a library is missing
            reason = str(error).splitlines()[0]
    _STATE["reason"] = reason
    warnings.warn(
        f"dlp_fast: native ops are not loaded ({reason}); plain torch is used instead: the same results, slower. "
        "Run `pip install .` with a C++20 compiler, CMake and ninja to build them.",
        RuntimeWarning,
        stacklevel=3,
    )
    return False


def native_on(device: torch.device) -> bool:
    """Whether there are native kernels for tensors on `device`; a build without CUDA has none for a GPU."""
    return native_available() and (device.type == "cpu" or build_info()["cuda"] is not None)


def build_info() -> dict[str, object]:
    """Facts about the native build.

    Returns a dict: ``native`` (bool), ``reason`` (str or None: why the ops are not loaded), ``compiler`` (str),
    ``cuda`` (version str or None), ``cuda_architectures`` (str, comma-separated), ``simd`` (list of str: the
    levels that this processor has), ``sanitized`` (bool).
    """
    facts: dict[str, object] = {"native": native_available(), "reason": _STATE.get("reason")}
    try:
        facts |= importlib.import_module("dlp_fast._build_facts").build_facts()
    except ImportError:
        facts |= {"compiler": None, "cuda": None, "cuda_architectures": "", "simd": [], "sanitized": False}
    return facts
