"""The promises of docs/reliability.md: each runs alone, counts what is not kept, and its number comes into the page."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
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
        ("fuzz_batch_norm", 10),
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


def test_sums_in_another_order_are_found(monkeypatch):
    from benchmarks.system.reliability import fuzz_batch_norm
    from benchmarks.system.reliability.fuzz_ops import fuzz

    monkeypatch.setattr(fuzz_batch_norm, "chained", lambda values: values.sum(0))
    with pytest.raises(AssertionError):
        fuzz(fuzz_batch_norm.batch_norm_relu, 20, 0)


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

    begun, sent = [], []

    def begin(run, options):
        assert not run.exists()  # what the one before left is gone
        run.mkdir()
        begun.append(run)
        return SimpleNamespace(pid=12345)

    def reach(child, moment):
        return len(begun) % 2 == 0

    monkeypatch.setattr(signals, "begin", begin)
    monkeypatch.setattr(signals, "reach", reach)
    monkeypatch.setattr(signals, "whole_run", lambda run, options: 2.0)
    monkeypatch.setattr(signals, "finish", lambda child: 0)
    monkeypatch.setattr(signals, "hashes", lambda run: {})
    monkeypatch.setattr(signals.os, "kill", lambda pid, number: sent.append(number))
    monkeypatch.setattr(signals, "SIGNALS", (signals.signal.SIGPIPE,))
    found = list(signals.trials(4, random.Random(0), tmp_path))
    assert len(begun) == 8 and len(sent) == len(found) == 4 and all(trial.kept for trial in found)


def test_what_was_cut_off_goes_on_after_the_last_part(tmp_path):
    """Each part is drawn alike whether or not the process that counts it is a new one."""
    from benchmarks.system.reliability.promise import Promise, Trial

    begun, drawn, cut = tmp_path / "parts" / "x.json", [], [3]

    def trials(count, rng, folder):
        for _ in range(count):
            drawn.append(rng.random())
            if len(drawn) == cut[0]:
                raise KeyboardInterrupt
            yield Trial(drawn[-1] > 0, "drawn")

    promise = Promise("x", "it holds", "by trial", trials, full=6, sample=1, part=2)
    with pytest.raises(KeyboardInterrupt):
        promise.run(6, 0, "m", begun)
    cut[0] = 99
    other = promise.run(4, 0, "m", tmp_path / "other.json")  # another count has parts of its own
    assert other["trials"] == 4 and not (tmp_path / "other.json").exists()
    at = len(drawn)
    found = promise.run(6, 0, "m", begun)
    assert (found["kept"], found["trials"]) == (6, 6) and not begun.exists()
    assert drawn[at : at + 2] == drawn[5:7] and drawn[2] == drawn[at]  # parts 2 and 3; the first was done


def test_pixels_that_a_decoder_never_wrote_are_found(monkeypatch):
    """Fresh memory is filled differently for the two decodings of a file."""
    from benchmarks.system.reliability import mutated_images

    for made, twice in ((lambda *_, **__: np.empty(100_000, np.uint8), 2), (lambda *_, **__: np.zeros(9), 1)):
        monkeypatch.setattr(mutated_images, "decode_image", made)
        assert len({mutated_images.pixels(b"x", fill) for fill in (0x55, 0xAA)}) == twice


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_boxes_are_changed_and_their_sizes_put_right(kind):
    from benchmarks.system.reliability import mutated_images

    whole = next(
        of for of in mutated_images.sources() if of[4:8] == {"AVIF": b"ftyp", "JPEG2000": b"jP  "}[kind]
    )
    changed = {mutated_images.boxes(whole, random.Random(seed)) for seed in range(40)}
    assert len(changed) > 20 and len([of for of in changed if of[4:8] == whole[4:8]]) > 20


@pytest.mark.slow
def test_files_are_bred_by_coverage(tmp_path):
    pytest.importorskip("atheris")
    from benchmarks.system.reliability import guided_images, mutated_images

    (found,) = guided_images.trials(200, random.Random(1), tmp_path)
    assert found.kept and found.number >= 200, found.what
    assert int(found.what.split()[0]) > len(mutated_images.sources())
