"""Run folders of other versions, or with parts missing: one sentence that says what to do.

python -m benchmarks.system.reliability.old_folders
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import command, finished_run, small
from dlp_fast.runs.sums import LISTED, SUMS


def schema(number: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        file = run / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": number}))
        (run / SUMS).unlink()

    return change


def checkpoint_format(number: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for file in run.glob("checkpoints/*/manifest.json"):
            file.write_text(json.dumps(json.loads(file.read_text()) | {"format": number}))
        for name in (*LISTED, "samples.csv", SUMS):
            (run / name).unlink(missing_ok=True)

    return change


def without(*names: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for name in names:
            (run / name).unlink(missing_ok=True)

    return change


# what was changed, which command, its code, and words of its message; code 0: an older folder that still works
SITUATIONS: tuple[tuple[str, Callable[[Path], None], str, int, str], ...] = (
    ("results.json of schema 1", schema(1), "report.__main__", 3, "another version"),
    ("results.json of schema 3", schema(3), "report.__main__", 3, "another version"),
    ("results.json without a schema", schema(None), "report.__main__", 3, "another version"),
    ("results.json of schema 1, run again", schema(1), "run", 3, "another version"),
    ("a checkpoint of format 0", checkpoint_format(0), "run", 3, "this version of dlp_fast reads 1"),
    ("a checkpoint of format 2", checkpoint_format(2), "run", 3, "this version of dlp_fast reads 1"),
    ("no list of hashes", without(SUMS), "report.__main__", 0, "written"),
    ("no exhibits", without("exhibits.safetensors", SUMS), "report.__main__", 3, "exhibits.safetensors"),
    ("no samples", without("samples.csv", "samples.parquet", SUMS), "report.__main__", 3, "samples.csv"),
    ("no classes", without("classes.json"), "report.__main__", 3, "classes.json"),
)


def trials(count: int, _: random.Random, folder: Path) -> Iterator[Trial]:
    words = small(folder)
    whole = finished_run(folder / "whole", *words)
    for number, (what, change, module, code, says) in enumerate(SITUATIONS[:count]):
        run = folder / str(number)
        shutil.copytree(whole, run)
        change(run)
        done = command("run", "--out", run, *words) if module == "run" else command(module, run)
        told = " ".join(done.text.split())
        right = done.code == code and says in told and "Traceback" not in told
        yield Trial(right, f"{what}: code {done.code}, {told[-160:]}")


PROMISE = Promise(
    "old run folders",
    "a run folder of another version ends a command with one sentence, or works",
    "other schemas, other checkpoint formats, missing files",
    trials,
    full=len(SITUATIONS),
    sample=len(SITUATIONS),
)

if __name__ == "__main__":
    main(PROMISE)
