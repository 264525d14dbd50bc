"""Step sizes at given steps: the rise, the fall, and where each schedule ends."""

from __future__ import annotations

import math

import pytest

from dlp_fast.engine.schedule import Schedule

NAMES = ["constant", "linear", "cosine", "trapezoid", "fixmatch_cosine"]


def sizes(schedule: Schedule) -> list[float]:
    return [schedule.at(k) for k in range(schedule.steps + 1)]


def test_constant():
    assert sizes(Schedule("constant", 5, 0.05)) == [0.05] * 6


def test_linear():
    assert sizes(Schedule("linear", 4, 0.2)) == [pytest.approx(v) for v in (0.2, 0.15, 0.1, 0.05, 0.0)]


def test_trapezoid():
    wanted = (0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.15, 0.1, 0.05, 0.0)
    assert sizes(Schedule("trapezoid", 10, 0.2)) == [pytest.approx(v) for v in wanted]
    assert Schedule("trapezoid", 10, 0.2, final_share=0.5).at(10) == pytest.approx(0.1)


def test_cosine():
    half = math.sqrt(0.5)
    wanted = [0.1 * (1 + c) for c in (1, half, 0, -half, -1)]
    assert sizes(Schedule("cosine", 4, 0.2)) == [pytest.approx(v) for v in wanted]


def test_fixmatch_cosine():
    of = Schedule("fixmatch_cosine", 16, 0.03)
    assert sizes(of) == [pytest.approx(0.03 * math.cos(7 * math.pi * k / 256)) for k in range(17)]
    assert of.at(16) == pytest.approx(0.03 * 0.1951, rel=1e-3)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 1.0])
def test_the_fall_ends_at_zero_after_the_last_step(name, warmup):
    of = Schedule(name, 50, 0.2, warmup)
    assert of.at(50) == pytest.approx(0.2 if warmup == 1 else 0.0, abs=1e-9)
    assert min(of.at(k) for k in range(50)) > 0


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_final_share(name):
    assert Schedule(name, 40, 0.2, 0.25, 0.1).at(40) == pytest.approx(0.02)
    assert Schedule(name, 40, 0.2, 0.25, 1.0).at(40) == pytest.approx(0.2)


@pytest.mark.parametrize("name", NAMES)
def test_the_rise(name):
    of = Schedule(name, 40, 0.2, 0.25)
    fall = [Schedule(name, 40, 0.2).at(k) / 0.2 if name == "fixmatch_cosine" else 1.0 for k in range(10)]
    assert sizes(of)[:10] == [pytest.approx(0.2 * (k + 1) / 10 * fall[k]) for k in range(10)]
    after = sizes(of)[10:]
    assert after == sorted(after, reverse=True)
    assert after[0] == pytest.approx(0.2 * (math.cos(7 * math.pi / 64) if name == "fixmatch_cosine" else 1))


@pytest.mark.parametrize("name", NAMES)
def test_one_step(name):
    assert Schedule(name, 1, 0.2, 0.25).at(0) == pytest.approx(0.2)
