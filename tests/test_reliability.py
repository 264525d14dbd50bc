"""The promises of docs/reliability.md: each runs alone, counts what is not kept, and its number comes into the page."""

from __future__ import annotations

import random

import pytest
from tiny import ROOT

pytest.importorskip("hypothesis")


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def promises():
    from benchmarks.system.reliability.__main__ import promises

    return promises()


def test_every_promise_has_its_module_and_its_command():
    of = promises()
    assert len(of) >= 15
    for module, promise in of.items():
        assert 1 <= promise.sample <= promise.full
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert f"python -m {module}" in source and "main(PROMISE)" in source


# trials of a few milliseconds; those that take whole runs are left to `make reliability`
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("damaged_checkpoints", 12),
        ("bad_numbers", 3),
        ("changing_files", 2),
        ("mutated_images", 52),
        ("fuzz_ops", 10),
    ],
)
def test_a_few_trials_are_kept(name, count, tmp_path):
    found = list(
        promises()[f"benchmarks.system.reliability.{name}"].trials(count, random.Random(1), tmp_path)
    )
    assert found and [trial.what for trial in found if not trial.kept] == []


def test_what_is_not_kept_is_counted_and_listed(capsys):
    from benchmarks.system.reliability.promise import Promise, Trial

    def trials(count, rng, folder):
        yield Trial(True, "good", number=count)
        yield Trial(False, "bad")

    found = Promise("x", "it holds", "by trial", trials, full=9, sample=1).run(4, 0, "m")
    assert (found["kept"], found["trials"], found["not_kept"]) == (4, 5, ["bad"])
    assert found["command"] == "python -m m --count 4 --seed 0"
    assert "NOT KEPT: bad" in capsys.readouterr().out


def test_an_op_that_differs_is_found():
    from benchmarks.system.reliability.fuzz_ops import fuzz, select

    def wrong(draw):
        select(draw)
        assert draw is None, "differs"

    with pytest.raises(AssertionError, match="differs"):
        fuzz(wrong, 3, 0)


def test_the_page_takes_the_table(tmp_path):
    from benchmarks.system.reliability.__main__ import BEGIN, END, write_page

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nformer\n{END}\nafter\n")
    of = {"promise": "it holds", "how": "by trial", "kept": 1200, "trials": 1201, "command": "python -m m"}
    for _ in range(2):
        write_page(page, [of], tmp_path / "r.json")
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "former" not in text
    assert text.count("| it holds | by trial | 1,200 of 1,201 | `python -m m` |") == 1


def test_a_run_that_ended_before_its_signal_is_not_counted_and_begun_anew(monkeypatch, tmp_path):
    """Every second run is over when its signal is due: as many trials as were asked for, each of a signal sent."""
    from benchmarks.system.reliability import signals

    class Child:
        pid, begun = 12345, 0

        def __init__(self):
            Child.begun += 1
            self.alive = Child.begun % 2 == 0

        def is_alive(self):
            return self.alive

    def begin(run):
        assert not (run / "over").exists()  # what the one before left is gone
        run.mkdir(exist_ok=True)
        (run / "over").touch()
        run.with_suffix(".log").touch()
        return Child()

    sent = []
    monkeypatch.setattr(signals, "begin", begin)
    monkeypatch.setattr(signals, "finish", lambda child: 0)
    monkeypatch.setattr(signals, "hashes", lambda run: {})
    monkeypatch.setattr(signals.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(signals.os, "kill", lambda pid, number: sent.append(number))
    monkeypatch.setattr(signals, "SIGNALS", (signals.signal.SIGPIPE,))
    found = list(signals.trials(4, random.Random(0), tmp_path))
    assert len(sent) == 4 and len(found) == 5 and all(trial.kept for trial in found)
