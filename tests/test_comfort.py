"""The console command, doctor, dry run, trackers, notebooks."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
import tomllib
import types
from types import SimpleNamespace

import pytest
import torch
from tiny import CONFIG, ROOT, command, options, session, threads_kept, training_data

import dlp_fast
from dlp_fast.api import execute
from dlp_fast.commands import checks
from dlp_fast.commands.__main__ import COMMANDS
from dlp_fast.commands.dry_run import TRIES, Measured, dry_runs, estimate, exchange, measure, share
from dlp_fast.config import RunConfig
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.models.registry import new_model
from dlp_fast.report.agreement import label_agreement
from dlp_fast.report.text import notes
from dlp_fast.runs.log import RunLog, draws_bars
from dlp_fast.runs.tracking import start_trackers


class TestConsoleCommand:
    """`dlp-fast NAME …` is `python -m dlp_fast.NAME …`."""

    def test_where_it_begins(self):
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        module, _, function = scripts["dlp-fast"].partition(":")
        assert callable(getattr(importlib.import_module(module), function))

    @pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
    def test_says_what_there_is(self, words):
        done = command("commands.__main__", *words)
        assert done.code == 0
        assert done.text.startswith("usage: dlp-fast COMMAND")
        assert all(f"  {name} " in done.text for name in COMMANDS)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_its_help(self, name):
        theirs = command("commands.__main__", name, "--help")
        ours = command("report.__main__" if name == "report" else name.replace("-", "_"), "--help")
        assert theirs.code == ours.code == 0
        assert theirs.text == ours.text

    def test_unknown(self):
        done = command("commands.__main__", "runn")
        assert done.code == 2
        assert "there is no command 'runn'" in done.text and "usage: dlp-fast" in done.text

    def test_arguments_and_exit_codes_go_through(self, tiny_run, tmp_path):
        done = command("commands.__main__", "report", tiny_run[0], "--out", tmp_path / "r.html")
        assert done.code == 0, done.text
        assert (tmp_path / "r.html").is_file()
        assert command("commands.__main__", "report", tmp_path / "none").code == 3


class TestDoctor:
    def test_facts(self):
        done = command("doctor", "--no-smoke")
        assert done.code == 0, done.text
        for word in (
            "dlp_fast",
            "torch ",
            "native ops",
            "NVIDIA driver",
            "free disk here",
            torch.__version__.split("+")[0],
        ):
            assert word in done.text

    @pytest.mark.slow
    def test_smoke(self):
        with threads_kept():
            torch.set_num_threads(1)
            done = command("doctor")
        assert done.code == 0, done.text
        assert "smoke run" in done.text
        assert "passed in" in done.text

    def test_what_is_missing_is_told(self, monkeypatch):
        monkeypatch.setattr(checks.ops, "build_info", lambda: {"native": False})
        assert any("native ops are not built" in line for line in checks.advice())


@pytest.mark.parametrize(
    ("precision", "fast", "told"), [("bf16", False, 1), ("bf16", True, 0), ("auto", False, 0)]
)
def test_slow_bf16_is_told(monkeypatch, capsys, tmp_path, precision, fast, told):
    monkeypatch.setattr("dlp_fast.engine.device.cpu_has_fast_bf16", lambda: fast)
    with pytest.raises(DataError, match="no such folder"):  # told before any image is read
        execute(RunConfig(device="cpu", precision=precision, data=str(tmp_path / "none")), keep=False)
    assert capsys.readouterr().err.count("slower in bf16") == told


class TestDryRun:
    def test_command(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = command("run", "--dry-run", *options())
        assert done.code == 0, done.text
        for word in (
            "supervised",
            "unlearning",
            "finetuning",
            "in all",
            "device-hours",
            "nothing was written",
        ):
            assert word in done.text
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("labeled", ["trusted", "hardest"])
    def test_grows_with_the_work(self, labeled, monkeypatch):
        # a clock that ticks once a look: what is timed takes one second, however busy the machine is
        ticks = itertools.count()
        monkeypatch.setattr(
            "dlp_fast.commands.dry_run.time", types.SimpleNamespace(monotonic=lambda: float(next(ticks)))
        )

        def reckon(steps, epochs, networks=None):
            config = RunConfig(
                model="wrn-10-1",
                supervised={"epochs": epochs, "min_steps": 0, "batch": 32},
                unlearning={"epochs": 2},
                finetuning={"steps": steps, "batch": 16, "labeled": labeled, "norm_batches": 2},
                detection={"min_images": 2, "networks": networks},
            )
            return estimated(config)

        short, long = reckon(10, 2), reckon(1000, 200)
        assert set(short.seconds) == {"supervised", "unlearning", "finetuning"}
        assert all(value > 0 for value in short.seconds.values())
        assert long.seconds["finetuning"] > 10 * short.seconds["finetuning"]
        assert long.seconds["supervised"] > 10 * short.seconds["supervised"]
        assert reckon(10, 2, networks=4).seconds["supervised"] == 4 * short.seconds["supervised"]
        assert long.memory > 1e7

    def test_by_processes(self, monkeypatch):
        """Work on batches is shared, what they tell each other comes on top, and each needs less memory."""
        ticks = itertools.count()
        monkeypatch.setattr(
            "dlp_fast.commands.dry_run.time", types.SimpleNamespace(monotonic=lambda: float(next(ticks)))
        )
        monkeypatch.setattr("dlp_fast.commands.dry_run.psutil", types.SimpleNamespace(Process=_NoMemory))
        config = RunConfig(
            model="wrn-10-1",
            supervised={"epochs": 2, "min_steps": 0, "batch": 32},
            finetuning={"steps": 10, "batch": 32},
        )
        one, eight, many = (estimated(config, world) for world in (1, 8, 64))
        assert [e.world for e in (one, eight, many)] == [1, 8, 64]
        assert eight.memory < one.memory  # parts of 4 images of 32
        assert many.memory == one.memory  # 32 images are too few to be shared by 64
        config = config.model_copy(update={"finetuning": config.finetuning.model_copy(update={"mu": 2.0})})
        several, shared = estimated(config), estimated(config, 64)
        assert several.memory > shared.memory > many.memory  # unlabeled ones are: each has one of the 64
        assert eight.seconds["unlearning"] == one.seconds["unlearning"] / 8
        assert one.hours[1] > one.hours[0] and one.read == 0  # all are in memory

    def test_bytes_of_files_are_counted(self):
        config = RunConfig(
            model="wrn-10-1",
            order="supervised-unlearning",
            supervised={"epochs": 3, "min_steps": 0, "batch": 32},
        )
        data = training_data()
        data.images.index = _Files()
        assert estimated(config, data=data).read == 1000 * (3 * 96 + 3 * 96 + 2 * 96)

    def test_only_the_stages_of_the_order(self):
        config = RunConfig(
            model="wrn-10-1", order="supervised-unlearning", supervised={"epochs": 1, "min_steps": 0}
        )
        assert set(estimated(config).seconds) == {"supervised", "unlearning"}

    def test_distrusted_labels_take_no_steps(self, monkeypatch):
        counted = []
        monkeypatch.setattr(
            "dlp_fast.commands.dry_run.stage3.planned_steps", lambda *given: counted.append(given) or 2
        )
        config = RunConfig(
            model="wrn-10-1", supervised={"epochs": 2, "min_steps": 0}, detection={"high_loss_fraction": 0.25}
        )
        estimated(config)
        labeled, in_doubt, _, before = counted[0]
        assert (labeled, in_doubt, before) == (72, 24, 2)  # of 96; stage 1 has one step an epoch

    def test_a_part_is_that_of_the_ranks(self):
        """Of 33 images, the first of two processes has 17, and of 3 unlabeled ones, one of four has at most one."""
        assert (share(33, 1), share(33, 2), share(33, 20), share(3, 4, 0)) == (33, 17, 33, 1)

    def test_parts_of_batches_are_tried_one_after_the_other(self, monkeypatch):
        """With --batch-parts, the busiest process's parts, whose gradients are added up and go from one to the next."""
        tried = []
        monkeypatch.setattr(
            "dlp_fast.commands.dry_run.stage1.supervised",
            lambda session, model, data, config: tried.append(session.ranks.sizes(config.batch)),
        )
        monkeypatch.setattr(
            "dlp_fast.commands.dry_run.stage3.finetuning",
            lambda session, model, data, labels, config: tried.append(session.ranks.sizes(config.batch)),
        )
        monkeypatch.setattr("dlp_fast.commands.dry_run.psutil", types.SimpleNamespace(Process=_NoMemory))
        config = RunConfig(
            model="wrn-10-1",
            batch_parts=4,
            supervised={"epochs": 2, "min_steps": 0, "batch": 32},
            finetuning={"steps": 10, "batch": 16, "norm_batches": 2},
        )
        data, of = training_data(), session()
        once = Measured(new_model("wrn-10-1", data, 0), scoring=96.0, unlearning=12.0)
        told = {world: estimate(of, data, config, once, world) for world in (1, 3, 4)}
        each = [sizes for k, sizes in enumerate(tried) if k % (TRIES + 1) == 0]
        assert each == [[8] * 4, [4] * 4, [8] * 2, [4] * 2, [8], [4]]  # of three, the last has two parts
        assert [of.seconds["unlearning"] for of in told.values()] == [12.0, 6.0, 3.0]
        whole = estimate(of, data, config.model_copy(update={"batch_parts": None}), once)
        assert told[1].memory < whole.memory  # one part at a time
        assert told[3].memory > told[4].memory  # and the sums of two, until those before have theirs
        alone, together = (told[world].seconds["finetuning"] for world in (1, 4))
        # statistics of batch norm, which each takes for itself
        assert together - alone / 4 == pytest.approx(24, abs=0.5)
        with pytest.raises(ConfigError, match="each of 8 processes needs a part"):
            estimate(of, data, config, once, 8)

    def test_what_goes_from_process_to_process_takes_turns(self):
        model = torch.nn.Linear(1000, 1000)
        assert exchange(model, 1, 4) == 0
        assert exchange(model, 8, 8) == pytest.approx(8 * (50e-6 + 4_004_000 / 100e9))
        within, between = 50e-6 + 4_004_000 / 100e9, 200e-6 + 4_004_000 / 20e9
        assert exchange(model, 16, 16) == pytest.approx(14 * within + 2 * between)
        assert exchange(model, 16, 16) > exchange(model, 16)

    def test_as_many_processes_as_there_are_parts(self, monkeypatch):
        monkeypatch.setattr(
            "dlp_fast.commands.dry_run.prepare", lambda *_: SimpleNamespace(data=training_data())
        )
        monkeypatch.setattr("dlp_fast.commands.dry_run.measure", lambda *_: None)
        monkeypatch.setattr("dlp_fast.commands.dry_run.estimate", lambda *given: given[-1])
        config = RunConfig(model="wrn-10-1", device="cpu")
        assert dry_runs(config, quiet=True) == [1, 8, 64]
        assert dry_runs(config.model_copy(update={"batch_parts": 4}), quiet=True) == [1, 4]
        assert dry_runs(config.model_copy(update={"batch_parts": 16}), quiet=True) == [1, 8, 16]

    def test_a_given_mu_is_tried(self, monkeypatch):
        tried = []
        monkeypatch.setattr(
            "dlp_fast.commands.dry_run.stage3.finetuning",
            lambda session, model, data, labels, config: tried.append((len(labels.unlabeled), config.mu)),
        )
        config = RunConfig(
            model="wrn-10-1",
            order="supervised-finetuning",
            supervised={"epochs": 1, "min_steps": 0},
            finetuning={"steps": 10, "batch": 16, "mu": 2},
        )
        estimated(config)
        assert set(tried) == {(32, 2.0)}

    def test_what_processes_do_not_change_is_timed_once(self, monkeypatch):
        ran = []
        monkeypatch.setattr("dlp_fast.commands.dry_run.unlearning", lambda *_: ran.append("unlearning"))
        monkeypatch.setattr("dlp_fast.commands.dry_run.score", lambda *_: ran.append("score"))
        data = types.SimpleNamespace(data=training_data())
        monkeypatch.setattr("dlp_fast.commands.dry_run.prepare", lambda *_: data)
        config = RunConfig(
            model="wrn-10-1",
            device="cpu",
            order="supervised-unlearning",
            supervised={"epochs": 1, "min_steps": 0, "batch": 32},
        )
        told = dry_runs(config, quiet=True)
        assert [of.world for of in told] == [1, 8, 64]
        assert (ran.count("unlearning"), ran.count("score")) == (TRIES + 1, TRIES + 1)


