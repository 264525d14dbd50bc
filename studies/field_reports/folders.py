"""Folders and names: splits, links, run folders among images, duplicates, system folders, Unicode, paths, models."""

from __future__ import annotations

import csv
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np

from studies.field_reports.row import CLASSES, DRY, QUICK, Done, Row, command, images, picture

TWO = CLASSES[:2]
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def read(data: Path | str, *options: object, cwd: Path | None = None) -> Done:
    """Only look: a dry run."""
    return command("run", "--data", data, *DRY, *options, cwd=cwd)


def ran(data: Path | str, out: Path | str, *options: object, cwd: Path | None = None) -> Done:
    """A run of a few steps."""
    return command("run", "--data", data, "--out", out, *QUICK, "--model", "wrn-10-1", *options, cwd=cwd)


def link(target: object, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, place)


def splits(train: str, test: str, *said: str) -> Callable[[Path], None]:
    """The folders `train` and `test` are read as splits."""

    def check(here: Path) -> None:
        images(here / "data" / train)
        images(here / "data" / test, each=4, seed=1)
        read(here / "data").ended(0, "36 training images, 3 classes", "12 test images", *said)

    return check


def look_alike(*folders: str) -> Callable[[Path], None]:
    def check(here: Path) -> None:
        for seed, name in enumerate(folders):
            images(here / "data" / name, TWO, each=3, seed=seed)
        done = read(here / "data")
        done.ended(3, "look like splits", "--data", "--dataset.test", "--dataset.splits none")
        own = read(here / "data" / folders[0], "--test", here / "data" / folders[1])
        own.ended(0, "6 training images, 2 classes", "6 test images")

    return check


def ordinary(*classes: str) -> Callable[[Path], None]:
    """Names of classes that have to do with names of splits."""

    def check(here: Path) -> None:
        images(here / "data", classes, each=4)
        read(here / "data").ended(
            0, f"{4 * len(classes)} training images, {len(classes)} classes", "no test set"
        )

    return check


def one_linked(here: Path) -> None:
    images(here / "store")
    images(here / "data", TWO)
    link(here / "store/owls", here / "data/owls")
    read(here / "data").ended(3, "class owls is a link to", "store/owls", "--dataset.follow-links", "cp -rL")
    read(here / "data", "--dataset.follow-links").ended(0, "36 training images, 3 classes")


def all_linked(here: Path) -> None:
    images(here / "store")
    for name in CLASSES:
        link(f"../store/{name}", here / "data" / name)
    read(here / "data").ended(3, "classes cats, dogs, owls are links", "--dataset.follow-links")
    read(here / "data", "--dataset.follow-links").ended(0, "36 training images, 3 classes")


def test_linked(here: Path) -> None:
    images(here / "data/train")
    images(here / "store", each=4, seed=1)
    link("../store", here / "data/test")
    read(here / "data").ended(3, "split test is a link to", "--dataset.follow-links")
    read(here / "data", "--dataset.follow-links").ended(0, "36 training images", "12 test images")


def both_linked(here: Path) -> None:
    images(here / "store")
    images(here / "more", each=4, seed=1)
    link(here / "store", here / "data/train")
    link(here / "more", here / "data/test")
    read(here / "data").ended(3, "splits test, train are links to", "--dataset.follow-links")
    read(here / "data", "--dataset.follow-links").ended(0, "36 training images", "12 test images")


def broken_links(here: Path) -> None:
    images(here / "data/train")
    link("/nonexistent/test", here / "data/test")
    read(here / "data").ended(3, "split test is a link to /nonexistent/test, which does not exist")
    images(here / "flat")
    link("/nonexistent/yaks", here / "flat/yaks")
    read(here / "flat").ended(0, "36 training images, 3 classes", "links that lead nowhere: yaks")


def cycle(here: Path) -> None:
    images(here / "data")
    link("..", here / "data/cats/up")
    link("../dogs", here / "data/cats/others")
    link("loop", here / "data/cats/loop")
    done = read(here / "data", "--dataset.follow-links")
    done.ended(0, "36 training images, 3 classes", "each folder is read once", "cats/others, cats/up")
    done.ended(0, "1 file cannot be used")


