"""The gallery of a report as data for its script, and the command that takes what a person decides there."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dlp_fast.report.exhibits import Exhibits
from dlp_fast.report.thumbnails import ACROSS
from dlp_fast.runs.files import sha256
from dlp_fast.runs.names import printable
from dlp_fast.runs.schema import DECISIONS, samples_name

MOST_GIVEN = 20_000  # decisions of images outside of the gallery that a page can hand on
FROM_PYTHON = ("array", "dataset")  # data that no command line names


@dataclass(frozen=True)
class Facts:
    """What a page says of a run however many images it shows, so that it is found once.

    run: of the table of images, by which a browser keeps a person's marks apart from those on other runs; names: see
    `names_of`; classes: how many; left_out: see `left_out`; given: see `given`, none where they are left out.
    """

    run: str
    file: str
    names: list[str]
    classes: int
    left_out: int
    given: list[tuple[int, str, str]]


def facts_of(run: Path, samples: dict[str, list[str]], classes: list[str]) -> Facts:
    """The Facts of the run in folder `run`, whose table is `samples`."""
    names, without = names_of(samples, classes), left_out(samples)
    place = {name: k for k, name in enumerate(names)}
    words = [] if without else given(samples, place)
    return Facts(sha256(run / samples_name(run))[:32], file_name(run), names, len(classes), without, words)


def gallery_data(
    facts: Facts, shown: int, of: Exhibits, samples: dict[str, list[str]], benign: list[bool]
) -> dict[str, Any]:
    """What the script of the page knows of the first `shown` images, column by column; `benign`: of each finding."""
    ids = of.ids[:shown].tolist()
    place = {name: k for k, name in enumerate(facts.names)}
    members = of.members[:, :shown].T.tolist()
    return {
        "run": facts.run,
        "file": facts.file,
        "across": ACROSS,
        "width": of.thumbnails.shape[2],
        "height": of.thumbnails.shape[1],
        "names": facts.names,
        "decisions": list(DECISIONS),
        "benign": benign,
        "id": ids,
        "path": [samples["path"][i] for i in ids],
        "label": [place[samples["label"][i]] for i in ids],
        "prediction": of.prediction[:shown].tolist(),
        "confidence": [round(value, 4) for value in of.confidence[:shown].tolist()],
        "entropy": [float(f"{float(samples['entropy'][i]):.9g}") for i in ids],
        "rank": [int(samples["rank"][i]) for i in ids],
        "decision": [DECISIONS.index(samples["decision"][i]) for i in ids],
        "group": of.duplicate_of[:shown].tolist(),
        "border": of.border[:shown].tolist(),
        "findings_of": [[k for k, inside in enumerate(row) if inside] for row in members],
        "classes": facts.classes,
        "given": facts.given,
    }


def names_of(samples: dict[str, list[str]], classes: list[str]) -> list[str]:
    """The classes in the order of the network's outputs, and after them labels of samples.csv that are none."""
    return [*classes, *sorted(set(samples["label"]) - set(classes))]


def given(samples: dict[str, list[str]], place: dict[str, int]) -> list[tuple[int, str, str]]:
    """(id, path, override) of the images that a person has decided about already; `relabel:2` is the new label by its
    place among the names of the page.
    """
    rows = enumerate(zip(samples["path"], samples["override"], samples["label"], strict=False))
    return [
        (i, path, f"relabel:{place[label]}" if word == "relabel" else word)
        for i, (path, word, label) in rows
        if word
    ]


def left_out(samples: dict[str, list[str]]) -> int:
    """How many decisions of the run the page does not hand on: none, or all where they are too many."""
    count = sum(map(bool, samples["override"]))
    return count if count > MOST_GIVEN else 0


def as_script_data(values: dict[str, Any]) -> Markup:
    """JSON that can stand inside of a script element, whatever the names in it are."""
    text = json.dumps(values, separators=(",", ":"))  # ASCII alone
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def sentence(shown: int, suspects_shown: int, suspects: int, table: str) -> str:
    """Which images the gallery has, and where the others are: in the file `table`."""
    others = f"{shown - suspects_shown:,} others to compare: both sides of the cut, suspected clean ones, a sample."
    if not suspects:
        return f"No image is suspected poisoned. {shown:,} are here to look at: by their ranks, and a sample."
    if suspects_shown == suspects:
        return f"All {suspects:,} suspected images are here, and {others}"
    return (
        f"The {suspects_shown:,} most suspicious of the {suspects:,} suspected images are here, and {others} The rest "
        f"is in {table}, where the column decision says suspected_poisoned."
    )


def file_name(run: Path) -> str:
    """Under which the page offers its decisions: plain ASCII, whatever the run folder is called."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run.resolve().name).strip("-.")[:60]
    return f"decisions-{name or 'run'}.csv"


def command(run: Path, config: dict[str, Any]) -> dict[str, str]:
    """The command that takes the decisions, with a sentence that says what it does."""
    out = printable(str(config.get("out") or run.resolve().name))
    went_on = f"The run goes on from detection with them, and keeps them in its new {samples_name(run)}."
    if config.get("data") in FROM_PYTHON:
        return {
            "sentence": f"Call defend with the same arguments as before, and with the downloaded file. {went_on}",
            "text": f"dlp_fast.defend(..., out={out!r}, decisions={file_name(run)!r})",
        }
    return {
        "sentence": "Put the downloaded file into the folder in which the run was begun (or write where it is), and "
        f"give it back there. {went_on}",
        "text": f"python -m dlp_fast.run --config {shlex.quote(f'{out}/config.resolved.yaml')} "
        f"--out {shlex.quote(out)} --decisions {file_name(run)}",
    }
