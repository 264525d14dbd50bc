"""One run in several processes (torchrun, srun): who works on what, and what they tell each other.

Each rank takes a part of every batch; the gradients are summed, so that all make the same step and hold the same
weights at all times. Rank 0 decides, saves and writes. Which images a step sees does not depend on the number of ranks,
and a checkpoint knows nothing of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor, nn

from dlp_fast.engine.pace import PACE
from dlp_fast.engine.synced_batch_norm import batch_norms, join_statistics, synced
from dlp_fast.engine.watch import Watch, in_words
from dlp_fast.errors import DataError, DlpError, EndedElsewhere, RankFailed
from dlp_fast.runs.checkpoint import flatten, unflatten
from dlp_fast.runs.launched import launched

MEET = timedelta(minutes=5)  # within which all ranks must have come
WAIT = timedelta(days=7)  # rank 0 may cluster for long; who is gone is noticed by the Watch
LEAST = 2  # images of a rank in a batch: batch norm in training needs two where a layer sees one pixel

Made = TypeVar("Made")


class Ranks:
    """The processes of a run as one of them sees them; see ALONE for one process.

    Attributes: rank, world: its number, and how many there are; leads: whether it decides and writes; views: of each
    part of a batch that it works on, one of its own; parts: of every batch, None: one a rank (see engine.parts).
    """

    def __init__(self, rank: int = 0, world: int = 1, sync: bool = False, watch: Watch | None = None):
        self.rank, self.world, self.sync, self.watch = rank, world, sync and world > 1, watch
        self.views: list[Ranks] = [self]
        self.parts: int | None = None

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def stop(self) -> int:
        """Number of the signal that another rank was asked to stop by, 0 without."""
        return self.watch.stop if self.watch else 0

    @property
    def slow(self) -> str | None:
        """On rank 0, a line on a rank that all others wait for; None without."""
        return self.watch.slow if self.watch else None

    def pass_on(self, number: int) -> None:
        """Let rank 0 know that this one got a signal."""
        if self.watch:
            self.watch.ask_to_stop(number)

    def part(self, ids: Tensor, least: int = LEAST) -> Tensor:
        """This rank's part of the batch `ids`, in its order; all of it where a rank would get fewer than `least`."""
        return ids.tensor_split(self.world)[self.rank] if self._split(len(ids), least) else ids

    def _split(self, count: int, least: int) -> bool:
        return self.world > 1 and count >= least * self.world

    def weight(self, count: int, least: int = LEAST) -> float:
        """What a mean over this rank's part of a batch of `count` counts in the mean over the batch: the weights of
        all ranks add up to 1.
        """
        if not self._split(count, least):
            return 1.0 / self.world
        return (count // self.world + (self.rank < count % self.world)) / max(count, 1)

    def weighted(self, mean: Tensor, count: int, least: int = LEAST) -> Tensor:
        """`mean`, of this rank's part of a batch of `count`, as a part of the mean over the batch."""
        return mean if self.world == 1 else mean * self.weight(count, least)

    def sizes(self, count: int, least: int = LEAST) -> list[int]:
        """Images of each of `views` in a batch of `count`."""
        return [len(view.part(torch.arange(count), least)) for view in self.views]

    def backward(self, model: nn.Module, losses: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Gradients of the loss of the whole batch; `losses` gives, of each of `views`, (loss, further scalars) as
        parts of those of the whole batch, and is asked for the next when the one before is done with. Returns the sums.
        """
        ((loss, *others),) = losses
        loss.backward()
        return self.reduce(model, loss, *others)

    def forward(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Context of a training forward pass: with `sync`, batch norm over all ranks."""
        return synced(model) if self.sync else contextlib.nullcontext()

    @torch.no_grad()
    def reduce(self, model: nn.Module, *parts: Tensor) -> tuple[Tensor, ...]:
        """After a backward pass: gradients and `parts` (scalars) are summed over the ranks, running statistics of batch
        norm averaged (unless `sync`: then they are equal), in one all-reduce. Returns the sums of `parts`; alone,
        changes nothing.
        """
        if self.world == 1:
            return parts
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        layers = [] if self.sync else batch_norms(model)
        statistics = [t for m in layers for t in (m.running_mean, m.running_var)]
        tensors = [*gradients, *statistics, *parts]
        flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
        with in_words(flat.device):
            dist.all_reduce(flat)
        sums = [
            s.view(t.shape) for s, t in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)
        ]
        PACE.step()
        for mine, total in zip(gradients, sums):
            mine.copy_(total)
        for mine, total in zip(statistics, sums[len(gradients) :]):
            mine.copy_(total / self.world)
        return tuple(sums[len(gradients) + len(statistics) :])

    def join_statistics(self, model: nn.Module, batches: int) -> None:
        """Batch-norm statistics that each rank took over `batches` batches of its own become those over all of them."""
        if self.world > 1:
            join_statistics(model, batches)

    def turns(self, count: int) -> range:
        """Which of `count` pieces of work, each as long as another, are this rank's."""
        return range(self.rank, count, self.world)

    def shard(self, pieces: list[Made]) -> list[Made]:
        """This rank's pieces, contiguous, in rank order."""
        starts = [len(pieces) * rank // self.world for rank in range(self.world + 1)]
        return pieces[starts[self.rank] : starts[self.rank + 1]]

    def gather(self, mine: Tensor) -> Tensor:
        """The rows of all ranks in rank order, on the CPU; `mine`: [k, ...], of any k."""
        mine = mine.cpu().contiguous()
        if self.world == 1:
            return mine
        with in_words(mine.device):
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
            dist.all_gather(sizes, torch.tensor([len(mine)]))
            most = max(int(size) for size in sizes)
            padded = mine.new_zeros((most, *mine.shape[1:]))
            padded[: len(mine)] = mine
            parts = [torch.empty_like(padded) for _ in sizes]
            dist.all_gather(parts, padded)
        return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])

    def told(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank: dicts and lists of tensors (to the CPU) and JSON values, nested."""
        if self.world == 1:
            return value
        packed = torch.zeros(0, dtype=torch.uint8)
        if self.leads:
            tensors: dict[str, Tensor] = {}
            plain = json.dumps(flatten(value, "v", tensors)).encode()
            header = len(plain).to_bytes(8, "little")
            packed = torch.frombuffer(bytearray(header + plain + save(tensors)), dtype=torch.uint8)
        with in_words(packed.device):
            size = torch.tensor([len(packed)])
            dist.broadcast(size, 0)
            packed = packed if self.leads else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(packed, 0)
        if self.leads:
            return value
        content = packed.numpy().tobytes()
        end = 8 + int.from_bytes(content[:8], "little")
        return unflatten(json.loads(content[8:end]), load(content[end:]))

    def agreed(self, make: Callable[[], Made]) -> Made:
        """What `make` gives on rank 0, the only one that calls it, on every rank (see `told`)."""
        return self.told(make() if self.leads else None)

    def led(self, lead: Callable[[Callable[[Tensor], Any]], Made], together: Callable[[Tensor], Any]) -> Made:
        """What `lead` gives on rank 0, on every rank. It is given `together`, which all ranks do when it asks them."""
        if self.world == 1:
            return lead(together)

        def ask(argument: Tensor) -> Any:
            self.told({"ask": argument})
            return together(argument)

        if self.leads:
            return self.told({"done": lead(ask)})["done"]
        while "ask" in (message := self.told(None)):
            together(message["ask"])
        return message["done"]

    def in_turn(self, make: Callable[[], Made]) -> Made:
        """What `make` gives: rank 0 calls it first, so that the others find what it leaves on the disk."""
        if not self.leads:
            self.told(None)
            return make()
        made = make()
        self.told(None)
        return made

    def alike(self, what: str, value: str) -> None:
        """DataError where `value` is not that of rank 0."""
        if self.told(value) != value:
            raise DataError(
                f"{what} is not the one that rank 0 has. Every process must see the same files: give a folder that all "
                "machines share, or the same copy on each."
            )


ALONE = Ranks()


@contextlib.contextmanager
def joined(sync: bool = False, kind: Callable[..., Ranks] | None = None) -> Iterator[Ranks]:
    """The Ranks of this run, as torchrun or srun launched them; ALONE where nobody did. `kind`: makes them from what
    Ranks takes; None: plain ones.

    An error on one rank ends all of them: the first to fail tells why, the others raise EndedElsewhere.
    """
    place = launched()
    if place.world == 1:
        yield kind(sync=sync) if kind else ALONE
        return
    # what the rendezvous gives is a generator of one
    store, _, _ = next(iter(dist.rendezvous("env://", place.rank, place.world, timeout=MEET)))
    watch = Watch(dist.PrefixStore("dlp_fast", store.clone()), place.rank, place.world)
    ranks = Ranks(place.rank, place.world, sync, watch)
    try:
        ranks = kind(place.rank, place.world, sync, watch) if kind else ranks
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.world,
            timeout=WAIT,
        )
        yield ranks
        dist.barrier()
    except BaseException as error:
        end(ranks, watch, error)
        raise
    watch.close()
    dist.destroy_process_group()


def _exit_code(error: BaseException) -> int:
    """The exit code that a process ends with by `error`."""
    if isinstance(error, SystemExit):  # sys.exit() and sys.exit(None) are 0, a text is printed and 1
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return getattr(error, "exit_code", 1)


def end(ranks: Ranks, watch: Watch, error: BaseException) -> None:
    """Tell the other ranks; raises instead of `error` where another rank ended the run, or the rank has to be named."""
    code = _exit_code(error)
    first = watch.post(code, str(error))
    over = watch.ended()
    watch.linger()
    if first:
        if isinstance(error, DlpError) and not ranks.leads:
            raise RankFailed(f"rank {ranks.rank}: {error}", code) from error
        return
    if over is None:  # rank 0 is gone without a word: what this one noticed is all that anybody can say
        raise RankFailed(f"rank {ranks.rank}: {error}", code) from error
    raise EndedElsewhere(f"rank {over['rank']} ended the run: {over['text']}", over["code"]) from error
