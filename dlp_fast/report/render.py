"""A run folder in, report.html out: one self-contained file that needs no network and trusts no name in it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dlp_fast.errors import DataError
from dlp_fast.report import plots
from dlp_fast.report.exhibits import Exhibits
from dlp_fast.report.found import findings_shown, title
from dlp_fast.report.text import notes
from dlp_fast.report.thumbnails import ACROSS, sheets, source
from dlp_fast.report.workplace import Facts, as_script_data, command, facts_of, gallery_data, sentence
from dlp_fast.runs.contents import holds_of
from dlp_fast.runs.contents import title as model_title
from dlp_fast.runs.files import refuse_unwritable, write_atomic
from dlp_fast.runs.names import csv_cell, printable
from dlp_fast.runs.reader import read_classes, read_quarantine, read_results, read_samples
from dlp_fast.runs.schema import DECISIONS, samples_name
from dlp_fast.runs.time_left import duration

MOST_BYTES = 15_000_000
MOST_ROWS = 300  # quarantined files listed
MOST_HISTOGRAMS = 12  # classes
MOST_GROUPS, MOST_OF_GROUP = 4, 8  # near-duplicates shown beside a class: groups, pictures of each


def write_report(run: Path, target: Path | None = None) -> Path:
    """Write the report of the finished run in folder `run` to `target` (default: run/report.html); returns its path.

    Raises DataError where the folder holds no finished run of this version, or a damaged one.
    """
    target = target or run / "report.html"
    of = _read(run)
    refuse_unwritable(target)
    template = _environment().get_template("report.html.j2")
    shown, facts = context(of), facts_of(run, of.samples, of.classes)

    def page(room: int) -> bytes:
        return template.render(**shown, gallery=_gallery(of, facts, room)).encode("utf-8")

    room = MOST_BYTES - len(page(0))
    content = page(room)
    while len(content) > MOST_BYTES and room > 0:  # the most suspicious stay
        room -= len(content) - MOST_BYTES
        content = page(room)
    write_atomic(target, content)
    return target


@dataclass(frozen=True)
class _Run:
    """What the run folder holds; classes as samples.csv has them: on one line, valid UTF-8."""

    folder: Path
    results: dict[str, Any]
    samples: dict[str, list[str]]
    exhibits: Exhibits
    classes: list[str]

    @property
    def final(self) -> str:
        """What the model of the run is called."""
        model = self.results.get("model", {})
        return model_title(model.get("holds") or holds_of(self.results["stages"])).removeprefix("the ")

    @property
    def findings(self) -> list[dict[str, Any]]:
        return self.results["detection"].get("findings", [])

    @property
    def shown(self) -> list[dict[str, Any]]:
        """What is shown and not suspected, where it is known which images these are."""
        return [mark for mark in self.results["detection"].get("marks", []) if mark.get("sample_ids")]


def _read(run: Path) -> _Run:
    results, samples = read_results(run), read_samples(run)
    of = _Run(run, results, samples, Exhibits.load(run), [csv_cell(name) for name in read_classes(run)])
    of.exhibits.check(run, len(samples["path"]), len(of.classes), len(of.findings), len(of.shown))
    return of


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dlp_fast.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = lambda v, digits=2: "–" if v is None else f"{100 * v:.{digits}f} %"
    environment.filters["count"] = lambda v: f"{v:,}"
    environment.filters["duration"] = duration
    environment.filters["begun"] = lambda text: text[:1].upper() + text[1:]  # as a sentence begins
    return environment


def context(of: _Run) -> dict[str, Any]:
    """Everything that the template shows, but for the gallery."""
    run, results, samples, exhibits = of.folder, of.results, of.samples, of.exhibits
    entropy = np.array(samples["entropy"], dtype=np.float64)
    decision = np.array(samples["decision"])
    names, label = np.unique(np.array(samples["label"]), return_inverse=True)
    suspects = int((decision == "suspected_poisoned").sum())
    counted = {
        word: np.bincount(label[decision == word], minlength=len(names))
        for word in ("suspected_poisoned", "suspected_clean")
    }
    by_suspects = np.lexsort((names, -counted["suspected_poisoned"]))
    sizes = np.bincount(label, minlength=len(names))
    return {
        "name": printable(run.resolve().name),
        "verdict": results["verdict"],
        "found": results["detection"],
        "stages": results["stages"],
        "total": len(decision),
        "suspects": suspects,
        "mislabeled": int((decision == "probably_mislabeled").sum()),
        "classes": of.classes,
        "histogram": Markup(plots.entropy_histogram(entropy, decision, "all images", "all")),
        "class_histograms": [
            (names[c], _histogram(entropy, decision, label == c, names[c], f"class{k}"))
            for k, c in enumerate(by_suspects[:MOST_HISTOGRAMS])
        ],
        "per_class": per_class(names, sizes, counted),
        "notes": notes(results),
        "targets": _targets(exhibits, of.classes, samples["label"]),
        "findings": findings_shown(of.findings, exhibits, of.classes, samples["label"], of.final),
        "shown": [title(mark, of.classes) for mark in of.shown],
        "final": of.final,
        "command": command(run, results["config"]),
        "quarantine": read_quarantine(run),
        "most_rows": MOST_ROWS,
        "curves": _stage_curves(run),
        "accuracies": _accuracies(results["stages"]),
        "environment": results["environment"],
        "config": json.dumps(results["config"], indent=1),
        "decisions": DECISIONS,
        **_own_files(),
    }


def _own_files() -> dict[str, Any]:
    """Style and script of the page, and the hash by which its content security policy lets this one script run."""
    loader = PackageLoader("dlp_fast.report")
    style, script = (loader.get_source(Environment(), f"report.{kind}")[0] for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}


def _gallery(of: _Run, facts: Facts, room: int) -> dict[str, Any]:
    """The contact sheets, of at most `room` bytes, and what the page says of the images on them."""
    joined = sheets(of.exhibits.thumbnails, room)
    shown = min(len(of.exhibits.ids), len(joined) * ACROSS * ACROSS)
    benign = [finding["likely_benign"] for finding in of.findings] + [False] * len(of.shown)
    data = gallery_data(facts, shown, of.exhibits, of.samples, benign) | {"final": of.final}
    suspects_shown = data["decision"].count(DECISIONS.index("suspected_poisoned"))
    suspects = of.samples["decision"].count("suspected_poisoned")
    return {
        "sheets": joined,
        "of_findings": of.exhibits.members[:, :shown].sum(1).tolist(),
        "names": facts.names,
        "sentence": sentence(shown, suspects_shown, suspects, samples_name(of.folder)),
        "table": samples_name(of.folder),
        "left_out": facts.left_out,
        "data": as_script_data(data),
    }


def _histogram(
    entropy: np.ndarray, decision: np.ndarray, inside: np.ndarray, title: str, name: str
) -> Markup:
    return Markup(plots.entropy_histogram(entropy[inside], decision[inside], title, name))


def per_class(names: np.ndarray, sizes: np.ndarray, counted: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row a class, the largest share of suspects first."""
    suspected = counted["suspected_poisoned"]
    order = np.lexsort((names, -suspected / sizes))
    return [
        {
            "name": str(names[c]),
            "images": int(sizes[c]),
            "suspected": int(suspected[c]),
            "clean": int(counted["suspected_clean"][c]),
        }
        for c in order
    ]


