"""The console command dlp-fast: dlp-fast run|poison|evaluate|report|export|doctor, each like `python -m dlp_fast.…`."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "run": "from an image folder that is not trusted to a clean model and the list of suspected images",
    "poison": "an attack written to disk, to try a defence on files",
    "evaluate": "clean accuracy and attack success rate of a run's model on a folder",
    "report": "the report of a finished run, written anew",
    "export": "what a run found, for other tools",
    "doctor": "what this machine has, what is missing and what that costs",
}


def usage() -> str:
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: dlp-fast COMMAND …", *lines, "dlp-fast COMMAND --help lists the options."])


def main() -> None:
    """Run the command that the first argument names; without one, or with --help, say which there are."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}.\n{usage()}", file=sys.stderr)
        raise SystemExit(2)
    from dlp_fast.commands.options import guarded

    sys.argv[:2] = [f"dlp-fast {name}"]
    guarded(import_module(f"dlp_fast.commands.{name}").main)


if __name__ == "__main__":
    main()
