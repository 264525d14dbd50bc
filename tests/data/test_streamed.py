"""Shards at an address: every image once, under an id that stays, read where it lies."""

from __future__ import annotations

import errno
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time

import fsspec
import pytest
import torch
import yaml
from corpus import png

from dlp_fast.commands.export import ExportConfig
from dlp_fast.commands.exported import Originals
from dlp_fast.commands.options import parse
from dlp_fast.commands.predict import PredictConfig
from dlp_fast.config import DataConfig, build, is_streamed, refuse_address, resolve
from dlp_fast.data import shards, sources
from dlp_fast.data.shards import ShardImages, Shards
from dlp_fast.errors import ConfigError, DataError, DlpError, ResourceError
from dlp_fast.runs.writer import fingerprint

IMAGES = {f"{name}/{i}.png": png(seed=10 * k + i) for k, name in enumerate(("cat", "dog")) for i in range(6)}
FROM_FILES = {"loader": "torchvision"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    fsspec.filesystem("memory").store.clear()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return content.getvalue()


def put(name: str, content: bytes) -> str:
    fsspec.filesystem("memory").pipe_file(f"/{name}", content)
    return f"memory://{name}"


def in_shards(files: dict[str, bytes], count: int = 3, stem: str = "set/train") -> str:
    for k in range(count):
        put(f"{stem}-{k:04d}.tar", tarred(dict(list(files.items())[k::count])))
    return f"memory://{stem}-*.tar"


def everything(images) -> torch.Tensor:
    return images.get(torch.arange(len(images)))


@pytest.mark.parametrize("loader", ["auto", "torchvision", "cached"])
def test_is_the_folder_of_the_same_files(tmp_path, loader):
    for name, content in IMAGES.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content)
    folder = sources.load(tmp_path / "set").train
    found = sources.load(in_shards(IMAGES), loader=loader).train
    assert isinstance(found.images, ShardImages) == (loader == "torchvision")
    assert sorted(found.sha256) == sorted(folder.sha256)  # every image once
    order = [folder.sha256.index(digest) for digest in found.sha256]
    assert torch.equal(everything(found.images), everything(folder.images)[order])
    assert found.classes == folder.classes and torch.equal(found.labels, folder.labels[order])
    fsspec.filesystem("memory").store.clear()
    if loader == "cached":  # each image is fetched once
        assert torch.equal(everything(found.images), everything(folder.images)[order])


def test_ids_are_those_of_any_listing():
    both = [in_shards(IMAGES), "memory://set/train-{0000..0002}.tar"]
    one, two = (sources.load(address).train for address in both)
    assert one.paths == two.paths and one.paths[0] == "train-0000.tar/cat/0.png"


def test_samples_with_their_labels_beside_them_and_splits_by_shard():
    samples = {}
    for k in range(8):
        samples |= {f"{k:05d}.png": png(seed=k), f"{k:05d}.cls": b"dog" if k % 2 else b"cat"}
    put("w/web-train-00.tar", tarred(samples))
    put("w/web-val-00.tar", tarred(dict(list(samples.items())[:4])))
    made = sources.load("memory://w/*.tar")
    assert made.train.classes == ("cat", "dog") and len(made.train) == 8 and len(made.test) == 2
    assert made.root is None
    assert "no test images; the validation images are the test set" in made.warnings[0]
    put("w/web-test-00.tar", tarred(dict(list(samples.items())[:8])))
    made = sources.load("memory://w/*.tar")
    assert len(made.test) == 4 and "2 validation images not read" in made.warnings[0]


@pytest.mark.parametrize("option", [{"test": "elsewhere"}, {"test_split": "x"}, {"splits": "none"}])
def test_options_of_a_folder_are_refused(option):
    with pytest.raises(ConfigError, match=f"dataset.{next(iter(option))}"):
        sources.load(in_shards(IMAGES), DataConfig(**option))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ECONNRESET])
def test_a_shard_that_cannot_be_fetched(monkeypatch, code):
    address = in_shards(IMAGES, 1)

    def fails(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", fails)
    with pytest.raises(DlpError) as told:
        sources.load(address)
    full = code == errno.ENOSPC
    assert isinstance(told.value, ResourceError if full else DataError)
    assert ("free some space" in str(told.value)) == full and "train-0000.tar" in str(told.value)


@pytest.mark.parametrize("call", ["glob", "ukey", "get_file", "open"])
def test_an_error_of_the_protocols_own(monkeypatch, call):
    """botocore's, such as one of missing credentials, is no OSError."""
    in_shards(IMAGES, 1)
    put("set/train-0000.parquet", b"")

    class NoCredentialsError(Exception):
        pass

    def fails(*_, **__):
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), call, fails)
    end = "parquet" if call == "open" else "tar"
    if call == "open":
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"^memory:/+set/.*NoCredentialsError: Unable to locate"):
        sources.load(f"memory://set/train-*.{end}")


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), StopIteration()])
def test_a_shard_that_is_another_now(monkeypatch, error):
    images = sources.load(in_shards(IMAGES), **FROM_FILES).train.images

    def fails(*_):
        raise error

    monkeypatch.setattr(Shards, "read", fails)
    with pytest.raises(DataError, match=f"cannot be read any more .{type(error).__name__}"):
        images.get(torch.tensor([0]))


