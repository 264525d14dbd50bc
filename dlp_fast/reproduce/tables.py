"""Tables 1 to 6: which cells each has, and how they are written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

from dlp_fast.reproduce.cells import CLEAN_LABEL, Cell
from dlp_fast.reproduce.published import TABLE3, TABLE6
from dlp_fast.reproduce.scales import Scale

RIVALS = ("fp", "mcr", "nad", "abl", "anp")
NAMES = {
    "none": "no defence",
    "clean": "trained on the clean set",
    "dlp": "DLP as published",
    "dlp_fast": "dlp_fast (default)",
} | {name: name.upper() for name in RIVALS}
RATES = (0.01, 0.05, 0.1, 0.2, 0.5)
GAMMAS = (0.001, 0.01, 0.05, 0.1)
ORDERS = ("sl-au", "sl-assft", "sl-assft-au", "sl-au-assft")

Figures = dict[Cell, dict[str, Any]]


def rate_of(attack: str) -> float:
    """10 % of all images; half of the target class where labels are kept."""
    return 0.5 if attack in CLEAN_LABEL else 0.1


def with_seeds(cells: Iterable[Cell], seeds: int) -> list[Cell]:
    return [dataclasses.replace(cell, seed=seed) for seed in range(seeds) for cell in cells]


def spread(values: list[float | None]) -> str:
    """Mean ± deviation, per cent; – where nothing is known."""
    known = [100 * v for v in values if v is not None]
    if not known:
        return "–"
    return f"{mean(known):.2f}" + (f" ± {stdev(known):.2f}" if len(known) > 1 else "")


@dataclass(frozen=True)
class Table:
    """cells: those of one seed; write: Markdown from the figures of all seeds."""

    title: str
    cells: Callable[[Scale], list[Cell]]
    write: Callable[[Scale, Figures], str]


def _same(figures: Figures, wanted: Cell) -> list[dict[str, Any]]:
    """Figures of `wanted` for every seed."""
    return [of for cell, of in figures.items() if dataclasses.replace(cell, seed=0) == wanted]


def _pair(found: list[dict[str, Any]]) -> str:
    return (
        f"{spread([f['clean_accuracy'] for f in found])} | {spread([f['attack_success_rate'] for f in found])}"
        if found
        else "not run | not run"
    )


def _lines(header: list[str], rows: list[str]) -> str:
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *rows]) + "\n"


def _stages_cells(scale: Scale) -> list[Cell]:
    return [Cell(m, a, 0, rate_of(a)) for m in ("dlp", "dlp_fast") for a in scale.attacks]


def _stages(scale: Scale, figures: Figures) -> str:
    rows = []
    for cell in _stages_cells(scale):
        found = _same(figures, cell)
        pairs = [
            _pair([f["stages"][s] for f in found if s in f["stages"]])
            for s in ("supervised", "unlearning", "finetuning")
        ]
        rows.append(f"| {cell.attack} | {NAMES[cell.method]} | {' | '.join(pairs)} |")
    header = ["attack", "method", "SL: CA", "ASR", "AU: CA", "ASR", "ASSFT: CA", "ASR"]
    return _lines(header, rows)


def _rivals_cells(scale: Scale) -> list[Cell]:
    methods = ("none", *RIVALS, "dlp", "dlp_fast", "clean")
    return [
        Cell(m, a, 0, rate_of(a))
        for a in ("none", *scale.attacks)
        for m in methods
        if (m, a) != ("clean", "none")
    ]


def _rivals(scale: Scale, figures: Figures, published: dict[str, dict[str, tuple[float, float]]]) -> str:
    rows = []
    for cell in _rivals_cells(scale):
        found = _same(figures, cell)
        paper = published.get({"dlp_fast": "dlp"}.get(cell.method, cell.method), {}).get(cell.attack)
        told = f"{paper[0]:g}, {paper[1]:g}" if paper else "–"
        seconds = f"{mean([f['seconds'] for f in found]):.0f}" if found else "–"
        attack = "no attack" if cell.attack == "none" else cell.attack
        rows.append(f"| {attack} | {NAMES[cell.method]} | {_pair(found)} | {told} | {seconds} |")
    header = ["attack", "defence", "CA", "ASR", "the paper's DLP or rival: CA, ASR", "s"]
    return _lines(header, rows)


def _rates_cells(_: Scale) -> list[Cell]:
    return [Cell(m, "badnets", 0, r, g) for m in ("dlp", "dlp_fast") for r in RATES for g in GAMMAS]


def _rates(scale: Scale, figures: Figures) -> str:
    rows = [
        f"| {NAMES[c.method]} | {c.rate:.0%} | {c.gamma:.1%} | {_pair(_same(figures, c))} | "
        f"{spread([f['filter']['poisoned_precision'] for f in _same(figures, c)])} |"
        for c in _rates_cells(scale)
    ]
    return _lines(
        ["method", "poisoning rate", "filtering rate γ", "CA", "ASR", "precision of the suspects"], rows
    )


def _networks_cells(scale: Scale) -> list[Cell]:
    attacks = [a for a in scale.attacks if a != "lca"]  # as in the paper
    return [Cell("dlp_fast", a, 0, rate_of(a), model=m) for m in scale.networks for a in attacks]


def _networks(scale: Scale, figures: Figures) -> str:
    rows = []
    for cell in _networks_cells(scale):
        paper = TABLE6[cell.model].get(cell.attack)
        told = f"{paper[0]:g}, {paper[1]:g}" if paper else "–"
        rows.append(f"| {cell.model} | {cell.attack} | {_pair(_same(figures, cell))} | {told} |")
    return _lines(["network", "attack", "CA", "ASR", "the paper's DLP: CA, ASR"], rows)


def orders_cells(scale: Scale) -> list[Cell]:
    return [
        Cell(m, a, 0, rate_of(a), order=o) for m in ("dlp", "dlp_fast") for a in scale.attacks for o in ORDERS
    ]


def _orders(scale: Scale, figures: Figures) -> str:
    rows = [
        f"| {c.attack} | {NAMES[c.method]} | {c.order} | {_pair(_same(figures, c))} |"
        for c in orders_cells(scale)
    ]
    return _lines(["attack", "method", "order", "CA", "ASR"], rows)


TABLES = {
    "table1": Table("After each stage (Table 1, CIFAR-10)", _stages_cells, _stages),
    "table2": Table("After each stage (Table 2, ImageNet subset)", _stages_cells, _stages),
    "table3": Table(
        "Against the rivals (Table 3, CIFAR-10)", _rivals_cells, partial(_rivals, published=TABLE3)
    ),
    # the numbers of the paper's Table 4 are not in its text
    "table4": Table(
        "Against the rivals (Table 4, ImageNet subset)", _rivals_cells, partial(_rivals, published={})
    ),
    "table5": Table("Poisoning rate and filtering rate (Table 5, BadNets)", _rates_cells, _rates),
    "table6": Table("Networks (Table 6, CIFAR-10)", _networks_cells, _networks),
    "fig4": Table("Other orders of the stages (Figure 4)", orders_cells, _orders),
}
