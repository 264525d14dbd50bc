"""Batches in a fixed number of parts, so that any number of processes takes the same steps to the last bit.

The sum of floats depends on its order, and batch norm on who else is in the batch. Here a batch falls into the same
parts whoever works on it; each passes through the network by itself, as one process's of so many would, and what they
give is added up in their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlp_fast.engine.distributed import LEAST, Ranks, joined
from dlp_fast.engine.pace import PACE
from dlp_fast.engine.synced_batch_norm import batch_norms
from dlp_fast.engine.watch import Watch, in_words
from dlp_fast.errors import ConfigError


def ranks_of(sync: bool, parts: int | None) -> AbstractContextManager[Ranks]:
    """`joined`, with Parts where `parts` is given."""
    return joined(sync) if parts is None else joined(sync, partial(Parts, parts))


class Parts(Ranks):
    """Ranks of which each stands for some of `parts` processes, one after the other; see Ranks."""

    def __init__(
        self, parts: int, rank: int = 0, world: int = 1, sync: bool = False, watch: Watch | None = None
    ):
        super().__init__(rank, world, False, watch)
        if sync:
            raise ConfigError(
                "batch_parts and sync_batch_norm contradict each other: batch norm of a part, or of the batch; give one"
            )
        if world > parts:
            raise ConfigError(
                f"batch_parts {parts}: each of {world} processes needs a part; start {parts} at most, or set more "
                "parts, which is another training"
            )
        self.parts = parts
        self.views = [Ranks(k, parts) for k in range(parts * rank // world, parts * (rank + 1) // world)]

    def part(self, ids: Tensor, least: int = LEAST) -> Tensor:
        """Those of `ids` that this rank works on, part after part."""
        return torch.cat([view.part(ids, least) for view in self.views])

    def turns(self, count: int) -> range:
        """All: a mean over batches is taken by each rank for itself, in their order."""
        return range(count)

    def join_statistics(self, model: nn.Module, batches: int) -> None:
        """Every rank has those of all batches."""

    def backward(self, model: nn.Module, losses: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """See Ranks.backward: of each part by itself, all from the same running statistics of batch norm. The sums go
        from rank to rank, and each adds its parts.
        """
        layers = batch_norms(model)
        statistics = [t for m in layers for t in (m.running_mean, m.running_var)]
        counted = [m.num_batches_tracked for m in layers]
        before = [t.clone() for t in (*statistics, *counted)]
        rows: list[Tensor] = []
        for of_part in losses:
            for p in model.parameters():
                p.grad = None
            of_part[0].backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            with torch.no_grad():
                row = torch.cat([t.detach().reshape(-1) for t in (*gradients, *statistics, *of_part)])
                if rows and self.rank == 0:  # nobody's sum has to be waited for
                    rows[0] += row
                else:
                    rows.append(row)
                for now, then in zip((*statistics, *counted), before, strict=True):
                    now.copy_(then)
        with torch.no_grad():
            return self._spread(self._in_order(rows), gradients, statistics, counted, of_part)

    def _in_order(self, rows: list[Tensor]) -> Tensor:
        """The sum over the rows of all ranks, in the order of the parts."""
        total = rows[0]
        if self.world > 1:
            with in_words(total.device):
                if self.rank:
                    total = torch.empty_like(rows[0])
                    dist.recv(total, self.rank - 1)
                    for row in rows:
                        total += row
                if self.rank + 1 < self.world:
                    dist.send(total, self.rank + 1)
                dist.broadcast(total, self.world - 1)
            PACE.step()
        return total

    def _spread(
        self,
        total: Tensor,
        gradients: list[Tensor],
        statistics: list[Tensor],
        counted: list[Tensor],
        scalars: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """Put the sums, and the means of running statistics, where they belong; returns those of `scalars`."""
        tensors = [*gradients, *statistics, *scalars]
        sums = [
            s.view(t.shape) for s, t in zip(total.split([t.numel() for t in tensors]), tensors, strict=True)
        ]
        for mine, of_all in zip(gradients, sums):
            mine.copy_(of_all)
        for mine, of_all in zip(statistics, sums[len(gradients) :]):
            mine.copy_(of_all / self.parts)
        for count in counted:
            count.add_(1)
        return tuple(sums[len(gradients) + len(statistics) :])
