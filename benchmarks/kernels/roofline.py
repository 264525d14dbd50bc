"""Where the CUDA kernels stand between the two roofs, from a result of cuda_events.py.

    python -m benchmarks.kernels.roofline RESULT.json --out FILE.png [--before]

Across: instructions a lane issues for each byte that must be moved, counted by hand in the disassembly of sm_90
(docs/kernels tells each). Augmentation is not in it: its count hangs on the operation that is drawn.
Up: instructions a second. The sloping roof is the copy of the same run; the flat one is what the device can issue.
`--before`: with the counts of the kernels until 2026-11-27.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.common import parser_of


@dataclass(frozen=True)
class Device:
    """Streaming multiprocessors, lanes that issue in one of them each cycle, cycles a second."""

    processors: int
    lanes: int
    clock: float

    @property
    def peak(self) -> float:
        return self.processors * self.lanes * self.clock


DEVICES = {"H100": Device(132, 128, 1.755e9), "H200": Device(132, 128, 1.755e9)}
# (before, now): instructions of a lane for a value, or for 16 bytes of an image, over the bytes that it moves
COUNTS = {
    "row_entropy float32": (35 / 4, 33 / 4),
    "row_entropy bfloat16": (35 / 2, 33 / 2),
    "inject_trigger in place": (480 / 32, 268 / 32),  # a blended vector
    "inject_trigger normalised": (180 / 48, 164 / 48),  # one in ten of the vectors is blended
    "high_pass_residual": (142 / 5, 75 / 5),
}


def kind_of(name: str) -> str | None:
    """Which entry of COUNTS a row belongs to; None where latency bounds it, as in a selection, or no count holds."""
    if name.startswith("row_entropy"):
        return f"row_entropy {name.split()[-1]}"
    if name.startswith("inject_trigger"):
        return "inject_trigger normalised" if "normalised" in name else "inject_trigger in place"
    return "high_pass_residual" if name.startswith("high_pass_residual") else None


def draw(result: dict, out: Path, before: bool) -> int:
    """Write the picture; returns how many rows are in it."""
    named = result["environment"]["device"]
    device = next((of for name, of in DEVICES.items() if name in named), DEVICES["H100"])
    rows = [row for row in result["rows"] if "failed" not in row and kind_of(row["name"])]
    copy = max(row["bytes"] / row["seconds"]["copy"] for row in rows)
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    across = [0.5, device.peak / copy, 40]
    axes.plot(
        across,
        [min(x * copy, device.peak) for x in across],
        color="black",
        label=f"copy {copy / 1e12:.1f} TB/s",
    )
    for kind, marker in zip(COUNTS, "osv^P", strict=True):
        mine = [row for row in rows if kind_of(row["name"]) == kind]
        if not mine:
            continue
        count = COUNTS[kind][not before]
        axes.scatter(
            [count] * len(mine), [count * row["bytes_per_second"] for row in mine], marker=marker, label=kind
        )
    axes.set(xscale="log", yscale="log", xlabel="instructions a byte", ylabel="instructions a second")
    axes.set_title(named.split(",")[0])
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
    return len(rows)


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.kernels.roofline")
    arguments.add_argument("result", type=Path, help="JSON of cuda_events.py")
    arguments.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture, PNG")
    arguments.add_argument("--before", action="store_true", help="counts of the kernels until 2026-11-27")
    return arguments


def main() -> None:
    options = parser().parse_args()
    print(f"{draw(json.loads(options.result.read_text()), options.out, options.before)} rows")


if __name__ == "__main__":
    main()
