"""Where what can be made again is kept from run to run."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$DLP_FAST_CACHE, else dlp_fast in the cache folder of the user."""
    own = os.environ.get("DLP_FAST_CACHE")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "dlp_fast"
