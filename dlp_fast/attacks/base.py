"""What an attack is asked for, and what it gives: which images it changes, how, and under which labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast import ops
from dlp_fast.attacks.changes import Change, ChangedImages, TableChange
from dlp_fast.attacks.randomness import TEST, choices
from dlp_fast.errors import ConfigError
from dlp_fast.runs.names import printable

Progress = Callable[[str, int, int], None]
UNTOUCHED = -1  # variant of an image that stays as it is
NO_AIM = -1  # expected class of a test image that says nothing about the attack
TEST_TRIGGER = 1  # stream of randomness: which of several triggers a test image gets


@dataclass(frozen=True)
class Attack:
    """One attack. parameters: for people; make: draws the images of a Request and says how they change; clean_label:
    whether poisoned images keep their label, and so come from the target class.
    """

    name: str
    parameters: str
    make: Callable[[Request], Poisoning]
    clean_label: bool = False


@dataclass(frozen=True)
class Request:
    """What an attack is asked for.

    labels: int64 [n], the right ones; size: (height, width) in pixels; rate: share of the images that are poisoned;
    rate_of: of which images, auto | all | class; target: number of a class; images: by id, or None.
    """

    attack: Attack
    labels: Tensor
    classes: tuple[str, ...]
    size: tuple[int, int]
    rate: float
    rate_of: str
    target: int
    seed: int
    images: object | None = None
    device: str = "cpu"
    progress: Progress | None = None

    @property
    def of_class(self) -> bool:
        """Whether the rate is a share of the target class. ConfigError where the attack changes labels."""
        if self.rate_of == "class" and not self.attack.clean_label:
            raise ConfigError(
                f"--poison-of class is for attacks that keep labels; {self.attack.name} changes them: use `all`."
            )
        return self.rate_of == "class" or (self.rate_of == "auto" and self.attack.clean_label)

    def single_aim(self) -> Tensor:
        """`Poisoning.aim` of one trigger that sends every other class to the target."""
        aim = torch.full((len(self.classes), 1), self.target)
        aim[self.target] = NO_AIM
        return aim

    def draw(self, pool: Tensor, where: str) -> Tensor:
        """int64 [k], in random order: the ids of `pool` (int64) that `rate` asks for; `where`: what the pool is.

        Raises ConfigError for a rate that gives no image, or more than the pool holds.
        """
        inside = int((self.labels == self.target).sum())
        wanted = round(self.rate * (inside if self.of_class else len(self.labels)))
        if not 1 <= wanted <= len(pool):
            of = "of that class" if self.of_class else f"of all {len(self.labels)} images"
            raise ConfigError(
                f"poison rate {self.rate:g} {of} is {wanted} images, but {self.attack.name} draws from {where}, which "
                f"holds {len(pool)}: choose a rate that gives 1 to {len(pool)}."
            )
        generator = torch.Generator().manual_seed(self.seed + 0x9015)
        return pool[torch.randperm(len(pool), generator=generator)[:wanted]]

    def draw_other_classes(self) -> Tensor:
        """`draw` from all classes but the target, or, where labels are kept, from the target."""
        inside = self.labels == self.target
        name = printable(self.classes[self.target])
        if self.attack.clean_label:
            return self.draw(inside.nonzero().flatten(), f"class {name}")
        return self.draw((~inside).nonzero().flatten(), f"the classes other than {name}")

    def draw_cover(self, wanted: int, pool: Tensor) -> Tensor:
        """int64 [wanted], in random order: ids of `pool` (int64) that are changed under their right label.

        Raises ConfigError where the pool holds fewer.
        """
        if wanted > len(pool):
            raise ConfigError(
                f"poison rate {self.rate:g}: {self.attack.name} covers it with {wanted} images whose labels are kept, "
                f"but only {len(pool)} are left for that: choose a lower rate."
            )
        generator = torch.Generator().manual_seed(self.seed + 0xC0BE)
        return pool[torch.randperm(len(pool), generator=generator)[:wanted]]

    def rest(self, *taken: Tensor) -> Tensor:
        """Ids, int64 ascending, that are in none of `taken`."""
        free = torch.ones(len(self.labels), dtype=torch.bool)
        for ids in taken:
            free[ids] = False
        return free.nonzero().flatten()

    def poisoning(
        self,
        chosen: Tensor,
        aim: Tensor,
        training: Change,
        test: Change | None = None,
        *,
        trigger: Tensor | int = 0,
        variant: Tensor | int | None = None,
        cover: Tensor | None = None,
        cover_variant: Tensor | int = 0,
    ) -> Poisoning:
        """The outcome for `chosen` ids (int64 [k]).

        aim: see Poisoning; trigger: which each of them carries (column of `aim`); variant: which change of `training`
        that is, where the numbers differ; cover: ids that are changed too (`cover_variant`) and keep their labels;
        test: the change of test images, where it is another one than that of training.
        """
        n = len(self.labels)
        variants = torch.full((n,), UNTOUCHED)
        poisoned, covers = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        poisoned[chosen] = True
        variants[chosen] = torch.as_tensor(trigger if variant is None else variant)
        if cover is not None:
            covers[cover] = True
            variants[cover] = torch.as_tensor(cover_variant)
        labels = self.labels.clone()
        if not self.attack.clean_label:
            which = torch.as_tensor(trigger).expand(len(chosen))
            labels[chosen] = aim[self.labels[chosen], which]
        return Poisoning(
            self.attack,
            poisoned,
            covers,
            labels,
            self.labels,
            aim,
            variants,
            training,
            test or training,
            self.seed,
        )


@dataclass(frozen=True)
class Poisoning:
    """An attack on one image set.

    poisoned: bool [n], images that teach the trigger; cover: bool [n], images that are changed and keep their right
    label, to hide it; labels: int64 [n], as the victim sees them; true_labels: int64 [n]; aim: int64 [classes,
    triggers], the class that an image of a class is to be taken for where it carries a trigger, -1 where this is no
    aim; variant: int64 [n], which change of `training` each image gets (-1: none); training, test: see changes.py.
    """

    attack: Attack
    poisoned: Tensor
    cover: Tensor
    labels: Tensor
    true_labels: Tensor
    aim: Tensor
    variant: Tensor
    training: Change
    test: Change
    seed: int

    @property
    def targets(self) -> tuple[int, ...]:
        """Numbers of the classes that the attack aims at, in ascending order."""
        return tuple(self.aim[self.aim != NO_AIM].unique().tolist())

    @property
    def target(self) -> int | None:
        """The target class where there is one alone."""
        return self.targets[0] if len(self.targets) == 1 else None

    @property
    def trigger(self) -> Attack:
        """The attack: its name, its parameters, and whether it keeps labels."""
        return self.attack

    @property
    def table(self) -> ops.TriggerTable | None:
        """The trigger that test images get, where it is the one of a table; None where it is worked out by image."""
        return self.test.table if isinstance(self.test, TableChange) and len(self.test.table) == 1 else None

    def poison(self, images) -> ChangedImages:
        """`images` (by ids) as the victim gets them."""
        return ChangedImages(images, self.variant, self.training)

    def triggered_test(self, images, labels: Tensor) -> tuple[ChangedImages, Tensor, Tensor]:
        """Test images for an attack success rate.

        Returns (`images`, by ids, each with a trigger; the class that the attack wants, int64 [m]; the ids that count,
        int64 [m]). Where there are several triggers, each image gets one of them by its id. An image does not count
        where the attack has no aim: of its target class already, or, for TaCT, of another class than the source.
        """
        ids = torch.arange(len(labels))
        triggers = self.aim.shape[1]
        which = (
            choices(self.seed, TEST, TEST_TRIGGER, ids, triggers) if triggers > 1 else torch.zeros_like(ids)
        )
        expected = self.aim[labels, which]
        counts = (expected != NO_AIM).nonzero().flatten()
        return ChangedImages(images, which, self.test), expected[counts], counts

    def describe(self, classes: tuple[str, ...]) -> str:
        """One line for people: the attack, how many images it changes, and what becomes of their labels."""
        n, covers = int(self.poisoned.sum()), int(self.cover.sum())
        line = (
            f"{self.attack.name} ({self.attack.parameters}): {n} images, {n / len(self.labels):.2%} of all, "
        )
        if self.attack.clean_label:
            line += "labels kept"
        elif self.aim.shape[1] == 1 and len(self.targets) > 1:
            line += "each relabeled as the class after its own"
        else:
            line += "relabeled " + ", ".join(printable(classes[t]) for t in self.targets)
        return line + (f"; {covers} cover images, labels kept" if covers else "")
