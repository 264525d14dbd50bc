"""Figures 1, 3, 4 and 5: data as JSON, a Markdown table, and a PNG."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from dlp_fast.attacks.poisoning import TriggeredImages
from dlp_fast.config import DetectionConfig, SupervisedConfig, read_preset
from dlp_fast.detection.detect import Networks, detect, look_at_curves
from dlp_fast.detection.propose import Observed
from dlp_fast.engine.inference import features, predict
from dlp_fast.engine.session import Session
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.evaluation.metrics import precision
from dlp_fast.models.registry import new_model
from dlp_fast.reproduce.cells import Bench, Cell
from dlp_fast.reproduce.tables import ORDERS, Figures, orders_cells, rate_of, spread
from dlp_fast.runs.files import write_atomic
from dlp_fast.selection.partition import select
from dlp_fast.stages.supervised import supervised

METHODS = ("activation_clustering", "spectral_signatures", "loss", "entropy", "learning_curves")
SHOWN = 4  # images of each attack in Figure 3


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=140)


def _file_of(bench: Bench, cell: Cell) -> Path:
    return bench.out / "cells" / f"stage1-{cell.name()}.json"


def _learned(
    bench: Bench, attacks: Iterable[str], seeds: int, only_done: bool
) -> dict[str, list[list[dict[str, Any]]]]:
    """{attack: for each seed, what `learn` keeps of its epochs}; attacks without any are left out."""
    found = {}
    for attack in attacks:
        cells = [Cell("none", attack, seed, rate_of(attack)) for seed in range(seeds)]
        wanted = [c for c in cells if not only_done or _file_of(bench, c).is_file()]
        if wanted:
            found[attack] = [learn(bench, cell)["epochs"] for cell in wanted]
    if not found:
        raise DataError(
            f"{bench.out} holds no stage 1 of the attacks that this figure shows; without --only-done it is run."
        )
    return found


def learn(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Stage 1 as published under `cell.attack`, kept: accuracy of poisoned and clean samples by epoch, and precision of
    every detection method by epoch.
    """
    file = _file_of(bench, cell)
    if file.is_file():
        return bench.noted(json.loads(file.read_text()))
    attack = bench.attack(cell)
    data = bench.training_data(cell, attack)
    model = new_model(bench.network(cell), data, cell.seed)
    config = SupervisedConfig(
        **(read_preset("paper")["supervised"] | bench.scale.config.get("supervised", {}))
    )
    poisoned = attack.poisoned
    right: list[torch.Tensor] = []  # after each epoch, bool [n]: predicted as labeled
    with Session(bench.compute, bench.log) as session:
        first = supervised(
            session, model, data, config, lambda scores: right.append(scores.prediction == data.labels)
        )
        x = features(session, model, data)

    asked = Networks(lambda images: predict(model, images, data), lambda: x, _no_other_network)

    def precision_of(method: str, epoch: int) -> float | None:
        options = DetectionConfig(
            method=method, nothing_found="suspect", proposals=("learning_curves",), verify_from=1
        )
        seen = Observed(data.images, data.labels, data.classes, first.entropy[:epoch], first.loss[:epoch])
        suspicion = detect(seen, look_at_curves(seen, options), asked, options).suspicion
        return precision(select(suspicion, data.labels, data.classes, options).to_unlearn, poisoned)

    epochs = [
        {
            "poisoned": float(right[epoch - 1][poisoned].float().mean()),
            "clean": float(right[epoch - 1][~poisoned].float().mean()),
            "precision": {name: precision_of(name, epoch) for name in ("loss", "entropy", "learning_curves")},
        }
        for epoch in range(1, len(first.loss) + 1)
    ]
    for name in ("activation_clustering", "spectral_signatures"):
        epochs[-1]["precision"][name] = precision_of(name, len(epochs))
    result = {"cell": dataclasses.asdict(cell), "epochs": epochs, "environment": bench.environment()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(result).encode())
    return bench.noted(result)


def _no_other_network(_ids: np.ndarray) -> np.ndarray:
    raise AssertionError("a figure of learning curves trains no other network")


def figure1(bench: Bench, seeds: int, only_done: bool = False) -> str:
    """Training accuracy of poisoned and of clean samples over the epochs."""
    attacks = [a for a in ("badnets", "sig") if a in bench.scale.attacks]
    if not attacks:
        raise ConfigError("Figure 1 shows badnets and sig; --attacks names neither")
    learned = _learned(bench, attacks, seeds, only_done)
    figure = Figure(figsize=(4.5 * len(learned), 3.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(learned)))
    lines = ["| attack | epoch | poisoned | clean |", "|---|---:|---:|---:|"]
    for axis, (attack, runs) in zip(axes, learned.items()):
        count = min(map(len, runs))
        for kind, colour in (("poisoned", "#d1495b"), ("clean", "#2a9d8f")):
            curves = 100 * np.array([[e[kind] for e in run[:count]] for run in runs])
            axis.plot(range(1, count + 1), curves.mean(0), color=colour, label=f"{kind} samples")
            axis.fill_between(range(1, count + 1), curves.min(0), curves.max(0), color=colour, alpha=0.2)
        axis.set_title(attack)
        axis.set_xlabel("epoch")
        axis.set_ylabel("training accuracy (%)")
        axis.legend()
        for epoch in range(count):
            pair = [spread([run[epoch][kind] for run in runs]) for kind in ("poisoned", "clean")]
            lines.append(f"| {attack} | {epoch + 1} | {pair[0]} | {pair[1]} |")
    _save(figure, bench.out / "fig1.png")
    return "\n".join(lines) + "\n"


