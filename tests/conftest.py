"""One tiny run shared by every test that only reads what a run leaves."""

from __future__ import annotations

import pytest
from tiny import Done, command, options


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """(run folder, how the command ended) of a run on the digits with BadNets."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    done: Done = command("run", "--out", out, *options())
    assert done.code == 0, done.text
    return out, done
