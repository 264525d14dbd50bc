"""The same losses as recorded: to the last bit where torch and processor are those of the record."""

from __future__ import annotations

import json

import pytest
import torch
from record import FILE, losses, processor


def test_losses_are_those_recorded():
    recorded = json.loads(FILE.read_text())
    found = losses()
    assert found.keys() == recorded["losses"].keys() == {"supervised", "unlearning", "finetuning"}
    same = (recorded["torch"], recorded["processor"]) == (torch.__version__, processor())
    for stage, expected in recorded["losses"].items():
        assert found[stage] == (expected if same else pytest.approx(expected, rel=1e-4)), stage
