"""python -m dlp_fast.predict RUN --data DIR --out x.csv: class and probability of images, by a run's model."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dlp_fast.commands.options import parse, tell
from dlp_fast.config import DataConfig, Section, build, read_yaml
from dlp_fast.errors import DataError
from dlp_fast.runs.contents import caution
from dlp_fast.runs.files import sha256, write_atomic
from dlp_fast.runs.log import RunLog
from dlp_fast.runs.names import csv_cell

if TYPE_CHECKING:
    from dlp_fast.models.classifier import Classifier

TOP = 5
CHUNK = 1024  # files that are checked, predicted and written down together


class PredictConfig(Section):
    """Which model, which images, and where to."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run folder."""
    data: tuple[Path, ...]
    """Folders (with all below them), image files, archives, and tables with a column of paths."""
    out: Path
    """The CSV file to write; must not exist. The same command again goes on where it was killed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""


def options_of(run: Path) -> DataConfig:
    """How the run read its images; the defaults where `run` holds a model alone."""
    file = run / "config.resolved.yaml"
    return build(read_yaml(file), str(file)).dataset if file.is_file() else DataConfig()


def main() -> None:
    config = parse(PredictConfig, "predict", __doc__)
    # what follows loads torch: not before the options are known to be right
    from dlp_fast.commands.new_files import Kept, find_files, key_of
    from dlp_fast.engine.device import choose_compute
    from dlp_fast.models.classifier import read_model
    from dlp_fast.preparation.threads import use_idle_processors

    run = config.run.parent if config.run.name == "model.safetensors" else config.run
    compute = choose_compute(config.device, "fp32")
    use_idle_processors(compute)
    model = read_model(run, str(compute.device))
    log = RunLog(None)
    if caution(model.holds):
        log.warn(f"{run}: {caution(model.holds)}")
    shown, refused = find_files(config.data, options_of(run))
    files = list(shown)
    reading = {"fit": model.fit, "bit_depth": model.bit_depth}
    kept = Kept(config.out, {"model": sha256(run / "model.safetensors"), **reading})
    keys = {path: key_of(path) for path in files}
    todo = [path for path in files if keys[path] not in kept.answers]
    if len(todo) < len(files):
        log.say(f"going on: {len(files) - len(todo):,} of {len(files):,} files were done before")
    log.start("predicting", len(files), len(files) - len(todo), unit="files")
    for start in range(0, len(todo), CHUNK):
        part = todo[start : start + CHUNK]
        answers = predicted(model, part, options_of(run))
        kept.keep({keys[path]: answers[path] for path in part})
        log.advance(len(files) - len(todo) + start + len(part), 1)
    log.close()
    answers = {shown[path]: kept.answers[keys[path]] for path in files}
    answers |= {one.path: f"{one.reason}: {one.detail}" for one in refused}
    _write(config.out, answers, model.classes)
    kept.done()
    _tell(config.out, answers, model)


def predicted(model: Classifier, paths: list[str], options: DataConfig) -> dict[str, Any]:
    """Of each file, [[class number, probability], …] of the `TOP` most likely classes, or why it cannot be used."""
    import torch

    from dlp_fast.data.preprocess import file_images, index_files

    index, refused = index_files(
        paths, **options.model_dump(include={"max_megapixels", "max_megabytes", "workers"})
    )
    images = file_images(index, model.size, model.fit, model.bit_depth, options.max_megapixels)
    by_file: dict[str, Any] = {one.path: f"{one.reason}: {one.detail}" for one in refused}
    for ids in torch.arange(len(index)).split(64):
        best = model.predict(images.get(ids)).topk(min(TOP, len(model.classes)))
        for i, of, odds in zip(ids.tolist(), best.indices.tolist(), best.values.tolist(), strict=True):
            by_file[f"/{index.paths[i]}"] = [[c, round(p, 6)] for c, p in zip(of, odds, strict=True)]
    return {path: by_file[real] for path, real in zip(paths, map(os.path.realpath, paths), strict=True)}


def _write(out: Path, answers: dict[str, Any], classes: tuple[str, ...]) -> None:
    """path, class and probability of the most likely classes, and the problem where a file has one."""
    top, names = min(TOP, len(classes)), [csv_cell(name) for name in classes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = [f"{column}_{place}" for place in range(2, top + 1) for column in ("class", "probability")]
    writer.writerow(["path", "class", "probability", *more, "problem"])
    for path, answer in answers.items():
        if isinstance(answer, str):
            writer.writerow([csv_cell(path), *[""] * 2 * top, csv_cell(answer)])
        else:
            cells = [cell for c, odds in answer for cell in (names[c], f"{odds:.6g}")]
            writer.writerow([csv_cell(path), *cells, ""])
    write_atomic(out, text.getvalue().encode("utf-8"))


def _tell(out: Path, answers: dict[str, Any], model: Classifier) -> None:
    bad = {path: answer for path, answer in answers.items() if isinstance(answer, str)}
    good = len(answers) - len(bad)
    counted = Counter(model.classes[a[0][0]] for a in answers.values() if not isinstance(a, str))
    tell(f"{good:,} images predicted by {model!r}")
    for name, count in counted.most_common(TOP):
        tell(f"  {count:>7,}  {csv_cell(name)}")
    if len(counted) > TOP:
        tell(f"  and {len(counted) - TOP} more classes")
    if bad:
        reasons = Counter(answer.partition(":")[0] for answer in bad.values())
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        files = "file" if len(bad) == 1 else "files"
        tell(f"{len(bad):,} {files} could not be used ({told}): see the column problem")
    tell(f"written to {out}")
    if not good:
        raise DataError("no file could be used as an image.")
