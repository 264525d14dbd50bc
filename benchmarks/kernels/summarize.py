"""A Markdown table of a pytest-benchmark result: medians, and how many times faster "ours" is than each peer.

    python -m benchmarks.kernels.summarize RESULT.json [--write] [--against EARLIER.json.gz]

A group's rows are told apart by the parameter ``contender``: "ours" (the fastest counts) and its peers. ``--write``
puts the table beside the result (RESULT.md) as well. ``--against`` adds what became of each ratio since an earlier
result: a report, for a machine and a day change ratios too, so nothing fails for it.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from pathlib import Path

from benchmarks.common import parser_of

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def duration(seconds: float) -> str:
    scale, unit = next(((s, u) for s, u in UNITS if seconds >= s), UNITS[-1])
    return f"{seconds / scale:.3g} {unit}"


def contender(benchmark: dict) -> str:
    """Who was timed: the parameter `contender` or `who`, else the test's name without what all tests have."""
    params = benchmark.get("params") or {}
    named = params.get("contender") or params.get("who")
    return named or benchmark["name"].removeprefix("test_bench_").removeprefix("test_")


def is_ours(name: str) -> bool:
    return name.startswith("ours")


def facts_line(facts: dict) -> str:
    device = f"{facts.get('gpu') or 'no GPU'}; {facts.get('cpu')}, {facts.get('threads')} threads"
    build = facts.get("build", {})
    return (
        f"{device}; torch {facts.get('torch')}; Python {facts.get('python')}; {build.get('compiler')}, "
        f"CUDA {build.get('cuda')}, SIMD {'/'.join(build.get('simd', []))}; commit {facts.get('commit')}; "
        f"load {facts.get('load_average')} when saved"
    )


def summary(result: dict) -> str:
    """The whole table as Markdown."""
    groups: dict[str, list[dict]] = defaultdict(list)
    for benchmark in result["benchmarks"]:
        groups[benchmark["group"] or benchmark["name"]].append(benchmark)
    lines = [
        facts_line(result["machine_info"]),
        "",
        "| group | contender | median | min | ours is faster by |",
        "|---|---|---:|---:|---:|",
    ]
    for group in sorted(groups):
        rows = sorted(groups[group], key=lambda b: (not is_ours(contender(b)), b["stats"]["median"]))
        ours = next((b["stats"]["median"] for b in rows if is_ours(contender(b))), None)
        for row in rows:
            stats, name = row["stats"], contender(row)
            ratio = "" if ours is None or is_ours(name) else f"{stats['median'] / ours:.2f}×"
            lines.append(
                f"| {group} | {name} | {duration(stats['median'])} | {duration(stats['min'])} | {ratio} |"
            )
    return "\n".join(lines) + "\n"


def ratios(result: dict) -> dict[tuple[str, str], float]:
    """How many times as long as ours each peer takes, by (group, peer); medians, ours the fastest of its forms."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for benchmark in result["benchmarks"]:
        groups[benchmark["group"] or benchmark["name"]][contender(benchmark)] = benchmark["stats"]["median"]
    found = {}
    for group, times in groups.items():
        ours = [seconds for name, seconds in times.items() if is_ours(name)]
        for name, seconds in times.items():
            if ours and not is_ours(name):
                found[group, name] = seconds / min(ours)
    return found


def read_result(file: Path) -> dict:
    content = file.read_bytes()
    return json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)


def compared(now: dict, before: dict) -> str:
    """The ratios of two results side by side, Markdown; of what both have."""
    old, new = ratios(before), ratios(now)
    lines = ["| group | peer | ratio before | now | now / before |", "|---|---|---:|---:|---:|"]
    for group, peer in sorted(old.keys() & new.keys()):
        was, is_now = old[group, peer], new[group, peer]
        lines.append(f"| {group} | {peer} | {was:.2f} | {is_now:.2f} | {is_now / was:.2f} |")
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.kernels.summarize")
    arguments.add_argument("result", type=Path, help="file of pytest-benchmark")
    arguments.add_argument("--write", action="store_true", help="write RESULT.md too")
    arguments.add_argument("--against", type=Path, metavar="FILE", help="earlier result, JSON or its gzip")
    return arguments


def main() -> None:
    options = parser().parse_args()
    result = read_result(options.result)
    text = summary(result)
    if options.against:
        text += f"\nAgainst `{options.against.name}`:\n\n{compared(result, read_result(options.against))}"
    print(text, end="")
    if options.write:
        options.result.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
