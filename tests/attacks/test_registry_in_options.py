"""The options of the commands name every attack that there is."""

from __future__ import annotations

from typing import get_args

from dlp_fast.attacks.registry import ATTACKS
from dlp_fast.commands.poison import PoisonConfig
from dlp_fast.config import RunConfig


def test_options_name_every_attack():
    assert set(get_args(PoisonConfig.model_fields["attack"].annotation)) == set(ATTACKS)
    assert set(get_args(RunConfig.model_fields["attack"].annotation)) == {*ATTACKS, "auto", "none"}
