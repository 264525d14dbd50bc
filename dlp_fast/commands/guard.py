"""How a command ends and prints: errors with exit codes, streams of any kind, nothing after the last line."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlp_fast.errors import ConfigError, DlpError, EndedElsewhere, RankFailed, ResourceError
from dlp_fast.runs.launched import Place, launched
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
            refuse_lost_directory()
            main()
        except DlpError as error:
            if _is_ours(error):
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
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            _complain("out of memory. Lower --dataset.resident-megabytes or the batch.")
            _leave(5)
        _leave(0)
    except BrokenPipeError:
        drop_streams()
        _leave(128 + signal.SIGPIPE)


def _is_out_of_memory(error: Exception) -> bool:
    """Python's own error, or torch's, which is a RuntimeError and told by its words."""
    if isinstance(error, MemoryError):
        return True
    if "torch" not in sys.modules:
        return False
    # here: a command that needs no torch does not wait for it
    from dlp_fast.engine.memory import is_out_of_memory

    return is_out_of_memory(error)


def _is_ours(error: DlpError) -> bool:
    """Whether this process is to tell it: of several that work on a run, those beside rank 0 are silent, but for what
    went wrong in them alone.
    """
    if isinstance(error, EndedElsewhere):
        return False
    return isinstance(error, RankFailed) or _place().rank == 0


def _place() -> Place:
    """Which of how many processes this is; alone where the environment says nothing that can be used."""
    try:
        return launched()
    except ConfigError:
        return Place()


def refuse_lost_directory() -> None:
    """ResourceError where the working directory was removed: every path would end in "No such file or directory"."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ResourceError("the working directory does not exist any more; cd to another one") from None


def _complain(text: str) -> None:
    console = Terminal(stderr=True, soft_wrap=True)
    console.print("error: ", style="bold red", end="")
    console.print(text, highlight=False, markup=False)


def _leave(code: int) -> None:
    """End with `code`; 0 just returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code >= 128 or (code and _place().world > 1):  # of several processes, the others may be gone
        os._exit(code)
    if code:
        sys.exit(code)


def begin(what: str) -> None:
    """Say at once what a command begins with; what it needs for that, such as torch, takes seconds to load."""
    Terminal(stderr=True).print(what, highlight=False, markup=False, soft_wrap=True)


def tell(what: str | Table) -> None:
    """Print a result as it is: names of files and classes are never markup."""
    Terminal().print(what, highlight=False, markup=False, soft_wrap=isinstance(what, str))
