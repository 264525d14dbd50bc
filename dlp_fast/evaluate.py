"""python -m dlp_fast.evaluate: see dlp_fast/commands/evaluate.py."""

from dlp_fast.commands.evaluate import main
from dlp_fast.commands.options import guarded

if __name__ == "__main__":
    guarded(main)
