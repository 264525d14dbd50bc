"""Every exit by a table: a situation, the exit code, what is told, and what is left on the disk.

A row's command is a line of words: {t} is the test's own empty folder, {img} a folder of two classes, {run} a finished
run on the digits. What a row finds there is made by its scene; what is new or different afterwards must be what the row
says, file by file, so that nothing is lost, half written or left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
import re
import shlex
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import command, image_folder, options, picture

# One step of each stage, for the rows that come so far.
QUICK = options(
    supervised={"epochs": 2, "min_steps": 0, "batch": 64},
    unlearning={"epochs": 1},
    finetuning={"steps": 2, "batch": 16, "rounds": 1, "norm_batches": 2},
)
# What a run may leave that is refused after its folder was made: no result, and the next command may begin in it.
BEGUN = (
    ".lock",
    "config.resolved.yaml",
    "metrics.jsonl",
    "quarantine.csv",
    "scan.jsonl",
    "environment.json",
    "threads.json",
)
BEGINS = tuple(f"run/{name}" for name in (*BEGUN, "data.sha256", "starting_weights.safetensors"))


@dataclass(frozen=True)
class Row:
    """words: the command; says: a pattern of what is printed, on one line; left: files that are new or different, all
    of them, or with `BEGINS` some.
    """

    words: str
    code: int
    says: str
    scene: str = ""
    left: tuple[str, ...] = ()


def bad(option: str, says: str) -> Row:
    """An option of `run` that is refused before anything is read or written."""
    return Row(f"run --data {{img}} --out {{t}}/run {option}", 2, says)


def refused(says: str, scene: str, left: tuple[str, ...] = BEGINS, option: str = "") -> Row:
    """An image set, {t}/data, that cannot be used."""
    return Row(f"run --data {{t}}/data --out {{t}}/run {option}", 3, says, scene, left)


OPTIONS = {
    "unknown option": bad("--supervised.epoch 3", "Unrecognized options: --supervised.epoch"),
    "unknown word": bad("stray", "Unrecognized options: stray"),
    "value missing": bad("--seed", "seed"),
    "seed below 0": bad("--seed -1", r"--seed: .*0"),
    "seed no number": bad("--seed abc", "invalid|int"),
    "seed too large": bad("--seed 9223372036854775808", "--seed: "),
    "poison rate 0": bad("--poison-rate 0", "--poison-rate: .*above 0"),
    "poison rate 2": bad("--poison-rate 2", "--poison-rate: .*1"),
    "poison rate nan": bad("--poison-rate nan", "--poison-rate: "),
    "scans without a scan": bad(
        "--detection.power-scans 2 --detection.method entropy",
        "power-scans: there is no scan for marks to try",
    ),
    "epochs 0": bad("--supervised.epochs 0", "--supervised.epochs: "),
    "batch 1": bad("--supervised.batch 1", "--supervised.batch: "),
    "learning rate 0": bad("--supervised.learning-rate 0", "--supervised.learning-rate: "),
    "learning rate nan": bad("--finetuning.learning-rate nan", "--finetuning.learning-rate: "),
    "learning rate inf": bad("--unlearning.learning-rate inf", "--unlearning.learning-rate: .*finite"),
    "momentum 1": bad("--supervised.momentum 1", "--supervised.momentum: "),
    "tau 2": bad("--finetuning.tau 2", "--finetuning.tau: "),
    "ema 1": bad("--finetuning.ema 1", "--finetuning.ema: "),
    "max norm 0": bad("--unlearning.max-norm 0", "--unlearning.max-norm: "),
    "rollbacks -1": bad("--unlearning.max-rollbacks -1", "--unlearning.max-rollbacks: "),
    "min class size 1": bad("--detection.learning-curves.min-class-size 1", "min-class-size: "),
    "image size 7": bad("--dataset.image-size 7", "--dataset.image-size: "),
    "image size 257": bad("--dataset.image-size 257", "--dataset.image-size: "),
    "megapixels 0": bad("--dataset.max-megapixels 0", "--dataset.max-megapixels: "),
    "megapixels 90": bad("--dataset.max-megapixels 90", "--dataset.max-megapixels: "),
    "workers 0": bad("--dataset.workers 0", "--dataset.workers: "),
    "bit depth 9": bad("--dataset.bit-depth 9", "bit-depth"),
    "fit stretch": bad("--dataset.fit stretch", "fit"),
    "threads 0": bad("--threads 0", "--threads: "),
    "device tpu": bad("--device tpu", "device"),
    "precision fp8": bad("--precision fp8", "precision"),
    "loader fast": bad("--loader fast", "loader"),
    "attack unknown": bad("--attack nothing", "attack"),
    "order unknown": bad("--order unlearning", "order"),
    "track unknown": bad("--track neptune", "track"),
    "checkpoint seconds -1": bad("--checkpoint-seconds -1", "--checkpoint-seconds: "),
    "model unknown": bad("--model resnet50", "perhaps you meant torchvision:resnet50"),
    "model wrn-17-1": bad("--model wrn-17-1", r"6n\+4"),
    "model torchvision unknown": bad(
        "--model torchvision:resnet81", "perhaps you meant torchvision:resnet18"
    ),
    "weights missing": bad("--weights {t}/none.safetensors", "is not there; expected a safetensors file"),
    "weights and pretrained": bad(
        "--weights {t}/w --pretrained --model torchvision:resnet18", "leave the other out"
    ),
    "pretrained of ours": bad("--pretrained", "there are no pretrained weights of wrn-10-1"),
    "decisions missing": Row(
        "run --data {img} --out {t}/run --decisions {t}/none.csv", 3, "none.csv", "", BEGINS
    ),
    "preset unknown": bad("--preset papers", "perhaps you meant paper"),
    "data address": Row(
        "run --data https://a.b/c --out {t}/run", 2, "fetches only .tar and .parquet shards from s3://"
    ),
    "data bucket": Row("run --data s3://bucket/x --out {t}/run", 2, "is an address"),
    "out address": bad("--out=ftp://host/x", "is an address"),
    "config missing": bad("--config {t}/none.yaml", "none.yaml does not exist"),
    "target unknown": Row(
        "run --data digits --out {t}/run --target zebra", 2, "'zebra' does not exist", "", BEGINS
    ),
    "test of digits": Row(
        "run --data digits --out {t}/run --test {img}", 2, "has its own test set", "", BEGINS
    ),
    "test split of digits": Row(
        "run --data digits --out {t}/run --dataset.test-split x", 2, "own test", "", BEGINS
    ),
    "no command": Row("commands.__main__ runn", 2, "there is no command 'runn'"),
    "help": Row("commands.__main__ --help", 0, "usage: dlp-fast COMMAND"),
    "help of run": Row("run --help", 0, "usage: python -m dlp_fast.run"),
    "doctor unknown option": Row("doctor --fast", 2, "Unrecognized options"),
}

YAML = "run --data {img} --out {t}/run --config {t}/c.yaml"
FILES = {
    "config broken": Row(YAML, 2, "c.yaml cannot be read", "yaml a: ["),
    "config a list": Row(YAML, 2, "expected `key: value` lines, got a list", "yaml - a"),
    "config unknown key": Row(YAML, 2, "perhaps you meant supervised.epochs", "yaml supervised: {epoch: 3}"),
    "config wrong type": Row(YAML, 2, "supervised.epochs: ", "yaml supervised: {epochs: many}"),
    "config section a number": Row(YAML, 2, "supervised: ", "yaml supervised: 3"),
    "config runs code": Row(YAML, 2, "cannot be read", "yaml a: !!python/object/apply:os.mkdir [pwned]"),
    "config not utf-8": Row(YAML, 2, "cannot be read", "latin"),
    "config a folder": Row(f"{YAML}/..", 2, "cannot be read|does not exist", "yaml a: 1"),
    "weights a pickle": Row(
        "run --data {img} --out {t}/run --weights {t}/w.pt",
        2,
        "cannot be read as a safetensors file",
        "pickle",
        BEGINS,
    ),
    "weights of nothing": Row(
        "run --data {img} --out {t}/run --weights {t}/w.st", 2, "none of the 1 tensors of", "weights", BEGINS
    ),
    "decisions of nothing": Row(
        "run --data {img} --out {t}/run --decisions {t}/d.csv", 3, "d.csv", "text d.csv ,", BEGINS
    ),
    "out among the images": Row(
        "run --data {t}/data --out {t}/data/run", 2, "where every folder is a class", "images"
    ),
    "images in the out": Row("run --data {t}/data --out {t}", 2, "which is to be written", "images"),
    "out a file": Row("run --out {t}/file", 2, "is no run folder", "text file mine"),
    "out somebody's folder": Row(
        "run --out {t}/mine", 2, "exists and is no run folder", "text mine/a.txt mine"
    ),
    "another configuration": Row("run --out {t}/run --seed 5", 2, "seed: 0 there, 5 now", "copied run"),
    "out below a file": Row(
        "run --out {t}/file/run", 5, "cannot be written: Not a directory", "text file mine"
    ),
    "out in proc": Row("run --out /proc/dlp_fast", 5, "cannot be written"),
    "out name too long": Row(f"run --out {{t}}/{'x' * 300}", 5, "File name too long"),
    "out in use": Row("run --out {t}/run", 5, "another process is working in", "locked run", ()),
    "configuration damaged": Row(
        "run --out {t}/run", 2, "cannot be read", "damage config.resolved.yaml a: ["
    ),
}

DATA = {
    "no such folder": refused("no such folder", ""),
    "an empty folder": refused("no class folders", "folder data"),
    "one class": refused(r"one class \(cat\)", "one class"),
    "no image": refused("no usable image", "text data/cat/a.txt none"),
    "files beside no classes": refused("no class folders", "text data/a.jpg none"),
    "all of a class bad": refused(r"no usable image in class hen \(1 file", "bad class"),
    "pictures too small": refused("expected sides of 8 to 256 pixels", "small"),
    "data is a run": Row(
        "run --data {run} --out {t}/run", 3, "a run folder of dlp_fast; give the folder", "", BEGINS
    ),
    "look like splits": refused("look like splits of one image set", "look alikes"),
    "split missing": refused("no such folder beside train", "splits", option="--dataset.test-split nine"),
    "test missing": refused("dataset.test .*no such folder", "images", option="--test {t}/none"),
    "test is the training set": refused("this is the training set", "images", option="--test {t}/data"),
    "test in the training set": refused(
        "it lies in the training set", "deep", option="--test {t}/data/cat/test"
    ),
    "cifar missing": Row("run --data cifar10:{t}/none --out {t}/run", 3, "none", "", BEGINS),
    "cifar with code": Row("run --data cifar10:{t}/c --out {t}/run", 3, "data_batch_1", "cifar code", BEGINS),
}
TABLES = {
    "table without columns": ("t.csv", "a,b\n1,2\n", "expected a header line"),
    "table without rows": ("t.csv", "path,label\n", "no rows"),
    "table empty": ("t.csv", "", "its columns are"),
    "table label missing": ("t.csv", "path,label\ncat/000.png,\n", "row 2 has no path or no label"),
    "table leads out": ("t.csv", "path,label\n../x.png,a\n../y.png,b\n", "lead out of"),
    "table two labels": ("t.csv", "path,label\ncat/000.png,a\ncat/000.png,b\n", "a picture has one label"),
    "table strange split": (
        "t.csv",
        "path,label,split\ncat/000.png,a,z\n",
        "expected train, test or validation",
    ),
    "table of nothing there": ("t.csv", "path,label\nx.png,a\ny.png,b\n", "none of its 2 files"),
    "table of one class": (
        "t.csv",
        "path,label\ncat/000.png,a\ncat/001.png,a\n",
        "one class|at least two labels",
    ),
    "table no parquet": ("t.parquet", "text", "Parquet"),
    "archive damaged": ("t.zip", "PK", "damaged, or no archive"),
    "tar damaged": ("t.tar", "text", "damaged, or no archive"),
    "a text file": ("t.txt", "text", "none of what is read"),
}
DATA |= {
    name: Row(
        f"run --data {{t}}/{file} --dataset.images {{img}} --out {{t}}/run",
        3,
        says,
        f"text {file} {text}",
        BEGINS,
    )
    for name, (file, text, says) in TABLES.items()
}
ARCHIVES = {
    "zip leads out": ("escape.zip", "no class folders|no usable image|lead"),
    "tar of links": ("links.tar", "no class folders|no usable image|lead"),
    "zip bomb": ("bomb.zip", "no usable image|that is a bomb"),
}
DATA |= {
    name: Row(f"run --data {{t}}/{file} --out {{t}}/run", 3, says, f"archive {file}", BEGINS)
    for name, (file, says) in ARCHIVES.items()
}

AFTER = {
    "predict of no run": Row("predict {t} --data {img} --out {t}/x.csv", 3, "holds no finished model"),
    "predict of nothing": Row("predict {t}/none --data {img} --out {t}/x.csv", 3, "does not exist"),
    "predict by a file": Row("predict {t}/f --data {img} --out {t}/x.csv", 3, "is a file", "text f a"),
    "predict nothing there": Row(
        "predict {run} --data {t}/none --out {t}/x.csv", 3, "no such file or folder"
    ),
    "predict an empty folder": Row(
        "predict {run} --data {t}/d --out {t}/x.csv", 3, "no file in it", "folder d"
    ),
    "predict out there": Row(
        "predict {run} --data {img} --out {t}/x.csv", 2, "nothing is overwritten", "text x.csv a"
    ),
    "predict below a file": Row(
        "predict {run} --data {img} --out {t}/f/x.csv", 5, "cannot be written", "text f a"
    ),
    "predict part of another": Row(
        "predict {run} --data {img} --out {t}/x.csv",
        2,
        "begun by another model",
        'text x.csv.part {"dlp_fast":1}',
    ),
    "predict no option": Row("predict {run} --data {img}", 2, "--out"),
    "predict only bad files": Row(
        "predict {run} --data {t}/d --out {t}/x.csv",
        3,
        "no file could be used",
        "text d/a.png text",
        ("x.csv",),
    ),
    "predict": Row("predict {run} --data {img} --out {t}/x.csv", 0, "6 images predicted", "", ("x.csv",)),
    "predict one bad file": Row(
        "predict {run} --data {img} {t}/a.png --out {t}/x.csv",
        0,
        "1 file could not",
        "text a.png text",
        ("x.csv",),
    ),
    "scan-new of no run": Row("scan_new {t} --data {img} --out {t}/x.csv", 3, "holds no finished run"),
    "scan-new out there": Row(
        "scan_new {run} --data {img} --out {t}/x.csv", 2, "overwritten", "text x.csv a"
    ),
    "scan-new strange class": Row(
        "scan_new {run} --data {img} --out {t}/x.csv", 3, "class cat, dog is not among"
    ),
    "scan-new nothing there": Row(
        "scan_new {run} --data {t}/none --out {t}/x.csv", 3, "none: no such folder"
    ),
    "scan-new without checkpoints": Row(
        "scan_new {t}/run --data {t}/new --out {t}/x.csv", 3, "holds no network of stage 1", "no checkpoints"
    ),
    "evaluate of no run": Row("evaluate {t} --data {img}", 3, "holds no finished model"),
    "evaluate nothing there": Row("evaluate {run} --data {t}/none", 3, "no such folder"),
    "evaluate strange class": Row("evaluate {run} --data {img}", 3, "class cat, dog is not among"),
    "evaluate half of a pair": Row("evaluate {run} --data {img} --target 1", 2, "belong together"),
    "evaluate target unknown": Row(
        "evaluate {run} --data {img} --triggered {img} --target x", 2, "'x' does not exist"
    ),
    "evaluate": Row(
        "evaluate {t}/run --data {t}/new",
        0,
        "clean accuracy",
        "copied run with images",
        ("run/evaluation.json",),
    ),
    "report of no run": Row("report.__main__ {t}", 3, "holds no finished run"),
    "report of nothing": Row("report.__main__ {t}/none", 3, "is no folder"),
    "report into nowhere": Row("report.__main__ {run} --out {t}/none/r.html", 5, "r.html cannot be written"),
    "report onto a folder": Row(
        "report.__main__ {run} --out {t}/d", 5, "cannot be written|directory", "folder d"
    ),
    "export of no run": Row("export {t}/none --format csv --out {t}/e", 3, "is no folder"),
    "export unknown format": Row("export {run} --format xml --out {t}/e", 2, "format"),
    "export opset of csv": Row("export {run} --format csv --out {t}/e --opset 18", 2, "are of --format onnx"),
    "export opset 1": Row("export {run} --format onnx --out {t}/e --opset 1", 2, "--opset: "),
    "export full": Row("export {run} --format csv --out {t}/e", 2, "nothing is overwritten", "text e/a mine"),
    "export below a file": Row("export {run} --format csv --out {t}/f/e", 5, "cannot be written", "text f a"),
    "export other images": Row(
        "export {run} --format imagefolder --out {t}/e --data {img}", 3, "not the one of the run|attack|class"
    ),
    "export torchvision of ours": Row("export {run} --format torchvision --out {t}/e", 2, "torchvision"),
    "export csv": Row(
        "export {run} --format csv --out {t}/e", 0, "kept.csv", "", ("e/kept.csv", "e/suspected.csv")
    ),
    "poison full": Row("poison --data digits --out {t}/o", 2, "nothing is overwritten", "text o/a mine"),
    "poison target": Row("poison --data digits --out {t}/o --target zebra", 2, "'zebra' does not exist"),
    "poison rate 0": Row("poison --data digits --out {t}/o --poison-rate 0", 2, "--poison-rate: "),
    "poison attack": Row("poison --data digits --out {t}/o --attack none", 2, "attack"),
    "poison nothing there": Row("poison --data {t}/none --out {t}/o", 3, "no such folder"),
    "poison among the images": Row(
        "poison --data {t}/data --out {t}/data/o", 2, "every folder is a class", "images"
    ),
    "poison below a file": Row("poison --data digits --out {t}/f/o", 5, "cannot be written", "text f a"),
}

REPORT, PREDICT = "report.__main__ {t}/run --out {t}/r.html", "predict {t}/run --data {img} --out {t}/x.csv"
CLEANLAB, EXPORT = "export {t}/run --format cleanlab --out {t}/e", "export {t}/run --format csv --out {t}/e"
DAMAGED = {
    "results no JSON": Row(REPORT, 3, "results.json", "damage results.json {"),
    "results a list": Row(REPORT, 3, "another version|results.json", "damage results.json []"),
    "results of another version": Row(REPORT, 3, "schema 1, this one reads 2", "edit results.json schema 1"),
    "results without a verdict": Row(REPORT, 3, "results.json", "edit results.json verdict null"),
    "results empty": Row(REPORT, 3, "results.json", "damage results.json"),
    "samples missing": Row(REPORT, 3, "samples.csv", "without samples.csv"),
    "samples empty": Row(REPORT, 3, "samples.csv", "damage samples.csv"),
    "samples without columns": Row(REPORT, 3, "samples.csv", "damage samples.csv a,b"),
    "samples binary": Row(EXPORT, 3, "samples.csv", "binary samples.csv"),
    "classes missing": Row(PREDICT, 3, "holds no finished model", "without classes.json"),
    "classes a list": Row(PREDICT, 3, "classes.json|damaged", "damage classes.json []"),
    "classes no JSON": Row(PREDICT, 3, "damaged", "damage classes.json {"),
    "classes with strange names": Row(PREDICT, 3, "damaged", 'damage classes.json {"classes":[1]}'),
    "model missing": Row(PREDICT, 3, "holds no finished model", "without model.safetensors"),
    "model empty": Row(PREDICT, 3, "damaged", "damage model.safetensors"),
    "model a pickle": Row(PREDICT, 3, "damaged", "unsafe model.safetensors"),
    "model with half its bytes": Row(PREDICT, 3, "damaged", "cut model.safetensors"),
    "model with one bit changed": Row(
        PREDICT, 3, "model.safetensors.*not.*as the run wrote", "flip model.safetensors"
    ),
    "predictions missing": Row(CLEANLAB, 3, "predictions.safetensors", "without predictions.safetensors"),
    "predictions changed": Row(CLEANLAB, 3, "predictions.safetensors", "flip predictions.safetensors"),
    "exhibits missing": Row(REPORT, 3, "exhibits.safetensors", "without exhibits.safetensors"),
    "exhibits damaged": Row(REPORT, 3, "exhibits.safetensors", "damage exhibits.safetensors x"),
    "list of hashes damaged": Row(PREDICT, 3, "SHA256SUMS", "damage SHA256SUMS x"),
}
ROWS = OPTIONS | FILES | DATA | AFTER | DAMAGED


class Payload:
    """What a pickle that is loaded would do: make a folder `pwned` in the working directory."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


