"""Signals between steps."""

from __future__ import annotations

import os
import signal

import pytest
from tiny import session

from dlp_fast.errors import Interrupted


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_between_steps(number):
    before = signal.getsignal(number)
    with session() as of:
        of.poll()
        os.kill(os.getpid(), number)
        assert of.stopping
        with pytest.raises(Interrupted, match=f"stopped by {signal.Signals(number).name}") as error:
            of.poll()
    assert error.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_under_nohup_a_run_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with session() as of:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not of.stopping
    finally:
        signal.signal(signal.SIGHUP, before)