def figure3(bench: Bench, _seeds: int, _only_done: bool = False) -> str:
    """The same images of the target class clean and under each attack, those that LCA prepares where it is among them:
    the others could carry their trigger on any.
    """
    attacks = bench.scale.attacks
    base = bench.dataset.train.images
    of_attack = {a: bench.attack(Cell("none", a, 0, rate_of(a))) for a in attacks}
    target = next(iter(of_attack.values())).target
    of_class = (bench.dataset.train.labels == target).nonzero().flatten()
    ids = (of_attack["lca"].poisoned.nonzero().flatten() if "lca" in attacks else of_class)[:SHOWN]
    shown = torch.zeros(len(base), dtype=torch.bool)
    shown[ids] = True
    clean = base.get(ids)
    figure = Figure(figsize=(1.4 * (len(attacks) + 1), 1.5 * SHOWN), layout="constrained")
    axes = figure.subplots(SHOWN, len(attacks) + 1, squeeze=False)
    told = ["| attack | definition | mean change of 255 |", "|---|---|---:|"]
    for column, attack in enumerate(("clean", *attacks)):
        pictures = clean
        if attack != "clean":
            of = of_attack[attack]
            carrying = of.poison(base) if attack == "lca" else TriggeredImages(base, shown, of.table)
            pictures = carrying.get(ids)
            change = (pictures.int() - clean.int()).abs().float().mean()
            told.append(f"| {attack} | {of.trigger.parameters} | {float(change):.2f} |")
        for row in range(SHOWN):
            axis = axes[row][column]
            axis.axis("off")
            if row < len(pictures):
                axis.imshow(pictures[row].cpu().numpy())
            if row == 0:
                axis.set_title(attack, fontsize=9)
    _save(figure, bench.out / "fig3.png")
    return "\n".join(told) + "\n"


def figure4(bench: Bench, _seeds: int, figures: Figures) -> None:
    """Bars of CA and ASR for each order of the stages, as published: our default begins stage 3 from fresh weights, so
    that unlearning does not enter its result.
    """
    cells = [c for c in orders_cells(bench.scale) if c.method == "dlp"]
    found = {c: f for c, f in figures.items() if dataclasses.replace(c, seed=0) in cells}
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots(2, 1)
    attacks = bench.scale.attacks
    for axis, key, title in (
        (axes[0], "clean_accuracy", "clean accuracy (%)"),
        (axes[1], "attack_success_rate", "attack success rate (%)"),
    ):
        for k, order in enumerate(ORDERS):
            heights = []
            for attack in attacks:
                of = [f[key] for c, f in found.items() if (c.attack, c.order) == (attack, order)]
                heights.append(100 * float(np.mean(of)) if of else 0.0)
            axis.bar(np.arange(len(attacks)) + 0.2 * k, heights, 0.18, label=order)
        axis.set_xticks(np.arange(len(attacks)) + 0.3, attacks)
        axis.set_ylabel(title)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(ORDERS), fontsize=8
    )
    _save(figure, bench.out / "fig4.png")


def figure5(bench: Bench, seeds: int, only_done: bool = False) -> str:
    """Precision of every method's γ most suspicious, and its spread over epochs (second half) and seeds."""
    learned = _learned(bench, bench.scale.attacks, seeds, only_done)
    lines = [
        "| attack | method | last epoch | worst of the second half of the epochs |",
        "|---|---|---:|---:|",
    ]
    heights: dict[str, list[float]] = {name: [] for name in METHODS}
    for attack, runs in learned.items():
        for name in METHODS:
            last = [run[-1]["precision"][name] for run in runs]
            late = [e["precision"].get(name) for run in runs for e in run[len(run) // 2 :]]
            known = [v for v in late if v is not None]
            worst = f"{100 * min(known):.2f}" if len(known) > len(runs) else "–"
            lines.append(f"| {attack} | {name} | {spread(last)} | {worst} |")
            heights[name].append(100 * float(np.mean([v for v in last if v is not None] or [0])))
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axis = figure.subplots()
    for k, name in enumerate(METHODS):
        axis.bar(np.arange(len(learned)) + 0.16 * k, heights[name], 0.15, label=name)
    axis.set_xticks(np.arange(len(learned)) + 0.32, list(learned))
    axis.set_ylabel("precision (%)")
    figure.legend(loc="outside upper center", ncols=len(METHODS), fontsize=8)
    _save(figure, bench.out / "fig5.png")
    return "\n".join(lines) + "\n"
