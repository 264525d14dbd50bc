"""What the promises have in common: trials that are counted, a command line for one, and how a result is told."""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import parser_of, write_result
from dlp_fast.runs.files import write_atomic


@dataclass(frozen=True)
class Trial:
    """One time that a promise was put to the test. what: the situation, in words; number: how many alike it counts."""

    kept: bool
    what: str
    number: int = 1


@dataclass(frozen=True)
class Promise:
    """trials: (count, randomness, an empty folder) to the trials; full, sample: the count of a whole and a short run;
    part: trials after which a run that was cut off goes on, 0: it begins anew.

    Each promise is a module of this package, found by its file's name.
    """

    name: str
    says: str
    how: str
    trials: Callable[[int, random.Random, Path], Iterator[Trial]]
    full: int
    sample: int
    part: int = 0

    def run(self, count: int, seed: int, module: str, begun: Path | None = None) -> dict[str, Any]:
        """The result as JSON values; what was not kept is listed word by word.

        begun: file of the parts that are done, which this goes on from, and removes at the end.
        """
        so_far = so_far_of(begun, {"count": count, "seed": seed, "part": self.part})
        while so_far["done"] < count:
            number = min(self.part or count, count - so_far["done"])
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
                # of its place, so that a part draws the same whether or not it is the first of this process
                for trial in self.trials(number, random.Random(f"{seed} {so_far['done']}"), Path(folder)):
                    so_far["trials"] += trial.number
                    so_far["kept"] += trial.number * trial.kept
                    if not trial.kept:
                        so_far["not_kept"].append(trial.what)
                        print(f"  NOT KEPT: {trial.what}", flush=True)
            so_far["seconds"] += time.monotonic() - began
            so_far["done"] += number
            if begun is not None and so_far["done"] < count:
                print(f"  {so_far['kept']:,} of {so_far['trials']:,} so far", flush=True)
                begun.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(begun, json.dumps(so_far).encode())
        if begun is not None:
            begun.unlink(missing_ok=True)
        return {
            "name": self.name,
            "promise": self.says,
            "how": self.how,
            "kept": so_far["kept"],
            "trials": so_far["trials"],
            "not_kept": so_far["not_kept"],
            "seconds": round(so_far["seconds"], 1),
            "command": f"python -m {module} --count {count} --seed {seed}",
        }


def so_far_of(begun: Path | None, of: dict[str, int]) -> dict[str, Any]:
    """What `begun` has of the same trials (`of`); else nothing done."""
    if begun is not None and begun.is_file():
        found = json.loads(begun.read_text())
        if {key: found[key] for key in of} == of:
            return found
    return {**of, "done": 0, "kept": 0, "trials": 0, "not_kept": [], "seconds": 0.0}


def told(result: dict[str, Any]) -> str:
    return f"{result['name']}: {result['kept']:,} of {result['trials']:,} kept in {result['seconds']:.0f} s"


def begun_of(module: str) -> Path:
    """Where the parts that are done are kept until the last is."""
    return Path(__file__).resolve().parents[3] / f"build/reliability/{module.rpartition('.')[2]}.json"


def main(promise: Promise) -> None:
    """The command line of one promise: exit code 1 where it was not kept."""
    module = f"benchmarks.system.reliability.{Path(sys.argv[0]).stem}"
    parser = parser_of(f"{promise.says}: {promise.how}.", module)
    parser.add_argument("--count", type=int, default=promise.full, help="trials")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--out", type=Path, metavar="FILE", help="result file, JSON; unset: only printed")
    given = parser.parse_args()
    result = promise.run(given.count, given.seed, module, begun_of(module))
    print(told(result))
    if given.out:
        write_result(given.out, result, "CPU")
    sys.exit(result["kept"] != result["trials"])
