"""When the label of an image at the edge of a suspicious group comes back: never, at one half, at 99 per cent.

    python -m studies.edge_labels.run --data DIR --out FOLDER

Writes FOLDER/result.json. Cells that are done are kept there, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common import parser_of
from studies._common import add_arms, compare_arms


def arm(edge: float) -> dict[str, Any]:
    """With one network in stage 1, whatever it leaves in doubt."""
    return {"config": {"detection": {"ensemble_to": 0.0}, "finetuning": {"reinstate_edge": edge}}}


ARMS = {
    "never": arm(1.0),
    "one half": arm(0.5),
    "99 per cent": arm(0.99),
    "default": {},  # 99 per cent, and a second network in stage 1 where the first leaves doubt
}


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.edge_labels.run")
    add_arms(of, tuple(ARMS))
    return of


if __name__ == "__main__":
    compare_arms(parser().parse_args(), ARMS)
