"""Write docs/results.md from what lies in benchmarks/results: nothing on that page is typed by hand.

python benchmarks/results_page.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEAD = """# Results

Written by `python benchmarks/results_page.py` from the files of `benchmarks/results/`; the commands are in
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


def reproduced() -> str:
    parts = ["## The paper's tables and figures\n"]
    for file in sorted((RESULTS / "reproduce").glob("*/*.md")):
        title, _, body = file.read_text().partition("\n")
        parts.append(f"### {title.removeprefix('# ')}\n{body}")
        picture = file.with_suffix(".png")
        if picture.is_file():
            name = f"{file.parent.name}_{picture.name}"
            shutil.copy2(picture, ROOT / "docs" / "images" / name)
            parts.append(f"![{title.removeprefix('# ')}](images/{name})\n")
    return "\n".join([*parts, means()])


def means() -> str:
    """Of each method over the attacks that all of them were measured on, from the cells of reproduce/cifar10_16px."""
    attacks, found = ("badnets", "trojannn", "blended", "sig"), {}
    for file in sorted((RESULTS / "reproduce" / "cifar10_16px" / "cells").glob("*.json")):
        saved = json.loads(file.read_text())
        cell = saved["cell"]
        usual = (cell["rate"], cell["gamma"]) == (0.5 if cell["attack"] == "sig" else 0.1, 0.01)
        if "clean_accuracy" in saved and cell["attack"] in attacks and usual and cell["model"] is None:
            found.setdefault(cell["method"], []).append(saved)
    lines = [
        f"### Means over {', '.join(attacks)} (CIFAR-10, from the cells of Table 3)\n",
        "| method | CA | ASR | s |\n|---|---:|---:|---:|",
    ]
    for method, of in sorted(found.items()):
        if len(of) == len(attacks):
            ca, asr, seconds = (
                mean(f[k] for f in of) for k in ("clean_accuracy", "attack_success_rate", "seconds")
            )
            lines.append(f"| {method} | {100 * ca:.1f} | {100 * asr:.1f} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


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


def main() -> None:
    page = "\n".join([HEAD, end_to_end(), reproduced(), kernels(), memory()])
    (ROOT / "docs" / "results.md").write_text(page)
    print("docs/results.md")


if __name__ == "__main__":
    main()
