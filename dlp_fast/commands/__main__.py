"""The console command dlp-fast: dlp-fast run|predict|…, each like `python -m dlp_fast.…`."""

from __future__ import annotations

import sys
from importlib import import_module

from dlp_fast.commands.guard import guarded, tell
from dlp_fast.errors import ConfigError

COMMANDS = {
    "run": "from an image folder that is not trusted to a clean model and the list of suspected images",
    "predict": "what a run's model says of images: class, probability, the five most likely",
    "scan-new": "images that came after a run, compared with what the run kept",
    "poison": "an attack written to disk, to try a defence on files",
    "evaluate": "clean accuracy and attack success rate of a run's model on a folder",
    "report": "the report of a finished run, written anew",
    "export": "what a run found, for other tools",
    "doctor": "what this machine has, what is missing and what that costs",
}


def usage() -> str:
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: dlp-fast COMMAND ...", *lines, "dlp-fast COMMAND --help lists the options."])


def main() -> None:
    """Run the command that the first argument names; without one, or with --help, say which there are."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        guarded(lambda: tell(usage()))
        return
    if name not in COMMANDS:
        guarded(lambda: _unknown(name))
    sys.argv[:2] = [f"dlp-fast {name}"]
    guarded(import_module(f"dlp_fast.commands.{name.replace('-', '_')}").main)


def _unknown(name: str) -> None:
    raise ConfigError(f"there is no command {name!r}.\n{usage()}")


if __name__ == "__main__":
    main()
