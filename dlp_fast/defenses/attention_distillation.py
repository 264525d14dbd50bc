"""NAD: a fine-tuned copy teaches where to look (Li et al. 2021, "Neural Attention Distillation")."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.defenses.setting import Setting, copy_of, tune

TEACHER_EPOCHS, EPOCHS = 10, 20
BETAS = (500.0, 1000.0, 1000.0)  # for the three depths, shallow to deep


def _rate(done: float) -> float:
    return 0.1 if done < 0.1 else 0.01  # two of twenty epochs at 0.1


def attention(maps: Tensor) -> Tensor:
    """Attention [b, h w], of unit length, of feature maps [b, c, h, w]: mean of squares over the channels (p = 2)."""
    return F.normalize(maps.float().pow(2).mean(1).flatten(1), dim=1)


class Depths:
    """The last feature maps at each of the three deepest resolutions of any network, seen by hooks on its blocks.

    A block is a module with parts of its own: what it gives is the sum that the next one reads, which is what NAD
    compares. Networks without blocks (VGG) are looked at layer by layer.
    """

    def __init__(self, model: nn.Module):
        self._maps: dict[tuple[int, int], Tensor] = {}
        inner = [m for m in model.modules() if list(m.children()) and m is not model]
        blocks = [m for m in inner if not isinstance(m, nn.Sequential)]
        seen = blocks or [m for m in model.modules() if not list(m.children())]
        self._handles = [m.register_forward_hook(self._see) for m in seen]

    def _see(self, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
            self._maps[tuple(output.shape[2:])] = output

    def read(self) -> list[Tensor]:
        """Maps of the last forward pass, shallow to deep; forgets them."""
        maps = sorted(self._maps.values(), key=lambda m: -m.shape[2])[-3:]
        self._maps = {}
        return maps

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def distillation_loss(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Sum over the depths of beta times the mean squared difference of the attention maps."""
    pairs = zip(BETAS[-len(student) :], student, teacher)
    return sum(beta * F.mse_loss(attention(s), attention(t)) for beta, s, t in pairs)


def attention_distillation(setting: Setting) -> nn.Module:
    """Teacher: the model fine-tuned on the clean subset. Epochs are fixed; nothing is chosen."""
    tuned = setting.everything_clean()
    teacher = tune(
        setting,
        copy_of(setting.model),
        setting.clean,
        tuned,
        title="NAD, teacher",
        epochs=setting.clean_epochs(TEACHER_EPOCHS),
        rate=_rate,
    ).eval()
    student = copy_of(setting.model)
    of_student, of_teacher = Depths(student), Depths(teacher)

    def loss_of(logits: Tensor, target: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad(), setting.session.compute.forward():
            teacher(x)
        return F.cross_entropy(logits, target) + distillation_loss(of_student.read(), of_teacher.read())

    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = loss_of
    tune(
        setting,
        student,
        setting.clean,
        tuned,
        title="NAD, student",
        epochs=setting.clean_epochs(EPOCHS),
        rate=_rate,
        loss_of=loss,
    )
    of_student.close()
    of_teacher.close()
    return student
