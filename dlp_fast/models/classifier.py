"""What a run hands over: a network with its normalisation and class names, that takes pictures as they are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dlp_fast import __version__
from dlp_fast.data.preprocess import as_pictures, check_fit, preprocess
from dlp_fast.errors import DataError
from dlp_fast.models.registry import build_model
from dlp_fast.models.weights import serialised
from dlp_fast.runs.contents import caution, holds_in, title
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.sums import check_sum


class NotACleanModel(UserWarning):
    """The model of a run folder is a network of an earlier stage; see dlp_fast.runs.contents."""


class Classifier(nn.Module):
    """A trained network for pictures.

    Attributes: classes: names in the order of the outputs; size: (height, width) in pixels that it was trained at; fit,
    bit_depth: how pictures of another shape are brought to it (`DataConfig.fit`), and the bits of 16-bit samples that
    count; holds: whether it is a clean model (`dlp_fast.runs.contents`), None where that is not known; own_stem: as in
    build_model.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        classes: tuple[str, ...],
        size: tuple[int, int],
        mean: Tensor,
        std: Tensor,
        *,
        fit: str = "crop",
        bit_depth: int = 16,
        holds: str | None = None,
        own_stem: bool = False,
    ):
        super().__init__()
        self.net, self.name, self.classes, self.size = net, name, tuple(classes), tuple(size)
        self.fit, self.bit_depth, self.holds = check_fit(fit), bit_depth, holds
        self.own_stem = own_stem
        self.register_buffer("mean", mean.float().reshape(3))
        self.register_buffer("std", std.float().reshape(3))

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.net.parameters())
        height, width = self.size
        return (
            f"Classifier({self.name}, {len(self.classes)} classes, {width} x {height} px, {weights:,} weights, "
            f"{title(self.holds)})"
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits fp32 [n, classes] of uint8 [n, H, W, 3] RGB images."""
        x = (images.to(self.mean.device, torch.float32) / 255 - self.mean) / self.std
        return self.net(x.permute(0, 3, 1, 2)).float()

    def preprocess(self, pictures: Any) -> Tensor:
        """What the network is given of `pictures`: uint8 [n, height, width, 3]; see dlp_fast.preprocess."""
        return preprocess(pictures, self.size, self.fit, self.bit_depth)

    @torch.no_grad()
    def predict(self, pictures: Any, batch: int = 512) -> Tensor:
        """Class probabilities, fp32 [n, classes], in the order of `classes`.

        Args:
            pictures: one or many, of any size: paths, Pillow images, uint8 arrays or tensors [h, w, 3], a list of such,
                or an array [n, h, w, 3]; see dlp_fast.preprocess, which they go through. One picture: [1, classes].
            batch: how many are in memory, and go through the network, at a time.

        Raises DataError where a file cannot be used or something is no picture.
        """
        self.eval()
        pictures = as_pictures(pictures)
        parts = []
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            ready = (
                isinstance(part, Tensor) and part.dtype == torch.uint8 and part.shape[1:] == (*self.size, 3)
            )
            parts.append(self(part if ready else self.preprocess(part)).softmax(1))
        return torch.cat(parts) if parts else torch.empty(0, len(self.classes))

    def facts(self) -> dict[str, Any]:
        """What classes.json says."""
        return {
            "schema": 1,
            "model": self.name,
            "size": list(self.size),
            "fit": self.fit,
            "bit_depth": self.bit_depth,
            "holds": self.holds,
            "classes": list(self.classes),
        } | ({"own_stem": True} if self.own_stem else {})

    def metadata(self) -> dict[str, str]:
        """For the header of a safetensors file: what a stranger needs to use the weights, as text and JSON."""
        return {
            "format": "pt",
            "dlp_fast": __version__,
            "model": self.name,
            "holds": self.holds or "unknown",
            "classes": json.dumps(list(self.classes)),
            "size": json.dumps(list(self.size)),
            "fit": self.fit,
            "bit_depth": str(self.bit_depth),
            "input": "RGB, NCHW, (x / 255 - mean) / std",
            "mean": json.dumps([round(v, 6) for v in self.mean.tolist()]),
            "std": json.dumps([round(v, 6) for v in self.std.tolist()]),
        } | ({"own_stem": "true"} if self.own_stem else {})

    def save(self, folder: Path) -> None:
        """Write model.safetensors and classes.json into `folder`, each atomically."""
        write_atomic(folder / "model.safetensors", serialised(self.state_dict(), self.metadata()))
        write_atomic(folder / "classes.json", json.dumps(self.facts(), indent=1).encode() + b"\n")


def load(run: str | Path, device: str = "cpu") -> Classifier:
    """The model of a finished run folder, in eval mode; `run` may also be the folder's model.safetensors.

    Warns (NotACleanModel) where it is not a clean model. Raises DataError where there is no finished or no whole model.
    """
    model = read_model(run, device)
    told = caution(model.holds)
    if told:
        warnings.warn(f"{run}: {told}", NotACleanModel, stacklevel=2)
    return model


def read_model(run: str | Path, device: str = "cpu") -> Classifier:
    """As `load`, without the warning; the commands print it in their own way."""
    run = Path(run)
    if run.name == "model.safetensors":
        run = run.parent
    if not (run / "classes.json").is_file() or not (run / "model.safetensors").is_file():
        if run.is_file():
            raise DataError(f"{run} is a file; give the run folder, or its model.safetensors.")
        raise DataError(
            f"{run} holds no finished model (model.safetensors, classes.json). Finish the run first."
            if run.is_dir()
            else f"{run} does not exist; give the folder of a finished run."
        )
    try:
        facts = json.loads((run / "classes.json").read_text(encoding="utf-8"))
        tensors = load_file(run / "model.safetensors")
        own_stem = bool(facts.get("own_stem"))
        net = build_model(
            facts["model"], len(facts["classes"]), max(facts["size"]), seed=0, own_stem=own_stem
        )
        # runs of before these were kept cropped, and took 16 bits for used
        reading = {
            "fit": facts.get("fit", "crop"),
            "bit_depth": facts.get("bit_depth", 16),
            "own_stem": own_stem,
        }
        size, mean, std = facts["size"], tensors["mean"], tensors["std"]
        model = Classifier(
            net, facts["model"], facts["classes"], size, mean, std, holds=holds_in(run, facts), **reading
        )
        model.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"the model in {run} is damaged ({error}). Run again into another folder.") from None
    for name in ("model.safetensors", "classes.json"):
        check_sum(run, name)
    return model.to(device).eval()
