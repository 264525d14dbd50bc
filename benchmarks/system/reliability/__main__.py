"""Every promise put to the test, and the table of docs/reliability.md written from what came out.

    python -m benchmarks.system.reliability --sample --out benchmarks/results/reliability_DATE.json

Whole it takes hours, with --sample minutes. Each promise also runs alone, by the command that the
table names. Exit code 1 where one was not kept. Results of promises that are not run now stay in the result file. What
was cut off goes on after the last part that was done, which build/reliability keeps.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import add_out, parser_of, write_result
from benchmarks.system import reliability
from benchmarks.system.reliability.promise import Promise, begun_of, told

PAGE = Path(__file__).resolve().parents[3] / "docs/reliability.md"
BEGIN, END = "<!-- table: python -m benchmarks.system.reliability -->", "<!-- end of the table -->"


def promises() -> dict[str, Promise]:
    """Module name to promise, in the order of the names."""
    package = reliability.__name__
    modules = (importlib.import_module(f"{package}.{one.name}") for one in pkgutil.iter_modules(reliability.__path__)
               if one.name not in ("__main__", "promise", "tiny_run"))  # fmt: skip
    return {module.__name__: module.PROMISE for module in modules}


def table(results: list[dict[str, Any]]) -> str:
    lines = ["| promise | how it is tested | kept | command |", "|---|---|---|---|"]
    for of in results:
        number = f"{of['kept']:,} of {of['trials']:,}"
        lines.append(f"| {of['promise']} | {of['how']} | {number} | `{of['command']}` |")
    return "\n".join(lines)


def write_page(page: Path, results: list[dict[str, Any]], file: Path) -> None:
    """Put the table of `results`, which lie in `file`, in the place of the one that the page has."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    made = f"{BEGIN}\n\nNumbers of `{file.name}` in `benchmarks/results/`.\n\n{table(results)}\n\n{END}"
    page.write_text(before + made + after, encoding="utf-8")


def main() -> None:
    of = promises()
    parser = parser_of(__doc__, "benchmarks.system.reliability")
    parser.add_argument("--sample", action="store_true", help="few trials of each")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument(
        "--only", nargs="*", metavar="NAME", help="these promises alone, by their modules' names"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose table is written")
    add_out(parser)
    given = parser.parse_args()
    failed = False
    for module, promise in of.items():
        name = module.rpartition(".")[2]
        if given.only and name not in given.only:
            continue
        print(f"{name}: {promise.says}", flush=True)
        count = promise.sample if given.sample else promise.full
        result = promise.run(count, given.seed, module, begun_of(module))
        if not result["trials"]:  # what it needs is not installed
            continue
        print(f"  {told(result)}", flush=True)
        failed |= result["kept"] != result["trials"]
        before = json.loads(given.out.read_text())["promises"] if given.out.is_file() else {}
        before[name] = result
        write_result(given.out, {"promises": dict(sorted(before.items()))}, "CPU")
        write_page(given.page, [before[name] for name in sorted(before)], given.out)
    sys.exit(failed)


if __name__ == "__main__":
    main()
