"""Time left of a whole run, with a clock that is simulated."""

import pytest

from dlp_fast.config import RunConfig
from dlp_fast.preparation.work import FIRST, OTHERS, STATISTICS, TUNING, UNLEARNING, time_left, tuning
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.time_left import TimeLeft, Work, duration


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def simulated(left, clock, bars):
    """(seconds run, estimate) after each step of `bars`: (title, planned steps, steps taken, seconds a step)."""
    seen = []
    for title, planned, taken, seconds in bars:
        left.start(title, planned)
        for step in range(taken):
            clock.now += seconds
            left.advance(step + 1)
            seen.append((clock.now, left.seconds()))
    left.end()
    return seen


def within(seen, factor, first=0.1):
    """Whether each estimate after the first tenth is right within `factor`, or off by no more than a twentieth."""
    total = seen[-1][0]
    return [
        (now, estimate, total - now)
        for now, estimate in seen
        if now > first * total
        and not (total - now) / factor - 0.05 * total <= estimate <= (total - now) * factor + 0.05 * total
    ]


WORK = [Work("a", 1000, 4.0), Work("b", 100, 3.0), Work("c", 2000, 7.0)]


class TestRatesThatHold:
    def test_as_planned(self):
        clock = Clock()
        bars = [("a", 1000, 1000, 0.04), ("b", 100, 100, 0.03), ("c", 2000, 2000, 0.07)]
        assert within(simulated(TimeLeft(WORK, clock=clock), clock, bars), 1.01) == []

    @pytest.mark.parametrize("off", [0.75, 1.3])
    def test_a_stage_costs_other_than_reckoned(self, off):
        clock = Clock()
        bars = [("a", 1000, 1000, 0.04), ("b", 100, 100, 0.03 * off), ("c", 2000, 2000, 0.07 * off)]
        assert within(simulated(TimeLeft(WORK, clock=clock), clock, bars), 1.5) == []

    def test_the_stage_alone_says_another_thing(self):
        clock = Clock()
        alone = TimeLeft([Work("a", 1000, 4.0)], clock=clock)
        assert simulated(alone, clock, [("a", 1000, 500, 0.04)])[-1][1] == pytest.approx(20)
        whole = TimeLeft(WORK, clock=clock)
        assert simulated(whole, clock, [("a", 1000, 500, 0.04)])[-1][1] == pytest.approx(163)


class TestEarlyEnds:
    def test_others_end_as_early_as_the_first(self):
        clock = Clock()
        work = [Work("first", 1000, 1.0), Work("more", 1000, 1.0, 4, 1000)]
        bars = [("first", 1000, 200, 1.0), *[("more 2", 1000, 200, 1.0)] * 4]
        seen = simulated(TimeLeft(work, {"more": "first"}, clock), clock, bars)
        assert within(seen, 1.5) == []

    def test_none_where_the_first_took_all(self):
        clock = Clock()
        left = TimeLeft([Work("first", 10, 1.0), Work("more", 10, 1.0, 4, 10)], {"more": "first"}, clock)
        assert simulated(left, clock, [("first", 10, 10, 1.0)])[-1] == (10.0, 0.0)

    def test_bars_that_are_skipped(self):
        clock = Clock()
        left = TimeLeft(WORK, clock=clock)
        simulated(left, clock, [("a", 1000, 500, 0.04)])
        left.start("c", 2000)
        assert left.seconds() == pytest.approx(2000 * 7 * 0.01)


class TestOtherBars:
    def test_nothing_is_known_before_the_first_step(self):
        left = TimeLeft(WORK, clock=Clock())
        assert left.seconds() is None
        left.start("a", 1000)
        assert left.seconds() is None

    def test_going_on(self):
        clock = Clock()
        left = TimeLeft([Work("a", 100, 1.0)], clock=clock)
        left.start("a", 100, 90)
        clock.now = 5.0
        left.advance(95)
        assert left.seconds() == pytest.approx(5.0)

    def test_a_bar_of_no_stage_says_nothing_and_changes_nothing(self):
        clock = Clock()
        left = TimeLeft(WORK, clock=clock)
        simulated(left, clock, [("a", 1000, 1000, 0.04)])
        before = left.seconds()
        left.start("reading images", 10**6)
        clock.now += 1000
        left.advance(10**5)
        assert left.seconds() is None
        left.start("c", 2000)
        assert before == pytest.approx((100 * 3 + 2000 * 7) * 0.01)
        assert left.seconds() == pytest.approx(2000 * 7 * 0.01)

    def test_a_network_that_nobody_foresaw(self):
        clock = Clock()
        left = TimeLeft(WORK, clock=clock)
        simulated(left, clock, [("a", 1000, 1000, 0.04)])
        left.start("stage 1 of 3, another network", 1000)
        assert left.seconds() == pytest.approx((1000 * 4 + 100 * 3 + 2000 * 7) * 0.01)


