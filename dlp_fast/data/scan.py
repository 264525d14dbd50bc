"""The pre-scan: every file is opened, hashed and decoded once, in child processes, before anything trusts it.

A file that kills its decoder, hangs it or asks for too much memory costs that one file: the child is
replaced and the scan goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL

from dlp_fast.errors import ConfigError, ResourceError

Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)`, often; must be cheap."""

REASONS = (
    "truncated",
    "empty",
    "not_an_image",
    "too_large",
    "unsupported_format",
    "unreadable",
    "link_leaves_folder",
    "not_a_regular_file",
    "decoder_crashed",
    "timeout",
)

# Above this Pillow warns, and at twice this it refuses, whatever we allow.
MAX_MEGAPIXELS = 89.0

WORKER = Path(__file__).with_name("scan_worker.py")
_BATCH = 64
_START_TIMEOUT_S = 120.0
_CACHE_VERSION = 1
# What may be different at the next try is not remembered.
_PASSING = frozenset({"unreadable", "decoder_crashed", "timeout", "link_leaves_folder", "not_a_regular_file"})


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """One usable image file. `width` and `height` are in pixels after EXIF orientation; `mode` is Pillow's
    name of the file's own pixel layout; `sha256` is of the file's bytes."""

    path: str
    width: int
    height: int
    format: str
    mode: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One file that is left out: its path relative to the root, a reason from `REASONS`, and a detail."""

    path: str
    reason: str
    detail: str


def list_files(root: str, folder: str) -> tuple[list[str], list[Quarantined]]:
    """All files under `root/folder`, recursively, as paths relative to `root`; names with a dot are hidden.

    `root` is a real path. Links to files within `root` count as files; links to folders are never followed.
    """
    files: list[str] = []
    quarantine: list[Quarantined] = []
    inside = root.rstrip(os.sep) + os.sep
    folders = [folder]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(os.path.join(root, here)) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as error:
            quarantine.append(Quarantined(here, "unreadable", error.strerror or str(error)))
            continue
        for entry in entries:
            relative = f"{here}/{entry.name}"
            if entry.is_symlink():
                problem = _refuse_link(entry.path, inside)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(relative)
                continue
            else:
                ordinary = entry.is_file(follow_symlinks=False)
                problem = None if ordinary else ("not_a_regular_file", "a FIFO, socket or device")
            if problem:
                quarantine.append(Quarantined(relative, *problem))
            else:
                files.append(relative)
    return files, quarantine


def _refuse_link(path: str, inside: str) -> tuple[str, str] | None:
    try:
        target = os.path.realpath(path, strict=True)
    except OSError as error:
        if not f"{os.path.realpath(path)}/".startswith(inside):
            return "link_leaves_folder", "a link leads out of the folder"
        return "unreadable", f"a link that leads nowhere: {error.strerror or error}"
    if not f"{target}/".startswith(inside):
        return "link_leaves_folder", "a link leads out of the folder"
    if os.path.isdir(target):
        return "not_a_regular_file", "a link to a folder; such links are not followed"
    if not os.path.isfile(target):
        return "not_a_regular_file", "a link to something that is not a regular file"
    return None


# over 60 lines: half of them are arguments and what each is
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
) -> tuple[list[ScanRecord], list[Quarantined]]:
    """Examine `paths` (relative to `root`) in child processes; both lists come back in the order of `paths`.

    Args:
        root: the folder; a file that really lies outside of it is refused.
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
    if not 0 < max_megapixels <= MAX_MEGAPIXELS:
        raise ConfigError(
            f"max_megapixels: expected more than 0 and at most {MAX_MEGAPIXELS:g}, got {max_megapixels}"
        )
    if not max_megabytes > 0:
        raise ConfigError(f"max_megabytes: expected more than 0, got {max_megabytes}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers: expected at least 1, got {workers}")
    root = os.path.realpath(root)
    max_pixels, max_bytes = int(max_megapixels * 1e6), int(max_megabytes * 1e6)
    if memory_mb is None:
        # Pillow holds 4 bytes a pixel, and up to five copies live at once (file's mode, RGBA, RGB, turned).
        memory_mb = 1024 + (24 * max_pixels + 2 * max_bytes) // (1 << 20)
    settings = {
        "root": root,
        "max_pixels": max_pixels,
        "max_bytes": max_bytes,
        "memory_bytes": memory_mb << 20,
    }
    results: dict[str, ScanRecord | Quarantined] = {}
    total = len(paths)
    with _Cache(cache, root, (max_pixels, max_bytes)) as known:
        results.update(known.lookup(paths))
        todo = [path for path in paths if path not in results]

        def found(path: str, answer: list) -> None:
            results[path] = _parse(path, answer)
            known.remember(path, answer)
            if progress:
                progress("checking images", len(results), total)

        if progress:
            progress("checking images", len(results), total)
        if todo:
            count = min(workers or available_cores(), 32, -(-len(todo) // _BATCH))
            _Pool(settings, count, timeout_s, found).run(todo)
    ordered = [results[path] for path in paths]
    return (
        [r for r in ordered if isinstance(r, ScanRecord)],
        [r for r in ordered if isinstance(r, Quarantined)],
    )


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parse(path: str, answer: list) -> ScanRecord | Quarantined:
    if answer[0] == "ok":
        return ScanRecord(path, *answer[1:8])
    return Quarantined(path, answer[1], answer[2])


class _Worker:
    """One child process and the batch it is at."""

    def __init__(self, settings: dict):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `end`)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            # -P: a numpy.py in the current folder must not be imported; -B: nothing is written.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-B", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                env=environment,
            )
        except OSError as error:
            self.errors.close()
            raise ResourceError(f"cannot start a process to check images in: {error}") from error
        self.batch: list[str] = []
        self.done = 0
        self.ready = False
        self.buffer = b""
        self.since = time.monotonic()
        self.send(settings)

    def send(self, message: object) -> None:
        try:
            self.process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died: its end of the other pipe says so

    def start(self, batch: list[str]) -> None:
        self.batch, self.done, self.since = batch, 0, time.monotonic()
        self.send(batch)

    @property
    def idle(self) -> bool:
        return self.ready and self.done == len(self.batch)

    def read(self) -> list[object] | None:
        """Answers that have come, or None when the process is gone."""
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        if not chunk or len(self.buffer) > 1 << 20:
            return None
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        if lines and not self.ready:
            self.ready = True
            del lines[0]
        self.since = time.monotonic()
        return [_json(line) for line in lines]

    def end(self) -> str:
        """Kill it, and tell how it had ended if it already had."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        code = self.process.wait()
        self.errors.close()
        if code < 0:
            try:
                return signal.Signals(-code).name
            except ValueError:
                return f"signal {-code}"
        return f"exit status {code}"


class _Pool:
    def __init__(self, settings: dict, count: int, timeout_s: float, found: Callable[[str, list], None]):
        self.settings = settings
        self.count = count
        self.timeout_s = timeout_s
        self.found = found
        self.workers: list[_Worker] = []
        self.pending: deque[list[str]] = deque()

    def run(self, paths: list[str]) -> None:
        self.pending.extend(paths[i : i + _BATCH] for i in range(0, len(paths), _BATCH))
        with selectors.DefaultSelector() as self.selector:
            try:
                self._loop()
            finally:
                for worker in self.workers:
                    worker.end()

    def _loop(self) -> None:
        while self.pending or any(not worker.idle for worker in self.workers if worker.batch):
            for worker in self.workers:
                if worker.idle and self.pending:
                    worker.start(self.pending.popleft())
            while len(self.workers) < self.count and len(self.pending) > self._starting():
                self._add()
            for key, _ in self.selector.select(timeout=self._patience()):
                self._listen(key.data)
            now = time.monotonic()
            for worker in list(self.workers):
                limit = self.timeout_s if worker.ready else _START_TIMEOUT_S
                if not worker.idle and now - worker.since > limit:
                    self._lost(worker, ["no", "timeout", f"no end after {limit:g} seconds"])

    def _starting(self) -> int:
        return sum(not worker.ready for worker in self.workers)

    def _patience(self) -> float:
        oldest = min((worker.since for worker in self.workers if not worker.idle), default=time.monotonic())
        return min(1.0, max(0.01, oldest + self.timeout_s - time.monotonic()))

    def _add(self) -> None:
        worker = _Worker(self.settings)
        self.workers.append(worker)
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)

    def _listen(self, worker: _Worker) -> None:
        answers = worker.read()
        if answers is None:
            self._lost(worker, None)
            return
        for answer in answers:
            if worker.idle or not _valid_answer(answer):  # a decoder that was taken over may say anything
                self._lost(worker, ["no", "decoder_crashed", "the decoding process answered nonsense"])
                return
            path = worker.batch[worker.done]
            worker.done += 1
            self.found(path, answer)
        if worker.idle and self.pending:
            worker.start(self.pending.popleft())

    def _lost(self, worker: _Worker, verdict: list | None) -> None:
        """A child that died or hangs: its present file is answered for, the rest of its batch goes back."""
        self.selector.unregister(worker.process.stdout)
        self.workers.remove(worker)
        ready = worker.ready
        if not ready:
            worker.process.kill()
            worker.process.wait()
            worker.errors.seek(0)
            said = worker.errors.read(4000).decode("utf-8", "replace").strip().splitlines()
        end = worker.end()
        if not ready:
            last = said[-1] if said else end
            raise ResourceError(
                f"the process that checks images did not start ({last}); "
                f"see whether `{sys.executable} {WORKER}` runs"
            )
        if worker.done < len(worker.batch):
            path = worker.batch[worker.done]
            rest = worker.batch[worker.done + 1 :]
            if rest:
                self.pending.appendleft(rest)
            self.found(path, verdict or ["no", "decoder_crashed", f"the decoding process ended by {end}"])


class _Cache:
    """Answers of earlier scans in a JSON-lines file; a line that cannot be used is a file scanned again."""

    def __init__(self, path: str | Path | None, root: str, limits: tuple[int, int]):
        self.path = None if path is None else Path(path)
        self.root = root
        self.header = {
            "dlp_fast_scan_cache": _CACHE_VERSION,
            "root": root,
            "limits": list(limits),
            "pillow": PIL.__version__,
        }
        self.file = None

    def __enter__(self) -> _Cache:
        self.answers: dict[tuple, list] = {}
        if self.path is None:
            return self
        try:
            lines = self.path.read_bytes().splitlines() if self.path.exists() else []
            if lines and _json(lines[0]) == self.header:
                for line in lines[1:]:
                    entry = _json(line)
                    if _valid_entry(entry):
                        self.answers[tuple(entry[:4])] = entry[4]
                self.file = self.path.open("ab")
                self.file.write(b"\n")  # closes a line that a kill cut short
            else:
                self.file = self.path.open("wb")
                self.file.write(json.dumps(self.header).encode("ascii") + b"\n")
        except OSError as error:
            raise ResourceError(
                f"the scan cache {self.path} cannot be used ({error.strerror}); name another"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def lookup(self, paths: Iterable[str]) -> dict[str, ScanRecord | Quarantined]:
        known = {}
        if self.answers:
            for path in paths:
                key = self._key(path)
                if key in self.answers:
                    known[path] = _parse(path, self.answers[key])
        return known

    def remember(self, path: str, answer: list) -> None:
        if self.file is None or (answer[0] == "no" and answer[1] in _PASSING):
            return
        if answer[0] == "ok":
            key = (path, answer[5], answer[6], answer[8])
        else:
            key = self._key(path)
        if key is not None:
            self.file.write(json.dumps([*key, answer]).encode("ascii") + b"\n")

    def _key(self, path: str) -> tuple | None:
        try:
            status = os.stat(os.path.join(self.root, path))
        except OSError:
            return None
        return path, status.st_size, status.st_mtime_ns, status.st_ino


def _json(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _valid_entry(entry: object) -> bool:
    if not (isinstance(entry, list) and len(entry) == 5):
        return False
    path, size, mtime_ns, inode, answer = entry
    if not isinstance(path, str) or not all(isinstance(v, int) for v in (size, mtime_ns, inode)):
        return False
    return _valid_answer(answer)


def _valid_answer(answer: object) -> bool:
    """Whether it has the form that `scan_worker.examine` promises."""
    if not isinstance(answer, list):
        return False
    if answer[:1] == ["no"]:
        return len(answer) == 3 and answer[1] in REASONS and isinstance(answer[2], str)
    kinds = (str, int, int, str, str, int, int, str, int)
    if not (answer[:1] == ["ok"] and len(answer) == 9 and all(map(isinstance, answer, kinds))):
        return False
    _, width, height, _, _, size, mtime_ns, _, _ = answer
    return 0 < width < 1 << 31 and 0 < height < 1 << 31 and 0 < size < 1 << 63 and abs(mtime_ns) < 1 << 63