def exported(address, run, data=None):
    """What export finds of a run on the shards at `address`."""
    run.mkdir()
    values = resolve(build({"data": address, "attack": "none"}, "a test"))
    (run / "config.resolved.yaml").write_text(yaml.safe_dump(values))
    train = sources.load(data or address).train
    (run / "data.sha256").write_text(fingerprint(train.paths, train.labels, train.sha256))
    return Originals(run, ExportConfig(run=run, format="imagefolder", out=run / "out", data=data))


def test_images_of_a_run_are_exported(tmp_path):
    address = in_shards(IMAGES)
    of = exported(address, tmp_path / "run")
    assert of.place(0, tmp_path / "0").read_bytes().startswith(b"\x89PNG")
    fsspec.filesystem("memory").store.clear()
    other = in_shards(IMAGES, stem="moved/train")
    assert len(exported(address, tmp_path / "moved", other).images) == len(IMAGES)
    fsspec.filesystem("memory").store.clear()
    with pytest.raises(DataError, match="no shard of this name"):
        Originals(tmp_path / "run", ExportConfig(run=tmp_path, format="imagefolder", out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "form", "said"),
    [
        (PredictConfig, ["run", "--data={}", "--out", "x"], "predict reads files of this machine alone"),
        (ExportConfig, ["run", "--format", "csv", "--out", "x", "--data", "{}"], None),
        (ExportConfig, ["run", "--format", "csv", "--out", "{}"], "only --data takes those"),
    ],
)
def test_where_an_address_may_stand(options, form, said):
    arguments = [argument.format("s3://b/x.tar") for argument in form]
    if said is None:
        assert parse(options, "export", "", arguments).data == "s3://b/x.tar"
        return
    with pytest.raises(ConfigError, match=said):
        parse(options, options.__name__.removesuffix("Config").lower(), "", arguments)


def test_addresses_by_protocol():
    good = ["s3://b/x-*.tar", "gs://b/x.parquet", "gcs://b/x.tar", "file:///x.tar", "--data=s3://b/x.tar"]
    assert all(map(is_streamed, good))
    for address in ("https://host/x.tar", "nosuch://x/a.tar", "s3://b/x.zip", "--data=ftp://b/x.tar"):
        assert not is_streamed(address)
        with pytest.raises(ConfigError, match=r"fetches only \.tar and \.parquet shards from s3://"):
            refuse_address(address)


def test_parquet(monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"bytes": content, "path": name} for name, content in IMAGES.items()]
    labels = [name.split("/")[0] for name in IMAGES]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"image": rows, "label": labels}), buffer, row_group_size=5)
    address = put("p/train.parquet", buffer.getvalue())
    one = sources.load(address, **FROM_FILES).train
    two = sources.load(in_shards(IMAGES), **FROM_FILES).train
    assert len(one) == len(two)
    by_digest = dict(zip(two.sha256, everything(two.images)))
    back = torch.arange(len(one)).flip(0)
    for i, picture in zip(back.tolist(), one.images.get(back)):
        assert torch.equal(picture, by_digest[one.sha256[i]])


def test_a_shard_is_checked_once(monkeypatch):
    address = in_shards(IMAGES)
    first = sources.load(address).train
    from dlp_fast.data.sources import streamed

    monkeypatch.setattr(streamed, "scan_tar", None)  # nobody is to call it again
    assert sources.load(address).train.paths == first.paths


def test_what_changed_is_told_and_checked_anew():
    address = in_shards(IMAGES, 1)
    images = sources.load(address, **FROM_FILES).train.images
    time.sleep(0.01)
    files = dict(zip(IMAGES, reversed(IMAGES.values())))
    put("set/train-0000.tar", tarred(files))
    with pytest.raises(DataError, match=r"train-0000\.tar.*has changed since it was checked"):
        everything(images)
    assert sources.load(address).train.sha256 != sources.load(address).train.sha256[::-1]
    fsspec.filesystem("memory").rm("/set/train-0000.tar")
    with pytest.raises(DataError, match="cannot be read any more"):
        everything(images)


def test_bad_files_are_left_out_and_told():
    address = in_shards({**IMAGES, "cat/broken.png": png()[:50], "loose.png": png(seed=99)})
    made = sources.load(address)
    assert len(made.train) == len(IMAGES)
    told = {item.path.split("/", 1)[1]: item.reason for item in made.quarantine}
    assert told.keys() == {"cat/broken.png", "loose.png"}


BROKEN = {f"cat/broken{i}.png": png(seed=i)[:50] for i in range(6)}


@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_many_lost_images_of_a_class_are_told(split):
    for stem in {"train", split}:
        put(f"s/{stem}.tar", tarred({**IMAGES, **(BROKEN if stem == split else {})}))
    want = f"{'train' if split == 'train' else 'test'}: 6 of 18 image files (33%) are left out; class cat lost 6 of 12"
    for _ in range(2):  # from the shard, and as it is remembered
        assert [one for one in sources.load("memory://s/*.tar").warnings if one.startswith(want)]


