"""Which of how many processes of one run this is, as torchrun or SLURM says in the environment; without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dlp_fast.errors import ConfigError

# tasks of each machine, such as 4(x2),3; of the step, which may be smaller than its job; the last one is there only
# where --ntasks-per-node was given
TASKS = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")
_MACHINES = re.compile(r"(\d+)(?:\(x(\d+)\))?")  # so many tasks, on so many machines in a row


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
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif all(name in given for name in ("SLURM_PROCID", "SLURM_NTASKS", "MASTER_ADDR")):
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
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
    if names[0] == "RANK":
        told = given.get("LOCAL_WORLD_SIZE", "")
        here = int(told) if told.isdecimal() else 1
    else:
        here = _tasks_here(given)
    return Place(rank, world, local, max(local + 1, here))


def _tasks_here(given: Mapping[str, str]) -> int:
    """How many tasks srun says that this machine, SLURM_NODEID, has; 1 where it says nothing. A list that ends before
    this machine goes on as it ends: SLURM_NTASKS_PER_NODE is one number for all.
    """
    told = next((given[name] for name in TASKS if name in given), "")
    ahead, tasks = _number(given, "SLURM_NODEID") if "SLURM_NODEID" in given else 0, 1
    for count, machines in _MACHINES.findall(told):
        tasks, ahead = int(count), ahead - int(machines or 1)
        if ahead < 0:
            break
    return tasks


def _number(given: Mapping[str, str], name: str) -> int:
    try:
        return int(given[name])
    except ValueError:
        raise ConfigError(f"{name}={given[name]}: expected a number; torchrun or srun sets it.") from None
