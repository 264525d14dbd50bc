"""What the model file of a run folder holds: a clean model, or a network that must not be taken for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLEAN = "clean_model"
UNLEARNT = "after_unlearning"
FIRST = "after_supervised"

TITLES = {
    CLEAN: "the clean model",
    UNLEARNT: "the network after unlearning",
    FIRST: "stage 1's network",
}
"""What each is called, in the middle of a sentence."""

_ADVICE = (
    "For a model to work with, run with stage 3: without --preset scan or --order supervised-unlearning."
)
_CAUTIONS = {
    UNLEARNT: "this is not a clean model: the run had no stage 3. It is the network that stage 1 trained on all images "
    "under the labels they came with, after it unlearnt the most suspicious of them. " + _ADVICE,
    FIRST: "this is not a clean model: the run had no stage 3 and unlearnt nothing. It is the network that stage 1 "
    "trained on all images under the labels they came with; a backdoor that it learnt is in it. " + _ADVICE,
}


def holds_of(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """CLEAN, UNLEARNT or FIRST, from the stages of a run by name, each with its metrics (`skipped` among them)."""
    if "finetuning" in stages:
        return CLEAN
    unlearnt = "unlearning" in stages and not stages["unlearning"].get("skipped")
    return UNLEARNT if unlearnt else FIRST


def holds_in(folder: Path, facts: Mapping[str, Any]) -> str | None:
    """What the model in `folder` is: by `facts`, its classes.json; in runs of earlier versions by results.json beside
    it; None where neither says so.
    """
    told = facts.get("holds")
    if told is None:
        try:
            told = holds_of(json.loads((folder / "results.json").read_text(encoding="utf-8"))["stages"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
    return told if told in TITLES else None


def title(holds: str | None) -> str:
    """What it is called; "the model" where that is not known."""
    return TITLES.get(holds or "", "the model")


def caution(holds: str | None) -> str | None:
    """Sentences for whoever uses the model; None for a clean model, and where it is not known."""
    return _CAUTIONS.get(holds or "")
