"""DLP as published with more steps of FixMatch in its third stage.

    python -m studies.paper_steps.run --data DIR --out FOLDER

Writes FOLDER/result.json. Cells that are done are kept there, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse

from benchmarks.common import parser_of
from studies._common import add_arms, compare_arms

ARMS = {f"{steps} steps": {"paper_steps": steps} for steps in (400, 2000)}


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.paper_steps.run")
    add_arms(of, tuple(ARMS), ("badnets",))
    return of


if __name__ == "__main__":
    compare_arms(parser().parse_args(), ARMS, method="dlp")
