"""What needs a network of the attacker's own: the TrojanNN trigger and the images of LCA; kept with their checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dlp_fast.attacks.surrogate import as_unit, pgd, train_surrogate
from dlp_fast.engine.inference import caught_features
from dlp_fast.errors import ResourceError
from dlp_fast.models.registry import classifier_of
from dlp_fast.ops import TriggerTable
from dlp_fast.runs.cache_folder import cache_folder
from dlp_fast.runs.files import write_atomic

VERSION = 1  # part of the key: a change of the recipe makes new files
EPOCHS = 10  # of the surrogate
NEURONS = 2  # TrojanNN: how many are driven
TROJAN_STEPS, TROJAN_BATCH, TROJAN_RATE = 300, 64, 0.1
LCA_EPSILON, LCA_STEP, LCA_STEPS = 16 / 255, 2 / 255, 30  # Turner et al. 2019: L-infinity, 16 of 255

Progress = Callable[[str, int, int], None]


def key_of(name: str, images, labels: Tensor, facts: dict[str, object]) -> str:
    """Hash of all that the result depends on: the recipe, the labels, and pixels of images spread over the set."""
    digest = hashlib.sha256(json.dumps([VERSION, name, facts], sort_keys=True).encode())
    digest.update(labels.numpy().tobytes())
    ids = torch.linspace(0, len(labels) - 1, min(64, len(labels))).round().long()
    digest.update(images.get(ids).cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def cached(key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors kept under `key`, or those that `make` gives, kept. A file that does not match its checksum is made
    anew.
    """
    folder = cache_folder() / "attacks"
    file, sum_file = folder / f"{key}.safetensors", folder / f"{key}.sha256"
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() == sum_file.read_text().strip():
            return load(content)
    except (OSError, SafetensorError, UnicodeDecodeError):
        pass
    tensors = make()
    content = save(tensors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(file, content)
        write_atomic(sum_file, hashlib.sha256(content).hexdigest().encode() + b"\n")
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}); name another folder in DLP_FAST_CACHE."
        ) from None
    return tensors


def trojan_trigger(
    images,
    labels: Tensor,
    classes: int,
    target: int,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> TriggerTable:
    """TrojanNN (Liu et al. 2018): an opaque square whose pixels drive chosen neurons of a network.

    The NEURONS features that speak most for the target class (largest weight in the last layer) are driven up by
    gradient steps on the pixels of the square alone, over pictures that carry it.
    """
    side = max(3, round(0.22 * min(images.height, images.width)))  # 7 of 32 px: 4.8 % of the area

    def make() -> dict[str, Tensor]:
        here = images.to(device)  # once, and only where there is something to make
        net = train_surrogate(
            here,
            labels,
            classes,
            seed=seed,
            epochs=EPOCHS,
            device=device,
            progress=named(progress, "surrogate"),
        )
        return {"patch": optimise_patch(net, here, target, side, seed, device)}

    facts = {"target": target, "seed": seed, "side": side, "epochs": EPOCHS, "steps": TROJAN_STEPS}
    patch = cached(key_of("trojannn", images, labels, facts), make)["patch"]
    size = (images.height, images.width)
    return TriggerTable.patch(patch, size[0] - side - 1, size[1] - side - 1, size=size)


def features_of(net: nn.Module, x: Tensor) -> Tensor:
    """What the last linear layer of `net` is given, [b, d]; differentiable."""
    with caught_features(net) as caught:
        net(x)
    return caught[0]


def optimise_patch(net: nn.Module, images, target: int, side: int, seed: int, device: str) -> Tensor:
    """uint8 [side, side, 3]: the square that drives the neurons of class `target` most."""
    neurons = classifier_of(net).weight[target].topk(NEURONS).indices
    generator = torch.Generator().manual_seed(seed + 0x7201)
    free = torch.randn(3, side, side, generator=generator).to(device).requires_grad_(True)
    optimizer = torch.optim.Adam([free], lr=TROJAN_RATE)
    top, left = images.height - side - 1, images.width - side - 1
    for _ in range(TROJAN_STEPS):
        ids = torch.randint(len(images), (TROJAN_BATCH,), generator=generator)
        x = as_unit(images.get(ids).to(device)).clone()
        x[:, :, top : top + side, left : left + side] = free.sigmoid()
        driven = features_of(net, x)[:, neurons].mean()
        optimizer.zero_grad()
        (-driven).backward()
        optimizer.step()
    return (free.detach().sigmoid() * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()


def adversarial_residuals(
    images,
    labels: Tensor,
    classes: int,
    poisoned: Tensor,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Tensor:
    """int16 [k, h, w, 3], what LCA adds to the `poisoned` ids (int64 [k]): PGD away from their class, on a robust net.

    The image keeps its label and loses what shows it, so that the trigger is the easiest thing to learn.
    """

    def make() -> dict[str, Tensor]:
        here = images.to(device)
        net = train_surrogate(
            here,
            labels,
            classes,
            seed=seed,
            epochs=EPOCHS,
            epsilon=8 / 255,
            device=device,
            progress=named(progress, "robust surrogate"),
        )
        parts = []
        for ids in poisoned.split(128):
            before = here.get(ids).to(device)
            moved = pgd(net, as_unit(before), labels[ids].to(device), LCA_EPSILON, LCA_STEP, LCA_STEPS)
            after = (moved * 255).round().permute(0, 2, 3, 1)
            parts.append((after - before.float()).to(torch.int16).cpu())
            if progress:
                progress("adversarial images", sum(map(len, parts)), len(poisoned))
        return {"residuals": torch.cat(parts)}

    drawn = hashlib.sha256(poisoned.numpy().tobytes()).hexdigest()
    facts = {"seed": seed, "epochs": EPOCHS, "epsilon": LCA_EPSILON, "steps": LCA_STEPS, "drawn": drawn}
    return cached(key_of("lca", images, labels, facts), make)["residuals"]


def named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(f"attacker's {what}", done, total)
