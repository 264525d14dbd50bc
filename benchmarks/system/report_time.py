"""How long the report of a finished run takes to write, and its size.

python -m benchmarks.system.report_time RUN --out RESULT.json
python -m benchmarks.system.report_time --made 1000000 --out RESULT.json     # of a made run with so many images
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.common import add_out, parser_of, write_result
from dlp_fast.report.render import write_report
from dlp_fast.runs.reader import read_samples
from studies._report import finished_run


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.system.report_time")
    arguments.add_argument("run", type=Path, nargs="?", help="a finished run folder")
    arguments.add_argument("--made", type=int, help="instead: images of a run that is made up, at 16 px")
    add_out(arguments)
    return arguments


def main() -> None:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run
        if options.made:
            run = Path(folder) / "run"
            finished_run(run, suspects=min(50_000, options.made // 20), images=options.made).close()
        wall, processor = time.monotonic(), time.process_time()
        path = write_report(run, Path(folder) / "report.html")
        row = {
            "images": len(read_samples(run)["path"]),
            "seconds": time.monotonic() - wall,
            "processor_seconds": time.process_time() - processor,
            "bytes": path.stat().st_size,
        }
    print(row)
    write_result(options.out, row, "CPU")


if __name__ == "__main__":
    main()
