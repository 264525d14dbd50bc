"""python -m dlp_fast.scan_new RUN --data DIR --out x.csv: images that came after a run, by what the run kept."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dlp_fast.commands.options import parse, tell
from dlp_fast.config import Section
from dlp_fast.errors import ConfigError, DataError
from dlp_fast.runs.contents import CLEAN, caution
from dlp_fast.runs.files import write_atomic
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.names import csv_cell, printable

if TYPE_CHECKING:
    import torch

    from dlp_fast.data.sources import ImageSet
    from dlp_fast.models.classifier import Classifier

SHOWN = 10  # paths that the terminal names


class ScanNewConfig(Section):
    """Which run, which images, and where to."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run folder, with its checkpoints (they hold stage 1's network)."""
    data: Path
    """New images: a folder a class, an archive of it, or a table of paths and labels; classes of the run may be
    missing."""
    out: Path
    """The CSV file to write; must not exist."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""


def main() -> None:
    config = parse(ScanNewConfig, "scan_new", __doc__)
    if config.out.exists():
        raise ConfigError(f"{config.out} exists; nothing is overwritten. Choose another --out, or remove it.")
    # what follows loads torch: not before the options are known to be right
    from dlp_fast.commands.predict import options_of
    from dlp_fast.data import sources
    from dlp_fast.data.index import write_quarantine
    from dlp_fast.detection.new_images import score_new
    from dlp_fast.engine.device import choose_compute
    from dlp_fast.models.classifier import read_model
    from dlp_fast.preparation.threads import use_idle_processors
    from dlp_fast.runs.reader import read_results
    from dlp_fast.runs.sums import samples_changed

    results = read_results(config.run)
    compute = choose_compute(config.device, "fp32")
    use_idle_processors(compute)
    clean = read_model(config.run, str(compute.device))
    if clean.holds not in (CLEAN, None):
        raise DataError(f"{config.run} has no clean model to compare with: {caution(clean.holds)}")
    first = stage1_network(config.run, clean)
    log = RunLog(None)
    if told := samples_changed(config.run):
        log.warn(told)
    images, refused = sources.load_split(
        config.data,
        options_of(config.run).model_copy(update={"fit": clean.fit, "bit_depth": clean.bit_depth}),
        classes=clean.classes,
        size=clean.size,
        progress=log.counter(),
    )
    one, other = probabilities([clean, first], images, log)
    log.close()
    targets = [t["label"] for t in results["verdict"]["targets"] if not t["likely_benign"]]
    scores = score_new(one, other, images.labels, targets, copies(config.run, images.sha256))
    rows = table(images, scores, one, other, clean.classes)
    write_atomic(config.out, rows)
    if refused:
        beside = config.out.with_name(config.out.stem + ".quarantine.csv")
        write_quarantine(beside, refused)
        log.warn(f"{len(refused)} files cannot be used, listed in {beside}")
    for line in summary(images, scores.reason, scores.order.tolist(), targets, clean.classes):
        tell(line)
    tell(f"written to {config.out}: every image, the most suspicious first")


def copies(run: Path, hashes: tuple[str, ...]) -> torch.Tensor:
    """bool [n]: which images have the bytes of one that the run suspects, by the hashes in its scan.jsonl (none where
    its images came from no folder).
    """
    import torch

    from dlp_fast.runs.reader import read_samples

    samples = read_samples(run)
    suspected = {
        path
        for path, said in zip(samples["path"], samples["decision"], strict=True)
        if said == "suspected_poisoned"
    }
    known = set()
    with contextlib.suppress(OSError):
        for line in (run / "scan.jsonl").read_bytes().splitlines()[1:]:
            with contextlib.suppress(ValueError, TypeError, LookupError):
                path, *_, answer = json.loads(line)
                if csv_cell(path) in suspected and answer[0] == "ok":
                    known.add(answer[7])
    return torch.tensor([digest in known for digest in hashes], dtype=torch.bool)


def stage1_network(run: Path, like: Classifier) -> Classifier:
    """Stage 1's network, from the newest checkpoint of `run`, in the form of its clean model `like`.

    Raises DataError where the checkpoints are gone or of another network.
    """
    from dlp_fast.models.classifier import Classifier
    from dlp_fast.models.registry import build_model
    from dlp_fast.runs.checkpoint import Checkpoints

    state = Checkpoints(run / "checkpoints").load()
    weights = ((state or {}).get("completed") or {}).get("supervised", {}).get("weights")
    if not weights:
        raise DataError(
            f"{run}/checkpoints holds no network of stage 1 (were the checkpoints removed?). It is what new images are "
            "compared with; the clean model alone is dlp_fast.predict."
        )
    net = build_model(like.name, len(like.classes), max(like.size), seed=0, own_stem=like.own_stem)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"the checkpoint in {run} is of another network ({error}).") from None
    reading = {"fit": like.fit, "bit_depth": like.bit_depth, "own_stem": like.own_stem}
    network = Classifier(net, like.name, like.classes, like.size, like.mean, like.std, **reading)
    return network.to(like.mean.device).eval()


def probabilities(models: list[Classifier], images: ImageSet, log: RunLog) -> list[torch.Tensor]:
    """fp32 [n, classes] on the CPU of each model; the images are read once."""
    import torch

    parts: list[list[torch.Tensor]] = [[] for _ in models]
    log.start("comparing", len(images), unit="images")
    for ids in torch.arange(len(images)).split(256):
        pictures = images.images.get(ids)
        for part, model in zip(parts, models, strict=True):
            part.append(model.predict(pictures, batch=64).cpu())
        log.advance(int(ids[-1]) + 1, 1)
    log.finish()
    return [torch.cat(part) for part in parts]


def table(images: ImageSet, scores: Any, clean: Any, first: Any, classes: tuple[str, ...]) -> bytes:
    """The CSV file, the most suspicious image first."""
    names = [csv_cell(name) for name in classes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["path", "label", "look", "reason", "score", "clean_model", "label_probability", "stage1"]
        + ["stage1_label_probability"]
    )
    for i in scores.order.tolist():
        label = int(images.labels[i])
        writer.writerow(
            [
                csv_cell(images.paths[i]),
                names[label],
                int(bool(scores.reason[i])),
                scores.reason[i],
                f"{float(scores.score[i]):.6g}",
                names[int(clean[i].argmax())],
                f"{float(clean[i, label]):.6g}",
                names[int(first[i].argmax())],
                f"{float(first[i, label]):.6g}",
            ]
        )
    return text.getvalue().encode("utf-8")


def summary(
    images: ImageSet, reason: list[str], order: list[int], targets: list[int], classes: tuple[str, ...]
) -> list[str]:
    """For a terminal: how many to look at, why, the first of them, and what this cannot say."""
    from dlp_fast.detection.new_images import COPY, LABEL, MARK, MARK_RIGHT_LABEL, REASONS

    counted = Counter(reason)
    look = sum(counted[one] for one in REASONS)
    aimed = ", ".join(printable(classes[t]) for t in targets)
    why = {
        COPY: "the same bytes as an image that the run suspects",
        MARK: f"stage 1's network, which learnt the mark that the run found (class {aimed}), gives the label; the "
        "clean model sees another class",
        MARK_RIGHT_LABEL: f"stage 1's network says {aimed}, as where it sees the mark; the clean model does not: a "
        "mark under a label that may be right",
        LABEL: "the clean model is sure that the label is wrong; whether by poison or mistake, it cannot tell",
    }
    lines = [f"{len(images):,} new images, {look:,} to look at:"]
    lines += [f"  {counted[one]:>6,}  {one}: {why[one]}" for one in why if counted[one]]
    lines += [f"    {csv_cell(images.paths[i])}  ({reason[i]})" for i in order[:SHOWN] if reason[i]]
    lines.append(
        "what this cannot say: a mark that the run did not learn, or did not find, is in both networks or in none, and "
        "does not show; nor does a mark on pictures of its own class. Images that are not told are not proven clean; "
        "for a new attack, run again with these images."
    )
    if not targets:
        lines.append("the run found no poison, so no mark is known: only labels were compared.")
    return lines