def _targets(of: Exhibits, classes: list[str], labels: list[str]) -> list[dict[str, Any]]:
    rows = [
        {"id": i, "group": group, "label": labels[i], "place": k}
        for k, (i, group) in enumerate(zip(of.ids.tolist(), of.duplicate_of.tolist(), strict=True))
    ]
    shown = []
    for k, label in enumerate(of.class_labels.tolist()):
        difference = of.difference[k].numpy()
        widest = max(float(np.abs(difference).max()), 1e-6)
        shown.append(
            {
                "name": classes[label],
                "suspects": source(of.mean_suspects[k].numpy()),
                "rest": source(of.mean_rest[k].numpy()),
                "difference": source(
                    np.clip(128 + difference * (127 / widest), 0, 255).round().astype(np.uint8)
                ),
                "widest": widest,
                "where": where(difference),
                **_with_pictures(duplicates(rows, classes[label]), of),
                "curve": Markup(plots.learning_curves(of.curves[k].numpy(), f"curve{k}")),
            }
        )
    return shown


def _with_pictures(found: dict[str, Any], of: Exhibits) -> dict[str, Any]:
    for group in found["duplicates"]:
        for row in group["pictures"]:
            row["source"] = source(of.thumbnails[row["place"]].numpy())
    return found


def duplicates(gallery: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Groups of near-duplicates among the suspects of class `name` that are shown, the largest first."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for shown in gallery:
        if shown["group"] >= 0 and shown["label"] == name:
            groups.setdefault(shown["group"], []).append(shown)
    ordered = sorted((g for g in groups.values() if len(g) > 1), key=len, reverse=True)
    parts = [{"size": len(g), "pictures": g[:MOST_OF_GROUP]} for g in ordered[:MOST_GROUPS]]
    return {"duplicates": parts, "duplicated": sum(map(len, ordered))}


def where(difference: np.ndarray) -> str:
    """The place that differs most, in words, where it is a small one: what a patch looks like."""
    strength = np.abs(difference).mean(-1)
    height, width = strength.shape
    hot = strength >= 0.75 * strength.max()
    rows, columns = np.flatnonzero(hot.any(1)), np.flatnonzero(hot.any(0))
    tall, wide = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    if tall * wide > 0.1 * height * width:
        return ""
    vertical = ("top", "middle", "bottom")[min(2, int(3 * (rows.mean() + 0.5) / height))]
    horizontal = ("left", "centre", "right")[min(2, int(3 * (columns.mean() + 0.5) / width))]
    return f"{wide} x {tall} pixels at the {vertical} {horizontal}"


def _stage_curves(run: Path) -> Markup | None:
    """Losses of the three stages as metrics.jsonl has them."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        for event in map(json.loads, lines):
            if event.get("kind") in ("epoch", "steps") and math.isfinite(event["loss"]):
                x, y = series.setdefault(event["stage"], ([], []))
                place = event.get("epoch", event.get("step"))
                if x and place <= x[-1]:  # another round begins
                    x.clear(), y.clear()
                x.append(place)
                y.append(event["loss"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{run / 'metrics.jsonl'} is damaged ({error}). Run again into another folder."
        ) from None
    panels = [(name, "step" if name == "finetuning" else "epoch", x, y) for name, (x, y) in series.items()]
    return Markup(plots.stage_curves(panels, "stages")) if panels else None


def _accuracies(stages: dict[str, Any]) -> Markup | None:
    known = [name for name, of in stages.items() if of["clean_accuracy"] is not None]
    if not known:
        return None
    clean = [stages[name]["clean_accuracy"] for name in known]
    attack = [stages[name]["attack_success_rate"] for name in known]
    return Markup(plots.accuracy_bars(known, clean, attack, "accuracies"))
