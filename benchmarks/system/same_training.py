"""How far the weights of several processes are from those of one, in fp32 and in fp64, and whether ids are the same.

What is left of a difference in fp64, where rounding is 10^-9 times as large, would have another cause: the order of
images, their augmentation, averages, or what batch norm sees.

python -m benchmarks.system.same_training --out RESULT.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.common import add_out, chosen, parser_of, write_result
from benchmarks.system.reliability.tiny_run import finish, work_together
from dlp_fast.api import execute
from dlp_fast.config import FinetuningConfig, RunConfig, SupervisedConfig
from dlp_fast.data import sources
from dlp_fast.engine.batches import TrainingData, pixel_statistics
from dlp_fast.engine.device import choose_compute
from dlp_fast.engine.distributed import Ranks
from dlp_fast.engine.parts import ranks_of
from dlp_fast.engine.session import Session
from dlp_fast.models.registry import new_model
from dlp_fast.runs.log import RunLog
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.finetuning import finetuning
from dlp_fast.stages.supervised import supervised

MODEL, BATCH = "wrn-10-1", 128
WAYS: dict[str, tuple[bool, int | None]] = {  # (sync_batch_norm, batch_parts)
    "sync": (True, None),
    "local": (False, None),
    "parts of 4": (False, 4),
}
WAIT = 3600  # seconds for a training, on a machine that others use


def in_fp64() -> None:
    """Steps in fp64: the network, the loss, and what ranks tell each other; scores stay in fp32."""
    plain = Ranks.backward

    def backward(self: Ranks, model: nn.Module, losses: Any) -> tuple[Tensor, ...]:
        single, torch.Tensor.float = torch.Tensor.float, torch.Tensor.double  # type: ignore[method-assign]
        try:
            return plain(self, model, losses)
        finally:
            torch.Tensor.float = single  # type: ignore[method-assign]

    Ranks.backward = backward  # type: ignore[method-assign]


def network(data: TrainingData, double: bool) -> nn.Module:
    model = new_model(MODEL, data, data.seed)
    if double:
        model.double().register_forward_pre_hook(lambda _module, inputs: (inputs[0].double(),))
    return model


def train(out: Path, way: str, double: bool, epochs: int) -> None:
    """Stages 1 and 3 on the digits; rank 0 keeps the weights of both as `out`."""
    if double:
        in_fp64()
    digits = sources.load("digits").train
    mean, std = pixel_statistics(digits.images)
    cpu = torch.device("cpu")
    data = TrainingData(digits.images, digits.labels, len(digits.classes), mean, std, False, 0, cpu)
    with ranks_of(*WAYS[way]) as ranks:
        of = Session(choose_compute("cpu", "fp32"), RunLog(None, quiet=True), ranks=ranks)
        one, three = network(data, double), network(data, double)
        first = supervised(of, one, data, SupervisedConfig(epochs=epochs, min_steps=0, batch=BATCH))
        ids, nobody = torch.arange(len(data)), torch.zeros(len(data), dtype=torch.bool)
        config = FinetuningConfig(steps=first.steps, batch=BATCH // 2, mu=1, norm_batches=4)
        finetuning(of, three, data, Labels(ids[: len(ids) // 2], ids[len(ids) // 2 :], nobody), config)
    if ranks.leads:
        tensors = {
            f"{k}.{name}": t for k, of in enumerate((one, three)) for name, t in of.state_dict().items()
        }
        tensors["steps"] = torch.tensor(first.steps)
        save_file({name: t.contiguous() for name, t in tensors.items()}, out)


def whole_run(out: Path, way: str) -> None:
    """The digits with a trigger in them, found and named; rank 0 keeps the ids as `out`."""
    sync, parts = WAYS[way]
    config = RunConfig(
        device="cpu",
        precision="fp32",
        threads=1,
        model=MODEL,
        sync_batch_norm=sync,
        batch_parts=parts,
        detection={"networks": 1},
        finetuning={"steps": 60},
    )
    found = execute(config, quiet=True, keep=False)
    kind = found.results["verdict"]["kind"]
    save_file({"ids": found.suspected_poisoned, kind: torch.zeros(1)}, out)


def made(world: int, work: Any, out: Path, *arguments: Any) -> dict[str, Tensor]:
    """What `work` left, done by `world` processes."""
    children = work_together(world, work, (out, *arguments), out.parent)
    codes = [finish(child, WAIT) for child in children]
    assert codes == [0] * world, (out.parent / "rank0.log").read_text()
    return load_file(out)


def farthest(one: dict[str, Tensor], other: dict[str, Tensor], stage: int) -> float:
    """The largest difference, as a share of the largest weight of its tensor."""
    pairs = [(t.double(), other[name].double()) for name, t in one.items() if name.startswith(f"{stage}.")]
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-3)) for a, b in pairs)


def trained(way: str, double: bool, epochs: int, worlds: list[int], place: Path) -> Iterator[dict[str, Any]]:
    alone = made(1, train, place / f"{way}-{double}-{epochs}-1", way, double, epochs)
    for world in worlds:
        several = made(world, train, place / f"{way}-{double}-{epochs}-{world}", way, double, epochs)
        row = {"batch_norm": way, "precision": "fp64" if double else "fp32", "processes": world}
        row |= {"steps": int(alone["steps"]), "farthest": [farthest(alone, several, k) for k in (0, 1)]}
        yield row


def found(way: str, worlds: list[int], place: Path) -> Iterator[dict[str, Any]]:
    alone = made(1, whole_run, place / f"run-{way}-1", way)
    for world in worlds:
        several = made(world, whole_run, place / f"run-{way}-{world}", way)
        one, two = (set(of["ids"].tolist()) for of in (alone, several))
        row = {"batch_norm": way, "processes": world, "verdicts": sorted({*alone, *several} - {"ids"})}
        yield row | {"suspected": len(one), "of_several": len(two), "in_both": len(one & two)}


def main() -> None:
    arguments = parser_of(__doc__, "benchmarks.system.same_training")
    arguments.add_argument("--ways", nargs="*", default=list(WAYS), help=f"of {', '.join(WAYS)}")
    arguments.add_argument(
        "--worlds", type=int, nargs="*", default=[2], help="numbers of processes beside one"
    )
    arguments.add_argument(
        "--epochs", type=int, nargs="*", default=[1, 4, 12], help="of stage 1, 11 steps each"
    )
    add_out(arguments)
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        of_all = [found(way, options.worlds, place) for way in options.ways]
        of_all += [
            trained(way, double, epochs, options.worlds, place)
            for epochs in options.epochs
            for way in options.ways
            for double in (False, True)
        ]
        for row in chain(*of_all):
            rows.append(row)
            print(row, flush=True)
            write_result(options.out, {**chosen(options), "rows": rows}, "CPU")


if __name__ == "__main__":
    main()
