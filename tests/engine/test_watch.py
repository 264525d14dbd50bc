"""What a process of a run does where another, or the way to it, is gone."""

from __future__ import annotations

import threading
import time

import torch.distributed as dist

from dlp_fast.engine import watch
from dlp_fast.engine.watch import LOST, Watch


class Unanswered(dist.HashStore):
    """As a store whose machine cannot be reached: what is asked waits."""

    def set(self, *_):
        threading.Event().wait()


def test_a_cut_link_ends_the_process(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(watch, "PATIENCE", 0.1)
    monkeypatch.setattr(watch, "GRACE", 0.0)
    monkeypatch.setattr(watch, "end_process", ended.append)
    Watch(Unanswered(), 1, 2, tick=0.01)
    for _ in range(500):
        if ended:
            break
        time.sleep(0.01)
    assert ended == [LOST]
    assert "error: rank 0 has not answered for 0 s; the same command goes on" in capsys.readouterr().err
