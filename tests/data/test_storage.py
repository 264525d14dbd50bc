import os

import numpy as np
import pytest
import torch
from corpus import jpeg, noise, png, two_classes, write
from PIL import Image

from dlp_fast.data.index import index_folder
from dlp_fast.data.storage import FileImages, ResidentImages
from dlp_fast.errors import DataError


@pytest.fixture
def folder(tmp_path):
    sizes = [(40, 60), (60, 40), (32, 32), (100, 33), (7, 9)]
    write(
        tmp_path,
        {f"{c}/{i}.png": png(seed=i, height=h, width=w) for c in "ab" for i, (h, w) in enumerate(sizes)},
    )
    return tmp_path


@pytest.fixture
def files(folder):
    return FileImages(index_folder(folder)[0], 32, workers=3)


def resident_of(files):
    return ResidentImages(files.get(torch.arange(len(files))))


def test_resident():
    pixels = torch.arange(4 * 2 * 5 * 3, dtype=torch.uint8).reshape(4, 2, 5, 3)
    images = ResidentImages(pixels)
    assert (len(images), images.height, images.width) == (4, 2, 5)
    ids = torch.tensor([3, 0, 3])
    torch.testing.assert_close(images.get(ids), pixels[ids])
    assert images.to("cpu") is images


@pytest.mark.parametrize(
    "pixels", [torch.zeros(2, 3, 4, 3), torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3).byte()]
)
def test_resident_of_something_else(pixels):
    with pytest.raises(DataError, match=r"pixels: expected uint8 \[n, height, width, 3\], got"):
        ResidentImages(pixels)


@pytest.mark.parametrize("kind", ["files", "resident"])
@pytest.mark.parametrize("bad", [-1, 10])
def test_id_out_of_range(files, kind, bad):
    images = files if kind == "files" else resident_of(files)
    with pytest.raises((IndexError, RuntimeError), match=r"ids|range|index"):
        images.get(torch.tensor([0, bad]))


def test_files_are_of_the_size(files):
    batch = files.get(torch.arange(10))
    assert (batch.shape, batch.dtype) == ((10, 32, 32, 3), torch.uint8)
    np.testing.assert_array_equal(batch[2].numpy(), noise(32, 32, seed=2))


def test_rectangle(folder):
    files = FileImages(index_folder(folder)[0], (20, 30))
    assert (files.height, files.width) == (20, 30)
    assert files.get(torch.tensor([1, 0])).shape == (2, 20, 30, 3)


@pytest.mark.parametrize("batch", [1, 3, 7, 10])
def test_pixels_do_not_depend_on_order_batch_or_storage(files, batch):
    order = torch.tensor([7, 2, 9, 0, 1, 8, 3, 6, 5, 4])
    resident = resident_of(files)
    expected = resident.pixels[order]
    for images in (files, resident):
        torch.testing.assert_close(torch.cat([images.get(ids) for ids in order.split(batch)]), expected)
        torch.testing.assert_close(torch.cat(list(images.prefetch(order.split(batch)))), expected)


def test_empty_batch(files):
    for images in (files, resident_of(files)):
        assert images.get(torch.zeros(0, dtype=torch.int64)).shape == (0, 32, 32, 3)
        assert list(images.prefetch([])) == []


def test_prefetch_reads_ahead_but_not_all(files):
    asked = []

    def batches():
        for i in range(10):
            asked.append(i)
            yield torch.tensor([i])

    iterator = files.prefetch(batches(), depth=2)
    next(iterator)
    assert asked == [0, 1, 2]
    iterator.close()


@pytest.mark.parametrize("change", ["bytes", "mtime", "grown", "emptied"])
def test_changed_file(folder, files, change):
    path = folder / "a/0.png"
    data, status = path.read_bytes(), path.stat()
    if change == "bytes":
        path.write_bytes(data[:-1] + b"x")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "mtime":
        os.utime(path, ns=(0, 0))
    elif change == "grown":
        path.write_bytes(data + b"more")
    else:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a/0\.png: the file has changed since it was checked"):
        files.get(torch.tensor([1, 0]))
    files.get(torch.tensor([1]))


def test_vanished_file(folder, files):
    (folder / "b/1.png").unlink()
    with pytest.raises(DataError, match=r"b/1\.png: cannot be read any more \(No such file"):
        list(files.prefetch(torch.arange(10).split(2)))


def test_file_replaced_by_a_link(folder, files, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "x.png"
    (folder / "b/1.png").rename(other)
    os.symlink(other, folder / "b/1.png")
    with pytest.raises(DataError, match="a link leads out of the folder"):
        files.get(torch.tensor([6]))


def test_file_replaced_by_a_fifo(folder, files):
    (folder / "b/1.png").unlink()
    os.mkfifo(folder / "b/1.png")
    with pytest.raises(DataError, match="not a regular file"):
        files.get(torch.tensor([6]))


def test_orientation_is_applied(tmp_path):
    two_classes(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(32, 32)).save(tmp_path / "cat/a.png", exif=exif)
    files = FileImages(index_folder(tmp_path)[0], 32)
    i = files.index.paths.index("cat/a.png")
    np.testing.assert_array_equal(files.get(torch.tensor([i]))[0].numpy(), np.rot90(noise(32, 32), 3))


def test_to(files):
    assert files.to("cpu") is files
    assert len(files.to("meta")) == len(files)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(files):
    ids = torch.tensor([3, 1])
    expected = files.get(ids)
    for images in (files.to("cuda"), resident_of(files).to("cuda")):
        batch = images.get(ids)
        assert batch.is_cuda
        torch.testing.assert_close(batch.cpu(), expected)


def test_jpeg_files_too(tmp_path):
    write(tmp_path, {f"{c}/{i}.jpg": jpeg(seed=i, height=32, width=32) for c in "ab" for i in range(40)})
    files = FileImages(index_folder(tmp_path)[0], 32, workers=4)
    one_thread = FileImages(files.index, 32, workers=1)
    torch.testing.assert_close(files.get(torch.arange(80)), one_thread.get(torch.arange(80)))
