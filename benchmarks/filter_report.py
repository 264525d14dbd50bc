"""The tables and the plots of docs/filter.md and docs/verdict.md from the results of filter_table.py.

python benchmarks/filter_report.py RESULT.json [RESULT.json ...] --plots docs/images
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import tyro
from matplotlib.figure import Figure

LEARNT = 0.5  # attack success rate from which a backdoor counts as learnt
SCORES = ("snapshot", "mean entropy", "mean loss", "clusters")


@dataclass
class Options:
    results: tyro.conf.Positional[tuple[Path, ...]]
    """Files of filter_table.py."""
    plots: Path | None = None
    """Folder for strengths.png and filter_precision.png."""


def strongest(cell: dict[str, Any]) -> float:
    """Strength of the strongest sign at the last epoch."""
    last = cell["epochs"][-1]
    return max([f["strength"] for f in last["found"]] + [last["strongest_other"] or 0.0])


def right(cell: dict[str, Any]) -> bool:
    """The one class that is found is the target."""
    found = [f["label"] for f in cell["epochs"][-1]["found"]]
    return found == [cell["seed"] % cell["classes"]]


def row(name: str, cells: list[dict[str, Any]]) -> str:
    strengths = [strongest(c) for c in cells]
    rates = [100 * c["attack_success_rate"] for c in cells if c["attack_success_rate"] is not None]
    lasts = [c["epochs"][-1] for c in cells]
    shown = []
    for score in SCORES:
        values = [last[score]["precision"] for last in lasts if score in last]
        shown.append(f"{mean(values):.2f} ({min(values):.2f})" if values else "–")
    poisoned = cells[0]["attack"] != "none"
    found = sum(map(right, cells)) if poisoned else sum(bool(last["found"]) for last in lasts)
    left = f"{max(last['poison_trusted'] for last in lasts)}" if poisoned else "–"
    asr = f"{min(rates):.0f}–{max(rates):.0f}" if rates else "–"
    spread = f"{min(strengths):.2f}–{max(strengths):.2f}"
    return f"| {name} | {len(cells)} | {asr} | {found} | {spread} | {' | '.join(shown)} | {left} |"


def table(cells: list[dict[str, Any]]) -> str:
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        groups[cell["set"], cell["attack"], cell["rate"]].append(cell)
    lines = [
        "| images | runs | ASR % | found, right class | strength | snapshot | mean entropy | mean loss | clusters "
        "| poison left, most |",
        "|---|---:|---|---:|---|---|---|---|---|---:|",
    ]
    for (images, attack, rate), of in sorted(groups.items(), key=lambda g: (g[0][1] != "none", g[0])):
        share = (
            "clean"
            if attack == "none"
            else f"{attack} {rate:.1%}" + (" of the class" if attack == "sig" else "")
        )
        lines.append(row(f"{images}, {share}", of))
    return "\n".join(lines) + "\n"


def summary(cells: list[dict[str, Any]]) -> str:
    clean = [c for c in cells if c["attack"] == "none"]
    learnt = [c for c in cells if (c["attack_success_rate"] or 0) >= LEARNT]
    unlearnt = [c for c in cells if c["attack"] != "none" and c not in learnt]
    alarms = sum(bool(c["epochs"][-1]["found"]) for c in clean)
    found = sum(map(right, learnt))
    return (
        f"{len(clean)} clean sets: {alarms} false alarms, strongest sign {max(map(strongest, clean), default=0):.2f}. "
        f"{len(learnt)} poisoned sets whose backdoor was learnt (ASR at least {LEARNT:.0%}): {found} found with the "
        f"right class, weakest {min(map(strongest, learnt), default=0):.2f}. {len(unlearnt)} whose backdoor was not "
        f"learnt: {sum(map(right, unlearnt))} found.\n"
    )


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
        x = [strongest(c) for c in cells if belongs(c)]
        axis.scatter(x, [height + 0.06 * (k % 7 - 3) for k in range(len(x))], color=colour, s=18, alpha=0.8)
    axis.axvline(1, color="#808080", linestyle="--")
    axis.set_xscale("log")
    axis.set_yticks(range(3), [k[0] for k in kinds])
    axis.set_xlabel("strength of the strongest sign (1 = found)")
    figure.savefig(folder / "strengths.png", dpi=140)
    attacks = sorted({c["attack"] for c in cells} - {"none"})
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
    figure.savefig(folder / "filter_precision.png", dpi=140)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    cells = []
    for file in options.results:
        saved = json.loads(file.read_text())
        for cell in saved["cells"]:
            cells.append({"set": saved["set"], "classes": saved["classes"], **cell})
    print(table(cells))
    print(summary(cells))
    if options.plots:
        plots(cells, options.plots)


if __name__ == "__main__":
    main()
