"""The battery: a cell of it, from a pack of JPEGs to what detection says of it."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from studies.battery.cells import CELLS, Cell
from studies.battery.detect import told
from studies.battery.images import TEST_IMAGES
from studies.battery.record import make

CLASSES = 10


def _pack(path, train=200):
    generator = np.random.default_rng(0)
    arrays = {"classes": np.array([f"class{c}" for c in range(CLASSES)])}
    for part, count in (("train", train), ("test", TEST_IMAGES)):
        contents = []
        labels = np.arange(count) % CLASSES
        for label in labels:
            noise = generator.integers(0, 60, (8, 8, 3)) + 19 * label
            content = io.BytesIO()
            Image.fromarray(noise.astype(np.uint8)).resize((32, 32)).save(content, "JPEG", quality=75)
            contents.append(content.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(contents), dtype=np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, contents)]).astype(np.int64)
        arrays[f"{part}_labels"] = labels
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(("kind", "rate"), [("badnets", 0.1), ("symmetric-noise", 0.2)])
def test_a_cell_is_made_and_looked_at(tmp_path, kind, rate):
    cell = Cell(kind, rate, "development", 0, images=100, epochs=2)
    make(cell, _pack(tmp_path / "small.npz"), tmp_path / "cells")
    folder = tmp_path / "cells" / cell.name
    facts = json.loads((folder / "cell.json").read_text())
    assert facts["poisoned"] == (10 if kind == "badnets" else 0)
    assert np.load(folder / "loss.npy").shape == (2, 100)
    assert (np.load(folder / "labels.npy") != np.load(folder / "true_labels.npy")).sum() >= 8
    row = told(folder)
    assert row["poisoned"] == facts["poisoned"] and row["suspected"] >= row["suspected_and_poisoned"]


def test_the_halves_share_no_kind_but_the_clean_set_and_no_seed():
    halves = {half: [c for c in CELLS if c.half == half] for half in ("development", "held_out")}
    kinds = {half: {c.kind for c in cells} - {"clean"} for half, cells in halves.items()}
    assert not kinds["development"] & kinds["held_out"]
    assert not {c.seed for c in halves["development"]} & {c.seed for c in halves["held_out"]}
