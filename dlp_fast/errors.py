"""Errors that a person caused or can mend, each with the exit code of the command line.

Exit codes: 0 done, 2 configuration, 3 data, 4 numeric, 5 resources, 129/130/143 interrupted with a checkpoint.
Every message says what is wrong, what was expected and what to do.
"""

from __future__ import annotations


class DlpError(Exception):
    """Base of all errors that end a run with a message instead of a traceback."""

    exit_code = 1


class ConfigError(DlpError):
    """An option, preset or configuration file cannot be used."""

    exit_code = 2


class DataError(DlpError):
    """The image set cannot be used as it is."""

    exit_code = 3


class NumericError(DlpError):
    """Training or ranking met numbers that it cannot go on with."""

    exit_code = 4


class ResourceError(DlpError):
    """Disk, memory or a device is missing or full."""

    exit_code = 5


class Interrupted(DlpError):
    """A signal arrived; the state is saved and the same command goes on from it."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class RankFailed(DlpError):
    """What ended this process of several, with the error's own exit code; it ends the others too."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class EndedElsewhere(DlpError):
    """Another process ended the run and has said why."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