def estimated(config, world=1, data=None):
    """The Estimate of `config` on a few small images."""
    data, of = data or training_data(), session()
    return estimate(of, data, config, measure(of, data, config), world)


class _Files:
    byte_sizes = torch.full((96,), 1000.0)

    def __len__(self):
        return 96


class _NoMemory:
    def memory_info(self):
        return types.SimpleNamespace(rss=0)


class Fake:
    """A tracking service that fails when it is told to."""

    def __init__(self, broken=False):
        self.broken, self.seen, self.closed = broken, [], False

    def init(self, **_):
        return self

    def log(self, values):
        if self.broken:
            raise ConnectionError("no route to host")
        self.seen.append(values)

    def finish(self):
        self.closed = True


class TestTrackers:
    def module(self, monkeypatch, fake):
        module = types.ModuleType("wandb")
        module.init = fake.init
        monkeypatch.setitem(sys.modules, "wandb", module)

    def test_events_arrive(self, monkeypatch, tmp_path):
        fake = Fake()
        self.module(monkeypatch, fake)
        log = RunLog(tmp_path / "metrics.jsonl", quiet=True)
        log.trackers += start_trackers(("wandb",), tmp_path, {}, log.warn)
        log.event("epoch", stage="supervised", epoch=1, loss=2.5, note="text")
        log.close()
        assert fake.seen == [{"supervised/loss": 2.5}]
        assert fake.closed

    def test_a_broken_one_is_left_alone(self, monkeypatch):
        fake, warned = Fake(broken=True), []
        self.module(monkeypatch, fake)
        (tracker,) = start_trackers(("wandb",), None, {}, warned.append)
        tracker.event("epoch", {"loss": 1.0})
        tracker.event("epoch", {"loss": 2.0})
        tracker.close()
        assert len(warned) == 1
        assert "--track wandb failed and is left out" in warned[0]
        assert not fake.closed

    def test_a_missing_package_is_told(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        warned = []
        assert start_trackers(("mlflow",), None, {}, warned.append) == []
        assert len(warned) == 1
        assert warned[0].startswith("--track mlflow is left out, its package is missing: ")
        assert warned[0].endswith(" -m pip install mlflow")

    @pytest.mark.slow
    def test_a_run_goes_on_without(self, monkeypatch, tmp_path):
        self.module(monkeypatch, Fake(broken=True))
        done = command("run", "--out", tmp_path / "run", *options(), "--track", "wandb")
        assert done.code == 0, done.text
        assert "left out" in done.text


def test_notebook():
    with threads_kept():
        result = dlp_fast.defend("digits", quiet=True, attack="badnets", **CONFIG)
    shown = result._repr_html_()
    assert shown.count("<tr>") == 1 + len(result.results["stages"])
    assert "verdict:" in shown
    assert json.dumps(result.results)


def test_a_notebook_gets_a_bar_where_it_can_be_redrawn(monkeypatch):
    """rich calls a notebook no terminal, whose output it can redraw all the same with ipywidgets."""
    notebook = SimpleNamespace(is_terminal=False, is_jupyter=True)
    for there in (None, object()):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, there=there: there)
        assert draws_bars(notebook) == (there is not None)
    assert draws_bars(SimpleNamespace(is_terminal=True, is_jupyter=False))
    assert not draws_bars(SimpleNamespace(is_terminal=False, is_jupyter=False))


