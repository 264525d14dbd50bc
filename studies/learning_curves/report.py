"""The table, the counts and the plots of this study, from the cells that run.py wrote.

    python -m studies.learning_curves.report CELLS.json ... --out RESULT.json --plots FOLDER

CELLS.json may be compressed: CELLS.json.gz.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common import add_out, parser_of
from dlp_fast.runs.files import write_atomic

LEARNT = 0.5  # attack success rate from which a backdoor counts as learnt
SCORES = ("entropy", "mean entropy", "mean loss", "learning curves")


def highest(cell: dict[str, Any]) -> float:
    """Highest separation score of any class at the last epoch."""
    last = cell["epochs"][-1]
    return max([f["score"] for f in last["found"]] + [last["max_subthreshold_score"]])


def right(cell: dict[str, Any]) -> bool:
    """The one class that is found is the target."""
    found = [f["label"] for f in cell["epochs"][-1]["found"]]
    return found == [cell["seed"] % cell["classes"]]


def grouped(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each image set, attack and rate: runs, lowest and highest of what they came to."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        groups[cell["set"], cell["attack"], cell["rate"]].append(cell)
    rows = []
    for (images, attack, rate), of in sorted(groups.items(), key=lambda g: (g[0][1] != "none", g[0])):
        lasts = [c["epochs"][-1] for c in of]
        rates = [c["attack_success_rate"] for c in of if c["attack_success_rate"] is not None]
        scores = [highest(c) for c in of]
        row: dict[str, Any] = {"images": images, "attack": attack, "rate": rate, "runs": len(of)}
        row["attack_success_rate"] = [min(rates), max(rates)] if rates else None
        row["score"] = [round(min(scores), 4), round(max(scores), 4)]
        row["found"] = sum(bool(last["found"]) for last in lasts)
        if attack != "none":
            row["found_right_class"] = sum(map(right, of))
            row["poison_trusted_most"] = max(last["poison_trusted"] for last in lasts)
            for score in SCORES:
                values = [last[score]["precision"] for last in lasts]
                row[f"precision of {score}"] = {"mean": round(mean(values), 4), "worst": min(values)}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of `rows`; precision: mean (worst)."""
    lines = [
        "| images | runs | ASR % | found, right class | score | entropy | mean entropy | mean loss | learning curves "
        "| poison left, most |",
        "|---|---:|---|---:|---|---|---|---|---|---:|",
    ]
    for row in rows:
        clean = row["attack"] == "none"
        share = f"{row['attack']} {row['rate']:.1%}" + (" of the class" if row["attack"] == "sig" else "")
        rates = row["attack_success_rate"]
        asr = f"{100 * rates[0]:.0f}–{100 * rates[1]:.0f}" if rates else "–"
        found = row["found"] if clean else row["found_right_class"]
        of = [row.get(f"precision of {score}") for score in SCORES]
        shown = " | ".join(f"{p['mean']:.2f} ({p['worst']:.2f})" if p else "–" for p in of)
        lines.append(
            f"| {row['images']}, {'clean' if clean else share} | {row['runs']} | {asr} | {found} | "
            f"{row['score'][0]:.2f}–{row['score'][1]:.2f} | {shown} | {row.get('poison_trusted_most', '–')} |"
        )
    return "\n".join(lines) + "\n"


def counted(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """How many clean sets raised an alarm, and how many poisoned ones were found with the right class."""
    clean = [c for c in cells if c["attack"] == "none"]
    learnt = [c for c in cells if (c["attack_success_rate"] or 0) >= LEARNT]
    unlearnt = [c for c in cells if c["attack"] != "none" and c not in learnt]
    return {
        "clean": {
            "runs": len(clean),
            "found": sum(bool(c["epochs"][-1]["found"]) for c in clean),
            "highest_score": round(max(map(highest, clean), default=0), 3),
        },
        "poisoned_and_learnt": {
            "runs": len(learnt),
            "found_right_class": sum(map(right, learnt)),
            "lowest_score": round(min(map(highest, learnt), default=0), 3),
        },
        "poisoned_and_not_learnt": {"runs": len(unlearnt), "found_right_class": sum(map(right, unlearnt))},
    }


def plots(cells: list[dict[str, Any]], folder: Path) -> None:
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    axis = figure.subplots()
    kinds = (
        ("clean", "#2a9d8f", lambda c: c["attack"] == "none"),
        (
            "poisoned, not learnt",
            "#c0a060",
            lambda c: c["attack"] != "none" and c["attack_success_rate"] < LEARNT,
        ),
        ("poisoned", "#d1495b", lambda c: (c["attack_success_rate"] or 0) >= LEARNT),
    )
    for height, (_, colour, belongs) in enumerate(kinds):
        x = [highest(c) for c in cells if belongs(c)]
        axis.scatter(x, [height + 0.06 * (k % 7 - 3) for k in range(len(x))], color=colour, s=18, alpha=0.8)
    axis.axvline(1, color="#808080", linestyle="--")
    axis.set_xscale("log")
    axis.set_yticks(range(3), [k[0] for k in kinds])
    axis.set_xlabel("highest separation score of a class (1 = found)")
    figure.savefig(folder / "scores.png", dpi=140)
    attacks = sorted({c["attack"] for c in cells} - {"none"})
    if not attacks:
        return  # of clean sets there is no precision to draw
    figure = Figure(figsize=(3.6 * len(attacks), 3), layout="constrained")
    for axis, attack in zip(figure.subplots(1, len(attacks), squeeze=False)[0], attacks):
        of = [c for c in cells if c["attack"] == attack and (c["attack_success_rate"] or 0) >= LEARNT]
        for score, colour in zip(SCORES, ("#6c8ebf", "#c0a060", "#909090", "#d1495b")):
            for cell in of:
                x = [e["epoch"] for e in cell["epochs"]]
                axis.plot(x, [e[score]["precision"] for e in cell["epochs"]], color=colour, alpha=0.6, lw=1)
            axis.plot([], [], color=colour, label=score)
        axis.set_title(f"{attack}, {len(of)} runs")
        axis.set_xlabel("epoch")
        axis.set_ylabel("precision of the lowest 1 %")
    axis.legend(fontsize=8)
    figure.savefig(folder / "precision.png", dpi=140)


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.learning_curves.report")
    of.add_argument("cells", type=Path, nargs="+", help="files of studies.learning_curves.run")
    add_out(of)
    of.add_argument("--plots", type=Path, help="folder for scores.png and precision.png")
    return of


def read(file: Path) -> list[dict[str, Any]]:
    """Cells of one file, each with the name of its image set."""
    raw = file.read_bytes()
    saved = json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)
    sets = saved if isinstance(saved, list) else [saved]
    return [{"set": of["set"], "classes": of["classes"], **cell} for of in sets for cell in of["cells"]]


def main() -> None:
    options = parser().parse_args()
    cells = [cell for file in options.cells for cell in read(file)]
    rows = grouped(cells)
    print(table(rows))
    result = {"counts": counted(cells), "rows": rows}
    print(json.dumps(result["counts"], indent=1))
    write_atomic(options.out, json.dumps(result, indent=1).encode() + b"\n")
    if options.plots:
        plots(cells, options.plots)


if __name__ == "__main__":
    main()
