"""Several processes and what one of them decides: marks that grow, networks without labels, trials of own triggers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY, Pixels, finish, training_data, work_together

from dlp_fast import pipeline
from dlp_fast.config import RunConfig
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.parts import ranks_of
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.pipeline import defend
from dlp_fast.power.scans import power_of
from dlp_fast.runs.log import RunLog
from dlp_fast.stages import cross_fit, ensemble, rounds

PARTS = 4
WRONG = torch.arange(0, 360, 10)
ASKED = ["held_out", "cross-fit 1", "cross-fit 2", "static_patterns", "grown_marks", "power scans", "power 1"]


def marked() -> TrainingData:
    """Pictures of three classes. Some carry a mark, in each class another, and some are under a wrong label."""
    data = training_data(360, 3, side=12, seed=2)
    labels, pictures = data.labels.clone(), data.images.get(torch.arange(360)).clone()
    labels[WRONG] = (labels[WRONG] + 1 + torch.arange(len(WRONG)) % 2) % 3
    for label in range(3):
        ids = ((labels == label) & (torch.arange(360) % 10 == 4 + label)).nonzero().flatten()
        place = (slice(0, 3), slice(5, 8), slice(-3, None))[label]
        pictures[ids, place, place] = 255 * (label % 2)
        pictures[ids, (1, 6, -2)[label], (1, 6, -2)[label]] = 255 - 255 * (label % 2)
    return replace(data, images=Pixels(pictures), labels=labels)


def configured(parts: int | None) -> RunConfig:
    return RunConfig(
        **TINY
        | {
            "batch_parts": parts,
            "supervised": {"epochs": 6, "min_steps": 0, "batch": 32},
            "detection": {
                "networks": 1,
                "heart_share": 0.3,
                "power": 1,
                "power_scans": 1,
                "nothing_found": "suspect",
            },
        }
    )


def in_double(*given) -> torch.nn.Module:
    model = new_model(*given).double()
    model.register_forward_pre_hook(lambda _module, inputs: (inputs[0].double(),))
    return model


def everything(out: Path, sync: bool, parts: int | None) -> None:
    """A run with all that detection may ask for; each rank keeps what it knows at the end as `out`.<rank>. With `sync`,
    in fp64: in fp32 rounding grows until other images are at the edge of a group.
    """
    if sync:
        from benchmarks.system.same_training import in_fp64

        in_fp64()
        for module in (pipeline, ensemble, cross_fit, rounds):
            module.new_model = in_double
    with ranks_of(sync, parts) as ranks:
        of = Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True), ranks=ranks)
        data, config = marked(), configured(parts)
        found = defend(of, data, config)
        tried = power_of(of, data, found, config)
        missing = set(ASKED) - set(of.names())
    assert not (missing and ranks.leads), missing
    sets = {name: getattr(found.selection, name) for name in ("suspected_poisoned", "mislabeled", "trusted")}
    findings = [(f.label, f.images, f.proposal) for f in found.findings]
    told = torch.frombuffer(bytearray(json.dumps([findings, tried]).encode()), dtype=torch.uint8)
    bits = {"score": found.selection.score, "rank": found.selection.rank, "curves": found.first.loss}
    weights = {name: value.contiguous() for name, value in found.model.state_dict().items()}
    save_file({**sets, "told": told}, f"{out}.{ranks.rank}.ids")
    save_file(bits | weights, f"{out}.{ranks.rank}.bits")


def ran(world: int, folder: Path, sync: bool, parts: int | None) -> list[tuple[dict, dict]]:
    """(ids, bits) of each rank."""
    out = folder / f"world{world}"
    children = work_together(world, everything, (out, sync, parts), folder)
    codes = [finish(child, 500) for child in children]
    assert codes == [0] * world, "".join(file.read_text() for file in folder.glob("*.log"))
    return [tuple(load_file(f"{out}.{rank}.{what}") for what in ("ids", "bits")) for rank in range(world)]


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize(("sync", "parts", "worlds"), [(False, PARTS, (2, 3, 4)), (True, None, (2,))])
def test_the_same_is_found_by_any_number_of_processes(tmp_path, sync, parts, worlds):
    """With `sync` and three and four as well, tried once: minutes."""
    ((ids, bits),) = ran(1, tmp_path, sync, parts)
    assert len(ids["suspected_poisoned"]) and torch.isin(WRONG, ids["mislabeled"]).float().mean() > 0.5
    for world in worlds:
        for theirs, exactly in ran(world, tmp_path, sync, parts):
            assert equal(theirs, ids)
            assert sync or equal(exactly, bits)
