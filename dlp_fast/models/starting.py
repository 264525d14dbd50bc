"""Weights that the networks of a run start from: read, checked, laid into a network, and kept in the run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file
from torch import Tensor, nn

from dlp_fast.config import RunConfig
from dlp_fast.errors import ConfigError, DataError, DlpError, ResourceError
from dlp_fast.models.from_timm import TIMM, timm_network
from dlp_fast.models.weights import serialised
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.schema import STARTING_WEIGHTS as KEPT

STEM = 64  # pixels; above, a network that starts from weights keeps the stem that they were learnt with
MOST_NAMED = 4
PREFIXES = ("", "net.", "module.", "model.")  # of dlp_fast's own files, of DataParallel, of Lightning
CONVERT = (
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('FILE.pth', weights_only=True), 'FILE.safetensors')\""
)


@dataclass(frozen=True)
class StartingWeights:
    """tensors: by name, on the CPU; source: where they are from, for people; sha256: of the file, or, where a library
    loaded them, of names, types, shapes and bytes of the tensors in the order of their names.
    """

    tensors: Mapping[str, Tensor]
    source: str
    sha256: str


@dataclass(frozen=True)
class Filled:
    """What became of starting weights in a network: names of its tensors that were loaded, that are new for the number
    of classes, whose shape is another in the file, that the file has not; and of those in the file that were left out.
    """

    loaded: tuple[str, ...]
    head: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        tensors = len(self.loaded + self.head + self.reshaped + self.missing)
        parts = [f"{len(self.loaded)} of {tensors} tensors loaded", f"new classifier: {_named(self.head)}"]
        told = {
            "of another shape, not loaded": self.reshaped,
            "missing": self.missing,
            "left out": self.left_out,
        }
        return "; ".join(parts + [f"{what}: {_named(names)}" for what, names in told.items() if names])

    def as_json(self) -> dict[str, Any]:
        return {"loaded": len(self.loaded)} | {
            name: list(getattr(self, name)) for name in ("head", "reshaped", "missing", "left_out")
        }


def _named(names: tuple[str, ...]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def check_options(config: RunConfig, folder: Path | None) -> None:
    """ConfigError where --weights and --pretrained cannot be used; nothing is loaded.

    folder: of the run, which may hold a copy of the weights.
    """
    if config.weights is not None and config.pretrained:
        raise ConfigError(
            "--weights and --pretrained: a network starts from one of them; leave the other out"
        )
    if config.pretrained and not config.model.startswith(("torchvision:", TIMM)):
        raise ConfigError(
            f"--pretrained: there are no pretrained weights of {config.model}; expected --model torchvision:NAME or "
            "timm:NAME. Weights of your own: --weights FILE"
        )
    kept = folder is not None and (folder / KEPT).is_file()
    if config.weights is not None and not kept and not config.weights.is_file():
        raise ConfigError(f"--weights {config.weights} is not there; expected a safetensors file")


def starting_weights(config: RunConfig, folder: Path | None) -> StartingWeights | None:
    """What the networks of `config` start from; None: new weights. Of a run that was begun, what it was begun with.

    Raises ConfigError for a file that cannot be used, or is not the one that the run was begun with; ResourceError
    where a library cannot load its weights.
    """
    if config.weights is None and not config.pretrained:
        return None
    if folder is not None and (folder / KEPT).is_file():
        return _of_run(folder, config.weights)
    start = from_file(config.weights) if config.weights is not None else pretrained(config.model)
    if folder is not None:
        write_atomic(
            folder / KEPT, serialised(start.tensors, {"source": start.source, "sha256": start.sha256})
        )
    return start


def _of_run(folder: Path, file: Path | None) -> StartingWeights:
    try:
        with safe_open(folder / KEPT, "pt") as kept:
            facts = kept.metadata()
        start = StartingWeights(load_file(folder / KEPT), facts["source"], facts["sha256"])
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{folder / KEPT} is damaged ({error}). Run again into another --out.") from None
    if file is not None and file.is_file() and _sha256(file) != start.sha256:
        raise ConfigError(
            f"--weights {file} is not the file that the run in {folder} was begun with (sha256 {start.sha256[:12]}…). "
            "Choose another --out, or give that file."
        )
    return start


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def from_file(file: Path) -> StartingWeights:
    """The tensors of a safetensors file. Raises ConfigError where it is none; nothing is ever unpickled."""
    try:
        content = file.read_bytes()  # once: what is hashed is what is used, whatever becomes of the file
        return StartingWeights(load(content), file.name, hashlib.sha256(content).hexdigest())
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"--weights {file} cannot be read as a safetensors file ({error}). A state dict that torch saved is "
            f"converted by: {CONVERT}"
        ) from None


def pretrained(name: str) -> StartingWeights:
    """The weights that torchvision or timm load for their network `name`, from their cache or the network.

    Raises ResourceError where they cannot be had.
    """
    library, _, own = name.partition(":")
    try:
        tensors, source = _timm(own) if name.startswith(TIMM) else _torchvision(own)
    except DlpError:
        raise
    except Exception as error:  # of whatever kind a download, a cache and a library may raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise ResourceError(
            f"{library} cannot load pretrained weights of {own} ({lines[0]}). Without a network connection: give a "
            f"file with --weights, or fill {library}'s cache on this machine first."
        ) from None
    tensors = {key: tensors[key].detach().cpu().clone() for key in sorted(tensors)}
    digest = hashlib.sha256()
    for key, tensor in tensors.items():
        digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return StartingWeights(tensors, source, digest.hexdigest())


def _torchvision(name: str) -> tuple[dict[str, Tensor], str]:
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    # read once as tensors and nothing else: the builder, which knows old names of tensors, reads the same file freely
    weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return torchvision.models.get_model(
        name, weights=weights, progress=False
    ).state_dict(), f"torchvision {weights}"


def _timm(name: str) -> tuple[dict[str, Tensor], str]:
    return timm_network(name, pretrained=True).state_dict(), f"timm {name}"


def fill(net: nn.Module, start: StartingWeights, head: nn.Module, name: str) -> Filled:
    """Lay `start` into `net`, in place; its layer `head` stays new, whatever the file has for it.

    Raises ConfigError where no tensor fits, or one is not finite; name: of the network, for messages.
    """
    own = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    within = next(key for key, module in net.named_modules() if module is head)
    new = {key for key in own if key.startswith(f"{within}.")}
    given = _without_prefix(start.tensors, own)
    fits = {key for key in own.keys() & given.keys() - new if own[key].shape == given[key].shape}
    if not fits & {key for key, _ in net.named_parameters()}:
        examples = [next(iter(sorted(names)), "nothing") for names in (given, own)]
        raise ConfigError(
            f"none of the {len(given)} tensors of {start.source} fits {name} (the file has {examples[0]}, the network "
            f"{examples[1]}). Give weights of this network, or the --model that they are of."
        )
    broken = [key for key in sorted(fits) if not given[key].isfinite().all()]
    if broken:
        raise ConfigError(f"{start.source}: {broken[0]} holds numbers that are not finite; use another file.")
    net.load_state_dict({key: given[key] for key in fits}, strict=False)
    reshaped = own.keys() & given.keys() - new - fits
    return Filled(
        _in_order(own, fits),
        _in_order(own, new),
        _in_order(own, reshaped),
        _in_order(own, own.keys() - given.keys() - new),
        tuple(key for key in given if key not in own and not key.endswith("num_batches_tracked")),
    )


def _in_order(own: Mapping[str, Tensor], names: Iterable[str]) -> tuple[str, ...]:
    chosen = set(names)
    return tuple(key for key in own if key in chosen)


def _without_prefix(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under the names of the network, where a wrapper put its own name before them."""

    def matching(prefix: str) -> int:
        return sum(key.startswith(prefix) and key.removeprefix(prefix) in own for key in tensors)

    best = max(PREFIXES, key=matching)
    return {key.removeprefix(best): value for key, value in tensors.items()}
