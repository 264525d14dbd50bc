"""A rank that all others wait for is named, once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny import finish, training_data, work_together

from dlp_fast.config import SupervisedConfig
from dlp_fast.engine import watch
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.distributed import joined
from dlp_fast.engine.pace import ENOUGH, Pace, Straggler
from dlp_fast.engine.session import Session
from dlp_fast.engine.watch import Watch, in_words
from dlp_fast.models.registry import build_model
from dlp_fast.runs.log import RunLog
from dlp_fast.stages.supervised import supervised


def paced(*seconds: float, steps: int = ENOUGH, before: int = 0) -> dict[int, tuple[int, float]]:
    return {rank: (before + steps, (before + steps) * of) for rank, of in enumerate(seconds)}


class TestStraggler:
    def test_is_named(self):
        said = Straggler().look(paced(0.1, 0.1, 0.25, 0.1))
        assert said.startswith("rank 2 takes 250 ms for its part of a step, the others 100 ms")

    @pytest.mark.parametrize(
        "told",
        [
            paced(0.1, 0.19),
            paced(0.1),
            {},
            paced(0.1, 0.5, steps=ENOUGH - 1),
            paced(0.0, 0.0, steps=0),
            paced(0.001, 0.009),
        ],
    )
    def test_nobody_is(self, told):
        assert Straggler().look(told) is None

    def test_what_counts_is_what_came_since(self):
        straggler = Straggler()
        assert straggler.look(paced(0.1, 0.1, steps=1000)) is None
        now = {0: (1000 + ENOUGH, 100 + ENOUGH * 0.1), 1: (1000 + ENOUGH, 100 + ENOUGH * 0.3)}
        assert "rank 1 takes 300 ms" in straggler.look(now)


def test_waiting_is_no_work(monkeypatch):
    now = iter([0.0, 10.0, 13.0, 99.0])
    monkeypatch.setattr("dlp_fast.engine.pace.time.monotonic", lambda: next(now))
    pace = Pace()
    pace.wait(5)
    pace.step()
    pace.wait(7)
    pace.step()
    assert (pace.steps, pace.busy) == (1, 3.0)
    pace.step()
    assert (pace.steps, pace.busy) == (2, 6.0)
    pace.restart()
    pace.step()
    assert (pace.steps, pace.busy) == (2, 6.0)


def test_collective_operations_are_waiting(monkeypatch):
    pace = Pace()
    monkeypatch.setattr(watch, "PACE", pace)
    pace.step()
    with in_words(torch.device("cpu")):
        time.sleep(0.3)
    pace.step()
    assert pace.busy < 0.2


def test_rank_0_hears_of_it(monkeypatch):
    pace = Pace()
    pace.steps, pace.busy = ENOUGH, 1.0
    monkeypatch.setattr(watch, "PACE", pace)
    store = dist.HashStore()
    store.set("beat 1", f"1 {ENOUGH} 9.0")
    of = Watch(store, 0, 2, tick=0.01)
    for _ in range(500):
        if of.slow:
            break
        time.sleep(0.01)
    of.close()
    assert "rank 1 takes 450 ms" in of.slow


def slow_on_rank_2(folder: Path) -> None:
    with joined() as ranks:
        if ranks.rank == 2:
            part = ranks.part
            ranks.part = lambda ids, *least: (time.sleep(0.1), part(ids, *least))[1]
        ranks.watch.tick = 0.2
        log = RunLog(folder / f"metrics{ranks.rank}.jsonl", quiet=ranks.rank > 0)
        of = Session(choose_compute("cpu", "fp32"), log, ranks=ranks)
        model = build_model("wrn-10-1", 3, 8, seed=0)
        options = SupervisedConfig(epochs=40, min_steps=0, batch=32, target_train_accuracy=1.0)
        supervised(of, model, training_data(), options)


@pytest.mark.slow
def test_three_processes_one_of_which_is_slow(tmp_path):
    children = work_together(3, slow_on_rank_2, (tmp_path,), tmp_path)
    assert [finish(child, 250) for child in children] == [0, 0, 0]
    said = [" ".join((tmp_path / f"rank{rank}.log").read_text().split()) for rank in range(3)]
    assert said[0].count("rank 2 takes") == 1 and "rank 2 takes" not in said[1] + said[2]
