"""report.html as a workplace: decisions by click and key, the file for --decisions, thousands of suspects, odd names.

The rows that need a browser fail, and say so, where there is no Chromium.
"""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlp_fast.report.render import write_report
from dlp_fast.runs.reader import read_samples
from studies._browser import CHROMIUM, Browser
from studies._report import finished_run
from studies.field_reports.row import QUICK, Row, command, images

COUNTS = "document.getElementById('counts').textContent"
SHOWN = "document.getElementById('shown').textContent"
ACTIVE = "+document.querySelector('.card.active').id.replace('image-', '')"
REFUSED = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
NAMES = ("<img src=x onerror=alert(1)>", '=cmd(),"x"', "'a;b", "ü #%20?")
SUSPECTS = ("--detection.nothing-found", "suspect")  # in so few steps nothing is found


def data_of(page: str) -> dict[str, Any]:
    return json.loads(re.search(r'type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def in_browser(check: Callable[[Path, Browser], None], wide: int = 1200) -> Callable[[Path], None]:
    def run(here: Path) -> None:
        assert CHROMIUM, "needs Chromium: install the package chromium"
        with Browser(wide, 900) as browser:
            check(here, browser)
            assert browser.console == [], browser.console

    return run


def made_and_open(here: Path, browser: Browser, **options: Any) -> tuple[Path, tuple[str, ...]]:
    """(run folder, paths of its images), with the page open and the gallery focused."""
    count = options.setdefault("images", 600)
    paths = options.setdefault("paths", tuple(f"train/{i:05d}.png" for i in range(count)))
    finished_run(here / "run", **options)
    browser.open(write_report(here / "run"))
    browser.run("document.getElementById('gallery').focus()")
    return here / "run", paths


def clicks(here: Path, browser: Browser) -> None:
    run, _ = made_and_open(here, browser)
    browser.click('.card .act[data-mark="drop"]')
    browser.click("#marking [data-mark='keep']")
    assert browser.run(COUNTS) == "1 decided: 1 keep, 0 drop, 0 suspect", browser.run(COUNTS)
    browser.open(run / "report.html")
    assert browser.run(COUNTS).startswith("1 decided"), "not kept over a reload"


def keys(_: Path, browser: Browser) -> None:
    made_and_open(_, browser)
    for key in ("k", "d", "ArrowDown", "s", "k", "z"):
        browser.press(key)
    assert browser.run(COUNTS) == "3 decided: 1 keep, 1 drop, 1 suspect", browser.run(COUNTS)


def there_and_back(here: Path, browser: Browser) -> None:
    """From folder to page to file to run, with the command that the page shows."""
    data = images(here / "photos", NAMES[:1] + ("dogs",), each=14)
    out = here / "my run"
    command("run", "--data", data, *QUICK, *SUSPECTS, "--model", "wrn-10-1", "--out", out).ended(0)
    browser.open(out / "report.html")
    browser.run("document.getElementById('gallery').focus()")
    decided = {}
    for key, word in (("k", "keep"), ("d", "drop"), ("s", "suspect")):
        decided[browser.run(ACTIVE)] = word
        browser.press(key)
    browser.click("#download")
    file = browser.downloaded()
    shown = re.search(
        r'<pre tabindex="0">python -m dlp_fast.run (.*?)</pre>', (out / "report.html").read_text()
    )[1]
    words = shlex.split(html.unescape(shown))
    assert words[-1] == file.name, shown
    command("run", *words, cwd=file.parent).ended(0, "going on from the detection, with these decisions")
    after = read_samples(out)
    assert {i: word for i, word in enumerate(after["override"]) if word} == decided
    assert all(
        after["decision"][i] != "suspected_poisoned" for i, word in decided.items() if word != "suspect"
    )
    browser.open(out / "report.html")
    assert browser.run(COUNTS) == "3 decided: 1 keep, 1 drop, 1 suspect", (
        "the new page shows what was decided"
    )


def nothing_kept(here: Path, browser: Browser) -> None:
    browser.ask("Page.addScriptToEvaluateOnNewDocument", source=REFUSED)
    made_and_open(here, browser)
    browser.press("k")
    assert browser.run(COUNTS).startswith("1 decided")
    assert not browser.run("document.getElementById('unkept').hidden"), "not said"
    browser.click("#download")
    assert browser.downloaded().read_text().count("keep") == 1


def odd_names(here: Path, browser: Browser) -> None:
    made_and_open(here, browser, paths=tuple(f"{NAMES[i % 4]}{i}" for i in range(600)))
    browser.press("s")
    browser.click("#download")
    done = command("report.__main__", here / "run")
    done.ended(0)
    assert browser.run("document.querySelectorAll('main img[src=x], .card img').length") == 0


def five_thousand(here: Path, browser: Browser) -> None:
    run, _ = made_and_open(here, browser, suspects=4980, images=10_000, side=32)
    assert (run / "report.html").stat().st_size < 15_000_000
    browser.choose("by-list", "suspected_poisoned")
    assert browser.run(SHOWN).startswith("5000 of "), browser.run(SHOWN)
    browser.press("End")
    assert "rank 4999" in browser.run("document.querySelector('.card.active').textContent")
    assert browser.run("document.querySelectorAll('.card').length") < 150


def more(here: Path) -> None:
    finished_run(here / "run", suspects=5600, images=9000, side=8)
    text = write_report(here / "run").read_text()
    assert "most suspicious of the 5,620 suspected images are here" in text
    assert data_of(text)["rank"][:5000] == list(range(5000))


def phone(here: Path, browser: Browser) -> None:
    made_and_open(here, browser)
    browser.size(360, 740, phone=True)
    browser.open(here / "run" / "report.html")
    assert browser.run("document.documentElement.scrollWidth") == 360
    browser.click('.card .act[data-mark="keep"]')
    assert browser.run(COUNTS).startswith("1 decided")


def trigger(here: Path) -> None:
    finished_run(here / "run")
    text = write_report(here / "run").read_text()
    for words in (
        "mask: where it changes",
        "98.0 %",
        "2.0 %",
        "its nearest clean image",
        "No trigger is reconstructed",
    ):
        assert words in text, words


def images_gone(here: Path) -> None:
    data = images(here / "photos", each=14)
    command(
        "run", "--data", data, *QUICK, *SUSPECTS, "--model", "wrn-10-1", "--out", here / "run"
    ).ended(0)  # fmt: skip
    before = (here / "run" / "report.html").read_bytes()
    shutil.rmtree(data)
    command("report.__main__", here / "run", "--out", here / "again.html").ended(0, "written: ")
    assert (here / "again.html").read_bytes() == before


ROWS = [
    Row(
        "W1.click", "A person decides with the mouse; the page is closed and opened again", in_browser(clicks)
    ),
    Row("W1.keys", "... with the keyboard, and takes the last one back", in_browser(keys)),
    Row(
        "W2.back",
        "The downloaded file, given back with the command that the page shows",
        in_browser(there_and_back),
    ),
    Row("W2.refused", "A browser that keeps nothing for file:// pages", in_browser(nothing_kept)),
    Row("W3.names", "File names with markup, formulas, quotes, percent signs", in_browser(odd_names)),
    Row("W4.many", "5,000 suspects", in_browser(five_thousand)),
    Row("W4.more", "More suspects than a page shows: it says so, and where the others are", more),
    Row("W5.phone", "A phone of 360 pixels", in_browser(phone, 360)),
    Row("W6.trigger", "A finding with a trigger, and one without", trigger),
    Row("W7.gone", "The images are gone; the report is written anew from the run folder", images_gone),
]
