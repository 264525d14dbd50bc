"""The model of a run for other programs: ONNX, and torchvision's own networks; each with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from dlp_fast.errors import ConfigError, ResourceError
from dlp_fast.models.classifier import Classifier, read_model
from dlp_fast.models.registry import TORCHVISION, difference_from_torchvision, torchvision_options
from dlp_fast.models.resizing import GRAPH_FITS, Resizing
from dlp_fast.models.weights import serialised
from dlp_fast.report.text import notes, percent
from dlp_fast.runs.contents import CLEAN, holds_of, title
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.install import advice
from dlp_fast.runs.reader import read_results

FITTING = {
    "squash": "resize both sides on their own (bilinear with antialiasing)",
    "pad": "resize by one factor until all of it fits (bilinear with antialiasing), and pad with black, centred,",
    "crop": "resize the shorter side to fit (bilinear with antialiasing), then crop the centre",
}
"""dataset.fit in words, for a person who writes the preprocessing anew."""


class _Probabilities(torch.nn.Module):
    def __init__(self, model: Classifier, resize: torch.nn.Module | None):
        super().__init__()
        self.model, self.resize = model, resize

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images if self.resize is None else self.resize(images)).softmax(1)


def as_onnx(run: Path, out: Path, *, resize: bool, opset: int | None) -> str:
    """model.onnx: uint8 [n, height, width, 3] -> probabilities fp32 [n, classes]; with weights, names and a card.

    resize: height and width are free (those of one batch are equal), and the graph resizes and crops as the run did.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  what torch's exporter needs
    except ModuleNotFoundError as error:
        raise ResourceError(f"ONNX needs the package {error.name}: {advice('onnx')}") from None
    model = read_model(run)
    if resize and model.fit not in GRAPH_FITS:
        raise ConfigError(
            f"--resize knows dataset.fit {' and '.join(GRAPH_FITS)}, and the run has {model.fit}. Leave --resize "
            "out, and give the graph what dlp_fast.load(RUN).preprocess(pictures) gives."
        )
    height, width = model.size
    free = {0: torch.export.Dim("n")}
    if resize:
        free |= {1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    example = torch.zeros(2, height + 7 * resize, width + 3 * resize, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        _Probabilities(model, Resizing(height, width, model.fit) if resize else None).eval(),
        (example,),
        dynamo=True,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes={"images": free},
        opset_version=opset,
        verbose=False,
    )
    program.save(out / "model.onnx")
    onnx.checker.check_model(str(out / "model.onnx"))
    made = onnx.load(str(out / "model.onnx"), load_external_data=False)
    written = {entry.domain: entry.version for entry in made.opset_import}[""]
    if opset is not None and written != opset:
        raise ConfigError(f"this PyTorch writes opset {written}, not {opset}. Choose another --opset.")
    for name in ("model.safetensors", "classes.json"):
        shutil.copy2(run / name, out / name)
    write_atomic(out / "README.md", model_card(run, model, _onnx_use(model, resize, written)).encode())
    return f"model.onnx (opset {written}), model.safetensors, classes.json, README.md (model card)"


def _onnx_use(model: Classifier, resize: bool, opset: int) -> str:
    height, width = model.size
    if resize:
        return (
            f"model.onnx (opset {opset}) takes uint8 RGB [n, height, width, 3], upright, n at least 1, of any size "
            f"(one size a batch). It resizes and crops to {width} x {height} itself, within one of 255 levels of what "
            "the run did."
        )
    return f"model.onnx (opset {opset}) takes uint8 RGB [n, {height}, {width}, 3]: what the preprocessing above gives."


def as_torchvision(run: Path, out: Path) -> str:
    """weights.safetensors: the state of torchvision's own network, under its names; with classes.json and a card.

    Raises ConfigError where the network is not torchvision's, with the difference.
    """
    model = read_model(run)
    different = difference_from_torchvision(model.name, max(model.size), model.own_stem)
    if different:
        raise ConfigError(
            f"{model.name} at {model.size[1]} x {model.size[0]} px {different}. Use --format onnx, or "
            "dlp_fast.load(RUN)."
        )
    name = model.name.removeprefix(TORCHVISION)
    options = "".join(
        f", {key}={value}" for key, value in torchvision_options(name).items() if key != "init_weights"
    )
    write_atomic(out / "weights.safetensors", serialised(model.net.state_dict(), model.metadata()))
    shutil.copy2(run / "classes.json", out / "classes.json")
    use = f"""weights.safetensors holds the state of torchvision's {name} under its own names. It takes fp32
[n, 3, {model.size[0]}, {model.size[1]}], normalised, and gives logits:

```python
import torchvision
from safetensors.torch import load_file

net = torchvision.models.get_model("{name}", weights=None, num_classes={len(model.classes)}{options})
net.load_state_dict(load_file("weights.safetensors"))
net.eval()
```"""
    write_atomic(out / "README.md", model_card(run, model, use).encode())
    return "weights.safetensors, classes.json, README.md (model card)"


def model_card(run: Path, model: Classifier, use: str) -> str:
    """README.md beside an exported model; `use`: a paragraph on the file that lies there."""
    results = read_results(run)
    last = list(results["stages"].values())[-1]
    verdict, found = results["verdict"], results["detection"]
    holds = model.holds or holds_of(results["stages"])
    unlearnt = found["suspected_poisoned"] - results["stage3_detections"]
    trained = (
        "suspected poisoned and not trained on under their labels"
        if holds == CLEAN
        else "suspected poisoned; the network was trained on them all the same"
    )
    start = results.get("model", {}).get("starting_weights")
    started = (
        f"- Started from weights that nothing here examined: {start['source']} (sha256 {start['sha256']})\n"
        if start
        else ""
    )
    said = "\n".join(f"- {note[0].upper()}{note[1:]}" for note in notes(results))
    height, width = model.size
    mean, std = ([round(v, 4) for v in of.tolist()] for of in (model.mean, model.std))
    return f"""# Model card

Image classifier ({model.name}): {title(holds)}, trained by dlp_fast {results["environment"]["dlp_fast"]} on images that
were not trusted.

- Preprocessing: apply the EXIF orientation, convert to RGB, {FITTING[model.fit]} to {width} x {height} pixels.
  In Python `dlp_fast.preprocess(pictures, ({height}, {width}), "{model.fit}", {model.bit_depth})` does it for
  paths, Pillow images and arrays.
- Normalisation, part of the model in ONNX and dlp_fast: (x / 255 - mean) / std, mean {mean}, std {std}
- Output: {len(model.classes)} classes, in the order below
{started}- Verdict on the training images: {verdict["kind"]} (score {verdict["score"]:.2f}; 1 counts as found)
- {unlearnt} images were {trained}
- Clean accuracy: {percent(last["clean_accuracy"])}; attack success rate of the known trigger:
  {percent(last["attack_success_rate"])} (– where unknown)
{said}

An attack success rate is that of one trigger. A trigger that was not suspected cannot be excluded.

{use}

Classes (names of folders, as JSON):

```json
{json.dumps(list(model.classes), indent=1)}
```
"""
