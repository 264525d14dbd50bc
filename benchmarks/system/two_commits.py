"""A whole run of two versions of dlp_fast on the same images, in turn on one core: processor seconds by stage.

    git worktree add ../earlier COMMIT   # and build its native operations
    python -m dlp_fast.poison --data DIR --attack badnets --out POISONED
    python -m benchmarks.system.two_commits --trees ../earlier . --data POISONED --out FILE

Each version runs `python -m dlp_fast.run` and then `python -m dlp_fast.evaluate` with its own defaults, the later one
with what `--later` adds. Once both have begun to train, one is halted while the other works for `--slice` seconds. So
what else the machine does meets both alike. Seconds are the processor's, of the run and all that it starts; `wall` is
the time in which it was not halted.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import add_out, chosen, parser_of, write_result

WAIT = 0.25  # seconds between two looks at a run
BETWEEN = {  # what is worked on before the first event of a stage, by its kind and stage
    "supervised": "start, reading",
    "finetuning": "before stage 3",
    "done": "predictions, report",
}


def spent(group: int) -> float:
    """Processor seconds of the processes of a group, and of those that they have waited for."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Run:
    """A run of the version in `tree`; samples: (time, processor seconds so far) of every look."""

    def __init__(self, tree: Path, data: Path, out: Path, seed: int, options: Sequence[str] = ()):
        self.tree, self.out = tree.resolve(), out
        self.samples: list[tuple[float, float]] = []
        self.wall = 0.0
        self.process = self.command(
            "run", "--data", data, "--out", out, "--seed", seed, "--threads", 1, "--device", "cpu",
            *options,
        )  # fmt: skip

    def command(self, name: str, *words: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", f"dlp_fast.{name}", *map(str, words)],
            cwd=self.tree,
            env=environment,
            start_new_session=True,
        )

    def work(self, until: float) -> None:
        """Let it work until it trains (`until` 0) or for `until` seconds; then halt it."""
        if self.process.poll() is not None:
            return  # it has ended, and the other one has not
        began = time.time()
        os.killpg(self.process.pid, signal.SIGCONT)
        while self.process.poll() is None:
            self.samples.append((time.time(), spent(self.process.pid)))
            if time.time() - began > until if until else self.events():
                os.killpg(self.process.pid, signal.SIGSTOP)
                break
            time.sleep(WAIT)
        self.wall += time.time() - began

    def events(self) -> list[dict[str, Any]]:
        file = self.out / "metrics.jsonl"
        if not file.is_file():
            return []
        return [
            json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


def by_stage(events: list[dict[str, Any]], samples: list[tuple[float, float]]) -> dict[str, float]:
    """Processor seconds of each stage. The time before an event belongs to its stage; before the first of a stage no
    more of it than its other events took, and the rest to what comes between.
    """
    times, seconds = zip(*samples)
    at = [0.0, *np.interp([event["time"] for event in events], times, seconds).tolist()]
    took: dict[str, list[float]] = defaultdict(list)
    names = [
        event.get("stage", event["kind"]) if event["kind"] in ("epoch", "steps") else "" for event in events
    ]
    for name, begin, end in zip(names, at, at[1:]):
        took[name].append(end - begin)
    found: dict[str, float] = defaultdict(float)
    seen = set()
    for name, kind, begin, end in zip(names, [event["kind"] for event in events], at, at[1:]):
        rest = 0.0 if name else end - begin
        if name and name not in seen:
            seen.add(name)
            rest = max(0.0, end - begin - median(took[name][1:] or took[name]))
        found[name] += end - begin - rest
        found[BETWEEN.get(name or kind, "detection")] += rest
    found["predictions, report"] += seconds[-1] - at[-1]
    return {name: round(value, 1) for name, value in found.items() if name}


def paths(table: Path, column: str, value: str) -> set[str]:
    """Training images of a table whose `column` has `value`, as CLASS/FILE."""
    with table.open() as file:
        return {"/".join(Path(r["path"]).parts[-2:]) for r in csv.DictReader(file) if r[column] == value}


def figures(run: Run, data: Path) -> dict[str, Any]:
    """What the run came to: accuracies by its own `evaluate`, and what it suspects beside the truth."""
    target = sorted(folder.name for folder in (data / "train").iterdir())[0]
    words = ("--data", data / "test", "--triggered", data / "test_triggered", "--target", target)
    assert run.command("evaluate", run.out, *words).wait() == 0
    measured = json.loads((run.out / "evaluation.json").read_text())
    poisoned = paths(data / "truth.csv", "poisoned", "1")
    suspected = paths(run.out / "samples.csv", "decision", "suspected_poisoned")
    head = ["git", "-C", str(run.tree), "rev-parse", "--short", "HEAD"]
    return {
        "commit": subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip(),
        "clean_accuracy": measured["clean_accuracy"],
        "attack_success_rate": measured["attack_success_rate"],
        "poisoned": len(poisoned),
        "suspected": len(suspected),
        "truly": len(suspected & poisoned),
        "seconds": round(run.samples[-1][1], 1),
        "wall": round(run.wall, 1),
        "stages": by_stage(run.events(), run.samples),
    }


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "benchmarks.system.two_commits")
    of.add_argument("--trees", type=Path, nargs=2, required=True, metavar="DIR", help="earlier, later")
    of.add_argument("--data", type=Path, required=True, metavar="DIR", help="what dlp_fast.poison wrote")
    of.add_argument(
        "--later", default="", metavar="WORDS", help="options of the later version's run, in one word"
    )
    of.add_argument("--slice", type=float, default=20, help="seconds that each works in turn")
    of.add_argument("--seed", type=int, default=0, help="seed of both runs")
    add_out(of)
    return of


def main() -> None:
    options = parser().parse_args()
    data = options.data.resolve()
    with tempfile.TemporaryDirectory() as place:
        runs: list[Run] = []
        try:
            for number, tree in enumerate(options.trees):
                words = shlex.split(options.later) if number else ()
                runs.append(Run(tree, data, Path(place, str(number)), options.seed, words))
                runs[-1].work(until=0)
            while any(run.process.poll() is None for run in runs):
                for run in runs:
                    run.work(until=options.slice)
            rows = [figures(run, data) for run in runs]
        finally:
            for run in runs:
                run.stop()
    ratio = rows[1]["seconds"] / rows[0]["seconds"]
    write_result(options.out, {**chosen(options), "rows": rows, "ratio": ratio}, "CPU, one thread")
    print(json.dumps(rows, indent=1), ratio)


if __name__ == "__main__":
    main()
