"""The pre-scan: every file is opened, hashed and decoded once, in child processes, before anything trusts it.

A file that kills its decoder, hangs it or asks for too much memory costs that one file: the child is
replaced and the scan goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from dlp_fast.data.scan_answers import Quarantined, ScanRecord, parse
from dlp_fast.data.scan_cache import ScanCache
from dlp_fast.data.scan_pool import BATCH, Pool
from dlp_fast.errors import ConfigError
from dlp_fast.runs.launched import launched

Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)`, often; must be cheap."""

# Above this Pillow warns, and at twice this it refuses, whatever we allow.
MAX_MEGAPIXELS = 89.0


def scan_files(
    root: str | Path,
    paths: Sequence[str],
    *,
    max_megapixels: float = 64,
    max_megabytes: float = 64,
    timeout_s: float = 30.0,
    memory_mb: int | None = None,
    workers: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    follow_links: bool = False,
) -> tuple[list[ScanRecord], list[Quarantined]]:
    """Examine `paths` (relative to `root`) in child processes; both lists come back in the order of `paths`.

    Args:
        root: the folder; a file that really lies outside of it is refused, unless `follow_links`.
        paths: POSIX paths relative to `root`, as `os.fsdecode` gives them.
        max_megapixels: larger pictures are `too_large`, told from the header, in millions of pixels (<= 89).
        max_megabytes: larger files are `too_large`, in millions of bytes.
        timeout_s: seconds that one file may take.
        memory_mb: address space of a child in MiB; None: what the largest allowed picture needs.
        workers: child processes; None: one a core, fewer for few files.
        cache: a JSON-lines file that remembers results by path, size, mtime and inode; made when missing.
        progress: called as `progress("checking images", done, total)`.

    Raises:
        ConfigError: a limit out of its range.
        ResourceError: the child processes cannot be started.
    """
    settings = _settings(os.path.realpath(root), max_megapixels, max_megabytes, memory_mb)
    settings["follow_links"] = follow_links
    if workers is not None and workers < 1:
        raise ConfigError(f"workers: expected at least 1, got {workers}")
    results: dict[str, ScanRecord | Quarantined] = {}
    tell = progress or (lambda *_: None)
    limits = (settings["max_pixels"], settings["max_bytes"], int(follow_links))
    with ScanCache(cache, settings["root"], limits) as known:

        def found(path: str, answer: list) -> None:
            results[path] = parse(path, answer)
            known.remember(path, answer)
            tell("checking images", len(results), len(paths))

        results.update(known.lookup(paths))
        tell("checking images", len(results), len(paths))
        todo = [path for path in paths if path not in results]
        if todo:
            count = min(workers or available_cores(), 32, -(-len(todo) // BATCH))
            Pool(settings, count, timeout_s, found).run(todo)
    ordered = [results[path] for path in paths]
    records = [r for r in ordered if isinstance(r, ScanRecord)]
    return records, [r for r in ordered if isinstance(r, Quarantined)]


def available_cores() -> int:
    """Cores that this process may use; of several processes of a run on a machine, each gets its share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // launched().local_world)


def _settings(root: str, max_megapixels: float, max_megabytes: float, memory_mb: int | None) -> dict:
    """What the child processes are told; arguments as in `scan_files`, `root` a real path."""
    if not 0 < max_megapixels <= MAX_MEGAPIXELS:
        raise ConfigError(
            f"max_megapixels: expected more than 0 and at most {MAX_MEGAPIXELS:g}, got {max_megapixels}"
        )
    if not max_megabytes > 0:
        raise ConfigError(f"max_megabytes: expected more than 0, got {max_megabytes}")
    max_pixels, max_bytes = int(max_megapixels * 1e6), int(max_megabytes * 1e6)
    if memory_mb is None:
        # Pillow holds 4 bytes a pixel, and up to five copies live at once (file's mode, RGBA, RGB, turned).
        memory_mb = 1024 + (24 * max_pixels + 2 * max_bytes) // (1 << 20)
    return {
        "root": root,
        "max_pixels": max_pixels,
        "max_bytes": max_bytes,
        "memory_bytes": memory_mb << 20,
    }
