"""What it takes that one process has the scores of all images and ranks them, beside which ranking by all has to pay.

python -m benchmarks.system.gathered --images 10000000 --out RESULT.json
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.common import add_out, chosen, parser_of, write_result
from benchmarks.system.reliability.tiny_run import finish, work_together
from dlp_fast import ops
from dlp_fast.engine.distributed import joined

WAIT = 3600  # seconds, on a machine that others use


def gather(out: Path, images: int, world: int) -> None:
    """The columns of a Scores, each rank's share; rank 0 leaves the seconds as `out`."""
    with joined() as ranks:
        mine = [torch.rand(images // world) for _ in range(3)] + [
            torch.zeros(images // world, dtype=torch.int64)
        ]
        began, spent = time.monotonic(), time.process_time()
        columns = [ranks.gather(column) for column in mine]
        seconds = {"wall": time.monotonic() - began, "processor": time.process_time() - spent}
        size = sum(column.nbytes for column in columns)
    if ranks.leads:
        out.write_text(json.dumps({"seconds": seconds, "bytes": size}))


def main() -> None:
    arguments = parser_of(__doc__, "benchmarks.system.gathered")
    arguments.add_argument("--images", type=int, default=10_000_000)
    arguments.add_argument("--processes", type=int, default=2)
    add_out(arguments)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "told")
        children = work_together(
            options.processes, gather, (out, options.images, options.processes), Path(place)
        )
        codes = [finish(child, WAIT) for child in children]
        assert codes == [0] * options.processes, Path(place, "rank0.log").read_text()
        row = {"gathered": json.loads(out.read_text())}
    torch.set_num_threads(1)
    scores = torch.rand(options.images, generator=torch.Generator().manual_seed(0))
    began, spent = time.monotonic(), time.process_time()
    ops.select(scores, options.images, check=True)
    row["ranked"] = {"wall": time.monotonic() - began, "processor": time.process_time() - spent}
    print(row)
    write_result(options.out, {**chosen(options), **row}, "CPU")


if __name__ == "__main__":
    main()
