"""What happened: for machines (metrics.jsonl, a line an event), and for a person (logging, progress on a terminal)."""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn

from dlp_fast.runs.files import write_failed
from dlp_fast.runs.terminal import Terminal, drop_streams
from dlp_fast.runs.time_left import TimeLeft, Work, duration

SCHEMA = 1
PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal


LOGGER = logging.getLogger("dlp_fast")  # a host program may route it as any other
LOGGER.addHandler(logging.NullHandler())  # a quiet run has no other, and prints nothing


class ConsoleHandler(RichHandler):
    """Rich's handler without columns: lines as they are, since names of files and classes are never markup."""

    def __init__(self, console: Console, source: object):
        super().__init__(console=console)
        self._source = source

    def emit(self, record: logging.LogRecord) -> None:
        """Print the records of `source`, a RunLog, above the progress bar where there is one."""
        if getattr(record, "source", None) is self._source:
            style = "yellow" if record.levelno >= logging.WARNING else None
            try:
                self.console.print(
                    record.getMessage(), style=style, highlight=False, markup=False, soft_wrap=True
                )
            except BrokenPipeError:
                raise
            except OSError:  # a log on a full disk: the work goes on, and metrics.jsonl has it all
                self.console.quiet = True
                drop_streams(self.console.file)


class Tracker(Protocol):
    """Somebody who wants to see the events as well (see dlp_fast.runs.tracking)."""

    def event(self, kind: str, values: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class RunLog:
    """Appends events to metrics.jsonl, and draws progress; rewinds to a checkpoint's place on resume."""

    def __init__(self, path: Path | None, console: Console | None = None, quiet: bool = False):
        self.path = path
        self.trackers: list[Tracker] = []
        self.console = console or Terminal(stderr=True, quiet=quiet)
        self._handler = None if quiet else ConsoleHandler(self.console, self)
        if self._handler:
            LOGGER.addHandler(self._handler)
        if LOGGER.level == logging.NOTSET:
            LOGGER.setLevel(logging.INFO)
        self._file = _appending(path) if path else None
        self._progress: Progress | None = None
        self._task: Any = None
        self._last_line = 0.0
        self._started = (0.0, 0)
        self.run_time: TimeLeft | None = None  # where it is known what the whole run has before it

    def position(self) -> int:
        """Bytes written so far; a checkpoint keeps it, so that a resumed run has no line twice."""
        return self._file.tell() if self._file else 0

    def rewind(self, position: int) -> None:
        if self._file:
            self._file.truncate(min(position, self._file.tell()))
            self._file.seek(0, 2)

    def event(self, kind: str, **values: Any) -> None:
        """One line of metrics.jsonl: schema, kind, time (seconds since the epoch), values; and to the trackers."""
        for tracker in self.trackers:
            tracker.event(kind, values)
        if self._file:
            line = json.dumps({"schema": SCHEMA, "kind": kind, "time": round(time.time(), 3), **values})
            try:
                self._file.write(line.encode() + b"\n")
            except OSError as error:
                raise write_failed(error, self.path, len(line)) from error

    def say(self, text: str) -> None:
        """Tell a person `text`, at level INFO of the logger `dlp_fast`."""
        LOGGER.info("%s", text, extra={"source": self})

    def warn(self, text: str) -> None:
        """Tell a person `text`, at level WARNING."""
        LOGGER.warning("%s", text, extra={"source": self})

    def counter(self) -> Callable[[str, int, int], None]:
        """A callback (what, done, total) that draws the progress of work counted in files."""
        current: list[str] = []

        def show(what: str, done: int, total: int) -> None:
            if current != [what]:
                current[:] = [what]
                self.start(what, total, unit="files")
            self.advance(done, 1)
            if done >= total:
                self.finish()
                current.clear()

        return show

    def start(self, title: str, total: int, done: int = 0, unit: str = "steps") -> None:
        """Begin a progress bar of `total` steps (or another unit), `done` of which lie behind."""
        self.finish()
        self._title, self._total = title, total
        self._bar_time = TimeLeft([Work(title, total, 1.0)])
        for reckoned in self._reckoned():
            reckoned.start(title, total, done)
        self._started = (time.monotonic(), done)
        self._last_line = time.monotonic()
        if draws_bars(self.console) and not self.console.quiet:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[left]}"),
                console=self.console,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task(title, total=total, completed=done, rate="", left="")

    def advance(self, done: int, images: int, note: str = "") -> None:
        """`done` steps are behind; `images`: how many each step takes, for the rate."""
        seconds = time.monotonic() - self._started[0]
        steps = done - self._started[1]
        rate = f"{steps * images / seconds:,.0f} images/s" if seconds > 0 and steps else ""
        for reckoned in self._reckoned():
            reckoned.advance(done)
        if self._progress:
            about = f"{self._title} {note}".rstrip()
            self._progress.update(self._task, completed=done, rate=rate, left=self._left(), description=about)
        elif time.monotonic() - self._last_line > PLAIN_INTERVAL:
            self._last_line = time.monotonic()
            told = ", ".join(filter(None, (f"step {done}/{self._total}", rate, self._left())))
            self.say(f"{self._title} {note}".rstrip() + f": {told}")

    def _reckoned(self) -> list[TimeLeft]:
        return [self._bar_time] + ([self.run_time] if self.run_time else [])

    def _left(self) -> str:
        """`12 min left`: of the whole run where that is known, else of what the bar shows."""
        for reckoned, of in ((self.run_time, " in all"), (self._bar_time, "")):
            seconds = reckoned.seconds() if reckoned else None
            if seconds is not None:
                return f"about {duration(seconds)} left{of}"
        return ""

    def finish(self) -> None:
        """The bar has ended, if there is one: what is done until the next one begins is not its work."""
        if self.run_time:
            self.run_time.end()
        if self._progress:
            self._progress.stop()
            self._progress = None

    def close(self) -> None:
        self.finish()
        if self._handler:
            LOGGER.removeHandler(self._handler)
        for tracker in self.trackers:
            tracker.close()
        if self._file:
            self._file.close()
            self._file = None


def draws_bars(console: Console) -> bool:
    """A terminal does; a notebook too (which is none to rich), where ipywidgets can redraw its output."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


def _appending(path: Path) -> Any:
    """Unbuffered: a full disk is met where a line is written, and not again where the file is closed."""
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise write_failed(error, path, 0) from error
