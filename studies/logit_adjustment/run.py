"""The logits of a class that lost labels to suspicion, as learnt and adjusted.

    python -m studies.logit_adjustment.run --data DIR --seeds 1 2 --out FOLDER

Writes FOLDER/result.json. Cells that are done are kept there, so that the same command goes on where it stopped. The
same seed gives both arms the same network: the adjustment comes after the training.
"""

from __future__ import annotations

import argparse

from benchmarks.common import parser_of
from studies._common import add_arms, compare_arms

ARMS = {
    "as learnt": {"config": {"finetuning": {"logit_adjustment": 1.0}}},
    "adjusted": {},  # the default
}


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.logit_adjustment.run")
    add_arms(of, tuple(ARMS), ("sig", "lca", "blended"))
    return of


if __name__ == "__main__":
    compare_arms(parser().parse_args(), ARMS)
