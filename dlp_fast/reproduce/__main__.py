"""python -m dlp_fast.reproduce table1|...|table6|fig1|fig3|fig4|fig5: the paper's tables and figures, cell by cell.

What is done is kept: the same command goes on where it stopped, and tables share their cells.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field

from dlp_fast.commands.dry_run import dry_run
from dlp_fast.commands.options import guarded, tell
from dlp_fast.config import build
from dlp_fast.reproduce import figures
from dlp_fast.reproduce.cells import Bench, Cell
from dlp_fast.reproduce.scales import SCALES
from dlp_fast.reproduce.tables import TABLES, Figures, seeds_told, with_seeds
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.time_left import duration

What = Literal["table1", "table2", "table3", "table4", "table5", "table6", "fig1", "fig3", "fig4", "fig5"]
TITLES = {
    "fig1": "Learning curves of poisoned and clean samples (Figure 1)",
    "fig3": "What each attack does to an image (Figure 3)",
    "fig5": "Precision of the detection methods (Figure 5)",
}
FIGURES = {"fig1": figures.figure1, "fig3": figures.figure3, "fig5": figures.figure5}


class ReproduceConfig(BaseModel):
    """Which table or figure, on what, and how much of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    what: Annotated[What, tyro.conf.Positional]
    """Tables 1, 3, 5, 6 and the figures are the paper's on CIFAR-10; 2 and 4 on an ImageNet subset."""
    data: str = "digits"
    """digits | cifar10 | cifar10:DIR | DIR with train and test. The paper's are photographs; digits is for trying."""
    scale: Literal["smoke", "small", "full"] = "small"
    """smoke: to see that it works; small: an afternoon a table on a CPU, 5,000 images of 16 px; full: all images, for a
    GPU."""
    seeds: int = Field(3, ge=1)
    """Repetitions with other weights, poisoned images and patterns; tables have mean and deviation."""
    out: Path | None = None
    """Folder; unset: runs/reproduce-<scale>."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where it is fast."""
    attacks: tuple[Literal["badnets", "trojannn", "blended", "lca", "sig"], ...] | None = None
    """Only these attacks; unset: the scale's."""
    networks: tuple[str, ...] | None = None
    """Only these networks in Table 6; unset: the scale's."""
    only_done: bool = False
    """Run nothing: write the table from the cells that are done, with "not run" in place of the others."""
    image_size: int | None = Field(None, ge=8, le=256)
    """Side in pixels; unset: the scale's."""
    images: int | None = Field(None, ge=100)
    """Training images, the same number of each class; unset: the scale's."""
    clean_share: float | None = Field(None, gt=0, le=1)
    """Clean images for the rivals that need some, as a share of the size of the training set; unset: 0.05. At most a
    quarter of the test set."""


def reckon(bench: Bench, cells: list[Cell], done: dict[Cell, dict[str, Any]]) -> str:
    """A time estimate: of cells like those that are done (method and network, else network), or from a few batches of
    our own method with that network.
    """
    left = [c for c in cells if c not in done]
    if not left:
        return "all cells are done already"
    trials: dict[str | None, float] = {}

    def seconds(cell: Cell) -> float:
        for alike in (lambda c: (c.method, c.model), lambda c: c.model):
            taken = [f["seconds"] for c, f in done.items() if alike(c) == alike(cell) and "seconds" in f]
            if taken:
                return mean(taken)
        if cell.model not in trials:
            ours = build(bench.configured(Cell("dlp_fast", "none", 0, model=cell.model)), "reproduce")
            trials[cell.model] = dry_run(ours, bench.dataset, quiet=True).total
        return trials[cell.model]

    return f"{len(left)} of {len(cells)} cells to run, about {duration(sum(map(seconds, left)))}"


def run_table(name: str, bench: Bench, seeds: int, only_done: bool = False) -> str:
    table = TABLES[name]
    cells = with_seeds(table.cells(bench.scale), seeds)
    found: Figures = {c: bench.run(c) for c in cells if (bench.out / "cells" / f"{c.name()}.json").is_file()}
    if only_done:
        tell(f"{len(found)} of {len(cells)} cells are done")
    else:
        tell(reckon(bench, cells, found))
        for number, cell in enumerate(cells, start=1):
            if cell not in found:
                bench.log.say(f"cell {number} of {len(cells)}: {cell.name()}")
                found[cell] = bench.run(cell)
    if name == "fig4":
        figures.figure4(bench, seeds, found)
    return table.write(bench.scale, found) + seeds_told(found)


def main() -> None:
    config = tyro.cli(ReproduceConfig, prog="python -m dlp_fast.reproduce", description=__doc__)
    scale = SCALES[config.scale]
    chosen = {
        key: getattr(config, key) for key in ("attacks", "networks", "image_size", "images", "clean_share")
    }
    scale = dataclasses.replace(scale, **{key: value for key, value in chosen.items() if value})
    log = RunLog(None)
    out = config.out or Path("runs") / f"reproduce-{config.scale}"
    bench = Bench(config.data, config.scale, scale, out, log, config.device, config.precision)
    if config.what in FIGURES:
        text, title = FIGURES[config.what](bench, config.seeds, config.only_done), TITLES[config.what]
    else:
        text = run_table(config.what, bench, config.seeds, config.only_done)
        title = TABLES[config.what].title
    train, test, few = bench.dataset.train, bench.dataset.test, bench.clean_images
    network = "the networks below" if config.what == "table6" else scale.model
    facts = (
        f"{len(train.labels):,} training images of {bench.dataset.name}, {train.images.width} px, {len(test.labels):,} "
        f"test images, {network}, scale {config.scale}, {config.seeds} seed{'s' * (config.seeds > 1)}. "
        f"CA and ASR in %, mean ± deviation; {len(few.labels)} other clean images went to the rivals that need some."
    )
    if bench.machines:
        facts += f" Measured on: {'; '.join(sorted(bench.machines))}."
    page = f"# {title}\n\n{facts}\n\n{text}"
    write_atomic(out / f"{config.what}.md", page.encode())
    log.close()
    tell(text)
    tell(f"written to {out / config.what}.md")


if __name__ == "__main__":
    guarded(main)
