"""Several processes of one run, by gloo on CPUs: the same images, the same steps, the same answer."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY, finish, places, session, slurm_places, training_data, work_together

from dlp_fast.config import build
from dlp_fast.engine import distributed
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.distributed import ALONE, Ranks, joined
from dlp_fast.engine.inference import score
from dlp_fast.engine.parts import Parts, ranks_of
from dlp_fast.engine.session import Session
from dlp_fast.engine.synced_batch_norm import synced
from dlp_fast.errors import ConfigError, DataError, ResourceError
from dlp_fast.models.wide_resnet import WideResNet
from dlp_fast.pipeline import defend
from dlp_fast.runs.launched import Place, launched
from dlp_fast.runs.log import RunLog

# Two networks in stage 1 and suspects in every class: everything that several ranks do together is done.
METHOD = TINY | {
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "detection": TINY["detection"] | {"networks": 2},
    "finetuning": TINY["finetuning"] | {"norm_batches": 3},
}


def all_stages(out: Path, sync: bool, parts: int | None = None) -> None:
    """Every stage on 96 pictures of noise, in memory; each rank keeps what came of it as `out`.<rank>.…"""
    with ranks_of(sync, parts) as ranks:
        of = Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True), ranks=ranks)
        found = defend(of, training_data(), build(METHOD | {"sync_batch_norm": sync}, "test"))
        scores = score(of, found.model, training_data())
    tensors = {name: value.contiguous() for name, value in found.model.state_dict().items()}
    columns = {"suspects": found.selection.suspected_poisoned, "score": found.selection.score}
    curves = {"curves": found.first.loss, "entropy": scores.entropy}
    save_file(columns | curves, f"{out}.{ranks.rank}.columns")
    save_file(tensors, f"{out}.{ranks.rank}.weights")


def ran(
    world: int, folder: Path, sync: bool = True, parts: int | None = None
) -> tuple[list[dict], list[dict]]:
    """(what each rank found, each rank's weights) of `all_stages` in `world` processes."""
    out = folder / f"world{world}"
    if world == 1:
        all_stages(out, sync, parts)
    else:
        children = work_together(world, all_stages, (out, sync, parts), folder)
        codes = [finish(child, 200) for child in children]
        assert (codes, "".join(texts(folder, world))) == ([0] * world, "")
    return tuple(
        [load_file(f"{out}.{rank}.{what}") for rank in range(world)] for what in ("columns", "weights")
    )


def farthest(one: dict, other: dict) -> float:
    """The largest difference of two networks' weights, as a share of the largest weight of the tensor."""
    assert one.keys() == other.keys()
    return max(
        float((one[k].double() - other[k].double()).abs().max() / one[k].double().abs().max().clamp_min(1e-3))
        for k in one
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return ran(1, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return ran(2, tmp_path_factory.mktemp("two"))


BOUND = 2e-4  # measured: 1.2e-5 with two ranks


class TestAllStages:
    def test_same_images_are_suspected(self, alone, two):
        assert len(alone[0][0]["suspects"])
        assert torch.equal(two[0][0]["suspects"], alone[0][0]["suspects"])

    def test_weights_and_curves_agree_within_rounding(self, alone, two):
        assert farthest(alone[1][0], two[1][0]) < BOUND
        assert farthest(alone[0][0], two[0][0]) < BOUND

    def test_every_rank_has_the_same(self, two):
        found, weights = two
        assert farthest(found[0], found[1]) == farthest(weights[0], weights[1]) == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("world", [3, 4])
    def test_of_more_ranks(self, alone, tmp_path, world):
        found, weights = ran(world, tmp_path)
        assert torch.equal(found[0]["suspects"], alone[0][0]["suspects"])
        assert farthest(alone[1][0], weights[0]) < BOUND
        assert all(farthest(weights[0], of) == 0 for of in weights[1:])

    @pytest.mark.slow
    def test_local_statistics_are_another_training_but_the_same_on_every_rank(self, alone, tmp_path):
        _, weights = ran(2, tmp_path, sync=False)
        assert farthest(weights[0], weights[1]) == 0
        assert farthest(alone[1][0], weights[0]) > BOUND


PARTS = 4


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory):
    return ran(1, tmp_path_factory.mktemp("parts"), False, PARTS)


class TestParts:
    """A fixed number of parts, each of which passes through the network by itself."""

    @pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
    def test_any_number_of_processes_gives_the_same_bits(self, in_parts, tmp_path, world):
        columns, weights = ran(world, tmp_path, False, PARTS)
        assert len(in_parts[0][0]["suspects"])
        for mine in (*columns, *weights):
            other = in_parts["suspects" not in mine][0]
            assert mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)

    def test_a_part_is_what_a_process_of_as_many_works_on(self):
        ids = torch.arange(23)
        for world in (1, 2, 3, 4):
            ranks = [Parts(4, rank, world) for rank in range(world)]
            assert torch.equal(torch.cat([r.part(ids) for r in ranks]), ids)
            assert [size for r in ranks for size in r.sizes(23)] == [6, 6, 6, 5]
            assert sum(view.weight(23) for r in ranks for view in r.views) == pytest.approx(1)
            assert list(ranks[-1].turns(5)) == list(range(5))

    def test_the_sum_is_that_of_processes(self):
        """Gradients, running statistics and counters of two parts, against two networks that each see one."""
        x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
        models = [torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)) for _ in range(3)]
        for model in models[1:]:
            model.load_state_dict(models[0].state_dict())
        ranks = Parts(2)

        def losses():
            for view in ranks.views:
                yield view.weighted(models[0](view.part(x)).square().mean(), 7), view.weighted(x[0, 0], 7)

        loss, other = ranks.backward(models[0], losses())
        assert float(other) == pytest.approx(float(x[0, 0]))
        each = [
            (view.weight(7) * model(view.part(x)).square().mean())
            for view, model in zip(ranks.views, models[1:])
        ]
        sum(each).backward()
        assert loss.item() == pytest.approx(sum(each).item(), rel=1e-6)
        for mine, one, two in zip(*(model.parameters() for model in models)):
            torch.testing.assert_close(mine.grad, one.grad + two.grad)
        norms = [model[0] for model in models]
        torch.testing.assert_close(norms[0].running_var, (norms[1].running_var + norms[2].running_var) / 2)
        assert int(norms[0].num_batches_tracked) == 1

    def test_what_cannot_be(self):
        with pytest.raises(ConfigError, match="each of 3 processes needs a part; start 2 at most"):
            Parts(2, 0, 3)
        with pytest.raises(ConfigError, match="contradict each other"), ranks_of(True, 2):
            pass
        of = Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True), ranks=Parts(2))
        with pytest.raises(ConfigError, match="draws random numbers"):
            of.stage("x", "x", 1, 1, model=torch.nn.Dropout(0.5))


