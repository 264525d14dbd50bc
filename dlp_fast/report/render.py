"""A run folder in, report.html out: one self-contained file that needs no network and trusts no name in it."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from dlp_fast.errors import DataError
from dlp_fast.report import plots
from dlp_fast.report.exhibits import Exhibits
from dlp_fast.report.text import duration, notes
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.names import csv_cell, printable
from dlp_fast.runs.reader import read_classes, read_quarantine, read_results, read_samples
from dlp_fast.runs.schema import DECISIONS

MOST_BYTES = 15_000_000
MOST_ROWS = 300  # quarantined files listed
MOST_HISTOGRAMS = 12  # classes
MOST_GROUPS, MOST_OF_GROUP = 4, 8  # near-duplicates shown beside a class: groups, pictures of each
LOSSLESS_SIDE = (
    48  # pixels: up to here thumbnails are PNG, so that a trigger of single pixels is seen as it is
)


def write_report(run: Path, target: Path | None = None) -> Path:
    """Write the report of the finished run in folder `run` to `target` (default: run/report.html); returns its path.

    Raises DataError where the folder holds no finished run of this version, or a damaged one.
    """
    target = target or run / "report.html"
    shown = context(run)
    template = _environment().get_template("report.html.j2")
    content = template.render(**shown).encode("utf-8")
    while len(content) > MOST_BYTES and shown["gallery"]:  # the most suspicious stay
        shown["gallery"] = shown["gallery"][: len(shown["gallery"]) // 2]
        content = template.render(**shown).encode("utf-8")
    write_atomic(target, content)
    return target


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dlp_fast.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = lambda v, digits=2: "–" if v is None else f"{100 * v:.{digits}f} %"
    environment.filters["count"] = lambda v: f"{v:,}"
    environment.filters["duration"] = duration
    return environment


def context(run: Path) -> dict[str, Any]:
    """Everything that the template shows."""
    results = read_results(run)
    samples = read_samples(run)
    exhibits = Exhibits.load(run)
    # as samples.csv has them: on one line, valid UTF-8
    classes = [csv_cell(name) for name in read_classes(run)]
    exhibits.check(run, len(samples["path"]), len(classes))
    entropy = np.array(samples["entropy"], dtype=np.float64)
    decision = np.array(samples["decision"])
    names, label = np.unique(np.array(samples["label"]), return_inverse=True)
    suspects = int((decision == "suspected_poisoned").sum())
    gallery = _gallery(exhibits, samples, classes)
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
        "classes": classes,
        "histogram": Markup(plots.entropy_histogram(entropy, decision, "all images", "all")),
        "class_histograms": [
            (names[c], _histogram(entropy, decision, label == c, names[c], f"class{k}"))
            for k, c in enumerate(by_suspects[:MOST_HISTOGRAMS])
        ],
        "per_class": per_class(names, sizes, counted),
        "gallery": gallery,
        "notes": notes(results),
        "targets": _targets(exhibits, classes, gallery),
        "quarantine": read_quarantine(run),
        "most_rows": MOST_ROWS,
        "curves": _stage_curves(run),
        "accuracies": _accuracies(results["stages"]),
        "environment": results["environment"],
        "config": json.dumps(results["config"], indent=1),
        "decisions": DECISIONS,
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


def _source(pixels: np.ndarray) -> str:
    """A picture as a data: address, encoded anew."""
    data = io.BytesIO()
    picture = Image.fromarray(pixels)
    if max(picture.size) <= LOSSLESS_SIDE:
        picture.save(data, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(data, "JPEG", quality=90, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _gallery(of: Exhibits, samples: dict[str, list[str]], classes: list[str]) -> list[dict[str, Any]]:
    rows = []
    for k, i in enumerate(of.ids.tolist()):
        rows.append(
            {
                "id": i,
                "source": _source(of.thumbnails[k].numpy()),
                "path": samples["path"][i],
                "label": samples["label"][i],
                "prediction": classes[int(of.prediction[k])],
                "agrees": classes[int(of.prediction[k])] == samples["label"][i],
                "confidence": float(of.confidence[k]),
                "score": float(samples["score"][i]),
                "entropy": float(samples["entropy"][i]),
                "rank": int(samples["rank"][i]),
                "decision": samples["decision"][i],
                "group": int(of.duplicate_of[k]),
                "border": bool(of.border[k]),
            }
        )
    return rows


def _targets(of: Exhibits, classes: list[str], gallery: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = []
    for k, label in enumerate(of.class_labels.tolist()):
        difference = of.difference[k].numpy()
        widest = max(float(np.abs(difference).max()), 1e-6)
        shown.append(
            {
                "name": classes[label],
                "suspects": _source(of.mean_suspects[k].numpy()),
                "rest": _source(of.mean_rest[k].numpy()),
                "difference": _source(
                    np.clip(128 + difference * (127 / widest), 0, 255).round().astype(np.uint8)
                ),
                "widest": widest,
                "where": where(difference),
                **duplicates(gallery, classes[label]),
                "curve": Markup(plots.learning_curves(of.curves[k].numpy(), f"curve{k}")),
            }
        )
    return shown


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
