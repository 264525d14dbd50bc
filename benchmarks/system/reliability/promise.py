"""What the promises have in common: trials that are counted, a command line for one, and how a result is told."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import parser_of, write_result


@dataclass(frozen=True)
class Trial:
    """One time that a promise was put to the test. what: the situation, in words; number: how many alike it counts."""

    kept: bool
    what: str
    number: int = 1


@dataclass(frozen=True)
class Promise:
    """trials: (count, randomness, an empty folder) to the trials; full, sample: the count of a whole and a short run.

    Each promise is a module of this package, found by its file's name.
    """

    name: str
    says: str
    how: str
    trials: Callable[[int, random.Random, Path], Iterator[Trial]]
    full: int
    sample: int

    def run(self, count: int, seed: int, module: str) -> dict[str, Any]:
        """The result as JSON values; what was not kept is listed word by word."""
        began, done = time.monotonic(), []
        with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
            for trial in self.trials(count, random.Random(seed), Path(folder)):
                done.append(trial)
                if not trial.kept:
                    print(f"  NOT KEPT: {trial.what}", flush=True)
        kept = sum(trial.number for trial in done if trial.kept)
        return {
            "name": self.name,
            "promise": self.says,
            "how": self.how,
            "kept": kept,
            "trials": kept + sum(trial.number for trial in done if not trial.kept),
            "not_kept": [trial.what for trial in done if not trial.kept],
            "seconds": round(time.monotonic() - began, 1),
            "command": f"python -m {module} --count {count} --seed {seed}",
        }


def told(result: dict[str, Any]) -> str:
    return f"{result['name']}: {result['kept']:,} of {result['trials']:,} kept in {result['seconds']:.0f} s"


def main(promise: Promise) -> None:
    """The command line of one promise: exit code 1 where it was not kept."""
    module = f"benchmarks.system.reliability.{Path(sys.argv[0]).stem}"
    parser = parser_of(f"{promise.says}: {promise.how}.", module)
    parser.add_argument("--count", type=int, default=promise.full, help="trials")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--out", type=Path, metavar="FILE", help="result file, JSON; unset: only printed")
    given = parser.parse_args()
    result = promise.run(given.count, given.seed, module)
    print(told(result))
    if given.out:
        write_result(given.out, result, "CPU")
    sys.exit(result["kept"] != result["trials"])