def test_what_lies_between_bars_is_no_work():
    """As a run tells it: detection, after the bar of stage 1 has ended, does not make training look slower."""
    clock, log = Clock(), RunLog(None, quiet=True)
    log.run_time = TimeLeft(WORK, clock=clock)
    log.start("a", 1000)
    clock.now = 40.0
    log.advance(1000, 1)
    log.finish()
    clock.now += 10_000
    log.finish()
    log.start("c", 2000)
    log.close()
    assert log.run_time.seconds() == pytest.approx(2000 * 7 * 0.01)


def test_a_given_mu_counts_where_labels_are_trusted():
    def told(**of):
        return tuning(1000, 10, RunConfig(finetuning={"batch": 64, **of}), 100)

    assert told().unlabeled == 0 and told(mu=2).unlabeled == 128
    # ten of each class are wanted, and there are five
    few = tuning(50, 10, RunConfig(finetuning={"labeled": "hardest"}), 100)
    assert (few.labeled, few.batch, few.unlabeled) == (50, 50, 0)


@pytest.mark.parametrize("preset", [{}, {"order": "supervised-unlearning"}, {"detection": {"networks": 1}}])
def test_the_work_of_a_run(preset):
    """A run whose costs are those that are reckoned, of 10,000 images in ten classes, and of 1,442."""
    for images in (1442, 10_000):
        clock, config = Clock(), RunConfig.model_validate(preset)
        left = time_left(images, 10, config, clock)
        epochs = max(10, -(-1000 // (images // 128)))
        steps = epochs * (images // 128)
        bars = [(FIRST, steps, steps, 3 * 128 + images / (images // 128))]
        bars.append((UNLEARNING, 20, 20, 3 * 128.0))
        if not preset.get("order"):
            tuned = max(steps, -(-30 * images // 128))
            bars += [(TUNING, tuned, tuned, 3 * 140.0), (STATISTICS, 100, 100, 128.0)]
        assert within(simulated(left, clock, bars), 1.5) == []


@pytest.mark.parametrize("networks", [None, 1, 3])
@pytest.mark.parametrize("taken", [1.0, 0.3])
def test_the_work_of_trials(networks, taken):
    """Rounds of --detection.power, each with as many networks as stage 1, which end as early as its first one."""
    images, rounds, clock = 1442, 4, Clock()
    config = RunConfig.model_validate({"detection": {"power": rounds, "networks": networks}})
    left = time_left(images, 10, config, clock)
    per_epoch = images // 128
    planned = max(10, -(-1000 // per_epoch)) * per_epoch
    steps = int(planned * taken)
    several = networks or max(1, min(5, config.supervised.min_steps // steps))
    cost = (3 * 128 + images / per_epoch) / 1000
    look = [(FIRST, planned, steps, cost), *[(f"{OTHERS} 2", planned, steps, cost)] * (several - 1)]
    tuned = max(steps, -(-30 * images // 128))
    bars = [*look, (UNLEARNING, 20, 20, 0.4), (TUNING, tuned, tuned, 0.42), (STATISTICS, 100, 100, 0.128)]
    bars += [(f"power {n}: {title}", *of) for n in range(1, rounds + 1) for title, *of in look]
    total = sum(took * each for _, _, took, each in bars)
    known = max(0.1, (steps + 1) * cost / total)  # the first network has said how early it ends
    assert within(simulated(left, clock, bars), 1.5, known) == []


def test_names_of_the_work_are_those_of_the_bars():
    """The bars are found by how their titles begin: the stages write them."""
    import inspect

    from dlp_fast.stages import finetuning, supervised, unlearning

    told = "".join(map(inspect.getsource, (finetuning, supervised, unlearning)))
    for title in (UNLEARNING, TUNING, STATISTICS):
        assert f'"{title}"' in told
    assert (
        'f"stage 1 of 3, {name}"' in told
        and FIRST.endswith("supervised")
        and OTHERS.endswith("ensemble member")
    )


@pytest.mark.parametrize(("seconds", "told"), [(40.4, "40 s"), (720, "12 min"), (12600, "3.5 h")])
def test_duration(seconds, told):
    assert duration(seconds) == told
