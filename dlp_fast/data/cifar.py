"""CIFAR-10 from its own python files, without ever letting a pickle run.

The published files are pickles: they are md5-checked first and then read by an unpickler that can make
nothing but numpy arrays and plain values.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable

# As on its home page; torchvision has the same, and takes seconds to load.
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST_MD5 = {"test_batch": "40351d587109b95175f43aff81a1287e"}
_MAX_BYTES = 1 << 26

# What numpy's arrays are made of, under the names of numpy 1 and numpy 2.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct
    if hasattr(np, "_core")
    else np.core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
_ALLOWED["numpy._core.multiarray", "_reconstruct"] = _ALLOWED["numpy.core.multiarray", "_reconstruct"]


class Cifar10(NamedTuple):
    """Images uint8 [n, 32, 32, 3] and labels int64 [n] of both splits."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def unpickle_arrays(data: bytes, where: str) -> object:
    """Read a pickle of plain values and numpy arrays; anything else in it is a DataError."""
    try:
        return _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a pickle can fail in any way
        raise DataError(
            f"{where}: not a file of plain arrays ({error}); fetch CIFAR-10 again from its home page"
        ) from None


def download_url(url: str, root: str, filename: str, md5: str) -> None:
    """torchvision's, which takes seconds to load."""
    from torchvision.datasets import utils

    utils.download_url(url, root, filename, md5)


def load_cifar10(
    folder: str | Path | None = None,
    *,
    download_to: str | Path = "data",
    train_md5: dict[str, str] = TRAIN_MD5,
    test_md5: dict[str, str] = TEST_MD5,
) -> Cifar10:
    """Read CIFAR-10 from `folder` (which holds or is `cifar-10-batches-py`, or holds the tar.gz).

    Without `folder`, from `download_to`, downloading the archive there when it is missing.

    Raises:
        DataError: not there, not downloadable, or not the published bytes.
    """
    place = Path(folder if folder is not None else download_to)
    files = _read_files(place, [*train_md5, *test_md5])
    if files is None:
        if folder is not None:
            raise DataError(
                f"{printable(str(place))}: neither {FOLDER}/ nor {ARCHIVE} in it; "
                "name the folder that holds one of them, or give `cifar10` to download it"
            )
        try:
            place.mkdir(parents=True, exist_ok=True)
            download_url(URL, str(place), ARCHIVE, ARCHIVE_MD5)
        except Exception as error:  # URLError, RuntimeError of a wrong md5, OSError
            raise DataError(
                f"CIFAR-10 could not be downloaded from {URL} to {printable(str(place))} ({error}); "
                f"put {ARCHIVE} there yourself, or give `cifar10:DIR` for a copy in DIR"
            ) from error
        files = _read_files(place, [*train_md5, *test_md5])
        if files is None:
            raise DataError(f"{printable(str(place))}: {ARCHIVE} vanished after its download")
    train = [_read_batch(place, name, files[name], md5) for name, md5 in train_md5.items()]
    test = [_read_batch(place, name, files[name], md5) for name, md5 in test_md5.items()]
    return Cifar10(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        np.concatenate([images for images, _ in test]),
        np.concatenate([labels for _, labels in test]),
    )


def _read_files(place: Path, names: list[str]) -> dict[str, bytes] | None:
    """The bytes of the batch files, or None where there is neither the folder nor the archive."""
    try:
        for folder in (place / FOLDER, place):
            if (folder / names[0]).is_file():
                return {name: _bounded(folder / name) for name in names}
        archive = place / ARCHIVE
        if archive.is_file():
            return _read_archive(archive, names)
    except (OSError, EOFError, tarfile.TarError, KeyError) as error:
        raise DataError(
            f"{printable(str(place))}: CIFAR-10 cannot be read ({error}); fetch it again"
        ) from error
    return None


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_BYTES)


def _read_archive(archive: Path, names: list[str]) -> dict[str, bytes]:
    """Members by their exact names, into memory: nothing in the archive decides where anything is written."""
    files = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix(f"{FOLDER}/")
            if name in names and member.name == f"{FOLDER}/{name}" and member.isreg():
                files[name] = tar.extractfile(member).read(_MAX_BYTES)
                if len(files) == len(names):
                    return files
    raise KeyError(f"{ARCHIVE} lacks {', '.join(sorted(set(names) - set(files)))}")


def _read_batch(place: Path, name: str, data: bytes, md5: str) -> tuple[np.ndarray, np.ndarray]:
    where = f"{printable(str(place))}: {name}"
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise DataError(f"{where}: not the published file (md5 differs); remove it and fetch CIFAR-10 again")
    batch = unpickle_arrays(data, where)
    try:
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], dtype=np.int64)
        if pixels.dtype != np.uint8 or labels.ndim != 1 or len(pixels) != len(labels):
            raise ValueError("wrong types")
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: not a CIFAR-10 batch ({error}); fetch CIFAR-10 again") from None
    return np.ascontiguousarray(images), labels