class TestShares:
    @pytest.mark.parametrize("world", [1, 2, 3, 5])
    @pytest.mark.parametrize("count", [0, 1, 3, 9, 10, 128])
    def test_parts_make_up_the_batch(self, world, count):
        ids = torch.arange(count) * 7
        ranks = [Ranks(rank, world) for rank in range(world)]
        parts = [r.part(ids) for r in ranks]
        if count >= 2 * world:
            assert torch.equal(torch.cat(parts), ids)
        else:  # too few to be shared: each takes all of them, and each counts as a share of one
            assert all(torch.equal(part, ids) for part in parts)
        assert sum(r.weight(count) for r in ranks) == pytest.approx(1)
        assert torch.equal(torch.cat([r.part(ids, 0) for r in ranks]), ids)  # some may get none
        assert sum(r.weight(count, 0) for r in ranks) == pytest.approx(min(count, 1) if world > 1 else 1)

    def test_weighted_means_make_up_the_mean(self):
        values = torch.rand(11, dtype=torch.float64)
        ranks = [Ranks(rank, 3) for rank in range(3)]
        total = sum(r.weighted(r.part(values).mean(), 11) for r in ranks)
        assert float(total) == pytest.approx(float(values.mean()))

    @pytest.mark.parametrize("world", [1, 2, 3, 7])
    def test_shards_and_turns_leave_nothing_out(self, world):
        ranks = [Ranks(rank, world) for rank in range(world)]
        pieces = list(range(5))
        assert [piece for r in ranks for piece in r.shard(pieces)] == pieces
        assert sorted(k for r in ranks for k in r.turns(5)) == pieces

    def test_alone_nothing_changes(self):
        mean = torch.rand(())
        assert ALONE.weighted(mean, 5) is mean
        assert ALONE.reduce(torch.nn.Linear(1, 1), mean) == (mean,)
        assert ALONE.led(lambda ask: ask(torch.ones(2)).tolist(), lambda x: x * 2) == [2, 2]


