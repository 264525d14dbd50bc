"""Write the page of results, for the site, from what lies in benchmarks/results: nothing on that page is typed by hand.

python -m benchmarks.results_page
"""

from __future__ import annotations

import argparse
import json
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.common import parser_of
from dlp_fast.reproduce.scales import SCALES
from dlp_fast.reproduce.tables import NAMES, TABLES, of_one_machine, with_seeds

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MOST_SEEDS = 9
ORDERS = ("supervised-unlearning-finetuning", "sl-au-assft")  # the same, since version 11 and before
HEAD = """# Results

Written by `python -m benchmarks.results_page` from the files of `benchmarks/results/`; the commands are in
its README beside them. CA: clean accuracy over the whole test set. ASR: share of triggered
test images, not of the target class, that are classified as the target. Where rows of a
table come from different machines, a note above it says so.
"""


def newest(pattern: str) -> list[Path]:
    """The files of the latest date for each name."""
    latest: dict[str, Path] = {}
    for file in sorted(RESULTS.glob(pattern)):
        latest[file.name.rsplit("_", 1)[0]] = file
    return list(latest.values())


def machine(environment: dict[str, Any]) -> str:
    return (
        f"{environment['processor']}, {environment['threads']} threads, {environment['device']}, torch "
        f"{environment['torch']}"
    )


def end_to_end() -> str:
    parts = ["## The whole method beside no defence and the clean set\n"]
    for file in newest("end_to_end_*.json"):
        saved = json.loads(file.read_text())
        images = saved["images"]
        parts.append(
            f"`{file.name}`: {images['train']:,} training and {images['test']:,} test images; "
            f"{machine(saved['environment'])}.\n"
        )
        parts += [saved["note"] + "\n"] if "note" in saved else []
        parts.append(file.with_suffix(".md").read_text())
    return "\n".join(parts)


def reproduced(images: Path) -> str:
    """`images`: folder that the pictures are copied to."""
    parts = ["## The paper's tables and figures\n"]
    for file in sorted((RESULTS / "reproduce").glob("*/*.md")):
        title, _, body = file.read_text().partition("\n")
        parts.append(f"### {title.removeprefix('# ')}: {file.parent.name}\n{body}")
        picture = file.with_suffix(".png")
        if picture.is_file():
            name = f"{file.parent.name}_{picture.name}"
            shutil.copy2(picture, images / name)
            parts.append(f"![{title.removeprefix('# ')}](images/{name})\n")
    folders = sorted(f for f in (RESULTS / "reproduce").iterdir() if f.is_dir())
    return "\n".join([*parts, *map(means, folders)])


def key_of(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What a cell is of Tables 3 and 4: its name differs between versions, which call the stages by other names."""
    return tuple(cell[k] for k in ("method", "attack", "seed", "rate", "gamma", "model"))


def cells_of(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """{key_of a cell: its figures} from the archive of one reproduction, all stages in the order of the paper."""
    archive = folder / "cells.tar.gz"
    if not archive.is_file():
        return {}
    with tarfile.open(archive) as files:
        saved = [json.load(files.extractfile(file)) for file in files if file.isfile()]
    cells = [of for of in saved if "clean_accuracy" in of or "failed" in of]
    return {key_of(of["cell"]): of for of in cells if of["cell"]["order"] in ORDERS}


def means(folder: Path) -> str:
    """Of each method over the attacks that all its peers were measured on, from the cells of Tables 3 and 4: mean and
    deviation of what each seed comes to.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    figures = cells_of(folder)
    for cell in with_seeds(TABLES["table3"].cells(SCALES["small"]), MOST_SEEDS):
        saved = figures.get(key_of(asdict(cell)), {"failed": "not run"})
        if cell.attack != "none" and "failed" not in saved:
            found.setdefault(cell.method, {}).setdefault(cell.seed, {})[cell.attack] = saved
    everybody = [by_seed[0] for by_seed in found.values() if len(by_seed.get(0, {})) > 1]
    attacks = [a for a in SCALES["small"].attacks if all(a in of for of in everybody)]
    if not everybody or not attacks:
        return ""
    lines = [
        f"### {folder.name}: means over {', '.join(attacks)}\n",
        "| method | seeds | CA | ASR | s |\n|---|---:|---:|---:|---:|",
    ]
    for method, by_seed in found.items():
        whole = [[of[a] for a in attacks] for of in by_seed.values() if all(a in of for a in attacks)]
        if whole:
            ca, asr = (
                [mean(f[k] for f in of) for of in whole] for k in ("clean_accuracy", "attack_success_rate")
            )
            timed = of_one_machine([f for of in whole for f in of])
            percents = f"{of_seeds(ca)} | {of_seeds(asr)}"
            seconds = f"{mean(f['seconds'] for f in timed):.0f}" if timed else "–"
            lines.append(f"| {NAMES[method]} | {len(whole)} | {percents} | {seconds} |")
    return "\n".join(lines) + "\n"


def of_seeds(shares: list[float]) -> str:
    """Per cent, and the deviation of several; the same 58.85 must not be 58.8 in one row and 58.9 in another for the
    last bit of its mean.
    """
    percents = [round(100 * of, 6) for of in shares]
    deviation = f" ± {stdev(percents):.1f}" if len(percents) > 1 else ""
    return f"{mean(percents):.1f}{deviation}"


def memory() -> str:
    parts = ["## Loaders, memory\n"]
    for file in newest("memory_growth_*.json"):
        saved = json.loads(file.read_text())
        parts.append(
            f"`{file.name}`: growth of the resident set after the third epoch, {machine(saved['environment'])}.\n\n"
            "| loader | images | epochs | resident, MB | MB an epoch |\n|---|---:|---:|---:|---:|"
        )
        parts += [
            f"| {loader} | {of['images']:,} | {of['epochs']} | {of['resident_megabytes']:.0f} | "
            f"{of['megabytes_an_epoch']:+.3f} |"
            for loader, of in saved["rows"].items()
        ]
        parts.append("")
    return "\n".join(parts)


def kernels() -> str:
    parts = ["## Kernels, loaders and steps\n"]
    for file in [*newest("kernels_*.md"), *newest("loaders_*.md")]:
        parts.append(f"`{file.name}`\n\n{file.read_text()}")
    return "\n".join(parts)


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "benchmarks.results_page")
    of.add_argument("--out", type=Path, default=ROOT / "build" / "docs" / "results.md", help="page to write")
    return of


def main() -> None:
    options = parser().parse_args()
    page = "\n".join([HEAD, end_to_end(), reproduced(options.out.parent / "images"), kernels(), memory()])
    options.out.write_text(page)
    print(options.out)


if __name__ == "__main__":
    main()