def link_to_link(here: Path) -> None:
    images(here / "store", ("owls",))
    images(here / "data", TWO)
    link("store/owls", here / "first")
    link("../first", here / "data/owls")
    read(here / "data", "--dataset.follow-links").ended(0, "36 training images, 3 classes")


def alias(here: Path) -> None:
    images(here / "data")
    link("cats", here / "data/felines")
    for options in ((), ("--dataset.follow-links",)):
        read(here / "data", *options).ended(0, "36 training images, 3 classes", "read once", "felines")


def nested_link(here: Path) -> None:
    images(here / "data")
    images(here / "store", ("more",), each=5, seed=2)
    link("../../store/more", here / "data/cats/more")
    read(here / "data").ended(
        0, "36 training images", "left out: cats/more; to read them give --dataset.follow-links"
    )
    read(here / "data", "--dataset.follow-links").ended(0, "41 training images", unsaid=("cannot be used",))


def linked_files(here: Path) -> None:
    images(here / "store")
    for file in (here / "store").glob("*/*"):
        link(file, here / "data" / file.relative_to(here / "store"))
    read(here / "data").ended(3, "36 link_leaves_folder", "--dataset.follow-links")
    read(here / "data", "--dataset.follow-links").ended(0, "36 training images, 3 classes")


def exported_links(here: Path) -> None:
    one_linked(here)
    ran(here / "data", here / "r", "--dataset.follow-links").ended(0)
    command("export", here / "r", "--format", "imagefolder", "--out", here / "e").ended(0)
    assert len(list((here / "e/images/owls").iterdir())) > 0
    command("evaluate", here / "r", "--data", here / "data").ended(3, "class owls is a link to")
    command("evaluate", here / "r", "--data", here / "data", "--follow-links").ended(0)


def in_the_data(here: Path) -> None:
    images(here / "data")
    for out in ((), ("--out", "result"), ("--out", here / "data"), ("--out", here / "data/cats/x")):
        done = command("run", "--data", ".", *out, *QUICK, cwd=here / "data")
        done.ended(2, "in --data", "every folder is a class", "Choose an --out outside")
        assert sorted(p.name for p in (here / "data").iterdir()) == sorted(CLASSES)
    link("data", here / "other_name")
    ran(here / "data", here / "other_name/r").ended(2, "in --data")
    read(here / "data", "--out", here / "data/r").ended(2, "in --data")
    more = ("--format", "csv", "--out", here / "data/lists")
    command("poison", "--data", here / "data", "--out", here / "data/p", "--target", "cats").ended(
        2, "in --data"
    )
    ran(here / "data", here / "r").ended(0)
    command("export", here / "r", *more).ended(2, "in --data")
    assert sorted(p.name for p in (here / "data").iterdir()) == sorted(CLASSES)


def data_in_the_run(here: Path) -> None:
    images(here / "r/images")
    ran(here / "r/images", here / "r").ended(2, "lies in --out")
    assert [p.name for p in (here / "r").iterdir()] == ["images"]


def runs_among_images(here: Path) -> None:
    images(here / "data")
    ran(here / "data", here / "r").ended(0)
    shutil.copytree(here / "r", here / "data/runs/2026-01-01-data")
    shutil.copytree(here / "r", here / "data/cats/r")
    done = read(here / "data")
    done.ended(0, "36 training images, 3 classes", "left out, as run folders of dlp_fast: runs, cats/r")
    read(here / "r").ended(3, "a run folder of dlp_fast; give the folder of the images")


def same_place(here: Path) -> None:
    images(here / "data")
    ran(here / "data", here / "r").ended(0)
    link("data", here / "link")
    for place in (f"{here}/data/", "data", "./data", "link", f"{here}/x/../data"):
        ran(place, here / "r", cwd=here).ended(0, "finished already")
    images(here / "other", seed=3)
    ran(here / "other", here / "r").ended(2, "holds a run with another configuration", "other now")


