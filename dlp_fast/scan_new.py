"""python -m dlp_fast.scan_new: see dlp_fast/commands/scan_new.py."""

from dlp_fast.commands.options import guarded
from dlp_fast.commands.scan_new import main

if __name__ == "__main__":
    guarded(main)
