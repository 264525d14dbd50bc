"""The folder of one run: what is written where, and whether a second command may go on in it."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save

from dlp_fast.config import differences, read_yaml, real_places
from dlp_fast.errors import ConfigError, ResourceError
from dlp_fast.runs.files import write_atomic, write_atomic_by
from dlp_fast.runs.reader import read_results
from dlp_fast.runs.schema import CSV_ROWS, PREDICTIONS, SAMPLES, SAMPLES_PARQUET, STARTING_WEIGHTS
from dlp_fast.runs.sums import SUMS
from dlp_fast.runs.tables import column_of

BEGUN = (".lock", "config.resolved.yaml.tmp")  # all that a run killed in its first moment leaves


class RunFolder:
    """One run folder, locked while a process works in it."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: Any = None

    @property
    def finished(self) -> bool:
        return (self.path / "results.json").is_file()

    @property
    def identity(self) -> str:
        """What tells this run from others: SHA-256 over its configuration and the fingerprint of its images."""
        parts = [(self.path / name).read_bytes() for name in ("config.resolved.yaml", "data.sha256")]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @property
    def results(self) -> dict[str, Any] | None:
        """results.json of a finished run, or None."""
        return read_results(self.path) if self.finished else None

    def open(self, config: dict[str, Any]) -> None:
        """Create the folder, or check that it holds this very run; ConfigError names the keys that differ."""
        resolved = self.path / "config.resolved.yaml"
        # before the first checkpoint there is nothing to go on with: a mistyped option may be mended in place
        begun = (self.path / "checkpoints").is_dir() or self.finished
        if resolved.is_file() and begun:
            different = differences(real_places(read_yaml(resolved)), real_places(config))
            if different:
                raise ConfigError(
                    f"{self.path} holds a run with another configuration ({'; '.join(different)}). "
                    "Choose another --out, or give the same options to go on with it."
                )
        elif (
            not resolved.is_file()
            and self.path.exists()
            and (not self.path.is_dir() or any(p.name not in BEGUN for p in self.path.iterdir()))
        ):
            raise ConfigError(f"{self.path} exists and is no run folder of dlp_fast. Choose another --out.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise ResourceError(
                f"run folder {self.path} cannot be written: {error.strerror}. Choose another --out."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ResourceError(
                f"another process is working in {self.path}. Wait for it, or choose another --out."
            ) from None
        if not begun:
            for name in ("data.sha256", STARTING_WEIGHTS):
                (self.path / name).unlink(missing_ok=True)
            write_atomic(resolved, yaml.safe_dump(config, sort_keys=False).encode())

    def check_data(self, fingerprint: str) -> None:
        """Keep the fingerprint of the image set; refuse to go on with other images."""
        file = self.path / "data.sha256"
        if file.is_file() and file.read_text().strip() != fingerprint:
            raise ConfigError(
                f"the image set is not the one that {self.path} was begun with: files were added, removed or "
                "changed. Put them back, or choose another --out."
            )
        if not file.is_file():
            write_atomic(file, fingerprint.encode() + b"\n")

    def close(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def write_json(self, name: str, value: Any) -> None:
        write_atomic(self.path / name, json.dumps(value, indent=1).encode() + b"\n")

    def write_samples(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """samples.csv (and samples.parquet where pyarrow is there): one line an image, in the order of the ids. Of more
        than CSV_ROWS images, samples.parquet alone where it can be; `export --format csv` makes lists of it.
        """
        parquet = self._write_parquet(columns)
        if parquet and len(columns["sample_id"]) > CSV_ROWS:
            # only now: until the new table is there, it may be all that holds a person's decisions
            (self.path / SAMPLES).unlink(missing_ok=True)
        else:
            self._write_csv(columns)

    def _write_parquet(self, columns: Mapping[str, Sequence[Any]]) -> bool:
        """False where pyarrow, the extra `parquet`, cannot be imported."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            return False
        table = pyarrow.table(dict(columns))
        write_atomic_by(
            self.path / SAMPLES_PARQUET, lambda file: parquet.write_table(table, file), table.nbytes
        )
        return True

    def _write_csv(self, columns: Mapping[str, Sequence[Any]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row])
        write_atomic(self.path / SAMPLES, text.getvalue().encode("utf-8"))

    def edited(self) -> Path | None:
        """The file, samples.csv or samples.parquet, that has an override label in its column `override`."""
        files = (self.path / name for name in (SAMPLES, SAMPLES_PARQUET))
        return next((file for file in files if _has_overrides(file)), None)

    def unfinish(self) -> None:
        """Take away what says that the run is finished: it goes on, and must not be taken for what it was."""
        for name in ("results.json", "report.html", "model.safetensors", "classes.json", PREDICTIONS, SUMS):
            (self.path / name).unlink(missing_ok=True)

    def write_predictions(self, prediction: torch.Tensor, label_probability: torch.Tensor) -> None:
        """predictions.safetensors: of the clean model, for every image by id: class int64 [n], and the probability fp32
        [n] that it gives the image's label.
        """
        tensors = {"prediction": prediction, "label_probability": label_probability}
        write_atomic(self.path / PREDICTIONS, save(tensors))


def _has_overrides(file: Path) -> bool:
    try:
        return any(cell.strip() for cell in column_of(file, "override"))
    except (OSError, ValueError, ResourceError):
        return False


def fingerprint(paths: tuple[str, ...], labels: torch.Tensor, hashes: tuple[str, ...]) -> str:
    """SHA-256 over the paths, labels and contents of an image set."""
    digest = hashlib.sha256()
    for path, label, content in zip(paths, labels.tolist(), hashes, strict=True):
        digest.update(f"{path}\0{label}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
