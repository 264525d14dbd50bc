"""python -m dlp_fast.doctor: see dlp_fast/commands/doctor.py."""

from dlp_fast.commands.doctor import main
from dlp_fast.commands.options import guarded

if __name__ == "__main__":
    guarded(main)
