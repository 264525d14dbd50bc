"""What a run found, for other tools, each a folder in the form that they read; the original is never touched."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dlp_fast.commands.export import ExportConfig
from dlp_fast.commands.export_model import as_onnx, as_torchvision
from dlp_fast.commands.guard import tell
from dlp_fast.config import build, is_folder, is_streamed, read_yaml, refuse_overlap
from dlp_fast.data import sources
from dlp_fast.data.formats import ImageRejected, open_image
from dlp_fast.data.sources.archive import shards
from dlp_fast.errors import DataError
from dlp_fast.preparation.prepare import attack_of
from dlp_fast.runs.contents import caution, holds_of
from dlp_fast.runs.files import new_folder, write_atomic
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.names import csv_cell, printable
from dlp_fast.runs.reader import read_classes, read_predictions, read_results, read_samples
from dlp_fast.runs.sums import samples_changed
from dlp_fast.runs.writer import fingerprint
from dlp_fast.selection.overrides import OVERRIDES, shorten

# Pillow's names of formats to suffixes: those of the files themselves are an attacker's text
SUFFIXES = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif", "JPEG2000": ".jp2"
}  # fmt: skip


def kept(samples: dict[str, list[str]]) -> list[int]:
    """Ids of the images that are kept: a person's word, where there is one, else whatever is not suspected.

    Raises DataError for a word that is unknown.
    """
    words = [word.strip().lower() for word in samples["override"] or [""] * len(samples["decision"])]
    unknown = {word for word in words if word and word not in OVERRIDES}
    if unknown:
        raise DataError(
            f"the table of images: override {shorten(min(unknown))} is unknown; write keep, drop, suspect, relabel or "
            "nothing"
        )
    return [
        i
        for i, (decision, word) in enumerate(zip(samples["decision"], words))
        if word in ("keep", "relabel") or (decision != "suspected_poisoned" and not word)
    ]


def labels_of(samples: dict[str, list[str]], classes: tuple[str, ...], labels: torch.Tensor) -> list[int]:
    """`labels`, int64 [n], with the new ones of the images that a person relabeled.

    Raises DataError where the label of such an image is none of the classes.
    """
    place, new = {csv_cell(name): i for i, name in enumerate(classes)}, labels.tolist()
    for i, word in enumerate(samples["override"]):
        if word.strip().lower() == "relabel":
            if samples["label"][i] not in place:
                raise DataError(
                    f"the table of images: image {i} is to be relabeled {shorten(samples['label'][i])}, which is no "
                    "class of it"
                )
            new[i] = place[samples["label"][i]]
    return new


def table(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def as_csv(run: Path, out: Path, samples: dict[str, list[str]], _: ExportConfig) -> str:
    chosen = set(kept(samples))
    names = ["sample_id", "path", "label", "score", "rank", "decision"]
    for file, inside in (("kept.csv", True), ("suspected.csv", False)):
        rows = [
            [samples[n][i] for n in names] for i in range(len(samples["path"])) if (i in chosen) == inside
        ]
        write_atomic(out / file, table([names, *rows]))
    return f"kept.csv ({len(chosen)} images), suspected.csv ({len(samples['path']) - len(chosen)})"


def as_cleanlab(run: Path, out: Path, samples: dict[str, list[str]], _: ExportConfig) -> str:
    """The columns of cleanlab's label issues; label_quality: probability of the given label by the clean model."""
    classes = [csv_cell(c) for c in read_classes(run)]
    prediction, probability = read_predictions(run, len(samples["path"]), len(classes))
    chosen = set(kept(samples))
    rows = [
        [i, samples["path"][i], i not in chosen, f"{quality:.6g}", samples["label"][i], classes[predicted]]
        for i, (quality, predicted) in enumerate(zip(probability.tolist(), prediction.tolist()))
    ]
    header = ["index", "path", "is_label_issue", "label_quality", "given_label", "predicted_label"]
    write_atomic(out / "label_issues.csv", table([header, *rows]))
    return f"label_issues.csv ({len(rows)} images)"


def suffix_of(source: Path) -> str:
    """The suffix of the image file `source` by what is in it; only decoders of formats that are read see it.

    Raises DataError where it is no image any more.
    """
    try:
        name = open_image(source.read_bytes()).format or "img"
    except ImageRejected as error:
        raise DataError(
            f"{printable(str(source))} was an image when it was checked and cannot be opened any more ({error}). Give "
            "the folder as it was with --data, or run again."
        ) from None
    return SUFFIXES.get(name, f".{name.lower()}")


