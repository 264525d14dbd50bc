"""python -m dlp_fast.report: see dlp_fast/commands/report.py."""

from dlp_fast.commands.options import guarded
from dlp_fast.commands.report import main

if __name__ == "__main__":
    guarded(main)
