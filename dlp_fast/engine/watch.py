"""A thread beside each process of a run: when one of them ends, by an error or without a word, all the others end too.

A collective operation waits for every rank, on a GPU even for one that is gone. So the ranks tell each other in a
store, apart from the data, that they are alive, that they are asked to stop, and why they end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from dlp_fast.engine.pace import PACE, Straggler
from dlp_fast.errors import ResourceError

ENDED = "ended"
STOP = "stop"
TICK = 1.0  # seconds between looks
GRACE = 5.0  # seconds in which a process may still end by itself
HEARD = 10.0  # seconds that rank 0 waits for the others to hear of the end
PATIENCE = 30.0  # seconds after which a rank that says nothing is taken for dead
end_process = os._exit  # at once: the main thread may wait for a rank that is gone
LOST = 5  # exit code where another process or the connection is gone, as for other missing resources


class Watch:
    """What one rank tells the others and hears from them.

    Attributes: stop: number of the signal that any rank was asked to stop by, 0 without; rank 0 acts on it; slow: on
    rank 0, a line on a rank that all wait for, None without.
    """

    def __init__(self, store: dist.Store, rank: int, world: int, tick: float = TICK):
        self.store, self.rank, self.world, self.tick = store, rank, world, tick
        self.stop = 0
        self.slow: str | None = None
        self._straggler = Straggler()
        self._over: dict[str, Any] | None = None
        self._wanted = 0  # a signal that this rank got, to be passed on
        self._done = threading.Event()
        self._heard = {other: (b"", time.monotonic()) for other in self._others()}
        self._looks = 0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        threading.Thread(target=self._overlook, name="overlook", daemon=True).start()

    def _others(self) -> range:
        """Rank 0 listens to all, the others to rank 0."""
        return range(1, self.world) if self.rank == 0 else range(0, 1)

    def ask_to_stop(self, number: int) -> None:
        """Pass a signal on to rank 0, which saves and ends the run; from a signal handler, so nothing waits here."""
        self._wanted = number

    def post(self, code: int, text: str) -> bool:
        """Say that the run ends here, with exit code `code`; returns whether this is the first word of it."""
        mine = json.dumps({"rank": self.rank, "code": code, "text": text})
        try:
            return self.store.compare_set(ENDED, "", mine) == mine.encode()
        except RuntimeError:  # the store went with its process: nobody can have said it before
            return self.rank == 0

    def ended(self) -> dict[str, Any] | None:
        """{"rank", "code", "text"} of the process that ended the run, None while it goes on, or where it is not known:
        the store went with its process before this one had looked.
        """
        try:
            if self._over is None and self.store.check([ENDED]):
                self._over = json.loads(self.store.get(ENDED))
                self.store.set(f"heard {self.rank}", "1")
        except RuntimeError:
            pass
        return self._over

    def linger(self) -> None:
        """Rank 0, whose process has the store, stays until the others have heard how the run ended, or for HEARD."""
        self._done.set()  # the thread has nothing more to do, and is not to end the process meanwhile
        wanted = [f"heard {other}" for other in self._others()] if self.rank == 0 else []
        until = time.monotonic() + HEARD
        with contextlib.suppress(RuntimeError):
            while wanted and not self.store.check(wanted) and time.monotonic() < until:
                time.sleep(self.tick / 10)

    def close(self) -> None:
        """The run is done: nobody is missed any more."""
        self._done.set()
        self._thread.join(self.tick + GRACE)

    def _run(self) -> None:
        beats = 0
        while not self._done.wait(self.tick):
            beats += 1
            try:
                self.store.set(f"beat {self.rank}", f"{beats} {PACE.steps} {PACE.busy:.6f}")
                self._pass_on()
                over = self.ended()
                silent = self._silent()
            except RuntimeError as error:
                self._leave(
                    {"code": LOST, "text": f"the connection to rank 0 is lost ({_line(error)})"}, told=False
                )
                return
            if over:
                self._leave(over, told=True)
                return
            self._looks += 1
            if self.rank == 0 and self.slow is None:
                self.slow = self._straggler.look(self._paces())
            if silent is not None:
                text = f"rank {silent} has not been heard of for {PATIENCE:.0f} s"
                self._leave({"code": LOST, "text": text}, told=not self.post(LOST, text))
                return

    def _overlook(self) -> None:
        """Where a link is cut, what asks the store waits for an answer without end. Turns are counted, and not seconds:
        of these, a process that was halted has seen none.
        """
        turns, before = 0, 0
        while not self._done.wait(self.tick):
            turns, before = (turns + 1 if self._looks == before else 0), self._looks
            if turns * self.tick > PATIENCE:
                text = f"rank 0 has not answered for {PATIENCE:.0f} s"
                self._leave({"code": LOST, "text": text}, told=False)
                return

    def _pass_on(self) -> None:
        if self._wanted:
            self.store.set(STOP, str(self._wanted))
        if self.rank == 0 and self.store.check([STOP]):
            self.stop = int(self.store.get(STOP))

    def _paces(self) -> dict[int, tuple[int, float]]:
        """(steps, busy seconds) of each rank that has told them."""
        paces = {0: (PACE.steps, PACE.busy)}
        for other, (beat, _) in self._heard.items():
            pace = beat.split()[1:]
            if len(pace) == 2:
                paces[other] = int(pace[0]), float(pace[1])
        return paces if len(paces) == self.world else {}

    def _silent(self) -> int | None:
        """The first rank that has given no sign for too long."""
        for other, (before, since) in self._heard.items():
            key = f"beat {other}"
            now = self.store.get(key) if self.store.check([key]) else b""
            if now != before:
                self._heard[other] = (now, time.monotonic())
            elif time.monotonic() - since > PATIENCE:
                return other
        return None

    def _leave(self, over: dict[str, Any], told: bool) -> None:
        """End the process, if it has not ended by itself in a moment: it may wait for somebody who is gone."""
        if self._done.wait(GRACE):
            return
        if not told:
            print(
                f"error: {over['text']}; the same command goes on from the last checkpoint.", file=sys.stderr
            )
        sys.stderr.flush()
        end_process(over["code"] or LOST)


@contextlib.contextmanager
def in_words(device: torch.device) -> Iterator[None]:
    """A collective operation on tensors of `device`, whose broken connection is a ResourceError where it is one between
    CPUs; NCCL's errors come later, and as its own.
    """
    began = time.monotonic()
    try:
        yield
    except RuntimeError as error:
        if device.type != "cpu":
            raise
        raise ResourceError(
            f"another process of the run is gone ({_line(error)}); the same command goes on from the last checkpoint."
        ) from error
    finally:
        PACE.wait(time.monotonic() - began)


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
