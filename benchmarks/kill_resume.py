"""Kill a run at random moments, start it again, and compare what it ends with.

    python benchmarks/kill_resume.py --kills 20

Each trial starts `python -m dlp_fast.run` in a new folder, kills it (SIGKILL) once, at a moment drawn from its
slice of an uninterrupted run's time, so that the moments are spread over all stages; then the same command runs
to the end.
Equal means: model.safetensors and samples.csv have the bytes of the uninterrupted run. Writes
benchmarks/results/kill_resume_cpu_<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
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

import torch

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = (
    "--device cpu --precision fp32 --threads 1 --supervised.epochs 2 --supervised.min-steps 40 --unlearn.epochs 8 "
    "--finetune.steps 40 --finetune.batch 64 --filter.nothing-found suspect --checkpoint-seconds 0.2"
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


def stage_now(run: Path) -> str:
    """Where the run stood: the stage of its newest checkpoint, from what that one calls its current work."""
    for folder in sorted(run.glob("checkpoints/[0-9]*"), key=lambda p: -int(p.name)):
        try:
            state = dict(json.loads((folder / "state.json").read_text())["items"])
        except (OSError, ValueError):
            continue
        if "items" in state["current"]:
            return dict(state["current"]["items"])["name"]["plain"]
        done = [name for name, _ in state["completed"]["items"]]
        return f"after {done[-1]}" if done else "before the stages"
    return "before the stages"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", default=OPTIONS, help="of the run")
    given = parser.parse_args()
    options = shlex.split(given.options)
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        began = time.monotonic()
        child = begin(whole, options)
        first = None
        while child.poll() is None:
            if first is None and begun(whole):
                first = time.monotonic() - began
            time.sleep(0.01)
        if child.returncode:
            sys.exit(Path(folder, "whole.log").read_text())
        seconds = time.monotonic() - began - first
        expected = hashes(whole)
        print(f"uninterrupted: {seconds:.1f} s after the first checkpoint")
        trials, missed = [], 0
        while len(trials) < given.kills:
            number = len(trials)
            run = Path(folder, f"run{number}")
            child = begin(run, options)
            while child.poll() is None and not begun(run):
                time.sleep(0.01)
            after = (number + rng.random()) / given.kills * seconds
            time.sleep(after)
            if child.poll() is not None:  # this one was faster than the first; try the slice again
                missed += 1
                shutil.rmtree(run)
                continue
            child.send_signal(signal.SIGKILL)
            child.wait()
            stage = stage_now(run)
            again = begin(run, options)
            equal = again.wait() == 0 and hashes(run) == expected
            trials.append({"killed_after_s": round(after, 3), "stage": stage, "equal": equal})
            word = "equal" if equal else "DIFFERS"
            print(
                f"{number + 1:2d}/{given.kills}  killed in {stage:20s} after {after:6.2f} s: {word}",
                flush=True,
            )
            if equal:
                shutil.rmtree(run)
    found = {
        "command": f"python benchmarks/kill_resume.py --kills {given.kills} --seed {given.seed}",
        "options": given.options,
        "torch": torch.__version__,
        "platform": platform.machine(),
        "cores": os.cpu_count(),
        "seconds_uninterrupted": round(seconds, 2),
        "kills": len(trials),
        "equal": sum(trial["equal"] for trial in trials),
        "by_stage": dict(Counter(trial["stage"] for trial in trials)),
        "ended_before_the_kill": missed,
        "sha256": expected,
        "trials": trials,
    }
    place = ROOT / "benchmarks" / "results"
    place.mkdir(exist_ok=True)
    file = place / f"kill_resume_cpu_{datetime.date.today():%Y-%m-%d}.json"
    file.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['equal']} of {found['kills']} equal; written to {file.relative_to(ROOT)}")
    sys.exit(found["equal"] != found["kills"])


if __name__ == "__main__":
    main()