class TestPlace:
    def test_nobody_launched_it(self):
        assert launched({}) == Place(0, 1, 0, 1)
        assert launched({"RANK": "0", "WORLD_SIZE": "1"}) == Place()

    def test_torchrun(self):
        given = places(3)[2]
        assert launched(given) == Place(2, 3, 2, 3)

    def test_slurm_counts_where_a_meeting_place_is_given(self):
        given = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "4"}
        assert launched(given) == Place()
        meet = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
        assert launched(given | meet) == Place(5, 8, 1, 4)

    @pytest.mark.parametrize(
        ("tasks", "node", "here"),
        [
            ({"SLURM_STEP_TASKS_PER_NODE": "4"}, 0, 4),  # srun -n 4, without --ntasks-per-node
            ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, 1, 4),
            ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, 2, 3),
            ({"SLURM_STEP_TASKS_PER_NODE": "3,1(x2),2"}, 3, 2),
            ({"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_TASKS_PER_NODE": "8"}, 0, 2),  # a part of its job
            ({"SLURM_TASKS_PER_NODE": "2(x3)", "SLURM_NTASKS_PER_NODE": "5"}, 2, 2),
            ({"SLURM_NTASKS_PER_NODE": "4"}, 1, 4),  # one number for all machines
            ({}, 0, 1),
        ],
    )
    def test_slurm_tasks_of_this_machine(self, tasks, node, here):
        """As many for each of its ranks: by them the cores of a machine are shared."""
        for local in range(here):
            given = {"SLURM_PROCID": str(local), "SLURM_NTASKS": "16", "SLURM_LOCALID": str(local)}
            given |= {"MASTER_ADDR": "node1", "MASTER_PORT": "29500", "SLURM_NODEID": str(node)}
            assert launched(given | tasks) == Place(local, 16, local, here)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"RANK": "3", "WORLD_SIZE": "2"}, "expected a rank from 0 to 1"),
            ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x: expected a number"),
            ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT is not set"),
        ],
    )
    def test_nonsense_is_told(self, given, told):
        with pytest.raises(ConfigError, match=told):
            launched(given)


def collectives(folder: Path) -> None:
    """What ranks tell each other, and synced batch norm beside that of one process."""
    with joined(sync=True) as ranks:
        assert ranks.gather(torch.full((ranks.rank + 1, 2), ranks.rank)).tolist() == [[0, 0], [1, 1], [1, 1]]
        value = {"a": [torch.arange(3), None, {5: 1.5}], "b": "x"} if ranks.leads else None
        told = ranks.told(value)
        assert told["a"][0].tolist() == [0, 1, 2] and told["a"][1:] == [None, {5: 1.5}] and told["b"] == "x"
        doubled = ranks.led(lambda ask: ask(torch.ones(2)).tolist(), lambda x: ranks.gather(x * 2))
        assert doubled == [2, 2, 2, 2]
        ranks.alike("the image set", "same")
        _batch_norm(ranks)


