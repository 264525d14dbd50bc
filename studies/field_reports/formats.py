"""Formats and pixels: depths, shapes, formats of phones, tables, archives, names in any script."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studies.field_reports.row import CLASSES, DRY, QUICK, Row, command, images, picture, process

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def made(
    root: Path, make: Callable[[np.random.Generator, int, int], bytes | Image.Image | np.ndarray], **options
) -> Path:
    """`root/<class>/<number>`: what `make(rng, class number, number)` gives, saved as PNG or with `options`."""
    rng = np.random.default_rng(0)
    each, suffix = options.pop("each", 12), options.pop("suffix", "png")
    for kind, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            thing, place = make(rng, kind, i), root / name / f"{i:03d}.{suffix}"
            if isinstance(thing, bytes):
                place.write_bytes(thing)
            else:
                image = thing if isinstance(thing, Image.Image) else Image.fromarray(thing)
                image.save(place, **options)
    return root


def grey(rng: np.random.Generator, kind: int, bits: int) -> np.ndarray:
    """uint16 samples of which the lower `bits` are used."""
    samples = np.asarray(picture(rng, kind).convert("L")).astype(np.uint16)
    samples[0, 0] = 255
    return samples << (bits - 8)


def dry(here: Path, *options: object):
    return command("run", "--data", here / "data", *DRY, *options)


def depth(bits: int, suffix: str = "png") -> Callable[[Path], None]:
    def check(here: Path) -> None:
        made(here / "data", lambda rng, k, i: grey(rng, k, bits), suffix=suffix)
        dry(here).ended(0, f"36 files of 16-bit samples read as {bits} bits", unsaid=("black", "one colour"))

    return check


def true_sixteen(here: Path) -> None:
    made(here / "data", lambda rng, k, i: grey(rng, k, 16))
    dry(here).ended(0, "36 training images", unsaid=("16-bit", "one colour"))


def twelve_with_an_outlier(here: Path) -> None:
    made(here / "data", lambda rng, k, i: grey(rng, k, 16 if (k, i) == (1, 3) else 12), each=40)
    dry(here).ended(0, "read as 12 bits", "1 of them uses more, and is scaled alone", unsaid=("one colour",))


def mixture(here: Path) -> None:
    made(here / "data", lambda rng, k, i: grey(rng, k, 16 if k else 8))
    dry(here).ended(
        0, "dark or black (12 use 8 bits, 24 use 16 bits)", "12 of them black (all of class cats)"
    )


def forced(here: Path) -> None:
    made(here / "data", lambda rng, k, i: grey(rng, k, 10))
    dry(here, "--dataset.bit-depth", 12).ended(
        0, "read as 12 bits (as asked for; the largest sample is 1,020)"
    )


def scaled_alike(here: Path) -> None:
    """The run keeps the depth, and evaluate reads dark test pictures by it."""
    made(here / "data/train", lambda rng, k, i: grey(rng, k, 12))
    made(here / "data/test", lambda rng, k, i: grey(rng, k, 12) // 20, each=4)
    command("run", "--data", here / "data", "--out", here / "run", *QUICK).ended(0, "read as 12 bits")
    facts = json.loads((here / "run/classes.json").read_text())
    assert facts["bit_depth"] == 12 and facts["fit"] == "squash", facts
    command("evaluate", here / "run", "--data", here / "data/test").ended(0, "12 images")


def black_class(here: Path) -> None:
    made(here / "data", lambda rng, k, i: picture(rng, k) if k else np.zeros((32, 32, 3), np.uint8))
    dry(here).ended(
        0, "12 of 36 pictures are of one colour or nearly so, 12 of them black (all of class cats)"
    )


def wide(rng: np.random.Generator, kind: int, i: int, size: tuple[int, int] = (160, 90)) -> np.ndarray:
    pixels = np.array(picture(rng, kind, *size))
    if kind == 0 and i < 6:
        pixels[-24:, -24:] = 255
    return pixels


def seen_whole(here: Path) -> None:
    made(here / "data", wide)
    dry(here, "--dataset.image-size", 64).ended(0, "64 x 64 px", unsaid=("cut off",))
    dry(here, "--dataset.image-size", 64, "--dataset.fit", "pad").ended(0, unsaid=("cut off",))
    for loader in ("resident", "torchvision"):
        done = dry(here, "--dataset.image-size", 64, "--dataset.fit", "crop", "--loader", loader)
        done.ended(0, "43% of the average picture is cut off (--dataset.fit crop)")


def strips(here: Path) -> None:
    made(here / "data", lambda rng, k, i: picture(rng, k, 512, 32))
    dry(here, "--dataset.image-size", 64, "--dataset.fit", "crop").ended(
        0, "94% of the average picture is cut off"
    )
    dry(here, "--dataset.image-size", 64).ended(0, unsaid=("cut off",))


def mostly_heic(here: Path) -> None:
    made(here / "data", lambda rng, k, i: picture(rng, k) if i < 4 else HEIC + bytes([k, i]) * 99, each=40)
    done = command("run", "--data", here / "data", "--out", here / "run", *QUICK)
    done.ended(
        0, "108 files cannot be used: 108 ", "quarantine.csv", "108 of 120 image files (90%) are left out"
    )
    assert "HEIF: pillow-heif is not installed" in done.text or "unreadable" in done.text
    rows = (here / "run/quarantine.csv").read_text().splitlines()
    assert len(rows) == 109, len(rows)


def heic_class(here: Path) -> None:
    made(here / "data", lambda rng, k, i: picture(rng, k) if k else HEIC + bytes([k, i]) * 99)
    done = command("run", "--data", here / "data", "--out", here / "run", *QUICK)
    done.ended(3, "no usable image in class cats (12 files: 12 ", "quarantine.csv lists", "quarantine.csv")


def modern_formats(here: Path) -> None:
    made(here / "data", lambda rng, k, i: picture(rng, k))
    image = picture(np.random.default_rng(5), 0, 64, 48)
    for name, options in {
        "a.gif": {"save_all": True, "append_images": [image.rotate(90)]},
        "a.avif": {},
        "a.jp2": {},
        "grey.jp2": {},
    }.items():
        (image.convert("L") if name.startswith("grey") else image).save(here / "data/cats" / name, **options)
    dry(here, "--dataset.image-size", 32).ended(0, "40 training images", unsaid=("cannot be used",))


def long_text(here: Path) -> None:
    made(here / "data", lambda rng, k, i: picture(rng, k))
    text = PngInfo()
    text.add_text("Comment", "x" * 5_000_000, zip=True)
    picture(np.random.default_rng(5), 0).save(here / "data/cats/text.png", pnginfo=text)
    dry(here).ended(0, "37 training images", unsaid=("cannot be used",))


def transparent(here: Path) -> None:
    def half(rng, k, i):
        pixels = np.dstack([np.asarray(picture(rng, k)), np.full((32, 32), 255, np.uint8)])
        pixels[:16, :, 3] = 0
        return pixels

    made(here / "data", half)
    dry(here).ended(0, "36 of 36 pictures are transparent in part (50% of the average one)")


def scripts(here: Path) -> None:
    """Names that Matplotlib has no letters for; in a process of its own, whose warnings would be seen."""
    images(here / "data", ("猫", "😀", "ไทย"))
    done = process("run", "--data", here / "data", "--out", here / "run", *QUICK)
    done.ended(0, unsaid=("Glyph", "UserWarning"))
    page = (here / "run/report.html").read_text()
    assert all(f">{name}</text>" in page for name in ("猫", "😀", "ไทย"))


def quiet_dali(here: Path) -> None:
    made(here / "data", lambda rng, k, i: picture(rng, k))
    for name in CLASSES:
        picture(np.random.default_rng(5), 0).convert("CMYK").save(here / "data" / name / "cmyk.tif")
        picture(np.random.default_rng(6), 0).save(here / "data" / name / "icc.png", icc_profile=b"junk")
    done = process("run", "--data", here / "data", *DRY, "--loader", "dali")
    if done.code == 5:
        done.ended(5, "DALI")  # none here
    else:
        done.ended(0, unsaid=("libtiff", "libpng", "[ERROR]"))


def table(here: Path, rows: list[list[str]], header=("path", "label"), **how) -> Path:
    file = here / "labels.csv"
    with file.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as text:
        csv.writer(text, **how).writerows([header, *rows])
    return file


def flat(here: Path) -> list[list[str]]:
    """Pictures in one folder, and rows that name them."""
    (here / "flat").mkdir()
    rng, rows = np.random.default_rng(0), []
    for k, name in enumerate(CLASSES):
        for i in range(12):
            picture(rng, k).save(here / f"flat/{k}_{i:02d}.png")
            rows.append([f"{k}_{i:02d}.png", name])
    return rows


def tabled(here: Path, file: Path, *options: object):
    return command("run", "--data", file, *DRY, *options)


def csv_plain(here: Path) -> None:
    file = table(here, flat(here))
    tabled(here, file, "--dataset.images", here / "flat").ended(
        0, "labels: 36 training images, 3 classes", "no test set"
    )
    tabled(here, file).ended(3, "none of its 36 files is in", "--dataset.images")


def csv_of_excel(here: Path) -> None:
    rows = flat(here)
    file = table(here, rows, ("Image ", "Class"), delimiter=";", encoding="utf-8-sig", lineterminator="\r\n")
    tabled(here, file, "--dataset.images", here / "flat").ended(0, "36 training images")


def csv_troubles(here: Path) -> None:
    rows = flat(here)
    rows = [[str(here / "flat" / path), label] for path, label in rows]
    file = table(here, [*rows, *rows[:3], ["gone.png", "cats"], ["../../x.png", "cats"]])
    done = tabled(here, file, "--dataset.images", here / "flat")
    done.ended(
        0, "36 training images", "3 rows say what others say", "2 files cannot be used", "link_leaves_folder"
    )
    clash = table(here, [*rows, [rows[0][0], "owls"]])
    tabled(here, clash, "--dataset.images", here / "flat").ended(3, "is 'cats' in row 2 and 'owls' in row 38")


def csv_exports(here: Path) -> None:
    """The cleaned folder is made from the files that the table names."""
    file = table(here, flat(here))
    command("run", "--data", file, "--dataset.images", here / "flat", "--out", here / "run", *QUICK).ended(0)
    command("export", here / "run", "--format", "imagefolder", "--out", here / "clean").ended(0)
    copies = [p for p in (here / "clean").rglob("*.png")]
    assert copies and {p.stat().st_ino for p in copies} <= {
        p.stat().st_ino for p in (here / "flat").iterdir()
    }


def zipped(here: Path) -> None:
    images(here / "data")
    with zipfile.ZipFile(here / "set.zip", "w") as file:
        for path in sorted((here / "data").rglob("*.png")):
            file.write(path, f"my set/{path.relative_to(here / 'data')}")
        file.writestr("__MACOSX/my set/._x", b"junk")
        file.writestr("../evil.png", b"evil")
    done = process("run", "--data", here / "set.zip", *DRY, DLP_FAST_CACHE=str(here / "cache"))
    done.ended(0, "set: 36 training images, 3 classes", "1 file cannot be used: 1 not_a_regular_file")
    assert not (here / "evil.png").exists() and not (here / "cache/evil.png").exists()


def shards(here: Path) -> None:
    rng = np.random.default_rng(0)
    for shard in range(2):
        with tarfile.open(here / f"s-{shard:04d}.tar", "w") as file:
            for i in range(12):
                data = io.BytesIO()
                picture(rng, i % 3).save(data, "PNG")
                for name, content in (
                    (f"{i:04d}.png", data.getvalue()),
                    (f"{i:04d}.cls", str(i % 3).encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    file.addfile(info, io.BytesIO(content))
    done = process("run", "--data", here / "s-{0000..0001}.tar", *DRY, DLP_FAST_CACHE=str(here / "cache"))
    done.ended(0, "24 training images, 3 classes")


def items_and_names(here: Path) -> None:
    import dlp_fast

    rng = np.random.default_rng(0)
    rows = [{"image": picture(rng, i % 2), "label": i % 2} for i in range(12)]
    names = [["cat", "dog"][i % 2] for i in range(12)]
    pixels = np.stack([np.asarray(row["image"]) for row in rows])
    quick = {
        "supervised": {"epochs": 1, "min_steps": 2},
        "order": "supervised-unlearning",
        "model": "wrn-10-1",
    }
    quick["detection"] = {"networks": 1}
    assert dlp_fast.defend(rows, quiet=True, **quick).model.classes == ("0", "1")
    assert dlp_fast.defend(pixels, names, quiet=True, **quick).model.classes == ("cat", "dog")


ROWS = [
    Row("F2.8", "8-bit values in 16-bit PNG", depth(8)),
    Row("F2.10", "10 bits in 16-bit PNG", depth(10)),
    Row("F2.12tiff", "12 bits in 16-bit TIFF", depth(12, "tif")),
    Row("F2.14", "14 bits in 16-bit PNG", depth(14)),
    Row("F2.16", "16-bit PNG that uses 16 bits", true_sixteen),
    Row("F2.outlier", "12 bits, and one file of 16", twelve_with_an_outlier),
    Row("F2.mixture", "one class of 8 bits in 16, two of 16", mixture),
    Row("F2.forced", "the depth is given", forced),
    Row("F2.test", "test pictures are scaled as the training set, by evaluate too", scaled_alike),
    Row("F2.black", "a class of black pictures", black_class),
    Row("F5.wide", "a mark in the corner of wide pictures", seen_whole),
    Row("F5.strips", "strips of 512 x 32", strips),
    Row("F12.mostly", "most files are HEIC", mostly_heic),
    Row("F12.class", "one class is all HEIC", heic_class),
    Row("F13", "animated GIF, AVIF, JPEG 2000", modern_formats),
    Row("F22", "items of Hugging Face, labels that are names", items_and_names),
    Row("F23.csv", "a table of paths and labels", csv_plain),
    Row("F23.excel", "semicolons, a byte order mark, CRLF, other names of columns", csv_of_excel),
    Row(
        "F23.troubles",
        "absolute paths, missing files, paths that lead out, rows twice, two labels",
        csv_troubles,
    ),
    Row("F23.export", "the cleaned folder of a table", csv_exports),
    Row("F23.zip", "a zip of class folders, with a name that leads out", zipped),
    Row("F23.shards", "tar shards of WebDataset", shards),
    Row("F24", "PNG with a long compressed text", long_text),
    Row("F27", "class names in scripts that Matplotlib's fonts lack", scripts),
    Row("F28", "DALI, CMYK TIFF and a broken colour profile", quiet_dali),
    Row("F30", "transparent pictures", transparent),
]
