import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from dlp_fast.data import cifar, load
from dlp_fast.data.cifar import load_cifar10, unpickle_arrays
from dlp_fast.errors import DataError


def pixels(seed: int, n: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def batch(seed: int, n: int = 4) -> bytes:
    """A pickle as Python 2 and its numpy wrote them, which is what the published files are."""
    rows = pixels(seed, n).tobytes()
    parts = [
        b"\x80\x02}(U\x04data",
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
        b"(K\x01K" + bytes([n]) + b"M\x00\x0c\x86",
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R",
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        b"\x89T" + len(rows).to_bytes(4, "little") + rows + b"tb",
        b"U\x06labels](" + b"".join(b"K" + bytes([i % 10]) for i in range(n)) + b"eu.",
    ]
    return b"".join(parts)


BATCHES = {"data_batch_1": batch(1), "data_batch_2": batch(2), "test_batch": batch(3)}


def md5s(*names: str) -> dict[str, str]:
    return {name: hashlib.md5(BATCHES[name], usedforsecurity=False).hexdigest() for name in names}


EXPECTED = {"train_md5": md5s("data_batch_1", "data_batch_2"), "test_md5": md5s("test_batch")}


def as_folder(folder, files=BATCHES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def as_archive(folder, files=BATCHES):
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / cifar.ARCHIVE, "w:gz") as tar:
        for name, data in {"../../evil": b"x", **files}.items():
            info = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("layout", ["folder", "itself", "archive"])
def test_layouts(tmp_path, layout):
    {
        "folder": lambda: as_folder(tmp_path / cifar.FOLDER),
        "itself": lambda: as_folder(tmp_path),
        "archive": lambda: as_archive(tmp_path),
    }[layout]()
    data = load_cifar10(tmp_path, **EXPECTED)
    assert data.train_images.shape == (8, 32, 32, 3)
    assert data.test_labels.shape == (4,)
    np.testing.assert_array_equal(data.train_images[0].transpose(2, 0, 1).ravel(), pixels(1)[0])
    assert data.train_labels.tolist() == [0, 1, 2, 3] * 2
    assert not (tmp_path.parent / "evil").exists()


def test_changed_file_is_refused(tmp_path):
    as_folder(tmp_path, {**BATCHES, "data_batch_2": batch(9)})
    with pytest.raises(DataError, match="data_batch_2: not the published file"):
        load_cifar10(tmp_path, **EXPECTED)


def test_missing_file(tmp_path):
    as_folder(tmp_path, {"data_batch_1": BATCHES["data_batch_1"]})
    with pytest.raises(DataError, match=r"CIFAR-10 cannot be read .*data_batch_2"):
        load_cifar10(tmp_path, **EXPECTED)


def test_archive_that_lacks_a_file(tmp_path):
    as_archive(tmp_path, {"data_batch_1": BATCHES["data_batch_1"]})
    with pytest.raises(DataError, match="lacks data_batch_2, test_batch"):
        load_cifar10(tmp_path, **EXPECTED)


def test_archive_that_breaks_off(tmp_path):
    as_archive(tmp_path)
    path = tmp_path / cifar.ARCHIVE
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="CIFAR-10 cannot be read"):
        load_cifar10(tmp_path, **EXPECTED)


def test_not_there(tmp_path):
    with pytest.raises(DataError, match=r"neither cifar-10-batches-py/ nor cifar-10-python.tar.gz in it"):
        load(f"cifar10:{tmp_path}")


def test_published_md5s_are_asked_for(tmp_path):
    as_folder(tmp_path, {name: batch(1) for name in [*cifar.TRAIN_MD5, *cifar.TEST_MD5]})
    with pytest.raises(DataError, match=r"data_batch_1: not the published file \(md5 differs\)"):
        load(f"cifar10:{tmp_path}")


def test_no_network(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("network is unreachable")

    monkeypatch.setattr(cifar, "download_url", fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"could not be downloaded .*network is unreachable.*cifar10:DIR"):
        load("cifar10")


def test_download(tmp_path, monkeypatch):
    def download(url, root, filename, md5):
        assert (filename, md5) == (cifar.ARCHIVE, "c58f30108f718f92721af3b95e74349a")
        as_archive(tmp_path / "data")

    monkeypatch.setattr(cifar, "download_url", download)
    data = load_cifar10(None, download_to=tmp_path / "data", **EXPECTED)
    assert len(data.train_labels) == 8


class Evil:
    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, "touch owned"),
        Evil(eval, "open('owned', 'w')"),
        Evil(exec, "open('owned', 'w')"),
        Evil(open, "owned", "w"),
        Evil(getattr, os, "system"),
        Evil(__import__, "os"),
        Evil(np.load, "owned"),
        Evil(print, "owned"),
    ],
)
def test_pickles_do_not_run(tmp_path, monkeypatch, capsys, protocol, evil):
    monkeypatch.chdir(tmp_path)
    try:
        data = pickle.dumps({b"data": evil}, protocol=protocol)
    except TypeError:
        pytest.skip("cannot be pickled")
    with pytest.raises(DataError, match="batch: not a file of plain arrays"):
        unpickle_arrays(data, "batch")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_nonsense_is_not_a_pickle():
    for data in (b"", b"nonsense", batch(1)[:50]):
        with pytest.raises(DataError, match="not a file of plain arrays"):
            unpickle_arrays(data, "batch")


def test_batch_of_something_else(tmp_path):
    files = {"data_batch_1": pickle.dumps({b"data": [1, 2], b"labels": [1]}, protocol=3)}
    as_folder(tmp_path, files)
    md5 = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in files.items()}
    with pytest.raises(DataError, match="not a CIFAR-10 batch"):
        load_cifar10(tmp_path, train_md5=md5, test_md5={})


def test_plain_arrays_are_read():
    content = unpickle_arrays(batch(1), "batch")
    np.testing.assert_array_equal(content[b"data"], pixels(1))
    again = unpickle_arrays(pickle.dumps(content, protocol=3), "batch")
    np.testing.assert_array_equal(again[b"data"], pixels(1))