def archive(file: Path) -> None:
    if file.name == "links.tar":
        with tarfile.open(file, "w") as tar:
            for name, target in (("cat/a.png", "/etc/hostname"), ("dog", "/etc")):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                tar.addfile(entry)
        return
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as into:
        if file.name == "escape.zip":
            into.writestr("../cat/a.png", "out")
            into.writestr("/dog/a.png", "out")
        else:
            for name in ("cat", "dog"):
                into.writestr(f"{name}/a.png", bytes(70_000_000))


def damaged(run: Path, how: str, name: str, rest: str) -> None:
    """A copy of the run at `run` with one file removed, rewritten, cut, or changed by a bit."""
    shutil.copytree(damaged.of, run)
    file = run / name
    if how == "without":
        file.unlink()
    elif how == "damage":
        file.write_text(rest)
    elif how == "edit":
        key, _, value = rest.partition(" ")
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: json.loads(value)}))
    elif how == "binary":
        file.write_bytes(bytes(range(256)))
    elif how == "unsafe":
        file.write_bytes(pickle.dumps(Payload()))
    elif how == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        assert how == "flip"
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)


def pictures_of(root: Path, *places: str, side: int = 16) -> None:
    for i, place in enumerate(places):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        picture(side, seed=i).save(root / place)


