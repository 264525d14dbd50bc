"""python -m dlp_fast.poison: see dlp_fast/commands/poison.py."""

from dlp_fast.commands.options import guarded
from dlp_fast.commands.poison import main

if __name__ == "__main__":
    guarded(main)
