"""Zip and tar files, good and hostile: nothing is written outside of the cache folder."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile

import pytest
import torch
from corpus import png, two_classes

from dlp_fast.config import DataConfig
from dlp_fast.data import sources
from dlp_fast.errors import DataError, ResourceError

IMAGES = {f"{name}/{i}.png": png(seed=10 * k + i) for k, name in enumerate(("cat", "dog")) for i in range(3)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def zipped(path, files: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def tarred(path, files: dict[str, bytes], mode: str = "w", links: dict[str, str] | None = None):
    with tarfile.open(path, mode) as file:
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            file.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def same_as_folder(data, tmp_path) -> bool:
    from corpus import write

    plain = sources.load(write(tmp_path / "plain", IMAGES))
    same = torch.equal(data.train.images.pixels, plain.train.images.pixels)
    return same and data.train.paths == plain.train.paths and data.train.classes == plain.train.classes


@pytest.mark.parametrize("inner", ["", "my_images/", "a/b/"])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "tar.xz"])
def test_a_folder_in_an_archive(tmp_path, suffix, inner):
    files = {inner + name: data for name, data in IMAGES.items()}
    files |= {"__MACOSX/._x.png": b"junk", f"{inner}cat/.DS_Store": b"junk"}
    archive = tmp_path / f"set.{suffix}"
    if suffix == "zip":
        zipped(archive, files)
    else:
        tarred(archive, files, {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.xz": "w:xz"}[suffix])
    data = sources.load(archive)
    assert same_as_folder(data, tmp_path)
    assert (data.name, data.quarantine) == ("set", ())


def test_splits_in_an_archive(tmp_path):
    files = {f"d/{split}/{name}": data for split in ("train", "test") for name, data in IMAGES.items()}
    data = sources.load(zipped(tmp_path / "s.zip", files))
    assert (len(data.train), len(data.test)) == (6, 6)


@pytest.mark.parametrize("inner", ["", "d/"])
def test_splits_by_any_usual_name(tmp_path, inner):
    files = {f"{inner}{split}/{name}": data for split in ("Training", "VAL") for name, data in IMAGES.items()}
    data = sources.load(zipped(tmp_path / "s.zip", files))
    assert (len(data.train), len(data.test)) == (6, 6)
    assert any("so VAL is taken as the test set" in warning for warning in data.warnings)
    assert any("all 6 images are training images too" in warning for warning in data.warnings)


def test_one_split_alone_is_not_gone_into(tmp_path):
    with pytest.raises(DataError, match="there is no training split"):
        sources.load(zipped(tmp_path / "s.zip", {f"Test/{name}": data for name, data in IMAGES.items()}))


def test_a_folder_as_the_test_set_of_an_archive(tmp_path):
    two_classes(tmp_path / "more")
    data = sources.load(zipped(tmp_path / "s.zip", IMAGES), DataConfig(test=tmp_path / "more"))
    assert (len(data.train), len(data.test)) == (6, 4)


def test_it_is_unpacked_once_and_again_when_it_changes(tmp_path, cache):
    archive = zipped(tmp_path / "s.zip", IMAGES)
    root = sources.load(archive).root
    stamp = os.stat(f"{root}/cat/0.png").st_mtime_ns
    assert sources.load(archive).root == root
    assert os.stat(f"{root}/cat/0.png").st_mtime_ns == stamp
    zipped(archive, IMAGES | {"dog/9.png": png(seed=99)})
    data = sources.load(archive)
    assert data.root != root and len(data.train) == 7
    assert not [name for name in os.listdir(cache / "archives") if name.startswith("part-")]


EVIL = [
    "../evil.png",
    "/evil.png",
    "cat/../../../evil.png",
    "C:\\evil.png",
    "..\\..\\evil.png",
    "cat/" + "n" * 300,
]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out(tmp_path, cache, kind, name):
    files = {**IMAGES, name: png()}
    archive = zipped(tmp_path / "s.zip", files) if kind == "zip" else tarred(tmp_path / "s.tar", files)
    before = {path for path in tmp_path.rglob("*") if cache not in path.parents}
    data = sources.load(archive)
    assert len(data.train) == 6
    assert [(item.path, item.reason) for item in data.quarantine] == [(name, "not_a_regular_file")]
    assert before == {path for path in tmp_path.rglob("*") if cache not in path.parents and path != cache}
    assert not list(cache.rglob("evil*")) and not os.path.exists("/evil.png")


def test_links_and_what_goes_through_them(tmp_path, cache):
    outside = tmp_path / "outside"
    outside.mkdir()
    files = {**IMAGES, "owl/evil.png": png()}
    archive = tarred(tmp_path / "s.tar", files, links={"owl": str(outside), "cat/l.png": "/etc/hostname"})
    data = sources.load(archive)
    assert not list(outside.iterdir())
    assert {item.path: item.reason for item in data.quarantine} == dict.fromkeys(
        ("owl", "cat/l.png"), "not_a_regular_file"
    )
    assert data.train.classes == ("cat", "dog", "owl")
    assert not [path for path in cache.rglob("*") if path.is_symlink()]


def test_devices_and_fifos(tmp_path):
    archive = tarred(tmp_path / "s.tar", IMAGES)
    with tarfile.open(archive, "a") as file:
        info = tarfile.TarInfo("cat/fifo.png")
        info.type = tarfile.FIFOTYPE
        file.addfile(info)
    assert [item.path for item in sources.load(archive).quarantine] == ["cat/fifo.png"]


def test_a_name_that_is_there_twice(tmp_path):
    archive = tarred(tmp_path / "s.tar", IMAGES)
    with tarfile.open(archive, "a") as file:
        info = tarfile.TarInfo("./cat/0.png")
        info.size = 4
        file.addfile(info, io.BytesIO(b"evil"))
    data = sources.load(archive)
    assert data.quarantine[0].detail == "a second entry of this name"
    assert same_as_folder(data, tmp_path)


def test_a_file_and_a_folder_of_one_name(tmp_path):
    data = sources.load(
        tarred(tmp_path / "s.tar", {"dog": b"x", **IMAGES, "cat/0.png/x.png": png(), "owl/0.png": png()})
    )
    assert data.train.classes == ("cat", "owl")
    assert len(data.quarantine) == 4


def test_sizes_are_bounded(tmp_path, monkeypatch):
    files = {**IMAGES, "cat/big.png": bytes(2_000_000)}
    data = sources.load(zipped(tmp_path / "s.zip", files), DataConfig(max_megabytes=1))
    assert [(item.path, item.reason) for item in data.quarantine] == [("cat/big.png", "too_large")]
    again = sources.load(
        tmp_path / "s.zip", DataConfig(max_megabytes=64)
    )  # what was left out may be read now
    assert [(item.path, item.reason) for item in again.quarantine] == [("cat/big.png", "not_an_image")]
    monkeypatch.setattr("dlp_fast.data.sources.unpacking.ROOM", 0)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(20):
            file.writestr(f"cat/{i}.png", bytes(5_000_000))
    with pytest.raises(DataError, match="unpacks to more than 100 times its size"):
        sources.load(tmp_path / "bomb.zip")


def test_damaged_and_encrypted_and_empty(tmp_path):
    archive = zipped(tmp_path / "s.zip", IMAGES)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match="damaged, or no archive"):
        sources.load(archive)
    with pytest.raises(DataError, match=r"s.tar, unpacked into .*no class folders"):
        sources.load(tarred(tmp_path / "s.tar", {}))
    data = bytearray(zipped(tmp_path / "e.zip", {"cat/0.png": png()}).read_bytes())
    for start in (b"PK\x03\x04", b"PK\x01\x02"):
        data[data.index(start) + (6 if start[2] == 3 else 8)] |= 1
    (tmp_path / "e.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"encrypted.*unpack it yourself"):
        sources.load(tmp_path / "e.zip")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="set DLP_FAST_CACHE"):
        sources.load(zipped(tmp_path / "s.zip", IMAGES))


class TestWebDataset:
    def samples(self, first: int = 0, labels=("0", "1")) -> dict[str, bytes]:
        files = {}
        for i in range(first, first + 6):
            files[f"{i:04d}.png"] = png(seed=i)
            files[f"{i:04d}.cls"] = labels[i % 2].encode()
            files[f"{i:04d}.json"] = b"{}"
        return files

    def test_one_shard(self, tmp_path):
        data = sources.load(tarred(tmp_path / "s.tar", self.samples()))
        assert data.train.classes == ("0", "1")
        assert data.train.paths == tuple(f"{k}/{i:04d}.png" for k in (0, 1) for i in range(k, 6, 2))
        assert data.quarantine == ()

    def test_labels_with_line_ends_and_names(self, tmp_path):
        data = sources.load(tarred(tmp_path / "s.tar", self.samples(labels=("cat\n", " dog\r\n"))))
        assert data.train.classes == ("cat", "dog")

    @pytest.mark.parametrize("how", ["{0000..0001}", "*", "folder"])
    def test_shards(self, tmp_path, how):
        (tmp_path / "shards").mkdir()
        for i in range(2):  # the same keys in both
            files = {name.replace("000", "9", 1): data for name, data in self.samples(6 * i).items()}
            tarred(tmp_path / f"shards/s-{i:04d}.tar", files)
        data = sources.load(tmp_path / "shards" if how == "folder" else f"{tmp_path}/shards/s-{how}.tar")
        assert len(data.train) == 12

    @pytest.mark.parametrize(
        ("span", "told"),
        [
            ("{0..100000}", "are 100,001 shards; expected 1 to 100,000"),
            ("{3..1}", "from the lower number to the higher"),
            ("{0..99999999999999999}", "are 100,000,000,000,000,000 shards"),
        ],
    )
    def test_a_span_of_too_many(self, tmp_path, span, told):
        with pytest.raises(DataError, match=told):
            sources.load(f"{tmp_path}/s-{span}.tar")

    def test_a_sample_without_a_label_or_a_picture(self, tmp_path):
        files = self.samples()
        del files["0003.cls"], files["0004.png"]
        data = sources.load(tarred(tmp_path / "s.tar", files))
        assert len(data.train) == 4
        assert [(item.path, item.detail) for item in data.quarantine] == [
            ("0003.png", "no label beside it (.cls)")
        ]

    @pytest.mark.parametrize("label", ["../../x", "", ".x", "/x"])
    def test_labels_that_lead_out(self, tmp_path, label):
        with pytest.raises(DataError, match="cannot be the name of a folder"):
            sources.load(tarred(tmp_path / "s.tar", self.samples(labels=("0", label))))


def test_what_is_none_of_them(tmp_path):
    (tmp_path / "x.7z").write_bytes(b"7z")
    with pytest.raises(DataError, match=r"x.7z: none of what is read; unpack it, and give the folder; or"):
        sources.load(tmp_path / "x.7z")


def test_class_folders_are_still_class_folders(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat/x.zip").write_bytes(b"PK")
    assert sources.load(tmp_path).train.classes == ("cat", "dog")


class TestSeveralArchives:
    """A folder of archives: splits, classes, or parts of one set, as their names and their content say."""

    @pytest.mark.parametrize("top", ["", "{split}/"])
    def test_splits(self, tmp_path, top):
        for split in ("train", "test"):
            files = {top.format(split=split) + name: data for name, data in IMAGES.items()}
            zipped(tmp_path / f"{split}.zip", files)
        data = sources.load(tmp_path)
        assert (len(data.train), len(data.test), data.quarantine) == (6, 6, ())
        assert "test.zip, train.zip are taken for splits" in data.warnings[0]

    def test_a_class_each(self, tmp_path):
        for name in ("n01440764", "n01443537"):
            files = {f"{name}_{i}.JPEG": png(seed=i + len(name)) for i in range(2)}
            tarred(tmp_path / f"{name}.tar", files)
        data = sources.load(tmp_path)
        assert data.train.classes == ("n01440764", "n01443537") and len(data.train) == 4
        assert "are taken for a class each" in data.warnings[0]

    def test_parts_with_files_of_one_name(self, tmp_path):
        zipped(tmp_path / "part1.zip", IMAGES)
        zipped(tmp_path / "part2.zip", {"cat/0.png": png(seed=99), "cat/9.png": png(seed=98)})
        data = sources.load(tmp_path)
        assert len(data.train) == 7
        assert [item.detail for item in data.quarantine] == ["a file of this name came from another archive"]


@pytest.mark.parametrize("code", ["utf-8", "latin-1"])
def test_names_of_a_zip_that_says_no_encoding(tmp_path, code):
    """UTF-8 that is not told, as many programs write it, is read as such; what cannot be known is told."""
    raw = {"cat": "cã".encode(code), "dog": "dö".encode(code)}
    files = {f"{'#' * len(raw[name[:3]])}{name}": data for name, data in IMAGES.items()}
    data = zipped(tmp_path / "x.zip", files).read_bytes()
    for name, letters in raw.items():
        data = data.replace(b"#" * len(letters) + name.encode(), letters + name.encode())
    (tmp_path / "x.zip").write_bytes(data)
    found = sources.load(tmp_path / "x.zip")
    told = [w for w in found.warnings if "the names in it are not in UTF-8" in w]
    assert (found.train.classes == ("cãcat", "dödog"), len(told)) == (
        (True, 0) if code == "utf-8" else (False, 1)
    )


def test_labels_in_json_beside_the_images(tmp_path):
    def samples(label):
        files = {f"{i:04d}.png": png(seed=i) for i in range(6)}
        return files | {f"{i:04d}.json": f'{{"label": {label(i)}}}'.encode() for i in range(6)}

    data = sources.load(tarred(tmp_path / "s.tar", samples(lambda i: i % 2)))
    assert (data.train.classes, len(data.train)) == (("0", "1"), 6)
    with pytest.raises(DataError, match="no class folders"):  # one that says no label
        sources.load(tarred(tmp_path / "t.tar", samples(lambda i: "null" if i == 3 else 1)))
    with pytest.raises(DataError, match="cannot be the name of a folder"):
        sources.load(tarred(tmp_path / "u.tar", samples(lambda i: '"../x"')))


@pytest.mark.parametrize("folder", ["", "set/"])
def test_archives_within_an_archive(tmp_path, folder):
    inner = {
        f"{folder}{name}.zip": zipped(tmp_path / f"{name}.zip", IMAGES).read_bytes()
        for name in ("train", "test")
    }
    with pytest.raises(DataError, match=r"it holds archives, test\.zip, train\.zip") as told:
        sources.load(zipped(tmp_path / "outer.zip", inner))
    data = sources.load(str(told.value).rpartition("--data ")[2])
    assert (len(data.train), len(data.test)) == (6, 6)


class TestOneSplit:
    """What evaluate, scan_new and --test read: a folder, an archive of it, or a table."""

    def load(self, place, **options):
        return sources.load_split(place, DataConfig(**options), classes=("cat", "dog", "eel"), size=12)

    def pixels(self, tmp_path):
        from corpus import write

        return self.load(write(tmp_path / "plain", IMAGES))[0]

    @pytest.mark.parametrize("inside", ["", "set/", "set/test/"])
    def test_an_archive(self, tmp_path, inside):
        files = {inside + name: data for name, data in IMAGES.items()}
        if "test" in inside:
            files |= {f"set/train/{name}": png(seed=99) for name in IMAGES}
        found, refused = self.load(zipped(tmp_path / "s.zip", files))
        assert torch.equal(found.images.pixels, self.pixels(tmp_path).images.pixels)
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1] and refused == []

    @pytest.mark.parametrize("split", [False, True])
    def test_a_table(self, tmp_path, split):
        want = self.pixels(tmp_path)
        lines = ["file,label" + ",split" * split]
        lines += [f"plain/{name},{name.split('/')[0]}" + ",test" * split for name in reversed(IMAGES)]
        lines += ["plain/cat/0.png,eel,train"] * split
        (tmp_path / "t.csv").write_text("\n".join(lines))
        found, _ = self.load(tmp_path / "t.csv", images=tmp_path / "elsewhere")
        assert torch.equal(found.images.pixels, want.images.pixels)
        assert found.labels.tolist() == want.labels.tolist()

    @pytest.mark.parametrize(
        ("rows", "told"),
        [
            ("path,label\nx.png,owl\n", "label owl is none of the 3 classes trained on"),
            ("path,label,split\nplain/cat/0.png,cat,train\n", "no row is of split test"),
            ("path,label\nplain/no.png,cat\n", "none of its 1 files"),
        ],
    )
    def test_a_table_that_does_not_fit(self, tmp_path, rows, told):
        self.pixels(tmp_path)
        (tmp_path / "t.csv").write_text(rows)
        with pytest.raises(DataError, match=told):
            self.load(tmp_path / "t.csv")

    def test_as_the_test_set_of_a_folder(self, tmp_path):
        self.pixels(tmp_path)
        place = zipped(tmp_path / "t.zip", IMAGES)
        data = sources.load(tmp_path / "plain", DataConfig(test=place))
        assert len(data.test) == 6
