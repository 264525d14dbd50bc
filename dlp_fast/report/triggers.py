"""What is kept of the reconstructed triggers in the run folder, so that the report can be drawn without the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast.detection.verify.demonstration import Demonstration
from dlp_fast.detection.verify.trigger import Trigger
from dlp_fast.report.thumbnails import shrink

SIDE = 160  # pixels of the longer side, at most, of a picture with a trigger
GREY = 128  # level of a pattern's pixels where nothing is added


@dataclass(frozen=True)
class Triggers:
    """Of t findings, with v pictures that carry a trigger and s suspects, over all of them.

    finding: int64 [t], its number; mask: uint8 [t, h, w], mean change of a pixel as a share of the widest; widest: fp32
    [t], that change in levels; pattern: uint8 [t, h, w, 3], what a pixel is replaced by, or 128 plus what is added to
    it; victim_of: int64 [v], place in `finding`; victims: int64 ids [v]; plain, marked: uint8 [v, h', w', 3], without
    and with the trigger; said: int64 [v, 4], classes that stage 1's network and the clean model give (first plain,
    first marked, clean plain, clean marked); suspect_of: int64 [s]; suspects, nearest: int64 ids [s];
    suspect_pictures, nearest_pictures: uint8 [s, h', w', 3].
    """

    finding: Tensor
    mask: Tensor
    widest: Tensor
    pattern: Tensor
    victim_of: Tensor
    victims: Tensor
    plain: Tensor
    marked: Tensor
    said: Tensor
    suspect_of: Tensor
    suspects: Tensor
    nearest: Tensor
    suspect_pictures: Tensor
    nearest_pictures: Tensor

    def whole(self, images: int, classes: int) -> bool:
        """Whether its parts belong together, of a run on `images` images of `classes` classes."""
        t, v, s = len(self.finding), len(self.victim_of), len(self.suspect_of)
        lengths = (
            (t, (self.mask, self.widest, self.pattern)),
            (v, (self.victims, self.plain, self.marked, self.said)),
            (s, (self.suspects, self.nearest, self.suspect_pictures, self.nearest_pictures)),
        )
        ranges = (
            (self.victim_of, t), (self.suspect_of, t), (self.said, classes),
            (self.victims, images), (self.suspects, images), (self.nearest, images),
        )  # fmt: skip
        return all(len(part) == n for n, parts in lengths for part in parts) and not any(
            bool(((numbers < 0) | (numbers >= n)).any()) for numbers, n in ranges
        )


def kept(demonstrations: Sequence[Demonstration], images) -> Triggers:
    """The Triggers of `demonstrations`. images: by ids, uint8 [b, h, w, 3]."""
    height, width = images.height, images.width
    masks, widest, patterns, plain, marked, said = [], [], [], [], [], []
    victim_of, victims, suspect_of, suspects, near = [], [], [], [], []
    for place, one in enumerate(demonstrations):
        before = images.get(one.victims).cpu()
        after = one.trigger.on(before)
        change = (after.float() - before.float()).abs().mean((0, 3))
        most = float(change.max())
        masks.append((change * (255 / max(most, 1e-6))).round().to(torch.uint8))
        widest.append(most)
        patterns.append(pattern(one.trigger))
        plain.append(shrink(before, SIDE))
        marked.append(shrink(after, SIDE))
        said.append(torch.stack([one.before[0], one.after[0], one.before[1], one.after[1]], 1))
        victim_of += [place] * len(one.victims)
        suspect_of += [place] * len(one.suspects)
        victims.append(one.victims)
        suspects.append(one.suspects)
        near.append(one.nearest)
    pictures = [[shrink(images.get(ids).cpu(), SIDE) for ids in of] for of in (suspects, near)]
    small = shrink(torch.zeros(1, height, width, 3, dtype=torch.uint8), SIDE)[:0]
    numbers = torch.zeros(0, dtype=torch.int64)
    return Triggers(
        torch.tensor([one.finding for one in demonstrations], dtype=torch.int64),
        torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.uint8),
        torch.tensor(widest, dtype=torch.float32),
        torch.stack(patterns) if patterns else torch.zeros(0, height, width, 3, dtype=torch.uint8),
        torch.tensor(victim_of, dtype=torch.int64),
        torch.cat([numbers, *victims]),
        torch.cat([small, *plain]),
        torch.cat([small, *marked]),
        torch.cat([numbers.reshape(0, 4), *said]),
        torch.tensor(suspect_of, dtype=torch.int64),
        torch.cat([numbers, *suspects]),
        torch.cat([numbers, *near]),
        torch.cat([small, *pictures[0]]),
        torch.cat([small, *pictures[1]]),
    )


def pattern(trigger: Trigger) -> Tensor:
    """uint8 [h, w, 3]: x -> a x + b is a blend with the picture b / (1 - a) where a is under 1; elsewhere b is added,
    shown around GREY and raised until its widest pixel is at an end.
    """
    replaced = trigger.scale < 0.9
    picture = trigger.offset / (1 - trigger.scale).clamp_min(0.1)
    added = torch.where(replaced, 0.0, trigger.offset)
    raised = GREY + added * (127 / added.abs().max().clamp_min(16.0))
    return torch.where(replaced, picture, raised).round().clamp(0, 255).to(torch.uint8)
