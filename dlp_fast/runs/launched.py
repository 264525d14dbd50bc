"""Which of how many processes of one run this is, as torchrun or SLURM says in the environment; without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from dlp_fast.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """rank: number of this process, from 0; world: how many there are; local_rank, local_world: on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def launched(environment: Mapping[str, str] | None = None) -> Place:
    """The Place that RANK and WORLD_SIZE (torchrun) or SLURM_PROCID and SLURM_NTASKS (srun) give; alone without either.

    srun's count only where MASTER_ADDR is set: an allocation has them in an interactive shell too, where one process is
    meant. Raises ConfigError where they contradict each other.
    """
    given = os.environ if environment is None else environment
    if "RANK" in given and "WORLD_SIZE" in given:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    elif all(name in given for name in ("SLURM_PROCID", "SLURM_NTASKS", "MASTER_ADDR")):
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")
    else:
        return Place()
    rank, world = (_number(given, name) for name in names[:2])
    if not 0 <= rank < world:
        raise ConfigError(f"{names[0]}={rank} and {names[1]}={world}: expected a rank from 0 to {world - 1}.")
    if world == 1:
        return Place()
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in given]
    if missing:
        raise ConfigError(
            f"{names[1]}={world}, but {' and '.join(missing)} is not set: where the processes meet. torchrun sets it; "
            "under srun export the first machine's name and a free port."
        )
    local = _number(given, names[2]) if names[2] in given else rank
    # what srun says of other machines, such as 4(x2), is not needed
    of_machine = given.get(names[3], "1").partition("(")[0]
    return Place(rank, world, local, max(local + 1, int(of_machine) if of_machine.isdigit() else 1))


def _number(given: Mapping[str, str], name: str) -> int:
    try:
        return int(given[name])
    except ValueError:
        raise ConfigError(f"{name}={given[name]}: expected a number; torchrun or srun sets it.") from None
