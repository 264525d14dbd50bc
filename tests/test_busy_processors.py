"""How many threads a run on a CPU begins with: as there are idle processors, kept for when it goes on."""

from __future__ import annotations

import json
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from tiny import command

from dlp_fast.config import RunConfig
from dlp_fast.engine.device import Compute
from dlp_fast.errors import DataError
from dlp_fast.preparation import threads
from dlp_fast.preparation.threads import fitting_threads, use_idle_processors
from dlp_fast.runs import processors
from dlp_fast.runs.processors import idle_processors, quota

Times = namedtuple("Times", "user system idle iowait guest")
CPU = Compute(torch.device("cpu"), None)


def machine(monkeypatch, *shares: float, mine=None, seconds=100.0):
    """Processors of which other programs take these shares; `mine`: the numbers of those that may be used."""
    now = [0.0]

    def cpu_times(percpu):
        assert percpu
        return [
            Times(share * now[0], 0.0, (1 - share) * now[0] / 2, (1 - share) * now[0] / 2, 0.0)
            for share in shares
        ]

    monkeypatch.setattr(processors.psutil, "cpu_times", cpu_times)
    monkeypatch.setattr(processors.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(processors, "usable", lambda: list(range(len(shares))) if mine is None else mine)


class TestIdle:
    @pytest.mark.parametrize(
        ("shares", "idle"),
        [
            ((0.0, 0.0), 2),
            ((1.0, 0.0), 1),
            ((0.1, 0.1), 2),  # a quarter of a processor is let be
            ((0.2, 0.2), 1),
            ((1.0, 1.0), 1),  # one at least
            ((0.0,) * 8, 8),
            ((0.5,) + (0.0,) * 7, 7),
        ],
    )
    def test_those_that_others_leave(self, monkeypatch, tmp_path, shares, idle):
        machine(monkeypatch, *shares)
        assert idle_processors(quotas=tmp_path) == idle

    def test_of_those_that_may_be_used(self, monkeypatch, tmp_path):
        machine(monkeypatch, 1.0, 1.0, 0.0, 0.0, mine=[1, 2, 3])
        assert idle_processors(quotas=tmp_path) == 2

    def test_no_more_than_a_container_gives(self, monkeypatch, tmp_path):
        machine(monkeypatch, *[0.0] * 16)
        (tmp_path / "cpu.max").write_text("250000 100000\n")
        assert idle_processors(quotas=tmp_path) == 2

    def test_without_counters_all_are_idle(self, monkeypatch, tmp_path):
        def none(percpu):
            raise RuntimeError("no counters")

        machine(monkeypatch, 0.0, 0.0, 0.0)
        monkeypatch.setattr(processors.psutil, "cpu_times", none)
        assert idle_processors(quotas=tmp_path) == 3

    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({"cpu.max": "max 100000"}, float("inf")),
            ({"cpu.max": "150000 100000"}, 1.5),
            ({"cpu.max": "nonsense"}, float("inf")),
            ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
            ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
            ({}, float("inf")),
        ],
    )
    def test_quotas_of_both_generations(self, tmp_path, files, expected):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        assert quota(tmp_path) == expected

    def test_here(self):
        assert 1 <= idle_processors(0.05) <= len(processors.usable())


