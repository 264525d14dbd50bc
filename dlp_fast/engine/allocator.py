"""Freed memory is kept for the next step, where glibc would hand it back to the system and ask for it again."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
KEEP = 2**31 - 1  # bytes, the most an int can say; larger requests are given back at once as before
AFTER = {MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}  # what glibc adapts to by itself at the most
OWN = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


@contextmanager
def freed_memory_kept(wanted: bool = True) -> Iterator[None]:
    """Within it, malloc keeps what is freed. A training step on a CPU frees all its activations, and getting them
    anew means thousands of page faults a step. At the end what is free goes back to the system.

    Does nothing where it is not `wanted`, malloc is not glibc's, or the environment sets it up (OWN).
    """
    own = any(name in os.environ for name in OWN)
    libc = glibc() if wanted and not own else None
    if libc is None:
        yield
        return
    for of in AFTER:
        libc.mallopt(of, KEEP)
    try:
        yield
    finally:
        for of, value in AFTER.items():
            libc.mallopt(of, value)
        libc.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """The C library of this process where it is glibc; None for another."""
    process = ctypes.CDLL(None)
    known = all(hasattr(process, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim"))
    return process if known else None
