"""report.html in a headless Chromium, with real keys, clicks and downloads; where there is none, nothing of it runs."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch

from dlp_fast.report.render import write_report
from dlp_fast.selection.overrides import read_decisions
from studies._browser import CHROMIUM, Browser
from studies._report import CLASSES, finished_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

HOSTILE = ("</script><script>alert(1)</script>", '=cmd(),"x"', "'a;b", "new\nline\u2028", "ü <b>&amp;")
GIVEN = {3: "keep", 500: "drop", 501: "suspect"}  # decisions of the run before
REFUSED = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
BAD = "document.title = 'bad'"
COUNTS = "document.getElementById('counts').textContent"
SHOWN = "document.getElementById('shown').textContent"

LOW_CONTRAST = """() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = colour => { const [r, g, b] = parts(colour).map(linear); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = document.querySelectorAll('main p, td, .soft, .lines div, .act, .badge, button:enabled');
  return Array.from(texts).filter(e => e.offsetParent && e.textContent.trim()).map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    return [(a + .05) / (b + .05), e.textContent.slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
}"""  # of the page: text whose contrast is under 4.5, with its ratio


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(run folder with hostile names and decisions of before, paths of its images)."""
    folder = tmp_path_factory.mktemp("made") / "run"
    paths = tuple(f"{HOSTILE[i % 5]}{i}" for i in range(600))
    finished_run(folder, paths=paths, overrides=GIVEN)
    write_report(folder)
    return folder, paths


@pytest.fixture(scope="module")
def browser():
    with Browser() as one:
        yield one


@pytest.fixture
def page(browser, made):
    """The page, opened anew, with nothing kept of the test before."""
    browser.console.clear()
    browser.size(1200, 900)
    browser.open(made[0] / "report.html")
    browser.run("localStorage.clear()")
    browser.open(made[0] / "report.html")
    for file in browser.downloads.iterdir():
        file.unlink()
    yield browser
    assert browser.console == []


def order(page) -> list[int]:
    """Ranks of the images near the window, in the order in which they are seen."""
    return page.run(
        "Array.from(document.querySelectorAll('.card')).sort((a, b) => a.at - b.at)"
        ".map(c => +c.textContent.match(/rank (\\d+)/)[1])"
    )


def samples(folder) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def active(page) -> int:
    return page.run("+document.querySelector('.card.active').id.replace('image-', '')")


class TestPage:
    def test_opens_without_an_error(self, page):
        assert re.fullmatch(r"(\d+) of \1 shown", page.run(SHOWN))
        assert page.run("document.documentElement.scrollWidth <= innerWidth")

    def test_pictures_have_words(self, page):
        assert page.run("Array.from(document.images).every(i => i.alt.trim().length > 3)")
        assert "label" in page.run("document.querySelector('.card').getAttribute('aria-label')")

    def test_a_real_run(self, tiny_run, browser):
        browser.console.clear()
        browser.open(tiny_run[0] / "report.html")
        assert re.fullmatch(r"(\d+) of \1 shown", browser.run(SHOWN)) and browser.console == []

    def test_another_script_does_not_run(self, browser, made, tmp_path):
        text = (made[0] / "report.html").read_text()
        (tmp_path / "bad.html").write_text(
            text.replace(
                "</body>",
                "<script>document.title = 'bad'</script><img src=x onerror=\"document.title = 'bad'\">",
            )
        )
        browser.open(tmp_path / "bad.html")
        assert browser.run("document.title") != "bad" and browser.console
        browser.console.clear()

    def test_the_picture_is_the_one_of_the_image(self, page):
        """Drawn from a sheet: every suspect of the first finding has its white corner."""
        page.choose("by-finding", "0")
        page.run("document.getElementById('gallery').scrollIntoView({behavior: 'instant'})")
        page.wait(
            "Array.from(document.querySelectorAll('.card canvas')).every(c => "
            "c.getContext('2d').getImageData(c.width - 2, c.height - 2, 1, 1).data[0] > 240)"
        )
        assert page.run(SHOWN).startswith("60 of ")


class TestFilters:
    def test_by_list_and_sorted(self, page):
        page.choose("by-list", "suspected_clean")
        page.choose("sort", "-rank")
        page.run("document.getElementById('gallery').scrollIntoView({behavior: 'instant'})")
        page.wait("document.querySelectorAll('.card').length > 5")
        ranks = order(page)
        assert ranks == sorted(ranks, reverse=True)
        assert page.run(
            "Array.from(document.querySelectorAll('.card')).every(c => c.classList.contains('suspected_clean'))"
        )

    @pytest.mark.parametrize(
        ("filters", "count"),
        [
            ({"by-list": "suspected_poisoned"}, 80),
            ({"by-list": "benign"}, 20),
            ({"by-finding": "1"}, 20),
            ({"by-list": "suspected_poisoned", "by-class": "0"}, 60),
            ({"by-list": "suspected_poisoned", "by-class": str(CLASSES.index("dog"))}, 0),
            ({"by-mark": "any"}, 3),
            ({"by-mark": "keep"}, 1),
        ],
    )
    def test_counts(self, page, filters, count):
        for element, value in filters.items():
            page.choose(element, value)
        assert page.run(SHOWN).startswith(f"{count} of ")
        assert page.run("document.getElementById('empty').hidden") == (count > 0)

    def test_button_of_a_finding(self, page):
        page.click('[data-finding="1"]')
        assert page.run(SHOWN).startswith("20 of ") and page.run("document.activeElement.id") == "gallery"


class TestDeciding:
    def test_by_click(self, page):
        page.click('.card .act[data-mark="drop"]')
        first = active(page)
        assert page.run(f"document.getElementById('image-{first}').dataset.mark") == "drop"
        assert page.run(COUNTS) == "4 decided: 1 keep, 2 drop, 1 suspect"
        page.click('.card .act[data-mark="drop"]')  # once more: taken back
        assert page.run(COUNTS) == "3 decided: 1 keep, 1 drop, 1 suspect"

    def test_by_key(self, page):
        page.run("document.getElementById('gallery').focus()")
        seen = []
        for key in ("k", "d", "s", "ArrowRight", "k"):
            seen.append(active(page))
            page.press(key)
        marks = [page.run(f"document.getElementById('image-{i}').dataset.mark") for i in seen]
        assert marks[:3] == ["keep", "drop", "suspect"] and marks[4] == "keep"
        assert len(set(seen)) == 5  # a key goes on to the next image
        page.press("ArrowLeft"), page.press("c")
        assert page.run(f"document.getElementById('image-{seen[4]}').dataset.mark") == ""

    def test_undo_goes_back_one_by_one(self, page):
        page.run("document.getElementById('gallery').focus()")
        for key in ("k", "k", "z"):
            page.press(key)
        assert page.run(COUNTS).startswith("4 decided")
        page.press("z", ctrl=True)
        assert page.run(COUNTS).startswith("3 decided") and page.run(
            "document.getElementById('undo').disabled"
        )

    def test_all_that_are_shown_and_back(self, page):
        page.choose("by-finding", "1")
        page.click("#all-shown summary")
        page.click('#all-shown [data-mark="keep"]')
        assert page.run(COUNTS) == "23 decided: 21 keep, 1 drop, 1 suspect"
        page.click("#undo")
        assert page.run(COUNTS) == "3 decided: 1 keep, 1 drop, 1 suspect"

    def test_keys_act_in_the_gallery_alone(self, page):
        page.run("document.getElementById('sort').focus()")
        page.press("k")
        assert page.run(COUNTS).startswith("3 decided")

    def test_they_stay_in_the_browser(self, page, made):
        page.click('.card .act[data-mark="suspect"]')
        chosen = active(page)
        page.open(made[0] / "report.html")
        assert page.run(COUNTS) == "4 decided: 1 keep, 1 drop, 2 suspect"
        assert page.run(f"document.getElementById('image-{chosen}').dataset.mark") == "suspect"

    def test_what_is_kept_there_is_checked(self, page, made):
        kept = "{0: 'constructor', 99999999: 'keep', 1: 'keep', x: 'drop'}"
        key = "'dlp_fast.decisions.' + JSON.parse(document.getElementById('data').textContent).run"
        page.run(f"localStorage.setItem({key}, JSON.stringify({kept}))")
        page.open(made[0] / "report.html")
        assert page.run(COUNTS) == "4 decided: 2 keep, 1 drop, 1 suspect"


class TestDownload:
    def test_is_what_decisions_take(self, page, made):
        page.run("document.getElementById('gallery').focus()")
        seen = []
        keys = ("k", "d", "s") * 5
        for key in keys:
            seen.append(active(page))
            page.press(key)
        page.click("#download")
        file = page.downloaded()
        assert file.name == "decisions-run.csv"
        read = read_decisions(file, made[1]).labels()
        words = {"k": "keep", "d": "drop", "s": "suspect"}
        wanted = GIVEN | {i: words[key] for i, key in zip(seen, keys)}
        if 3 in seen:  # decided before as well: pressing the same key takes it back
            wanted = {i: word for i, word in wanted.items() if i != 3 or keys[seen.index(3)] != "k"}
        assert read == wanted
        assert {i % 5 for i in read} == set(range(5))  # each of the hostile names came through

    def test_the_suggested_label(self, page, made):
        """R takes the class that the clean model says; where it says the label, nothing is suggested."""
        page.choose("by-list", "differs")
        page.run("document.getElementById('gallery').focus()")
        one = active(page)
        card = f"document.getElementById('image-{one}')"
        said = page.run(f"{card}.querySelector('b.differs').textContent")
        assert page.run(f"{card}.querySelector('.act.new').textContent") == f"→ {said}"
        page.press("r")
        assert page.run(COUNTS) == "4 decided: 1 keep, 1 drop, 1 suspect, 1 relabel"
        assert page.run(f"{card}.querySelector('.badge').textContent") == f"→ {said}"
        page.open(made[0] / "report.html")  # kept over a reload
        page.choose("by-mark", "relabel")
        assert page.run(SHOWN).startswith("1 of ") and active(page) == one
        page.click("#download")
        file = page.downloaded()
        labels = torch.tensor([CLASSES.index(row["label"]) for row in samples(made[0])])
        read = read_decisions(file, made[1], labels, CLASSES)
        assert read.labels() == GIVEN | {one: "relabel"}
        assert read.new_labels.tolist() == [CLASSES.index(said)] != [int(labels[one])]
        page.press("z")
        page.click(".card .act.new[data-mark]")
        assert page.run(COUNTS).endswith("1 suspect"), "a click on it takes it back"

    def test_all_suggestions_at_once(self, page):
        page.choose("by-mark", "none")
        page.choose("by-list", "differs")
        shown = int(page.run(SHOWN).split()[0])
        page.run("document.querySelector('#all-shown').open = true")
        page.click("#all-shown [data-mark='suggested']")
        assert page.run(COUNTS).endswith(f"{shown} relabel")
        page.choose("by-list", "")
        page.choose("by-mark", "none")
        page.run("document.getElementById('gallery').focus()")
        page.press("r")
        assert page.run("document.getElementById('told').textContent").startswith("nothing is suggested")
        assert page.run(COUNTS).endswith(f"{shown} relabel")

    def test_a_decision_of_before_can_be_taken_back(self, page, made):
        page.choose("by-mark", "drop")
        page.click("#marking [data-mark='']")
        page.click("#download")
        assert read_decisions(page.downloaded(), made[1]).labels() == {3: "keep", 501: "suspect"}

    def test_where_the_browser_keeps_nothing(self, made):
        """As some browsers do for file://: it works, says so, and the download is whole."""
        with Browser() as refused:
            refused.ask("Page.addScriptToEvaluateOnNewDocument", source=REFUSED)
            refused.open(made[0] / "report.html")
            refused.click('.card .act[data-mark="keep"]')
            assert refused.run(COUNTS).startswith("4 decided" if active(refused) != 3 else "3 decided")
            assert not refused.run("document.getElementById('unkept').hidden")
            refused.click("#download")
            assert len(read_decisions(refused.downloaded(), made[1]).labels()) >= 3
            assert refused.console == []


class TestForEverybody:
    def test_focus_is_seen(self, page):
        page.run("document.getElementById('all-shown').querySelector('summary').focus()")
        page.press("Tab")
        assert page.run("document.activeElement.id") == "gallery"
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert page.run("getComputedStyle(document.querySelector('.card.active')).boxShadow") != "none"
        chosen = page.run("document.getElementById('gallery').getAttribute('aria-activedescendant')")
        assert page.run(f"document.getElementById('{chosen}').getAttribute('aria-selected')") == "true"

    def test_no_motion_where_it_is_not_wanted(self, page):
        scrolls = "getComputedStyle(document.documentElement).scrollBehavior"
        page.prefer(prefers_reduced_motion="reduce")
        assert page.run(scrolls) == "auto"
        page.prefer(prefers_reduced_motion="no-preference")
        assert page.run(scrolls) == "smooth"
        page.prefer()

    def test_on_a_phone(self, page, made):
        page.size(360, 740, phone=True)
        page.open(made[0] / "report.html")
        assert page.run("document.documentElement.scrollWidth") == 360
        assert (
            page.run("Math.min(...Array.from(document.querySelectorAll('.act')).map(a => a.offsetHeight))")
            >= 24
        )

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_can_be_read(self, page, scheme):
        """WCAG AA: 4.5 to 1 between text and what is behind it, marked cards included."""
        page.prefer(prefers_color_scheme=scheme)
        page.run("document.getElementById('gallery').focus()")
        for key in ("k", "d", "s"):
            page.press(key)
        found = page.run(f"({LOW_CONTRAST})()")
        page.prefer()
        assert found == []


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "run"
    finished_run(folder, suspects=4980, images=10_000, side=32)
    return write_report(folder)


@pytest.mark.slow
class TestFiveThousand:
    def test_every_suspect_is_reached(self, large: Path, browser):
        browser.open(large)
        browser.choose("by-list", "suspected_poisoned")
        assert browser.run(SHOWN).startswith("5000 of ")
        browser.run("document.getElementById('gallery').focus()")
        browser.press("End")
        assert order(browser)[-1] == 4999
        assert browser.run("document.querySelectorAll('.card').length") < 150
        assert large.stat().st_size < 15_000_000

    def test_a_step_of_scrolling_is_short(self, large: Path, browser):
        """Median time that the script takes a frame; measured 1.4 ms on a busy machine of two cores."""
        browser.open(large)
        browser.run("document.getElementById('gallery').scrollIntoView({behavior: 'instant'})")
        took = browser.run("""(async () => {
          const times = [], asked = window.requestAnimationFrame.bind(window);
          window.requestAnimationFrame = work => asked(now => {
            const began = performance.now();
            work(now);
            times.push(performance.now() - began);
          });
          for (let k = 0; k < 60; k++) {
            scrollBy({top: 400, behavior: 'instant'});
            await new Promise(done => setTimeout(done, 30));
          }
          return [times.length, times.sort((a, b) => a - b)[times.length >> 1]]; })()""")
        assert took[0] > 10 and took[1] < 16, took
