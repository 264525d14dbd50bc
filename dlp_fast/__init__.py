"""dlp_fast: from an image folder that is not trusted to a clean model and the list of suspected images.

>>> import dlp_fast
>>> result = dlp_fast.defend("DIR", out="runs/mine")        # doctest: +SKIP
>>> dlp_fast.load("runs/mine").predict(images)               # doctest: +SKIP
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlp_fast.api import Result, defend
    from dlp_fast.data.preprocess import preprocess
    from dlp_fast.models.classifier import Classifier, load
    from dlp_fast.ops import build_info

__version__ = "0.1.0"
__all__ = ["Classifier", "Result", "build_info", "defend", "load", "preprocess"]

if sys.platform in ("win32", "cygwin"):
    raise ImportError(
        "dlp_fast does not run on Windows: it locks run folders and confines decoders by means of Linux. Use WSL 2 "
        "(Ubuntu) or a Linux machine."
    )
if sys.platform == "darwin":
    warnings.warn(
        "dlp_fast is made for Linux. On macOS nothing is tested: it computes on the CPU, Apple's GPU is not used, and "
        "decoders are less confined.",
        stacklevel=2,
    )

_HOMES = {
    "Classifier": "dlp_fast.models.classifier",
    "Result": "dlp_fast.api",
    "build_info": "dlp_fast.ops",
    "defend": "dlp_fast.api",
    "load": "dlp_fast.models.classifier",
    "preprocess": "dlp_fast.data.preprocess",
}


def __getattr__(name: str) -> object:
    """Imported at first use: `python -m dlp_fast.run --help` should not wait for everything."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dlp_fast' has no attribute {name!r}")
