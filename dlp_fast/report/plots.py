"""The figures of a report as SVG text, in colours that are readable on a light and on a dark page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

INK = "#808080"
TITLE = "title of this figure"
# told apart with any colour vision (after Okabe and Ito), and by their lines besides
SUSPECT, CLEAN, OTHER = "#d55e00", "#009e73", "#4c8dc9"
LINES = {SUSPECT: "-", CLEAN: "--", OTHER: ":"}


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = list(np.atleast_1d(figure.subplots(1, columns)))
    for axis in axes:
        axis.patch.set_alpha(0)
        for spine in axis.spines.values():
            spine.set_color(INK)
        axis.tick_params(colors=INK)
        for label in (axis.xaxis.label, axis.yaxis.label, axis.title):
            label.set_color(INK)
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """`name` keeps the ids of one figure apart from those of the others on the page."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg[svg.index("<svg") :])


def _titled(svg: str, title: str) -> str:
    """`svg` with `title` where TITLE stands. A name may have letters that no font of Matplotlib's has; the reader's
    browser has more, and Matplotlib, which would warn and measure boxes, never sees it.
    """
    return svg.replace(f">{TITLE}</text>", f">{escape(title)}</text>")


def _legend(axis) -> None:
    legend = axis.legend(frameon=False, labelcolor=INK, fontsize=9)
    legend.set_zorder(3)


def entropy_histogram(entropy: np.ndarray, decision: np.ndarray, title: str, name: str) -> str:
    """Counts of images by entropy (bits), an outline a decision, with both cuts; log scale, so that few suspects are
    seen. The cuts are where the suspected poisoned end and where the suspected clean begin.
    """
    figure, (axis,) = _figure(7.2, 2.6)
    edges = np.linspace(0, max(float(entropy.max()), 1e-3), 41)
    decision = np.where(
        decision == "probably_mislabeled", "undecided", decision
    )  # a list of labels, not of entropies
    kinds = [
        ("undecided", OTHER, "undecided", None),
        ("suspected_clean", CLEAN, "suspected clean", np.min),
        ("suspected_poisoned", SUSPECT, "suspected poisoned", np.max),
    ]
    for word, colour, label, end in kinds:
        of = entropy[decision == word]
        if not len(of):
            continue
        axis.hist(of, bins=edges, histtype="stepfilled", color=colour, alpha=0.25)
        axis.hist(of, bins=edges, histtype="step", color=colour, label=label, linewidth=1.5, ls=LINES[colour])
        if end is not None:
            cut = float(end(of))
            axis.axvline(cut, color=colour, linestyle="--", linewidth=1.2, label=f"cut at {cut:.3g} bits")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")  # counts, and no powers of ten
    axis.yaxis.set_minor_formatter(lambda count, _: f"{count:,.0f}" if f"{count:.0e}"[0] in "25" else "")
    axis.set_ylim(bottom=0.7)
    axis.set_xlabel("entropy after stage 1 (bits)")
    axis.set_ylabel("images")
    axis.set_title(TITLE, fontsize=10)
    figure.legend(frameon=False, labelcolor=INK, fontsize=8, loc="outside right upper")
    return _titled(_svg(figure, name), title)


def learning_curves(curves: np.ndarray, name: str) -> str:
    """Loss over the epochs of stage 1 of a class's suspects and of its others; [2, 3, epochs], quartiles."""
    figure, (axis,) = _figure(4.6, 2.6)
    epochs = np.arange(1, curves.shape[-1] + 1)
    for (low, middle, high), colour, label in (
        (curves[1], OTHER, "the others of this class"),
        (curves[0], SUSPECT, "suspected"),
    ):
        axis.fill_between(epochs, low, high, color=colour, alpha=0.25, linewidth=0)
        dot = "." if len(epochs) < 3 else None
        axis.plot(epochs, middle, color=colour, label=label, marker=dot, linestyle=LINES[colour])
    axis.set_xlabel("epoch of stage 1")
    axis.set_ylabel("loss (nats)")
    _legend(axis)
    return _svg(figure, name)


def stage_curves(series: Sequence[tuple[str, str, Sequence[float], Sequence[float]]], name: str) -> str:
    """One panel a stage: (title, name of the x axis, x, loss)."""
    figure, axes = _figure(2.9 * max(len(series), 1), 2.4, max(len(series), 1))
    for axis, (title, unit, x, y) in zip(axes, series):
        axis.plot(x, y, color=OTHER, marker="." if len(x) < 3 else None)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(unit)
        axis.set_ylabel("loss (nats)")
    return _svg(figure, name)


def accuracy_bars(
    stages: Sequence[str], clean: Sequence[float], attack: Sequence[float | None], name: str
) -> str:
    """CA, and ASR where an attack is known, after each stage; per cent."""
    figure, (axis,) = _figure(4.6, 2.4)
    place = np.arange(len(stages))
    known = all(a is not None for a in attack)
    wide = 0.38 if known else 0.6
    bars = [
        axis.bar(
            place - (wide / 2 if known else 0),
            np.multiply(clean, 100),
            wide,
            color=CLEAN,
            label="clean accuracy",
        )
    ]
    if known:
        rates = np.multiply([a for a in attack if a is not None], 100)
        bars.append(
            axis.bar(place + wide / 2, rates, wide, color=SUSPECT, label="attack success rate", hatch="//")
        )
    for group in bars:
        axis.bar_label(group, fmt="%.1f", color=INK, fontsize=8)
    axis.set_xticks(place, stages)
    axis.set_ylim(0, 118)
    axis.set_ylabel("%")
    _legend(axis)
    return _svg(figure, name)
