"""SHA256SUMS of a run folder: whether its results are still as the run wrote them. `sha256sum --check` reads it too."""

from __future__ import annotations

import re
from pathlib import Path

from dlp_fast.errors import DataError
from dlp_fast.runs.files import sha256, write_atomic
from dlp_fast.runs.schema import EXHIBITS, PREDICTIONS, SAMPLES, SAMPLES_PARQUET, SUMS, samples_name

LISTED = (
    "classes.json",
    EXHIBITS,
    "model.safetensors",
    PREDICTIONS,
    "results.json",
)  # and the table of images
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def write_sums(run: Path) -> None:
    """Write down the SHA-256 of each file of `LISTED` and of the table in the folder `run`, which holds them all."""
    lines = [f"{sha256(run / name)}  {name}\n" for name in (*LISTED, samples_name(run))]
    write_atomic(run / SUMS, "".join(lines).encode("ascii"))


def as_written(run: Path, name: str) -> bool:
    """Whether the file is the one that the run wrote; True where nothing is known (no list: a run of an earlier
    version, or a model that was copied out of its folder).

    Raises DataError where the list is damaged, or does not name the file.
    """
    try:
        text = (run / SUMS).read_text(encoding="ascii")
    except FileNotFoundError:
        return True
    except (OSError, ValueError) as error:
        raise DataError(f"{run / SUMS} cannot be read ({error}). Take the run folder from a copy.") from None
    found = {match[2]: match[1] for match in map(_LINE.fullmatch, text.splitlines()) if match}
    if set(found) not in [{*LISTED, table} for table in (SAMPLES, SAMPLES_PARQUET)]:
        listed = ", ".join((*LISTED, SAMPLES))
        raise DataError(
            f"{run / SUMS} is damaged (expected a line each for {listed}). Take the run folder from a copy."
        )
    return name in found and sha256(run / name) == found[name]


def check_sum(run: Path, name: str) -> None:
    """DataError where the file is not as the run wrote it."""
    if not as_written(run, name):
        raise DataError(
            f"{run / name} is not as the run wrote it: its SHA-256 is another than in {SUMS}. It is damaged or was "
            f"changed. Take it from a copy of the run folder, or run again into another folder."
        )


def samples_changed(run: Path) -> str | None:
    """What to tell where samples.csv is not as the run wrote it, which a person's column `override` makes it too."""
    name = samples_name(run)
    if as_written(run, name):
        return None
    return (
        f"{run / name} is not as the run wrote it (its SHA-256 is another than in {SUMS}): it is taken as it "
        "is now. If nobody edited it, it is damaged."
    )
