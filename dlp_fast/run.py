"""python -m dlp_fast.run: see dlp_fast/commands/run.py."""

from dlp_fast.commands.options import guarded
from dlp_fast.commands.run import main

if __name__ == "__main__":
    guarded(main)
