"""The child processes of the scan: fed in batches, watched, and replaced where a file kills or hangs one."""

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
from collections.abc import Callable
from pathlib import Path

from dlp_fast.data.scan_answers import from_json, is_answer
from dlp_fast.errors import ResourceError

WORKER = Path(__file__).with_name("scan_worker.py")
BATCH = 64
"""Files that a child is given at once."""
_START_TIMEOUT_S = 120.0


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
        return [from_json(line) for line in lines]

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


class Pool:
    """At most `count` children; `found(path, answer)` is called for every file as soon as it is known."""

    def __init__(self, settings: dict, count: int, timeout_s: float, found: Callable[[str, list], None]):
        self.settings = settings
        self.count = count
        self.timeout_s = timeout_s
        self.found = found
        self.workers: list[_Worker] = []
        self.pending: deque[list[str]] = deque()

    def run(self, paths: list[str]) -> None:
        """Examine `paths`; ResourceError where no child can be started."""
        self.pending.extend(paths[i : i + BATCH] for i in range(0, len(paths), BATCH))
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
            if worker.idle or not is_answer(answer):  # a decoder that was taken over may say anything
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