def test_notes():
    complete = {"stages": {"supervised": {}, "unlearning": {}, "finetuning": {}}, "detection": {"marks": []}}
    results = complete | {
        "decisions": {"keep": 2, "drop": 0, "suspect": 1},
        "stage3_detections": 7,
        "logit_adjustment": {},
    }
    obeyed, late = notes(results)
    assert "(2 keep, 1 suspect)" in obeyed
    assert late.startswith("7 of the suspected images") and "finetuning.rounds" in late
    nothing = complete | {
        "decisions": {"keep": 0, "drop": 0, "suspect": 0},
        "stage3_detections": 0,
        "logit_adjustment": {},
    }
    assert notes(nothing) == []
    (behind,) = notes({**nothing, "label_agreement": {"supervised": 0.55, "clean_model": 0.16}})
    assert "16% of the trusted" in behind and "stage 1 55%" in behind and "finetuning.epochs" in behind
    assert notes({**nothing, "label_agreement": {"supervised": 1.0, "clean_model": 0.52}}) == []
    assert notes({**nothing, "label_agreement": None}) == []
    mark = {"images": 30, "class": "cat", "purity": 0.91}
    (shown,) = notes({**nothing, "detection": {"marks": [mark]}})
    assert "30 images of class cat share a mark" in shown and "not suspected" in shown
    typical = {**mark, "likely_benign": True, "label_support": 1.3, "attack_success": 0.1, "purity": None}
    (told,) = notes({**nothing, "detection": {"marks": [typical]}, "verdict": {"reasons": []}})
    assert "knows them 130% as well" in told and "as typical pictures are" in told
    (raised,) = notes({**nothing, "logit_adjustment": {"cat": 1.814}})
    assert raised.startswith("class cat lost labels") and "1.8 times" in raised


def test_label_agreement():
    """Of the trusted images that nobody suspected later on; only where stage 3 learnt their labels last."""
    labels = torch.tensor([0, 0, 1, 1, 2])
    first, last = torch.tensor([0, 0, 1, 0, 0]), torch.tensor([0, 1, 0, 0, 2])
    found = SimpleNamespace(
        selection=SimpleNamespace(trusted=torch.arange(4), suspected_poisoned=torch.tensor([1, 4])),
        first=SimpleNamespace(prediction=first),
    )

    def agreement(**over):
        return label_agreement(RunConfig(**over), found, labels, last)

    assert agreement() == pytest.approx({"supervised": 2 / 3, "clean_model": 1 / 3})
    for over in (
        {"finetuning": {"labeled": "hardest"}},
        {"order": "supervised-unlearning"},
        {"order": "supervised-finetuning-unlearning"},
    ):
        assert agreement(**over) is None
    found.selection.suspected_poisoned = torch.arange(5)
    assert agreement() is None


def test_a_driver_that_does_not_answer(monkeypatch):
    def hang(*_args, **_kwargs):
        raise subprocess.TimeoutExpired("nvidia-smi", 30)

    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("subprocess.run", hang)
    assert "does not answer" in checks.driver()
