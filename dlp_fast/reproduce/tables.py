"""Tables 1 to 6: which cells each has, and how they are written down."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

from dlp_fast.reproduce.cells import CLEAN_LABEL, OURS, Cell
from dlp_fast.reproduce.published import TABLE3, TABLE6
from dlp_fast.reproduce.scales import Scale

RIVALS = ("fp", "mcr", "nad", "abl", "anp")
NAMES = {
    "none": "no defence",
    "clean": "trained on the clean set",
    "dlp": "DLP as published",
    "dlp_per_class": "DLP as published, nγ clean images of each class",
    "dlp_fast": "dlp_fast (default)",
} | {name: name.upper() for name in RIVALS}
RATES = (0.01, 0.05, 0.1, 0.2, 0.5)
GAMMAS = (0.001, 0.01, 0.05, 0.1)
ORDERS = (
    "supervised-unlearning",
    "supervised-finetuning",
    "supervised-finetuning-unlearning",
    "supervised-unlearning-finetuning",
)

Figures = dict[Cell, dict[str, Any]]


def rate_of(attack: str) -> float:
    """10 % of all images; half of the target class where labels are kept."""
    return 0.5 if attack in CLEAN_LABEL else 0.1


def with_seeds(cells: Iterable[Cell], seeds: int) -> list[Cell]:
    return [dataclasses.replace(cell, seed=seed) for seed in range(seeds) for cell in cells]


def seeds_told(figures: Figures) -> str:
    """How many seeds stand behind the rows of each method, where they are not the same in all; else nothing."""
    rows = Counter(dataclasses.replace(cell, seed=0) for cell in figures)
    if len(set(rows.values())) < 2:
        return ""
    by_method: dict[str, set[int]] = {}
    for cell, seeds in rows.items():
        by_method.setdefault(cell.method, set()).add(seeds)
    told = (f"{NAMES[m]} {' or '.join(map(str, sorted(seeds)))}" for m, seeds in by_method.items())
    return f"\nSeeds a row: {', '.join(told)}.\n"


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


def _of(found: list[dict[str, Any]], key: str) -> str:
    """Mean ± deviation of `key` over the seeds, and how many of them diverged."""
    done = [f[key] for f in found if "failed" not in f]
    failed = len(found) - len(done)
    return spread(done) + (f" ({failed} of {len(found)} failed)" if failed else "")


def _pair(found: list[dict[str, Any]]) -> str:
    if not found:
        return "not run | not run"
    return f"{_of(found, 'clean_accuracy')} | {_of(found, 'attack_success_rate')}"


def of_one_machine(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those measured alone where the first was: seconds of two machines have no mean, and those of cells that shared
    one are nobody's.
    """

    def machine(of: dict[str, Any]) -> list[Any]:
        facts = of.get("environment", {})
        # one processor's name stands for generations that differ in what they can do
        return [
            *(facts.get(k) for k in ("processor", "device", "threads")),
            facts.get("native", {}).get("simd"),
        ]

    alone = [f for f in found if f.get("environment", {}).get("at_once", 1) == 1]
    return [f for f in alone if machine(f) == machine(alone[0])]


def _seconds(found: list[dict[str, Any]]) -> str:
    known = of_one_machine([f for f in found if "seconds" in f])
    return f"{mean(f['seconds'] for f in known):.0f}" if known else "–"


def _lines(header: list[str], rows: list[str]) -> str:
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *rows]) + "\n"


def _stages_cells(scale: Scale) -> list[Cell]:
    return [Cell(m, a, 0, rate_of(a)) for m in ("dlp", "dlp_per_class", "dlp_fast") for a in scale.attacks]


def _stages(scale: Scale, figures: Figures) -> str:
    rows = []
    for cell in _stages_cells(scale):
        found = _same(figures, cell)
        pairs = [
            _pair([f["stages"][s] if "stages" in f else f for f in found if s in f.get("stages", {s: 0})])
            for s in ("supervised", "unlearning", "finetuning")
        ]
        rows.append(f"| {cell.attack} | {NAMES[cell.method]} | {' | '.join(pairs)} |")
    header = ["attack", "method", "SL: CA", "ASR", "AU: CA", "ASR", "ASSFT: CA", "ASR"]
    return _lines(header, rows) + "\n" + _costs(scale, figures)


