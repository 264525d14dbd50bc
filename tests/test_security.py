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
