"""Run the checks of all areas: PASS or FAIL a row, and a result file where one is asked for.

python -m studies.field_reports.run --area folders --out RESULT.json
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import parser_of, write_result
from studies.field_reports.row import Row

HERE = Path(__file__).parent
AREAS = sorted(file.stem for file in HERE.glob("*.py") if file.stem not in ("__init__", "row", "run"))


def parser() -> argparse.ArgumentParser:
    of = parser_of(__doc__, "studies.field_reports.run")
    of.add_argument("--area", nargs="+", default=AREAS, choices=AREAS, help="which areas")
    of.add_argument(
        "--row", nargs="+", metavar="ID", help="these rows alone, and those that begin so (F4, F4.cycle)"
    )
    of.add_argument("--out", type=Path, metavar="FILE", help="result file, JSON; unset: none")
    return of


def rows_of(area: str) -> list[Row]:
    """The table of one area; its ids are unique."""
    rows = importlib.import_module(f"studies.field_reports.{area}").ROWS
    assert len({row.id for row in rows}) == len(rows), f"{area}: an id is there twice"
    return rows


def tried(row: Row) -> str | None:
    """None where the check passes, else what it says; its folder is gone afterwards."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="field_report_") as folder:
        try:
            row.check(Path(folder).resolve())
        except AssertionError as error:
            return str(error) or "AssertionError"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            os.chdir(before)
    return None


def chosen(row: Row, ids: list[str] | None) -> bool:
    return not ids or any(row.id == one or row.id.startswith(f"{one}.") for one in ids)


def main() -> None:
    options = parser().parse_args()
    found, failed = [], 0
    for area in options.area:
        for row in rows_of(area):
            if not chosen(row, options.row):
                continue
            began = time.monotonic()
            problem = tried(row)
            failed += problem is not None
            print(f"{'FAIL' if problem else 'PASS'}  {area:<8} {row.id:<14} {row.situation}", flush=True)
            if problem:
                print(f"      {problem}", flush=True)
            seconds = round(time.monotonic() - began, 1)
            found.append(
                {
                    "area": area,
                    "id": row.id,
                    "situation": row.situation,
                    "passed": not problem,
                    "seconds": seconds,
                }
            )
    print(f"{len(found) - failed} of {len(found)} pass")
    if options.out:
        write_result(options.out, {"passed": len(found) - failed, "rows": found}, "cpu")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
