"""Names of classes and files with HTML, formulas, control characters: harmless in the report and in every CSV.

python -m benchmarks.system.reliability.hostile_names
"""

from __future__ import annotations

import csv
import html.parser
import os
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.system.reliability.promise import Promise, Trial, main
from benchmarks.system.reliability.tiny_run import finished_run, options, picture

NAMES = (
    "<script>pwned()<|script>",
    "<img src=x onerror=pwned()>",
    '"><svg onload=pwned()>',
    "</title><script>pwned()",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:pwned()",
    "=cmd|' !A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "a\nb,c;d",
    "\x1b[31mred",
    "a\u202etxt.exe",
    os.fsdecode(b"latin-\xe9-\xff"),
    "[/bold]%s%n{0}",
    "' OR 1=1 --",
)
STARTS = ("=", "+", "-", "@", "\t", "\r")


class Page(html.parser.HTMLParser):
    """Elements and attributes that a name could have brought into the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attributes:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.found.append(f"<{tag} {name}={value}>")

    def handle_data(self, data: str) -> None:
        if (
            self.cdata_elem == "script"
            and "pwned" in data
            and "application/json" not in (self.get_starttag_text() or "")
        ):
            self.found.append("a name within a script")


def page_of(run: Path) -> Page:
    page = Page()
    page.feed((run / "report.html").read_text(encoding="utf-8"))
    return page


def trials(count: int, _: random.Random, folder: Path) -> Iterator[Trial]:
    names = [name.replace("/", "|") for name in NAMES[:count]]
    for k, of in enumerate(("plain", names[0])):
        (folder / f"images/{of}").mkdir(parents=True)
        for i in range(12):
            picture(16, seed=5 * i + 2 * k).save(folder / f"images/{of}/{i}.png")
    for i, name in enumerate(names):
        picture(16, seed=100 + i).save(Path(os.fsdecode(os.fsencode(folder / f"images/plain/{name}.png"))))
    plain = folder / "plain_images"
    for k, of in enumerate(("a", "b")):
        (plain / of).mkdir(parents=True)
        for i in range(12):
            picture(16, seed=5 * i + 2 * k).save(plain / of / f"{i}.png")
    run = finished_run(folder / "run", *options(), "--data", str(folder / "images"))
    page, harmless = page_of(run), page_of(finished_run(folder / "plain", *options(), "--data", str(plain)))
    yield Trial(not page.found, f"elements and handlers in the report: {page.found}")
    yield Trial(
        page.scripts == harmless.scripts, f"{page.scripts} scripts, {harmless.scripts} with plain names"
    )
    with (run / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in names:
        stem = name.lstrip("".join(STARTS) + "'").split("\n")[0][-6:]
        cells = [row["path"] for row in rows if stem.encode("utf-8", "replace").decode() in row["path"]]
        harmful = [cell for cell in cells if cell.startswith(STARTS) or not cell.isprintable()]
        yield Trial(not harmful, f"cells of {name!r}: {harmful}")
    yield Trial(len(rows) == 24 + len(names), f"{len(rows)} rows for {24 + len(names)} images")


PROMISE = Promise(
    "hostile names",
    "no name of a file or class becomes an element or script of the report, or a formula in a CSV",
    "a run on names with HTML, templates, formulas, control characters and broken UTF-8; the page parsed, the CSV read",
    trials,
    full=len(NAMES),
    sample=len(NAMES),
)

if __name__ == "__main__":
    main(PROMISE)
