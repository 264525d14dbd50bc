"""Table and plot of docs/filter.md from the result of filter_table.py.

python benchmarks/filter_report.py benchmarks/results/filter_cpu_DATE.json docs/filter_precision.png
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import tyro

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SCORES = ("snapshot", "mean entropy", "mean loss", "clusters")


@dataclass
class Options:
    result: tyro.conf.Positional[Path]
    """JSON of filter_table.py."""
    plot: tyro.conf.Positional[Path]
    """PNG to write."""
    at: int = 12
    """Epoch that the table shows."""


def row(cell: dict[str, Any], at: int) -> str:
    """One Markdown row: the figures at epoch `at`, and the worst precision over the later half of the epochs."""
    of = next(e for e in cell["epochs"] if e["epoch"] == at)
    later = [e for e in cell["epochs"] if e["epoch"] >= at // 2]
    found = ", ".join(f"{f['distance']:.1f} / {f['doubt']:.3f}" for f in of["found"]) or "none"
    columns = [cell["attack"], f"{100 * cell['rate']:g}", str(cell["seed"])]
    columns.append("–" if cell["attack_success_rate"] is None else f"{100 * cell['attack_success_rate']:.0f}")
    for name in SCORES:
        if name in of:
            columns.append(f"{of[name]['precision']:.2f} ({min(e[name]['precision'] for e in later):.2f})")
        else:
            columns.append("–")
    columns += [found, f"{of['widest_other']:.2f} / {of['least_doubt_other']:.2f}"]
    columns.append(f"{of['poison_trusted']} of {of['trusted']}")
    return "| " + " | ".join(columns) + " |"


def draw(cells: list[dict[str, Any]], path: Path) -> None:
    attacked = [c for c in cells if c["attack"] != "none"]
    columns = min(4, len(attacked))
    rows = -(-len(attacked) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.4 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, cell in zip(axes.flat, attacked, strict=False):
        for name in SCORES:
            epochs = [e["epoch"] for e in cell["epochs"]]
            width = 2.2 if name == "clusters" else 1.0
            axis.plot(epochs, [e[name]["precision"] for e in cell["epochs"]], label=name, linewidth=width)
        axis.set_title(f"{cell['attack']} {100 * cell['rate']:g} %, seed {cell['seed']}", fontsize=9)
        axis.set_ylim(-0.03, 1.03)
    for axis in axes.flat[len(attacked) :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("epochs of stage 1")
    axes[0, 0].set_ylabel("precision, lowest 1 %")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    cells = json.loads(options.result.read_text())["cells"]
    cells.sort(key=lambda c: (c["attack"], c["rate"], c["seed"]))
    print(
        "| attack | rate % | seed | ASR % | snapshot | mean entropy | mean loss | clusters | "
        "distance / doubt found | widest other | poison still trusted |"
    )
    print("|---|---:|---:|---:|---|---|---|---|---|---|---|")
    for cell in cells:
        print(row(cell, options.at))
    draw(cells, options.plot)


if __name__ == "__main__":
    main()