def test_images_that_are_left_out_for_their_size_are_told():
    made = sources.load(
        put("s/a.tar", tarred({**IMAGES, "cat/big.png": bytes(1_000_001)})), DataConfig(max_megabytes=1)
    )
    assert [one for one in made.warnings if one.startswith("train: 1 of 13 image files (8%) are left out")]


@pytest.mark.parametrize("lost", [BROKEN, dict.fromkeys(BROKEN), dict.fromkeys(BROKEN, b"no image")])
def test_lost_images_of_parquet_are_told(lost):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = IMAGES | lost
    buffer = io.BytesIO()
    columns = {"image": list(files.values()), "label": [name.split("/")[0] for name in files]}
    parquet.write_table(pyarrow.table(columns), buffer, row_group_size=5)
    made = sources.load(put("p/train.parquet", buffer.getvalue()))
    want = "train: 6 of 18 image files (33%) are left out; class cat lost 6 of 12"
    assert [one for one in made.warnings if one.startswith(want)]


def test_an_image_without_a_label_at_the_place_of_one_that_has_one():
    samples = {}
    for k in range(4):
        samples |= {f"{k}.png": png(seed=k), f"{k}.cls": b"dog" if k % 2 else b"cat"}
    made = sources.load(put("w/a.tar", tarred({**samples, "cat/0.png": png(seed=9)})))
    assert made.train.paths == ("a.tar/0.png", "a.tar/2.png", "a.tar/1.png", "a.tar/3.png")
    assert [(item.path, item.detail) for item in made.quarantine] == [
        ("a.tar/cat/0.png", "no label beside it (.cls)")
    ]


def test_several_splits_and_none_to_train_on():
    put("s/test.tar", tarred(IMAGES))
    made = sources.load("memory://s/*.tar")
    assert len(made.train) == len(IMAGES)  # one split alone is somebody's whole set
    assert "all images are of split test, and they are trained on" in made.warnings[0]
    put("s/val.tar", tarred(IMAGES))
    with pytest.raises(
        DataError, match="no usable image of split train; there are images of test, validation"
    ):
        sources.load("memory://s/*.tar")
    fsspec.filesystem("memory").rm("/s/val.tar")
    put("s/train.tar", tarred(BROKEN))
    with pytest.raises(
        DataError, match="no usable image of split train; there are images of test, train"
    ) as error:
        sources.load("memory://s/*.tar")
    assert len(error.value.quarantine) == len(BROKEN)


def test_few_parquet_files_are_open_at_once(monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    opened = []

    def counted(address, plain=shards.open_parquet):
        opened.append(plain(address))
        return opened[-1]

    monkeypatch.setattr(shards, "open_parquet", counted)
    count = 40
    for k in range(count):
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table({"image": [b"%d" % k]}), buffer)
        put(f"p/{k}.parquet", buffer.getvalue())
    images = Shards(tuple(f"memory://p/{k}.parquet" for k in range(count)))
    for k in (*range(count), *range(count)):
        assert images.read(k, 0, 1) == b"%d" % k
        assert sum(not one.closed for one in opened) <= 16


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: put("x/a.tar", tarred(IMAGES, "w:gz")), "compressed"),
        (lambda: put("x/a.tar", b"no tar at all" * 100), "damaged, or no archive"),
        (lambda: "memory://x/none.tar", "cannot be read"),
        (lambda: "memory://x/none-*.tar", "no shard of this name"),
        (lambda: put("x/a.tar", tarred({"cat/1.png": png()})), r"one class \(cat\)"),
        (lambda: "nosuch://x/a.tar", "an address; download"),
        (lambda: put("x/a.tar", tarred(IMAGES)[:1500]), r"^memory://x/a\.tar: damaged"),
        (lambda: put("x/a.tar", tarred(IMAGES)[:1024]), r"^memory://x/a\.tar: damaged"),
        (lambda: "memory://x/a-{000000..999999}.tar", "are 1,000,000 shards; expected 1 to 100,000"),
        (lambda: "memory://x/a-{3..1}.tar", "from the lower number to the higher"),
    ],
)
def test_what_cannot_be_used(make, said):
    with pytest.raises(DataError, match=said):
        sources.load(make())


@pytest.mark.slow
def test_from_an_object_store(tmp_path, monkeypatch):
    """The same from S3, as a local server of moto speaks it."""
    pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    log = (tmp_path / "server.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
    )
    try:
        for _ in range(300):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        fs = s3fs.S3FileSystem()
        fs.mkdir("bucket")
        for k in range(3):
            fs.pipe_file(f"bucket/train-{k}.tar", tarred(dict(list(IMAGES.items())[k::3])))
        found = sources.load("s3://bucket/train-*.tar", DataConfig(), **FROM_FILES).train
        beside = sources.load(in_shards(IMAGES), **FROM_FILES).train
        assert sorted(found.sha256) == sorted(beside.sha256)
        assert torch.equal(everything(found.images), everything(beside.images))
    finally:
        os.kill(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()
