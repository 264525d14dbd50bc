"""python -m dlp_fast.predict: see dlp_fast/commands/predict.py."""

from dlp_fast.commands.options import guarded
from dlp_fast.commands.predict import main

if __name__ == "__main__":
    guarded(main)