def other_directory(here: Path) -> None:
    images(here / "data")
    (here / "away").mkdir()
    ran("data", "r", cwd=here).ended(0)
    out = ("--format", "imagefolder", "--out", here / "e")
    command("export", here / "r", *out, cwd=here / "away").ended(0, "36 images")
    config = json.loads((here / "r/results.json").read_text())["config"]
    assert config["data"] == str(here / "data")
    (here / "data").rename(here / "moved")
    shutil.rmtree(here / "e")
    done = command("export", here / "r", *out, cwd=here / "away")
    done.ended(3, "where the run found its images, is no longer there", "--data DIR", unsaid=("`digits`",))
    command("export", here / "r", *out, "--data", here / "moved").ended(0, "36 images")


def other_test_directory(here: Path) -> None:
    images(here / "data")
    images(here / "holdout", each=4, seed=1)
    ran("data", "r", "--test", "holdout", cwd=here).ended(0, "12 test images")
    ran(here / "data", here / "r", "--dataset.test", here / "holdout").ended(0, "finished already")
    shutil.rmtree(here / "holdout")
    command("export", here / "r", "--format", "imagefolder", "--out", here / "e").ended(0, "36 images")


def placeholders(here: Path) -> None:
    images(here / "data")
    same = picture(np.random.default_rng(99), 4)
    for name in CLASSES:
        for i in range(10):
            same.save(here / "data" / name / f"na_{i}.png")
    read(here / "data").ended(
        0,
        "30 images with the same bytes under different labels (1 picture), such as cats/na_0.png and dogs/na_0.png",
    )


def placeholders_in_one(here: Path) -> None:
    images(here / "data")
    for i in range(5):
        shutil.copy(here / "data/cats/000.png", here / "data/cats" / f"again_{i}.png")
    read(here / "data").ended(0, "41 training images", unsaid=("same bytes",))


def leak(here: Path) -> None:
    images(here / "data/train")
    images(here / "data/test", each=2, seed=1)
    read(here / "data").ended(0, "6 test images", unsaid=("training images too",))
    for i in range(3):
        shutil.copy(here / f"data/train/cats/00{i}.png", here / f"data/test/cats/leak_{i}.png")
    shutil.copy(here / "data/train/cats/009.png", here / "data/test/owls/leak.png")
    read(here / "data").ended(
        0, "4 of 10 images are training images too", "test/owls/leak.png; 1 of them under another label there"
    )
    read(here / "data/train", "--test", here / "data/train").ended(3, "this is the training set")


def unicode_forms(here: Path) -> None:
    images(here / "data/train", (NFD, "b"))
    images(here / "data/test", (NFC, "b"), each=4, seed=1)
    done = read(here / "data")
    done.ended(0, "8 test images", f"class {NFC} is taken as class cafe\\u0301", "Unicode form")


def two_forms(here: Path) -> None:
    images(here / "data", (NFC, NFD, "b"))
    read(here / "data").ended(0, "3 classes", f"cafe\\u0301 and {NFC} are two classes", "Unicode form")


def trailing_space(here: Path) -> None:
    images(here / "data/train", ("owls ", "b"))
    images(here / "data/test", ("owls", "b"), each=4, seed=1)
    read(here / "data").ended(3, "class owls is not among", "owls\\x20", "differ in spaces")


def other_case(here: Path) -> None:
    images(here / "data/train", ("Cats", "b"))
    images(here / "data/test", ("cats", "b"), each=4, seed=1)
    read(here / "data").ended(
        3, "class cats is not among", "cats and Cats differ in upper and lower case alone"
    )


