"""What a step takes, and what is said and done where it does not fit."""

from __future__ import annotations

import gc
import json
from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny import CONFIG, command, options, session, training_data

from dlp_fast import api
from dlp_fast.commands.guard import guarded
from dlp_fast.config import RunConfig, build
from dlp_fast.engine import memory
from dlp_fast.engine.memory import available, bytes_per_image, fitting, fitting_batches, is_out_of_memory
from dlp_fast.models.registry import build_model
from dlp_fast.preparation import memory as preparation


def per_image(name, side):
    return bytes_per_image(build_model(name, 10, side, 0), (side, side), session().compute)


class TestReckoned:
    def test_larger_pictures_and_networks_take_more(self):
        small = per_image("wrn-10-1", 16)
        assert per_image("wrn-10-1", 32) == pytest.approx(4 * small, rel=0.05)
        assert per_image("wrn-16-1", 16) > 1.3 * small

    def test_of_the_right_size(self):
        """WRN-10-1 at 32 px keeps about a dozen maps of 16 x 32 x 32 floats, and smaller ones."""
        assert 0.3e6 < per_image("wrn-10-1", 32) < 6e6

    def test_the_model_is_left_as_it_was(self):
        model = build_model("wrn-10-1", 10, 16, 0).eval()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        bytes_per_image(model, (16, 16), session().compute)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert not model.training
        assert all(p.grad is None for p in model.parameters())

    def test_nothing_is_kept(self):
        """A graph that is measured goes when it was: runs in one process, one after the other, need no more memory."""
        model, compute = build_model("wrn-10-1", 10, 16, 0), session().compute

        def tensors() -> int:
            bytes_per_image(model, (16, 16), compute)
            gc.collect()
            return sum(issubclass(type(of), torch.Tensor) for of in gc.get_objects())

        assert tensors() == tensors()

    def test_available(self):
        assert 1e6 < available(session().compute) < 1e14

    def test_no_more_than_the_machine_has(self, monkeypatch):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5))
        assert available(session().compute) <= 5

    @pytest.mark.parametrize(
        ("batch", "free", "left"), [(128, 1000, 128), (128, 100, 64), (128, 30, 16), (128, 0, 2), (3, 0, 2)]
    )
    def test_halved_until_it_fits(self, batch, free, left):
        assert fitting(batch, 1.0, 1.0, free) == left

    def test_stage_3_has_views_of_the_unlabeled_too(self):
        config = build({"data": "digits", "finetuning": {"labeled": "hardest"}}, "test")
        assert fitting_batches(config, 1.0, 10**9) == {
            "supervised": 128,
            "unlearning": 128,
            "finetuning": 128,
        }
        assert fitting_batches(config, 1.0, 1000) == {"supervised": 128, "unlearning": 128, "finetuning": 32}

    @pytest.mark.parametrize(
        ("device", "processes", "parts", "expected"),
        [
            ("cuda", 4, None, 1 / 4),
            ("cuda", 2, 8, 1 / 8),
            ("cpu", 4, None, 1),  # they share the memory of the machine
            ("cpu", 1, 8, 1 / 8),
            ("cpu", 2, 8, 1 / 4),
        ],
    )
    def test_of_parts_of_a_batch_one_at_a_time_is_held(self, device, processes, parts, expected, monkeypatch):
        asked = []
        monkeypatch.setattr(preparation, "new_model", lambda *_: None)
        monkeypatch.setattr(preparation, "bytes_per_image", lambda *_: 1.0)
        monkeypatch.setattr(preparation, "available", lambda _: 10**9)
        monkeypatch.setattr(
            preparation, "fitting_batches", lambda _config, per_image, _free: asked.append(per_image) or {}
        )
        compute = SimpleNamespace(device=torch.device(device), processes=processes)
        config = RunConfig(batch_parts=parts)
        preparation.fit(config, training_data(), compute, None, None)
        assert asked == [expected]


class TestAuto:
    @pytest.mark.slow
    def test_lowered_kept_and_used_again(self, tmp_path, monkeypatch):
        monkeypatch.setattr(preparation, "available", lambda _: 20_000_000)
        out = tmp_path / "run"
        done = command("run", "--out", out, *options(), "--batch", "auto")
        assert done.code == 0, done.text
        kept = json.loads((out / "batches.json").read_text())
        assert kept["supervised"] < 128
        assert "batches that fit into memory" in " ".join(done.text.split())
        results = json.loads((out / "results.json").read_text())
        assert results["config"]["supervised"]["batch"] == kept["supervised"]
        monkeypatch.setattr(preparation, "available", lambda _: 10**12)
        again = command("run", "--out", out, *options(), "--batch", "auto")
        assert "this run was finished already" in again.text
        (out / "batches.json").write_text("{}")
        (out / "results.json").unlink()
        damaged = command("run", "--out", out, *options(), "--batch", "auto")
        assert damaged.code == 3
        assert "batches.json is damaged" in " ".join(damaged.text.split())

    @pytest.mark.slow
    def test_a_warning_without_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(preparation, "available", lambda _: 20_000_000)
        done = command("run", "--out", tmp_path / "run", *options())
        assert done.code == 0, done.text
        assert "--batch auto would halve: supervised.batch 128" in " ".join(done.text.split())
        assert not (tmp_path / "run" / "batches.json").exists()


class TestTold:
    @pytest.mark.parametrize(
        ("error", "is_one"),
        [
            (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
            (MemoryError(), True),
            (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
            (RuntimeError("shapes differ"), False),
            (ValueError("no"), False),
        ],
    )
    def test_which_errors(self, error, is_one):
        assert is_out_of_memory(error) == is_one

    def test_out_of_memory_in_a_stage(self, tmp_path, monkeypatch):
        """Exit code 5, the peak, the batches, the remedy; the checkpoint stays, and the run goes on from it."""
        real = api.run_stages

        def refused(*_args):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

        monkeypatch.setattr(api, "run_stages", refused)
        done = command("run", "--out", tmp_path / "run", *options())
        told = " ".join(done.text.split())
        assert done.code == 5
        assert "out of memory; the peak was" in told
        assert f"supervised.batch {CONFIG['supervised']['batch']}" in told
        assert "--batch auto" in told
        monkeypatch.setattr(api, "run_stages", real)
        assert command("run", "--out", tmp_path / "run", *options()).code == 0

    def test_peak(self):
        assert memory.peak().endswith("memory")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to")],
)
def test_no_memory_outside_of_the_stages_ends_a_command_with_a_message(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        guarded(main)
    assert end.value.code == 5 and "out of memory" in capsys.readouterr().err


def test_other_errors_of_a_command_are_not_hidden():
    def main():
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        guarded(main)
