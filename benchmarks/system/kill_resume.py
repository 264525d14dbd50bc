"""Kill a run at random moments, start it again, and compare what it ends with.

    python -m benchmarks.system.kill_resume --kills 20 --out RESULT.json

Each trial starts `python -m dlp_fast.run` in a new folder, kills it (SIGKILL) once, at a moment drawn from its
slice of an uninterrupted run's time, so that the moments are spread over all stages; then the same command runs
to the end. Equal means: model.safetensors and samples.csv have the bytes of the uninterrupted run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import add_out, parser_of, write_result

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    "--device cpu --precision fp32 --threads 1 --supervised.epochs 2 --supervised.min-steps 40 --unlearning.epochs 8 "
    "--finetuning.steps 40 --finetuning.batch 64 --detection.nothing-found suspect --checkpoint-seconds 0.2"
)


def begin(run: Path, options: list[str]) -> subprocess.Popen:
    log = run.parent.joinpath(f"{run.name}.log").open("ab")
    words = [sys.executable, "-m", "dlp_fast.run", "--out", str(run), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, env=environment)


def begun(run: Path) -> bool:
    """Whether something is saved."""
    return any(run.glob("checkpoints/[0-9]*"))


def hashes(run: Path) -> dict[str, str]:
    names = ("model.safetensors", "samples.csv")
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}


def reached(run: Path) -> str:
    """How far the run had come: the last event of its metrics.jsonl."""
    file = run / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.is_file() else []  # the last line may be half written
    if not lines:
        return "before the first event"
    last = json.loads(lines[-1])
    return f"{last['kind']} of {last['stage']}" if "stage" in last else last["kind"]


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "benchmarks.system.kill_resume")
    of.add_argument("--data", default="digits", metavar="NAME", help="image set, as of dlp_fast.run")
    add_out(of)
    of.add_argument("--kills", type=int, default=20, help="runs that are killed")
    of.add_argument("--seed", type=int, default=0, help="of the moments")
    of.add_argument("--options", default=OPTIONS, help="of the run")
    return of


def whole_run(folder: Path, options: list[str]) -> tuple[float, dict[str, str]]:
    """(seconds after the first checkpoint of an uninterrupted run, hashes of what it ends with)."""
    run = folder / "whole"
    child, first = begin(run, options), None
    while child.poll() is None:
        if first is None and begun(run):
            first = time.monotonic()
        time.sleep(0.01)
    if child.returncode:
        sys.exit((folder / "whole.log").read_text())
    if first is None:
        sys.exit("the run ended before its first checkpoint: there is nothing to resume; give it more to do")
    return time.monotonic() - first, hashes(run)


def trial(run: Path, options: list[str], after: float, expected: dict[str, str]) -> dict[str, object] | None:
    """Kill one run `after` seconds of its first checkpoint and let it go on; None where it had ended before."""
    child = begin(run, options)
    while child.poll() is None and not begun(run):
        time.sleep(0.01)
    time.sleep(after)
    if child.poll() is not None:
        shutil.rmtree(run)
        return None
    child.send_signal(signal.SIGKILL)
    child.wait()
    last = reached(run)
    equal = begin(run, options).wait() == 0 and hashes(run) == expected
    if equal:
        shutil.rmtree(run)
    return {"killed_after_s": round(after, 3), "after": last, "equal": equal}


def main() -> None:
    given = parser().parse_args()
    options = ["--data", given.data, *shlex.split(given.options)]
    rng = random.Random(given.seed)
    trials, missed = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, expected = whole_run(folder, options)
        print(f"uninterrupted: {seconds:.1f} s after the first checkpoint", flush=True)
        while len(trials) < given.kills:
            number = len(trials)
            after = (number + rng.random()) / given.kills * seconds
            found = trial(folder / f"run{number}", options, after, expected)
            if found is None:  # this one was faster than the first; try the slice again
                missed += 1
                continue
            trials.append(found)
            word = "equal" if found["equal"] else "DIFFERS"
            print(
                f"{number + 1:2d}/{given.kills}  killed after {after:6.2f} s, {found['after']}: {word}",
                flush=True,
            )
    equal = sum(t["equal"] for t in trials)
    result = {
        "options": shlex.join(options),
        "seconds_uninterrupted": round(seconds, 2),
        "kills": len(trials),
        "equal": equal,
        "after": dict(Counter(t["after"] for t in trials)),
        "ended_before_the_kill": missed,
        "sha256": expected,
        "trials": trials,
    }
    write_result(given.out, result, "CPU")
    print(f"{equal} of {len(trials)} equal; written to {given.out}")
    sys.exit(equal != len(trials))


if __name__ == "__main__":
    main()
