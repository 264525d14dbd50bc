"""python -m dlp_fast.doctor: what this machine has, what is missing and what that costs; text for a bug report."""

from __future__ import annotations

from dlp_fast.commands.options import parse, tell
from dlp_fast.config import Section


class DoctorConfig(Section):
    """What to try."""

    smoke: bool = True
    """Run the whole method for a few seconds on the embedded digits."""


def main() -> None:
    config = parse(DoctorConfig, "doctor", __doc__)
    # what follows loads torch: not before the options are known to be right
    from dlp_fast.commands.checks import advice, facts, smoke

    for name, value in facts():
        tell(f"{name:<22} {value}")
    for sentence in advice():
        tell(f"advice: {sentence}")
    if config.smoke:
        tell(f"{'smoke run':<22} {smoke()}")
