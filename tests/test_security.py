"""SECURITY.md: every sentence of what is contained has a test, and the test is there."""

from __future__ import annotations

import re

import pytest
from tiny import ROOT

ROWS = re.findall(
    r"^\| (.+?) \| `(tests/[\w./]+\.py)(?:::(\w+))?` \|$", (ROOT / "SECURITY.md").read_text(), re.M
)


def test_there_are_promises():
    assert len(ROWS) >= 12


@pytest.mark.parametrize(("sentence", "file", "name"), ROWS)
def test_each_promise_has_its_test(sentence, file, name):
    assert sentence.endswith(".")
    source = (ROOT / file).read_text()
    assert re.search(rf"^(?:    )?(?:def|class) {name or 'test_'}", source, re.M), f"{file} has no {name}"


# every sentence of docs/limits.md on files and weights from others; "": it says what is not done, or whom to trust
LIMITS = {
    "None are loaded by default.": "tests/models/test_starting.py::test_none_by_default",
    "With `--weights` or `--pretrained` you trust whoever made them: nothing here looks for a backdoor in them.": "",
    "The hash does not prove a file clean.": "",
    "Detection was [not measured](models.md) with them.": "",
    "Each file is first decoded in a child process with limits on memory, time, files and the network; with "
    "`seccompy` it can start no program and change no file.": "tests/data/test_scan.py::"
    "test_decoder_is_refused_programs_writing_and_signals",
    "The training process decodes what passed again, without limits.": "",
    "Links that lead out are followed only with `--dataset.follow-links`.": "tests/data/test_walk.py::"
    "test_stops_unasked",
    "Nothing is unpickled but CIFAR-10's own files (after their checksum, by a reader that knows numpy arrays alone) "
    "and what `--pretrained` has its library load.": "tests/data/test_cifar.py::test_pickles_do_not_run",
    "[Reasons for leaving files out](data.md#what-is-left-out-and-why)": "tests/data/test_hostile_folder.py::"
    "test_every_file_where_it_belongs",
}


def sentences() -> list[str]:
    page = (ROOT / "docs/limits.md").read_text()
    parts = (
        page.partition(f"## {title}\n")[2].partition("\n## ")[0]
        for title in ("Starting weights", "Files from strangers")
    )
    return [one for part in parts for one in re.split(r"(?<=\.) (?=[A-Z[])", " ".join(part.split()))]


def test_each_sentence_of_the_limits_has_its_test():
    assert sentences() == list(LIMITS)
    for place in filter(None, LIMITS.values()):
        file, _, name = place.partition("::")
        assert re.search(rf"^ *def {name}\b", (ROOT / file).read_text(), re.M), place
