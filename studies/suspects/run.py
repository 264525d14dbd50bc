"""Suspects that come back without their label beside suspects that are left out, attack by attack.

    python -m studies.suspects.run --data DIR --out FOLDER

Writes FOLDER/result.json. Cells that are done are kept there, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse

from benchmarks.common import parser_of
from studies._common import add_arms, compare_arms

ARMS = {
    "relabel": {},  # the default
    "leave_out": {"config": {"finetuning": {"suspects": "leave_out"}}},
    "clean set": {"method": "clean"},
}


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.suspects.run")
    add_arms(of, tuple(ARMS))
    return of


if __name__ == "__main__":
    compare_arms(parser().parse_args(), ARMS)
