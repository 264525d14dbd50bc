"""How a command ends and prints: errors with exit codes, streams of any kind, nothing after the last line."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlp_fast.errors import DlpError
from dlp_fast.runs.terminal import Terminal, drop_streams, ready_streams

if TYPE_CHECKING:
    from rich.table import Table


def guarded(main: Callable[[], None]) -> None:
    """Run a command; an error that a person can mend ends in one message and its exit code, never a traceback.

    Where nobody reads what it prints any more (`| head -1`), it ends in silence, as other programs do.
    """
    ready_streams()
    # the interpreter's last collection walks over all of torch: two seconds after the last line
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        try:
            main()
        except DlpError as error:
            _complain(str(error))
            _leave(error.exit_code)
        except KeyboardInterrupt:
            Terminal(stderr=True, soft_wrap=True).print(
                "stopped; nothing was begun that is not saved.", highlight=False
            )
            _leave(130)
        except BrokenPipeError:
            raise
        except OSError as error:  # a place that no stage looks after
            where = f"{error.filename}: " if error.filename else ""
            reason = error.strerror or str(error)
            _complain(where + reason)
            _leave(5)
        except MemoryError:
            _complain("out of memory. Lower --dataset.resident-megabytes or the batch.")
            _leave(5)
        _leave(0)
    except BrokenPipeError:
        drop_streams()
        _leave(128 + signal.SIGPIPE)


def _complain(text: str) -> None:
    console = Terminal(stderr=True, soft_wrap=True)
    console.print("error: ", style="bold red", end="")
    console.print(text, highlight=False, markup=False)


def _leave(code: int) -> None:
    """End with `code`; 0 just returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code >= 128:
        os._exit(code)
    if code:
        sys.exit(code)


def tell(what: str | Table) -> None:
    """Print a result as it is: names of files and classes are never markup."""
    Terminal().print(what, highlight=False, markup=False, soft_wrap=isinstance(what, str))