def both(root: Path) -> list[str]:
    return [f"{root}/{c}/{i}.png" for c in ("cat", "dog") for i in range(2)]


MADE = {
    "folder": lambda t, of: (t / of).mkdir(),
    "images": lambda t, of: pictures_of(t, *both("data")),
    "one class": lambda t, of: pictures_of(t, "data/cat/1.png", "data/cat/2.png"),
    "small": lambda t, of: pictures_of(t, *both("data"), side=4),
    "look alikes": lambda t, of: pictures_of(t, *both("data/Train2017"), *both("data/Test2017")),
    "splits": lambda t, of: pictures_of(t, *both("data/train"), *both("data/val")),
    "deep": lambda t, of: pictures_of(t, *both("data"), *both("data/cat/test")),
    "archive": lambda t, of: archive(t / of),
    "latin": lambda t, of: (t / "c.yaml").write_bytes(b"seed: \xff\xfe"),
    "yaml": lambda t, of: (t / "c.yaml").write_text(of),
    "pickle": lambda t, of: (t / "w.pt").write_bytes(pickle.dumps(Payload())),
    "weights": lambda t, of: save_file({"x": torch.zeros(3)}, t / "w.st"),
    "copied run": lambda t, of: shutil.copytree(damaged.of, t / "run"),
}