class Originals:
    """The images that a run worked on, as files where they are files, and else as pixels."""

    def __init__(self, run: Path, config: ExportConfig):
        settings = read_yaml(run / "config.resolved.yaml")
        if settings["data"] in ("array", "dataset"):
            raise DataError(
                f"the images of {run} were given in memory (defend() in Python) and cannot be found again; "
                "export csv, cleanlab or onnx, or keep the ids of Result.suspected_poisoned."
            )
        log = RunLog(None)
        # absolute, so that a folder called digits is not taken for the embedded set
        place = config.data or settings["data"]
        if config.data and not is_streamed(place):
            place = str(Path(place).absolute())
        options = build(settings, str(run / "config.resolved.yaml")).dataset
        local = is_folder(place) and not is_streamed(place)  # of shards, load says what is missing
        if not config.data and local and not (Path(place).exists() or shards(place)):
            raise DataError(
                f"{printable(place)}, where the run found its images, is no longer there; say where they are now: "
                "--data DIR"
            )
        if settings["attack"] == "none":  # then files are handed on, and nobody asks for the test set
            options = options.model_copy(update={"test": None})
        self.dataset = sources.load(place, options, loader=settings["loader"], progress=log.counter())
        attack = attack_of(settings, self.dataset)
        train = self.dataset.train
        self.images = attack.poison(train.images) if attack else train.images
        self.labels = attack.labels if attack else train.labels
        self.root = Path(self.dataset.root) if self.dataset.root and not attack else None
        self.copies = config.copies
        kept_hash = run / "data.sha256"
        now = fingerprint(train.paths, self.labels, train.sha256)
        if not kept_hash.is_file() or kept_hash.read_text(errors="replace").strip() != now:
            raise DataError(
                "the image set is not the one of the run: files were added, removed, renamed or changed since. Give "
                "the folder as it was with --data, or run again."
            )

    def place(self, i: int, target: Path) -> Path:
        """Put image `i` at `target` (its suffix is chosen here); hard link where possible, never a changed original."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.root is None:
            target = target.with_name(target.name + ".png")
            Image.fromarray(self.images.get(torch.tensor([i]))[0].cpu().numpy()).save(target)
            return target
        source = self.root / self.dataset.train.paths[i]
        target = target.with_name(target.name + suffix_of(source))
        try:
            if self.copies:
                raise OSError
            os.link(os.path.realpath(source), target)
        except OSError:
            shutil.copy2(source, target)
        return target


def _placed(
    originals: Originals, chosen: list[int], out: Path, folder: dict[int, str], title: str
) -> Iterator[tuple[int, Path]]:
    log = RunLog(None)
    log.start(title, len(chosen), unit="files")
    for count, i in enumerate(chosen, start=1):
        yield i, originals.place(i, out / folder[i] / f"{i:07d}")
        log.advance(count, 1)
    log.close()


def as_imagefolder(run: Path, out: Path, samples: dict[str, list[str]], config: ExportConfig) -> str:
    """out/<class>/<id>.<suffix> of the images that are kept, and the list of where each came from."""
    chosen, originals = kept(samples), Originals(run, config)
    classes = originals.dataset.train.classes
    labels = labels_of(samples, classes, originals.labels)
    folder = {i: classes[labels[i]] for i in chosen}
    rows = [["file", "sample_id", "path", "label"]]
    for i, path in _placed(originals, chosen, out / "images", folder, "writing images"):
        rows.append([csv_cell(path.relative_to(out).as_posix()), i, samples["path"][i], samples["label"][i]])
    write_atomic(out / "images.csv", table(rows))
    return f"images/<class>/ ({len(chosen)} of {len(samples['path'])} images), images.csv"


def as_fiftyone(run: Path, out: Path, samples: dict[str, list[str]], config: ExportConfig) -> str:
    """data/ and labels.json: every image with its label, and score, decision and rank as attributes."""
    originals = Originals(run, config)
    names = [csv_cell(c) for c in originals.dataset.train.classes]
    everybody = list(range(len(samples["path"])))
    new = labels_of(samples, originals.dataset.train.classes, originals.labels)
    labels = {}
    for i, path in _placed(
        originals, everybody, out / "data", dict.fromkeys(everybody, ""), "writing images"
    ):
        labels[path.stem] = {
            "label": new[i],
            "attributes": {
                "decision": samples["decision"][i],
                "score": float(samples["score"][i]),
                "rank": int(samples["rank"][i]),
                "path": samples["path"][i],
            },
        }
    write_atomic(out / "labels.json", json.dumps({"classes": names, "labels": labels}).encode())
    return f"data/, labels.json ({len(labels)} images): fiftyone.types.FiftyOneImageClassificationDataset"


FORMATS = {
    "imagefolder": as_imagefolder,
    "csv": as_csv,
    "fiftyone": as_fiftyone,
    "cleanlab": as_cleanlab,
}
OF_THE_MODEL = ("onnx", "torchvision", "cleanlab")


def _samples(run: Path) -> dict[str, list[str]]:
    """The table of images; tells a person where it is not as the run wrote it."""
    samples = read_samples(run)
    if changed := samples_changed(run):
        RunLog(None).warn(changed)
    return samples


def export(config: ExportConfig) -> None:
    """Write what `config` asks for into its folder, and tell what was written."""
    results = read_results(config.run)
    refuse_overlap(config.data or results["config"]["data"], config.out)
    told = caution(holds_of(results["stages"])) if config.format in OF_THE_MODEL else None
    if told:
        RunLog(None).warn(f"{config.run}: {told}")
    with new_folder(config.out) as folder:
        if config.format == "onnx":
            written = as_onnx(config.run, folder, resize=config.resize, opset=config.opset)
        elif config.format == "torchvision":
            written = as_torchvision(config.run, folder)
        else:
            written = FORMATS[config.format](config.run, folder, _samples(config.run), config)
    tell(f"written to {config.out}: {written}")