def _costs(scale: Scale, figures: Figures) -> str:
    """What the paper does not tell: precision of both sets, the weakest class, and the pace of each stage."""
    rows = []
    for cell in _stages_cells(scale):
        found = [f for f in _same(figures, cell) if "failed" not in f]
        timed = of_one_machine(found)
        sets = [
            spread([f["detection"][key] for f in found])
            for key in ("poisoned_precision", "poisoned_recall", "clean_precision")
        ]
        worst = spread([min(v for v in f["per_class_accuracy"] if v is not None) for f in found])
        paces = [
            f"{mean([f['stages'][s]['seconds'] for f in timed]):.0f} s, "
            f"{mean([f['stages'][s]['images_per_second'] for f in timed]):,.0f}/s"
            if timed
            else "–"
            for s in ("supervised", "unlearning", "finetuning")
        ]
        rows.append(f"| {cell.attack} | {NAMES[cell.method]} | {' | '.join([*sets, worst, *paces])} |")
    header = ["attack", "method", "suspects: precision", "recall", "suspected clean: precision"]
    return _lines([*header, "CA of the weakest class", "SL", "AU", "ASSFT"], rows)


def _rivals_cells(scale: Scale) -> list[Cell]:
    methods = ("none", *RIVALS, "dlp", "dlp_per_class", "dlp_fast", "clean")
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
        of_paper = "dlp" if cell.method in OURS else cell.method
        paper = published.get(of_paper, {}).get(cell.attack)
        told = f"{paper[0]:g}, {paper[1]:g}" if paper else "–"
        seconds = _seconds(found)
        attack = "no attack" if cell.attack == "none" else cell.attack
        rows.append(f"| {attack} | {NAMES[cell.method]} | {_pair(found)} | {told} | {seconds} |")
    header = ["attack", "defence", "CA", "ASR", "the paper's DLP or rival: CA, ASR", "s"]
    return _lines(header, rows)


def _rates_cells(_: Scale) -> list[Cell]:
    """Ours finds the size of the suspected set by itself: γ does not enter its result."""
    ours = [Cell("dlp_fast", "badnets", 0, r) for r in RATES]
    return [Cell("dlp", "badnets", 0, r, g) for r in RATES for g in GAMMAS] + ours


def _rates(scale: Scale, figures: Figures) -> str:
    rows = [
        f"| {NAMES[c.method]} | {c.rate:.0%} | {f'{c.gamma:.1%}' if c.method == 'dlp' else 'its own'} | "
        f"{_pair(_same(figures, c))} | "
        f"{spread([f['detection']['poisoned_precision'] for f in _same(figures, c) if 'detection' in f])} |"
        for c in _rates_cells(scale)
    ]
    return _lines(
        ["method", "poisoning rate", "filtering rate γ", "CA", "ASR", "precision of the suspects"], rows
    )


def _networks_cells(scale: Scale) -> list[Cell]:
    attacks = [a for a in scale.attacks if a != "lca"]  # as in the paper
    return [Cell("dlp_fast", a, 0, rate_of(a), model=m) for m in scale.networks for a in attacks]


def _networks(scale: Scale, figures: Figures) -> str:
    """The paper has the last CA and ASR alone; a network's own CA, before anything is unlearnt, says what they cost."""
    rows = []
    for cell in _networks_cells(scale):
        found = _same(figures, cell)
        done = [f for f in found if "failed" not in f]
        first = _pair([f["stages"]["supervised"] if "stages" in f else f for f in found])
        sets = [
            spread([f["detection"][key] for f in done]) for key in ("poisoned_precision", "poisoned_recall")
        ]
        paper = TABLE6[cell.model].get(cell.attack)
        told = f"{paper[0]:g}, {paper[1]:g}" if paper else "–"
        row = (cell.model, cell.attack, first, _pair(found), *sets, told, _seconds(found))
        rows.append(f"| {' | '.join(row)} |")
    header = ["network", "attack", "SL: CA", "ASR", "at the end: CA", "ASR", "suspects: precision", "recall"]
    return _lines([*header, "the paper's DLP: CA, ASR", "s"], rows)


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