def make(scene: str, t: Path) -> None:
    kind = next(
        (one for one in sorted(MADE, key=len, reverse=True) if scene.startswith(one)), scene.partition(" ")[0]
    )
    of = scene.removeprefix(kind).strip(" ") if kind in MADE else scene.partition(" ")[2]
    if kind in MADE:
        MADE[kind](t, of)
    elif kind == "text":
        name, _, text = of.partition(" ")
        (t / name).parent.mkdir(parents=True, exist_ok=True)
        (t / name).write_text(text)
    elif scene == "bad class":
        pictures_of(t, *both("data"))
        make("text data/hen/1.png text", t)
    elif scene == "cifar code":
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
        for name in names:
            make(f"text c/cifar-10-batches-py/{name} x", t)
            (t / "c/cifar-10-batches-py" / name).write_bytes(pickle.dumps(Payload()))
    elif scene == "no checkpoints":
        shutil.copytree(damaged.of, t / "run", ignore=shutil.ignore_patterns("checkpoints"))
        pictures_of(t, "new/0/a.png")
    elif scene and scene != "locked run":
        name, _, rest = of.partition(" ")
        damaged(t / "run", kind, name, rest)
    if scene == "copied run with images":
        pictures_of(t, "new/0/a.png", "new/1/a.png")