class TestRun:
    @pytest.fixture(autouse=True)
    def torch_threads(self, monkeypatch):
        """torch's number of threads, as a list whose last entry is the one that counts."""
        noted = [4]
        monkeypatch.setattr(threads.torch, "get_num_threads", lambda: noted[-1])
        monkeypatch.setattr(threads.torch, "set_num_threads", noted.append)
        monkeypatch.setattr(threads, "idle_processors", lambda: 2)
        return noted

    @pytest.fixture
    def said(self):
        lines: list[str] = []
        return SimpleNamespace(say=lines.append, lines=lines)

    def test_fewer_where_others_are_busy_and_told(self, torch_threads, said, tmp_path):
        with fitting_threads(RunConfig(), CPU, SimpleNamespace(path=tmp_path), said):
            pass
        assert torch_threads[1:] == [2, 4] and json.loads((tmp_path / "threads.json").read_text()) == {
            "threads": 2
        }
        assert said.lines[0].startswith("2 of 4 threads: other programs were using the processors")

    def test_the_same_when_it_goes_on(self, torch_threads, said, tmp_path, monkeypatch):
        folder = SimpleNamespace(path=tmp_path)
        with fitting_threads(RunConfig(), CPU, folder, said):
            pass
        monkeypatch.setattr(threads, "idle_processors", lambda: 4)
        torch_threads[:] = [4]
        with fitting_threads(RunConfig(), CPU, folder, said):
            pass
        assert torch_threads[1:] == [2, 4]

    def test_all_where_nobody_is(self, torch_threads, said, tmp_path, monkeypatch):
        monkeypatch.setattr(threads, "idle_processors", lambda: 64)
        with fitting_threads(RunConfig(), CPU, SimpleNamespace(path=tmp_path), said):
            pass
        assert set(torch_threads) == {4} and not said.lines
        assert json.loads((tmp_path / "threads.json").read_text()) == {"threads": 4}

    @pytest.mark.parametrize(
        ("config", "compute"),
        [
            (RunConfig(threads=4), CPU),
            (RunConfig(), Compute(torch.device("cuda"), None)),
            (RunConfig(), Compute(torch.device("cpu"), None, processes=2)),
        ],
    )
    def test_left_alone(self, torch_threads, said, tmp_path, config, compute):
        with fitting_threads(config, compute, SimpleNamespace(path=tmp_path), said):
            pass
        assert set(torch_threads) == {4} and not (tmp_path / "threads.json").exists()

    def test_without_a_folder(self, torch_threads, said):
        with fitting_threads(RunConfig(), CPU, None, said):
            assert torch_threads[-1] == 2

    @pytest.mark.parametrize(
        "text", ["", "{}", '{"threads": 0}', '{"threads": true}', '{"threads": "2"}', "[2]"]
    )
    def test_a_damaged_file_is_named(self, said, tmp_path, text):
        (tmp_path / "threads.json").write_text(text)
        folder = SimpleNamespace(path=tmp_path)
        with (
            pytest.raises(DataError, match=r"threads\.json is damaged"),
            fitting_threads(RunConfig(), CPU, folder, said),
        ):
            pass


def test_a_number_that_is_given_counts(tmp_path):
    torch_had = torch.get_num_threads()
    with fitting_threads(RunConfig(threads=torch_had + 1), CPU, None, None):
        assert torch.get_num_threads() == torch_had + 1
    assert torch.get_num_threads() == torch_had


def test_a_run_says_how_many_it_had(tmp_path, monkeypatch):
    """And leaves torch as it was, in a person's own process."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "idle_processors", lambda: 1)
    torch.set_num_threads(2)
    try:
        small = {
            "supervised.epochs": 1,
            "supervised.min-steps": 0,
            "finetuning.steps": 2,
            "finetuning.norm-batches": 0,
        }
        options = [str(part) for name, value in small.items() for part in (f"--{name}", value)]
        done = command("run", "--out", tmp_path / "run", "--model", "wrn-10-1", *options)
        assert done.code == 0, done.text
        assert "1 of 2 threads: other programs were using the processors" in " ".join(done.text.split())
        assert torch.get_num_threads() == 2
        assert json.loads((tmp_path / "run" / "environment.json").read_text())["threads"] == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("idle", "used"), [(1, 1), (8, 2)])
def test_commands_that_look_at_images_take_no_more_than_are_idle(monkeypatch, idle, used):
    noted = [2]
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: noted[-1])
    monkeypatch.setattr(threads.torch, "set_num_threads", noted.append)
    monkeypatch.setattr(threads, "idle_processors", lambda: idle)
    use_idle_processors(Compute(torch.device("cuda"), None))
    assert noted == [2]
    use_idle_processors(CPU)
    assert noted[-1] == used


def test_a_dry_run_reckons_with_the_threads_that_a_run_would_have(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "idle_processors", lambda: 1)
    torch.set_num_threads(2)
    try:
        done = command("run", "--dry-run", "--model", "wrn-10-1")
        assert done.code == 0, done.text
        assert "1 of 2 threads: other programs were using the processors" in " ".join(done.text.split())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
