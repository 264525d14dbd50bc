"""The input-aware attack: a trigger of its own for each image, made by a small network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.attacks.base import Poisoning, Progress, Request
from dlp_fast.attacks.changes import ResidualChange, RowChange
from dlp_fast.attacks.crafting import cached, key_of, named
from dlp_fast.attacks.single_trigger import needed_images
from dlp_fast.attacks.surrogate import BATCH, Normalised, as_unit
from dlp_fast.data.randomness import permutation
from dlp_fast.models.registry import build_model

EPOCHS, MIN_STEPS = 10, 400
DENSITY = 0.032  # mean of the mask at most, as published
SHARE = 0.1  # of a batch that carries its own trigger, and again of one that carries another image's
DIVERSITY_WEIGHT = 0.01
STEEP = 10.0  # so that a mask can soon be near 0 or 1
WIDTH = 16


class Generator(nn.Module):
    """fp [b, 3, h, w] in 0..1 to what the trigger of each image is: colours [b, 3, h, w] in 0..1 and a mask
    [b, 1, h, w] in 0..1. The mask shares out DENSITY of all pixels, so that no trigger vanishes or covers the image.
    """

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1),
            nn.ReLU(),
        )
        self.up = nn.Sequential(nn.Conv2d(2 * WIDTH + 3, WIDTH, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(WIDTH, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        deep = F.interpolate(self.down(x * 2 - 1), size=x.shape[2:], mode="nearest")
        out = self.out(self.up(torch.cat([deep, x * 2 - 1], dim=1)))
        share = (STEEP * out[:, 3]).flatten(1).softmax(1).view(-1, 1, *x.shape[2:])
        return out[:, :3].sigmoid(), (share * (DENSITY * x.shape[2] * x.shape[3])).clamp(max=1)


def carrying(x: Tensor, trigger: tuple[Tensor, Tensor]) -> Tensor:
    """`x`, 0..1, with the (colours, mask) of `trigger`."""
    colours, mask = trigger
    return x + (colours - x) * mask


@dataclass(frozen=True)
class OwnTrigger(RowChange):
    """Each image with the trigger that `generator` makes for it.

    In double precision, so that the rounded pixels are the same whatever the batch.
    """

    generator: Generator

    def change(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        return with_triggers(self.generator, images, images)

    def to(self, device: torch.device | str) -> OwnTrigger:
        generator = Generator().double()
        generator.load_state_dict(self.generator.state_dict())
        return OwnTrigger(generator.to(device).eval())


@torch.no_grad()
def with_triggers(generator: Generator, images: Tensor, others: Tensor) -> Tensor:
    """uint8 `images` [b, H, W, 3] with the triggers of `others`, uint8 of the same shape."""
    x, source = (of.permute(0, 3, 1, 2).double() / 255 for of in (images, others))
    moved = carrying(x, generator(source))
    return (moved * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def train_generator(
    images,
    labels: Tensor,
    classes: int,
    target: int,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Generator:
    """The generator, trained together with a network of the attacker's that takes its triggers for the target class,
    and images with another image's trigger for what they are (Nguyen and Tran 2020). Double precision, CPU.

    Different images are to get different triggers: their distance in pixels divided by that of their triggers is kept
    low.
    """
    net = Normalised(build_model("wrn-16-1", classes, max(images.height, images.width), seed)).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 0x1A)
        generator = Generator().to(device)
    optimizers = (
        torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True),
        torch.optim.Adam(generator.parameters(), lr=3e-3),
    )
    batch = min(BATCH, len(labels))
    per_epoch, few = len(labels) // batch, max(2, round(SHARE * batch))
    epochs = max(EPOCHS, -(-MIN_STEPS // per_epoch))
    net.train()
    for epoch in range(epochs):
        order = permutation(seed + (12 << 56), epoch, len(labels))
        for k in range(per_epoch):
            ids = order[k * batch : (k + 1) * batch]
            x, y = as_unit(images.get(ids).to(device)), labels[ids].to(device)
            loss = _loss(net, generator, x, y, few, target)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            if progress:
                named(progress, "trigger generator")(epoch * per_epoch + k + 1, epochs * per_epoch)
    return generator.double().cpu().eval().requires_grad_(False)


def _loss(net: nn.Module, generator: Generator, x: Tensor, y: Tensor, few: int, target: int) -> Tensor:
    """The first `few` images carry their own trigger, the next `few` those of the first, the rest none."""
    own, crossed, rest = x[:few], x[few : 2 * few], x[2 * few :]
    trigger, other = generator(own), generator(crossed)
    colours, mask = trigger
    m = len(crossed)
    shown = torch.cat([carrying(own, trigger), carrying(crossed, (colours[:m], mask[:m])), rest])
    wanted = torch.cat([torch.full_like(y[:few], target), y[few:]])
    apart = ((own[:m] - crossed) ** 2).mean((1, 2, 3)).sqrt()
    triggers_apart = (
        ((colours * mask)[:m] - other[0] * other[1]).pow(2).mean((1, 2, 3)).clamp_min(1e-8).sqrt()
    )
    diversity = (apart / (triggers_apart + 1e-3)).mean()
    return F.cross_entropy(net(shown), wanted) + DIVERSITY_WEIGHT * diversity


def input_aware(request: Request) -> Poisoning:
    """Input-aware dynamic attack (Nguyen and Tran 2020): each poisoned image carries its own trigger, and as many cover
    images carry another image's and keep their labels.
    """
    images = needed_images(request)
    chosen = request.draw_other_classes()
    cover = request.draw_cover(len(chosen), request.rest(chosen))
    # a cover image carries the trigger of the one before it in the order drawn
    changed, sources = torch.cat([chosen, cover]), torch.cat([chosen, cover.roll(1)])

    def make() -> dict[str, Tensor]:
        generator = train_generator(
            images.to(request.device),
            request.labels,
            len(request.classes),
            request.target,
            request.seed,
            request.device,
            request.progress,
        )
        parts = []
        for ids, source in zip(changed.split(64), sources.split(64)):
            before = images.get(ids).cpu()
            after = with_triggers(generator, before, images.get(source).cpu())
            parts.append(after.to(torch.int16) - before.to(torch.int16))
        return {"residuals": torch.cat(parts)} | dict(generator.state_dict())

    drawn = hashlib.sha256(torch.cat([changed, sources]).numpy().tobytes()).hexdigest()
    facts = {
        "target": request.target,
        "seed": request.seed,
        "epochs": EPOCHS,
        "steps": MIN_STEPS,
        "drawn": drawn,
    }
    made = cached(key_of("input-aware", images, request.labels, facts), make)
    row = torch.zeros_like(request.labels)
    row[changed] = torch.arange(len(changed))
    generator = Generator().double()
    generator.load_state_dict({name: of for name, of in made.items() if name != "residuals"})
    return request.poisoning(
        chosen,
        request.single_aim(),
        ResidualChange(made["residuals"], row),
        OwnTrigger(generator.eval().requires_grad_(False)),
        cover=cover,
    )