def odd_names(here: Path) -> None:
    names = ("猫 🐱", 'a,b;"c"', "[red]x[bold]", "trailing ", "=cmd|x", "-dash", "n\nl")
    images(here / "data", names, each=4)
    ran(here / "data", here / "r").ended(0, "28 training images, 7 classes")
    with (here / "r/samples.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["label"] for row in csv.DictReader(file)}
    assert {"trailing\\x20", "'=cmd|x", "n\\nl"} <= labels, labels
    command("export", here / "r", "--format", "imagefolder", "--out", here / "e").ended(0)
    assert {p.name for p in (here / "e/images").iterdir()} <= set(names)


def system_folders(here: Path) -> None:
    for name in ("@eaDir", "__MACOSX", "lost+found", "#recycle", "$RECYCLE.BIN", "System Volume Information"):
        images(here / name / "data")
        images(here / name / "data", (name,), each=2)
        images(here / name / "data/cats", (name,), each=2)
        done = read(here / name / "data")
        done.ended(0, "36 training images, 3 classes", f"left out, as files of the operating system or of a network "
                   f"storage: {name}, cats/{name}", unsaid=("same bytes",))  # fmt: skip


def mac_archive(here: Path) -> None:
    images(here / "data")
    for name in CLASSES:
        place = here / "data/__MACOSX" / name
        place.mkdir(parents=True)
        (place / "._000.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
        (here / "data" / name / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    read(here / "data").ended(0, "36 training images, 3 classes", "__MACOSX", unsaid=("cannot be used",))


def system_files(here: Path) -> None:
    images(here / "data")
    for name in ("Thumbs.db", "desktop.ini", "thumbs.db"):
        (here / "data/cats" / name).write_bytes(b"junk")
    read(here / "data").ended(0, "36 training images", "cats/Thumbs.db", unsaid=("cannot be used",))


def empty_class(here: Path) -> None:
    images(here / "data")
    (here / "data/yaks").mkdir()
    (here / "data").chmod(0o555)
    read(here / "data").ended(0, "36 training images, 3 classes", "no file in yaks, so that it is no class")
    (here / "data").chmod(0o755)


def unusable_class(here: Path) -> None:
    images(here / "data", TWO)
    (here / "data/owls").mkdir()
    for i in range(6):
        file = here / "data/owls" / f"{i}.HEIC"
        file.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes([i]) * 200)
    ran(here / "data", here / "r").ended(
        3, "no usable image in class owls (6 files: ", "quarantine.csv lists the 6 files"
    )
    assert len((here / "r/quarantine.csv").read_text().splitlines()) == 7


def test_flat(here: Path) -> None:
    images(here / "data/train")
    images(here / "data", ("test",), each=5, seed=1)
    read(here / "data").ended(
        0, "no test set", "test holds no class folders", "expected test/<class>/<image>"
    )


def other_test(here: Path) -> None:
    images(here / "data")
    images(here / "elsewhere", each=4, seed=1)
    images(here / "data/holdout", each=5, seed=2)
    read(here / "data", "--test", here / "elsewhere", "--dataset.splits", "none").ended(
        0, "12 test images", "4 classes"
    )
    read(here / "data", "--dataset.test", here / "data/holdout").ended(0, "15 test images", "3 classes")
    read(here / "data", "--test", here / "nothing").ended(3, "nothing: no such folder")


def test_split(here: Path) -> None:
    images(here / "data/train")
    images(here / "data/test", each=4, seed=1)
    images(here / "data/night", each=5, seed=2)
    read(here / "data", "--dataset.test-split", "night").ended(0, "15 test images", "not read: test")
    read(here / "data", "--dataset.test-split", "day").ended(3, "no such folder", "there are: night, test")


def class_named_train(here: Path) -> None:
    images(here / "data", ("car", "plane"))
    images(here / "data/train", ("steam", "diesel"))
    done = read(here / "data")
    done.ended(
        3, "car, plane beside it hold images too", "--dataset.splits none", "/train (and --dataset.test)"
    )
    read(here / "data", "--dataset.splits", "none").ended(0, "48 training images, 3 classes")


def no_training_split(here: Path) -> None:
    images(here / "data/test")
    images(here / "data/val")
    read(here / "data").ended(3, "there is no training split")


def too_high(here: Path) -> None:
    images(here / "data/my_images")
    read(here / "data").ended(3, "one class (my_images)", "perhaps --data", "data/my_images is meant")


def wrong_model(here: Path) -> None:
    images(here / "data")
    unsaid = ("training images",)  # it is said before anything is scanned
    read(here / "data", "--model", "resnet50").ended(
        2, "perhaps you meant torchvision:resnet50", unsaid=unsaid
    )
    done = ran(here / "data", here / "r", "--model", "torchvision:resnet9")
    done.ended(2, "perhaps you meant torchvision:resnet18", unsaid=unsaid)
    assert not (here / "r").exists()


def plural(here: Path) -> None:
    images(here / "data")
    (here / "data/cats/bad.png").write_bytes(b"text")
    read(here / "data").ended(0, "1 file cannot be used")


def address(here: Path) -> None:
    read("https://x.org/a.zip").ended(2, "https://x.org/a.zip is an address")


ROWS = [
    Row("F3.capital", "Train/ and Test/", splits("Train", "Test")),
    Row("F3.ing", "training/ and testing/", splits("training", "testing")),
    Row("F3.eval", "TRAIN/ and Evaluation/", splits("TRAIN", "Evaluation")),
    Row("F3.year", "Train2017/, Test2017/, Val2017/", look_alike("Train2017", "Test2017", "Val2017")),
    Row("F3.set", "training_set/ and test_set/", look_alike("training_set", "test_set")),
    Row("F3.seg", "seg_train/, seg_test/ and seg_pred/", look_alike("seg_train", "seg_test", "seg_pred")),
    Row("F3.valid", "classes valid and invalid", ordinary("valid", "invalid")),
    Row("F3.tubes", "classes test tube, training shoes, tram", ordinary("test tube", "training shoes", "tram")),
    Row("F3.train", "a class train of pictures beside bus and car", ordinary("train", "bus", "car")),
    Row("F3.none", "test and val, but no train", no_training_split),
    Row("F4.class", "one class is a link", one_linked),
    Row("F4.all", "all classes are relative links", all_linked),
    Row("F4.test", "test is a link", test_linked),
    Row("F4.both", "train and test are links", both_linked),
    Row("F4.broken", "links that lead nowhere", broken_links),
    Row("F4.cycle", "links in circles", cycle),
    Row("F4.chain", "a link to a link", link_to_link),
    Row("F4.alias", "a class under two names", alias),
    Row("F4.nested", "a linked folder within a class", nested_link),
    Row("F4.files", "all files are links out of the folder", linked_files),
    Row("F4.export", "export and evaluate with links", exported_links),
    Row("F7.inside", "--out within --data", in_the_data),
    Row("F7.around", "--data within --out", data_in_the_run),
    Row("F7.runs", "run folders among the images", runs_among_images),
    Row("F10", "the same folder written in another way", same_place),
    Row("F11", "one placeholder in all classes", placeholders),
    Row("F11.one", "copies within one class", placeholders_in_one),
    Row("F14", "NFD in train, NFC in test", unicode_forms),
    Row("F14.two", "NFC and NFD as two classes", two_forms),
    Row("F14.space", "a class with a trailing space", trailing_space),
    Row("F14.case", "Cats in train, cats in test", other_case),
    Row("F14.odd", "names with quotes, newlines, formulas, brackets", odd_names),
    Row("F15", "@eaDir, __MACOSX, lost+found, ...", system_folders),
    Row("F15.mac", "an archive from a Mac", mac_archive),
    Row("F15.files", "Thumbs.db and desktop.ini", system_files),
    Row("F16", "an empty class folder, read-only", empty_class),
    Row("F16.heic", "a class of HEIC files alone", unusable_class),
    Row("F17.val", "train and val", splits("train", "val", "val is taken as the test set")),
    Row("F17.valid", "Train and Valid", splits("Train", "Valid", "Valid is taken as the test set")),
    Row("F17.test", "another folder as the test set", other_test),
    Row("F17.split", "a test split of any name", test_split),
    Row("F18", "test without class folders", test_flat),
    Row("F19", "a class train that has folders", class_named_train),
    Row("F20", "export from elsewhere, and of moved images", other_directory),
    Row("F20.test", "a test set elsewhere, and gone", other_test_directory),
    Row("F25", "test images that are training images", leak),
    Row("F26", "a wrong model name", wrong_model),
    Row("small.plural", "one file that cannot be used", plural),
    Row("small.high", "a folder too high", too_high),
    Row("small.url", "an address", address),
]  # fmt: skip