def _batch_norm(ranks: Ranks) -> None:
    """Outputs, gradients and running statistics of uneven parts, in float32, against one layer that has all images."""
    x = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    goal = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    mine, whole = (torch.nn.BatchNorm2d(3) for _ in range(2))
    part, full = ranks.part(x).requires_grad_(), x.clone().requires_grad_()
    with ranks.forward(mine):
        y = mine(part)
    ((y - ranks.part(goal)) ** 2).sum().backward()
    ranks.reduce(mine)
    ((whole(full) - goal) ** 2).sum().backward()
    for one, other in (
        (part.grad, ranks.part(full.grad)),
        (mine.weight.grad, whole.weight.grad),
        (mine.bias.grad, whole.bias.grad),
        (mine.running_mean, whole.running_mean),
        (mine.running_var, whole.running_var),
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert int(mine.num_batches_tracked) == 1


class TestReduce:
    @pytest.mark.parametrize("sync", [False, True])
    def test_equal_running_statistics_do_not_travel(self, monkeypatch, sync):
        """Under `sync` every rank took them over the same images; the two ranks here are the same."""
        sent = []
        monkeypatch.setattr(
            distributed.dist, "all_reduce", lambda flat: sent.append(len(flat)) or flat.mul_(2)
        )
        layer = torch.nn.BatchNorm1d(5)
        layer(torch.rand(4, 5)).sum().backward()
        before = layer.running_mean.clone()
        (part,) = Ranks(0, 2, sync).reduce(layer, torch.ones(()))
        assert sent == [5 + 5 + (0 if sync else 5 + 5) + 1] and float(part) == 2
        assert torch.equal(layer.running_mean, before)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ResourceError("full"), 5),
        (DataError("none"), 3),
        (ValueError("x"), 1),
        (SystemExit(7), 7),
        (SystemExit(), 0),
        (SystemExit("told"), 1),
        (KeyboardInterrupt(), 1),
    ],
)
def test_the_others_are_told_the_exit_code_that_this_one_ends_with(error, code):
    class Told:
        def post(self, code, _text):
            self.code = code
            return True

        def ended(self):
            return {"rank": 0, "text": "", "code": self.code}

        def linger(self):
            pass

    watch = Told()
    distributed.end(Ranks(0, 2), watch, error)
    assert watch.code == code


def fails_on_rank_1(_folder: Path) -> None:
    with joined() as ranks:
        if ranks.rank == 1:
            raise DataError("this machine lacks the file cat.png")
        ranks.gather(torch.zeros(1))  # waits for rank 1


def another_image_set(_folder: Path) -> None:
    with joined() as ranks:
        ranks.alike("the image set", str(ranks.rank))


def waits_for_ever(folder: Path) -> None:
    with joined() as ranks:
        (folder / f"here{ranks.rank}").touch()
        while True:
            ranks.gather(torch.zeros(1))
            time.sleep(0.05)


def texts(folder: Path, world: int = 2) -> list[str]:
    return [(folder / f"rank{rank}.log").read_text() for rank in range(world)]


class TestTogether:
    @pytest.mark.parametrize("launcher", [places, slurm_places])
    def test_what_ranks_tell_each_other(self, tmp_path, launcher):
        children = work_together(2, collectives, (tmp_path,), tmp_path, launcher)
        assert [finish(child, 60) for child in children] == [0, 0], texts(tmp_path)

    def test_an_error_on_one_rank_ends_all(self, tmp_path):
        children = work_together(2, fails_on_rank_1, (tmp_path,), tmp_path)
        assert [finish(child, 60) for child in children] == [3, 3], texts(tmp_path)
        assert texts(tmp_path) == ["", "error: rank 1: this machine lacks the file cat.png\n"]

    def test_ranks_that_see_other_images_are_refused(self, tmp_path):
        children = work_together(2, another_image_set, (tmp_path,), tmp_path)
        assert [finish(child, 60) for child in children] == [3, 3], texts(tmp_path)
        assert "rank 1: the image set is not the one that rank 0 has" in "".join(texts(tmp_path))

    @pytest.mark.slow
    @pytest.mark.parametrize("victim", [0, 1])
    def test_a_rank_that_is_killed_ends_all_within_a_minute(self, tmp_path, victim):
        children = work_together(2, waits_for_ever, (tmp_path,), tmp_path)
        while not all((tmp_path / f"here{rank}").exists() for rank in (0, 1)):
            time.sleep(0.05)
        os.kill(children[victim].pid, signal.SIGKILL)
        assert finish(children[1 - victim], 60) == 5
        said = texts(tmp_path)[1 - victim]
        assert said.count("error: ") == 1
        assert "goes on from the last checkpoint" in said


def test_a_layer_that_is_more_than_batch_norm_is_refused():
    class WithActivation(torch.nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    with pytest.raises(ConfigError, match="layers of type WithActivation"), synced(WithActivation(3)):
        pass


def test_batch_norm_is_itself_again_after_a_synced_pass():
    model = WideResNet(10, 1, 3, 8).eval()
    x = torch.rand(2, 3, 8, 8)
    before = model(x)
    with synced(model):
        assert torch.equal(model(x), before)
    assert torch.equal(model(x), before)
    assert session().ranks is ALONE
