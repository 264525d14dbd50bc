"""What a run hands over: a network with its normalisation and class names, that takes pictures as they are."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dlp_fast.errors import DataError
from dlp_fast.models.registry import build_model
from dlp_fast.runs.files import write_atomic


class Classifier(nn.Module):
    """A trained network for uint8 pictures.

    Attributes: classes: names in the order of the outputs; size: (height, width) in pixels that it was trained at; fit,
    bit_depth: how pictures were brought there (`DataConfig.fit`), and the bits of 16-bit samples that counted.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        classes: tuple[str, ...],
        size: tuple[int, int],
        mean: Tensor,
        std: Tensor,
        fit: str = "crop",
        bit_depth: int = 16,
    ):
        super().__init__()
        self.fit, self.bit_depth = fit, bit_depth
        self.net, self.name, self.classes, self.size = net, name, tuple(classes), tuple(size)
        self.register_buffer("mean", mean.float().reshape(3))
        self.register_buffer("std", std.float().reshape(3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits fp32 [n, classes] of uint8 [n, H, W, 3] RGB images."""
        x = (images.to(self.mean.device, torch.float32) / 255 - self.mean) / self.std
        return self.net(x.permute(0, 3, 1, 2)).float()

    @torch.no_grad()
    def predict(self, images: Tensor, batch: int = 512) -> Tensor:
        """Class probabilities, fp32 [n, classes], of uint8 [n, H, W, 3] RGB images of the training size.

        Raises ValueError where dtype or shape is another.
        """
        images = torch.as_tensor(images)
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[3] != 3:
            raise ValueError(f"images must be uint8 [n, H, W, 3], got {images.dtype} {list(images.shape)}")
        if tuple(images.shape[1:3]) != self.size:
            raise ValueError(
                f"images must be {list(self.size)} pixels (height, width), got {list(images.shape[1:3])}"
            )
        self.eval()
        parts = [self(part).softmax(1) for part in images.split(batch)]
        return torch.cat(parts) if parts else torch.empty(0, len(self.classes))

    def save(self, folder: Path) -> None:
        """Write model.safetensors and classes.json into `folder`, each atomically."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        facts = {"schema": 1, "model": self.name, "size": list(self.size), "classes": list(self.classes)}
        facts |= {"fit": self.fit, "bit_depth": self.bit_depth}
        write_atomic(folder / "model.safetensors", save(tensors))
        write_atomic(folder / "classes.json", json.dumps(facts, indent=1).encode() + b"\n")


def load(run: str | Path, device: str = "cpu") -> Classifier:
    """The clean model of a finished run folder, in eval mode.

    Raises DataError where the folder holds no finished or no whole model.
    """
    run = Path(run)
    if not (run / "classes.json").is_file() or not (run / "model.safetensors").is_file():
        raise DataError(
            f"{run} holds no finished model (model.safetensors, classes.json). Finish the run first."
        )
    try:
        facts = json.loads((run / "classes.json").read_text())
        tensors = load_file(run / "model.safetensors")
        net = build_model(facts["model"], len(facts["classes"]), max(facts["size"]), seed=0)
        # runs of before these were kept cropped, and took 16 bits for used
        reading = {"fit": facts.get("fit", "crop"), "bit_depth": facts.get("bit_depth", 16)}
        size, mean, std = facts["size"], tensors["mean"], tensors["std"]
        model = Classifier(net, facts["model"], facts["classes"], size, mean, std, **reading)
        model.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"the model in {run} is damaged ({error}). Run again into another folder.") from None
    return model.to(device).eval()
