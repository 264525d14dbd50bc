"""The format of a run folder: its files, and the keys of results.json that a report or an export reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

SAMPLES, SAMPLES_PARQUET = "samples.csv", "samples.parquet"
SUMS = "SHA256SUMS"
CSV_ROWS = 100_000  # more images, and the table is Parquet alone, where pyarrow is there
SCHEMA = 2  # of results.json
PREDICTIONS = "predictions.safetensors"
EXHIBITS = "exhibits.safetensors"
STARTING_WEIGHTS = "starting_weights.safetensors"
COLUMNS = ("sample_id", "path", "label", "score", "entropy", "rank", "decision")
DECISIONS = ("suspected_poisoned", "probably_mislabeled", "suspected_clean", "undecided")


def samples_name(run: Path) -> str:
    """Name of the table of images in the folder `run`; that of a large set is Parquet alone."""
    if (run / SAMPLES).is_file() or not (run / SAMPLES_PARQUET).is_file():
        return SAMPLES
    try:  # a table that got lost is not made up for by its copy, which nobody checks
        listed = (run / SUMS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        listed = ""
    return SAMPLES if f"  {SAMPLES}\n" in listed else SAMPLES_PARQUET


class Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class Target(Part):
    label: int
    images: int
    stage: str
    score: float
    share_of_all: float
    likely_benign: bool


class Verdict(Part):
    kind: str
    score: float
    targets: list[Target]
    reasons: list[str]


class Stage(Part):
    seconds: float
    images_per_second: float
    clean_accuracy: float | None
    attack_success_rate: float | None


class Detection(Part):
    suspected_poisoned: int
    suspected_clean: int
    probably_mislabeled: int = 0
    poisoned_precision: float | None
    poisoned_recall: float | None


class Environment(Part):
    dlp_fast: str
    torch: str
    python: str
    platform: str
    processor: str
    threads: int
    device: str


class Agreement(Part):
    supervised: float
    clean_model: float


class Results(Part):
    """The keys of results.json that a report or an export reads."""

    verdict: Verdict
    stages: dict[str, Stage]
    detection: Detection
    decisions: dict[str, int]
    stage3_detections: int
    label_agreement: Agreement | None = None
    logit_adjustment: dict[str, float] = {}
    model: dict[str, Any] = {}
    environment: Environment
    config: dict[str, Any]
