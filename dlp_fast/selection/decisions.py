"""A person's decisions in a run that may have gone on without them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dlp_fast.engine.session import Session
from dlp_fast.errors import ConfigError
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.writer import RunFolder
from dlp_fast.selection.overrides import Overrides, no_overrides, read_decisions


def given_overrides(
    decisions: Path | None, paths: tuple[str, ...], labels: Tensor, classes: tuple[str, ...], log: RunLog
) -> Overrides:
    """The overrides in the file `decisions` for the images `paths`, by id; none without a file. Else as
    `read_decisions`.
    """
    if decisions is None:
        return no_overrides()
    overrides = read_decisions(decisions, paths, labels, classes)
    counted = ", ".join(f"{count} {label}" for label, count in overrides.counts.items() if count)
    log.say(f"decisions from {decisions}: {counted or 'none'}")
    return overrides


def go_back(
    session: Session, decisions: Path | None, overrides: Overrides, folder: RunFolder | None, log: RunLog
) -> None:
    """Where a person has decided otherwise since detection ran, what came after it is done anew."""
    before = session.completed("detection")
    edited = folder.edited() if folder and decisions is None else None
    if edited:
        raise ConfigError(
            f"{edited} holds a person's decisions (column override) that would be lost. Give it with --decisions, or "
            "take the column out."
        )
    if before is None or before["overrides"] == overrides.fingerprint:
        return
    if decisions is None:
        raise ConfigError(
            "this run went on with a person's decisions; give them again with --decisions FILE (the run's samples.csv "
            "holds them), or choose another --out."
        )
    session.keep_only(
        ("supervised", "ensemble", "static_patterns", "held_out", "sides", "cross-fit 1", "cross-fit 2")
    )  # no decision changes these
    log.rewind(before["log_position"])  # what metrics.jsonl tells of the stages that are done anew
    if folder:
        folder.unfinish()
    log.say("going on from the detection, with these decisions")
