"""Checkpoints that are cut, changed by a bit, swapped, or of another version: found, and never loaded.

python -m benchmarks.system.reliability.damaged_checkpoints --count 200
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.system.reliability.promise import Promise, Trial, main
from dlp_fast.errors import DataError
from dlp_fast.runs.checkpoint import Checkpoints

FILES = ("tensors.safetensors", "state.json", "manifest.json")


def cut(newest: Path, _: Path, rng: random.Random) -> str:
    file = newest / rng.choice(FILES)
    size = rng.randrange(file.stat().st_size)
    file.write_bytes(file.read_bytes()[:size])
    return f"{file.name} cut to {size} bytes"


def flip(newest: Path, _: Path, rng: random.Random) -> str:
    file = newest / rng.choice(FILES)
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"bit {bit} of {file.name} changed"


def swap(newest: Path, _: Path, rng: random.Random) -> str:
    name = rng.choice(FILES[:2])
    shutil.copy(newest.with_name("1") / name, newest / name)
    return f"{name} of the checkpoint before"


def foreign(newest: Path, other: Path, _: random.Random) -> str:
    shutil.rmtree(newest)
    shutil.copytree(other, newest)
    return "a whole checkpoint of another run"


def version(newest: Path, _: Path, rng: random.Random) -> str:
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["format"] = rng.choice((0, 2, "1", None, 1.5))
    (newest / "manifest.json").write_text(json.dumps(manifest))
    return f"format {manifest['format']!r}"


def gone(newest: Path, _: Path, rng: random.Random) -> str:
    name = rng.choice(FILES)
    (newest / name).unlink()
    return f"{name} removed"


DAMAGES = (cut, flip, swap, foreign, version, gone)


def state(number: int, rng: random.Random) -> dict:
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    return {
        "number": number,
        "weights": [torch.randn(20, generator=generator), {"bias": torch.zeros(number)}],
    }


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    for number in range(count):
        ours, other = folder / f"{number}/ours", folder / f"{number}/other"
        kept = Checkpoints(ours, "this run")
        first, second = state(1, rng), state(2, rng)
        kept.save(first)
        newest = kept.save(second)
        what = DAMAGES[number % len(DAMAGES)](
            newest, Checkpoints(other, "another run").save(state(3, rng)), rng
        )
        again = Checkpoints(ours, "this run")
        try:
            found = again.load()
        except DataError:  # of another version: told, nothing is loaded
            yield Trial(True, what)
        except Exception as error:
            yield Trial(False, f"{what}: {type(error).__name__}: {error}")
        else:
            whole = found is not None and found["number"] == 1
            told = len(again.warnings) == 1
            yield Trial(whole and told and torch.equal(found["weights"][0], first["weights"][0]), what)
        shutil.rmtree(folder / str(number))


PROMISE = Promise(
    "damaged checkpoints",
    "a damaged checkpoint is found and told, and never loaded",
    "cut, one bit flipped, files swapped, a checkpoint of another run, another version, files removed",
    trials,
    full=200,
    sample=60,
    part=60,
)

if __name__ == "__main__":
    main(PROMISE)
