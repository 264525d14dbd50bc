"""python -m dlp_fast.export: see dlp_fast/commands/export.py."""

from dlp_fast.commands.export import main
from dlp_fast.commands.options import guarded

if __name__ == "__main__":
    guarded(main)
