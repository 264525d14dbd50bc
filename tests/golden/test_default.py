"""The default method end to end: the same bytes as recorded on a machine that has a record, else the same findings."""

from __future__ import annotations

import json

import pytest
from record import machine
from record_default import FILE, SEEDS, outcome


@pytest.mark.parametrize("seed", SEEDS)
def test_the_default_run_is_the_one_recorded(seed):
    records = json.loads(FILE.read_text())
    found = outcome(seed)
    if machine() in records:
        assert found == records[machine()][str(seed)]
        return
    # Another processor rounds otherwise, and training multiplies the difference; what is found stays.
    for record in records.values():
        kept = record[str(seed)]
        assert found["verdict"] == kept["verdict"] == "poisoned"
        assert {label for _, label, _, _ in found["findings"]} == {
            label for _, label, _, _ in kept["findings"]
        }
        both = set(found["suspects"]) & set(kept["suspects"])
        assert len(both) >= 0.9 * len(kept["suspects"])