def files(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file below `folder`; of a folder without one, nothing is said."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def locked(run: Path):
    """As another process does that works in the folder."""
    with (run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """{img}; no row changes it."""
    folder = image_folder(tmp_path_factory.mktemp("exits") / "images", each=3)
    before = files(folder)
    yield folder
    assert files(folder) == before


@pytest.fixture(scope="module")
def run(tiny_run):
    """{run}; no row changes it."""
    damaged.of = tiny_run[0]
    before = files(tiny_run[0])
    yield tiny_run[0]
    assert files(tiny_run[0]) == before


def test_the_table_is_long_enough():
    assert len(ROWS) >= 120


@pytest.mark.parametrize("name", ROWS)
def test_exit(name, images, request, tmp_path, monkeypatch):
    row = ROWS[name]
    of_a_run = "{run}" in row.words or ("{t}/run" in row.words and name in {**FILES, **AFTER, **DAMAGED})
    run = request.getfixturevalue("run") if of_a_run else None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path.parent / f"cache-{tmp_path.name}"))
    make(row.scene, tmp_path)
    if row.scene == "locked run":
        make("text run/.lock ", tmp_path)
    before = files(tmp_path)
    module, *words = shlex.split(row.words.format(t=tmp_path, img=images, run=run))
    with locked(tmp_path / "run") if row.scene == "locked run" else contextlib.nullcontext():
        done = command(module, *(QUICK if module == "run" else []), *words)
    told = " ".join(done.text.split())
    assert done.code == row.code, done.text
    assert re.search(row.says, told), told
    assert "Traceback" not in told and not (tmp_path / "pwned").exists()
    after = files(tmp_path)
    assert before.keys() <= after.keys(), "lost"
    new = {path for path in after if after[path] != before.get(path)}
    assert new <= set(row.left) if row.left is BEGINS else new == set(row.left)
