"""Loads the native libraries; the only place that does. Without it every op runs its plain-torch reference."""

from __future__ import annotations

import contextlib
import importlib
import json
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
    reason = _loaded("_native.so")
    if reason is None:
        # the schemas are those of the first; a torch without CUDA has nothing that the second could be linked to
        _STATE["cuda reason"] = _loaded("_native_cuda.so") if torch.version.cuda else "torch is a CPU build"
        return True
    _STATE["reason"] = reason
    warnings.warn(
        f"dlp_fast: native ops are not loaded ({reason}); plain torch is used instead: the same results, slower. "
        "Run `pip install .` with a C++20 compiler, CMake and ninja to build them.",
        RuntimeWarning,
        stacklevel=3,
    )
    return False


def _loaded(name: str) -> str | None:
    """Load one of the libraries; None where that worked, else why not."""
    library = Path(__file__).resolve().parent.parent / name
    if not library.exists():
        note = library.with_name("build_note.txt")
        return note.read_text().strip() if note.is_file() else "it was not built"
    try:
        torch.ops.load_library(library)
    except OSError as error:  # built for another torch, or a library is missing
        return str(error).splitlines()[0]
    return None


def native_on(device: torch.device) -> bool:
    """Whether there are native kernels that run on `device`.

    A build without CUDA has none for a GPU, and one for other architectures than this GPU's has none that run there:
    each GPU is tried once, at its first use, and one that fails is worked by plain torch with one warning.
    """
    if not native_available():
        return False
    if device.type != "cuda":
        return device.type == "cpu"
    if device not in PROBED and build_info()["cuda"] is None:
        PROBED[device] = False
    if device not in PROBED:
        if torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing():
            return True  # a probe waits for the GPU, which neither tracing nor capturing allows
        reason = probe(device)
        PROBED[device] = reason is None
        if reason is not None:
            warnings.warn(
                f"dlp_fast: the native kernels do not run on {device} ({reason}); plain torch is used there instead: "
                "the same results, slower. `pip install .` on this machine builds them for its GPU.",
                RuntimeWarning,
                stacklevel=3,
            )
    return PROBED[device]


# What each GPU's probe said; filled by `native_on`.
PROBED: dict[torch.device, bool] = {}


def probe(device: torch.device) -> str | None:
    """Runs one native kernel on a GPU and looks at its result: None where it is right, else one line that says why."""
    try:
        entropy, _ = torch.ops.dlp_fast.row_entropy(torch.zeros(1, 2, device=device))
        bits = float(
            entropy
        )  # waits for the device: a kernel that cannot be loaded is told here at the latest
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None if bits == 1.0 else f"the entropy of two equal logits came out as {bits} bits instead of 1"


def build_info() -> dict[str, object]:
    """Facts about the native build.

    Returns a dict: ``native`` (bool), ``reason`` (str or None: why the ops are not loaded), ``compiler`` (str),
    ``cuda`` (version str; None where there are no CUDA kernels, ``cuda_reason`` (str or None) says why),
    ``cuda_architectures`` (str, comma-separated), ``simd`` (list of str: the
    levels that this processor has), ``sanitized`` (bool).
    """
    facts: dict[str, object] = {"native": native_available(), "reason": _STATE.get("reason")}
    facts |= {"compiler": None, "cuda": None, "cuda_architectures": "", "simd": [], "sanitized": False}
    if facts["native"]:
        facts |= json.loads(torch.ops.dlp_fast.build_facts())
    else:
        with contextlib.suppress(ImportError):  # a tree that is worked in has them as a module too
            facts |= json.loads(importlib.import_module("dlp_fast._build_facts").build_facts())
    facts["cuda_reason"] = _STATE.get("cuda reason", facts["reason"])
    if facts["cuda_reason"]:
        facts |= {"cuda": None, "cuda_architectures": ""}
    return facts
