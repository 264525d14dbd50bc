"""One byte of a finished run's files is changed: whoever reads the file is told.

python -m benchmarks.system.reliability.damaged_results --count 100
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finished_run, small
from dlp_fast.errors import DataError
from dlp_fast.models.classifier import read_model
from dlp_fast.report.exhibits import Exhibits
from dlp_fast.runs.reader import read_classes, read_predictions, read_results, read_samples
from dlp_fast.runs.sums import LISTED, SUMS, samples_changed

FILES = (*LISTED, "samples.csv", SUMS)


def told(run: Path, images: int) -> bool:
    """Whether anything that reads the folder says that a file is damaged."""
    try:
        read_results(run)
        classes = read_classes(run)
        read_samples(run)
        read_predictions(run, images, len(classes))
        Exhibits.load(run)
        read_model(run)
        return samples_changed(run) is not None
    except DataError:
        return True


def trials(count: int, rng: random.Random, folder: Path) -> Iterator[Trial]:
    run = finished_run(folder / "run", *small(folder))
    images = len(read_samples(run)["path"])
    yield Trial(not told(run, images), "nothing is told of a run as it was written")
    for number in range(count):
        file = run / FILES[number % len(FILES)]
        whole = file.read_bytes()
        at, by = rng.randrange(len(whole)), rng.randrange(1, 256)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ by]) + whole[at + 1 :])
        what = f"byte {at} of {file.name} xor {by}"
        try:
            yield Trial(told(run, images), what)
        except Exception as error:
            yield Trial(False, f"{what}: {type(error).__name__}: {error}")
        file.write_bytes(whole)


PROMISE = Promise(
    "damaged results",
    "a changed byte in a finished run's model, lists or results is told",
    "one byte of model, classes, predictions, exhibits, results, samples or the list of hashes changed",
    trials,
    full=140,
    sample=35,
)

if __name__ == "__main__":
    main(PROMISE)
