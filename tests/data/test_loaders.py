"""One test-suite that every loader passes: the same ids, the same images, for any batch, threads or order."""

from __future__ import annotations

import gc
import os
import resource

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tiny import command, options, picture

from dlp_fast.config import DataConfig
from dlp_fast.data import dali, sources
from dlp_fast.data.dali import DaliImages
from dlp_fast.data.index import index_folder
from dlp_fast.data.storage import FileImages
from dlp_fast.engine.batches import TrainingData
from dlp_fast.errors import DataError, ResourceError

MISSING = dali.available()
LOADERS = [
    "resident",
    "torchvision",
    "cached",
    pytest.param("dali", marks=pytest.mark.skipif(MISSING is not None, reason=str(MISSING))),
]
needs_dali = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
SIDE = 32
# of 255, in a pixel: DALI's resize and its JPEG decoder round otherwise than Pillow's
MEAN_DIFFERENCE = 0.5
SHAPES = [(64, 48), (40, 90), (32, 32), (200, 33), (33, 200), (120, 121)]
FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM"]
FITS = ["squash", "pad", "crop"]
MODES = ["RGB", "L", "RGBA", "P", "LA", "1", "I;16"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLP_FAST_CACHE", str(tmp_path.parent / f"cache-{tmp_path.name}"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of files of many sizes, formats and pixel layouts; smooth, as photographs are."""
    root = tmp_path_factory.mktemp("loaders")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for i, (width, height) in enumerate(SHAPES * 3):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            form = FORMATS[i % len(FORMATS)]
            smooth.save(root / label / f"{i:02d}.{form.lower()}", form, quality=95)
        for mode in MODES:
            picture(48, seed=len(mode), mode=mode).save(root / label / f"mode-{mode.replace(';', '')}.png")
        turned = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((70, 50))
        exif = Image.Exif()
        exif[0x0112] = 6
        turned.save(root / label / "turned.jpg", quality=95, exif=exif)
    return root


def load(folder, loader, workers=2, fit="squash"):
    return sources.load(folder, DataConfig(image_size=SIDE, workers=workers, fit=fit), loader=loader)


@pytest.fixture(scope="module")
def references(folder):
    images = {fit: load(folder, "resident", fit=fit).train.images for fit in FITS}
    return {fit: of.get(torch.arange(len(of))) for fit, of in images.items()}


@pytest.mark.parametrize("loader", LOADERS)
class TestEveryLoader:
    @pytest.mark.parametrize("fit", FITS)
    def test_same_ids_same_images(self, folder, references, loader, fit):
        dataset, reference = load(folder, loader, fit=fit), references[fit]
        found = dataset.train.images.get(torch.arange(len(reference)))
        assert (found.dtype, found.shape) == (torch.uint8, reference.shape)
        difference = (found.int() - reference.int()).abs().float()
        assert float(difference.mean()) < (MEAN_DIFFERENCE if loader == "dali" else 1e-9)
        assert float(difference.flatten(1).mean(1).max()) < 2.5
        assert dataset.loader.startswith(loader)

    @pytest.mark.parametrize("batch", [1, 5, 40])
    @pytest.mark.parametrize("workers", [1, 3])
    def test_for_any_batch_and_threads(self, folder, loader, batch, workers):
        images, others = load(folder, loader).train.images, load(folder, loader, workers).train.images
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
        expected = images.get(order)
        assert torch.equal(torch.cat([others.get(ids) for ids in order.split(batch)]), expected)
        assert torch.equal(torch.cat(list(others.prefetch(order.split(batch)))), expected)

    def test_expecting_changes_nothing(self, folder, loader):
        images = load(folder, loader).train.images
        parts = torch.arange(len(images)).split(7)
        plain = [images.get(p) for p in parts]
        for k, p in enumerate(parts):
            images.expect(parts[(k + 1) % len(parts)])
            images.expect(parts[(k + 2) % len(parts)])
            assert torch.equal(images.get(p), plain[k])
        for p in parts:  # that nobody comes for
            images.expect(p)
        assert torch.equal(images.get(parts[0]), plain[0])

    def test_same_views(self, folder, loader):
        """Operation, magnitude, crop and flip belong to the id: the views of two loaders differ by rounding alone."""
        views = []
        for name in ("resident", loader):
            of = load(folder, name).train
            data = TrainingData(
                of.images, of.labels, 2, (0.5,) * 3, (0.25,) * 3, True, 3, torch.device("cpu")
            )
            views.append(data.views(torch.arange(18), epoch=2, strong=True))
        weak, strong = ((a - b).abs().mean() * 0.25 * 255 for a, b in zip(*views))
        assert float(weak) < MEAN_DIFFERENCE
        assert float(strong) < 4  # equalize, posterize and solarize make a step of one level a step of many
        if loader != "dali":
            assert float(weak) == float(strong) == 0

    def test_a_file_that_changed(self, folder, tmp_path, loader):
        if loader == "resident":
            return  # read before, and not again
        for label in ("cat", "dog"):
            (tmp_path / label).mkdir()
            for i in range(4):
                picture(40, seed=i).save(tmp_path / label / f"{i}.png")
        images = load(tmp_path, loader).train.images
        os.utime(tmp_path / "cat" / "1.png", ns=(1, 1))
        with pytest.raises(DataError, match="has changed since it was checked"):
            images.get(torch.arange(8))
        (tmp_path / "cat" / "2.png").unlink()
        if loader != "cached":  # which has it already, as it was checked
            with pytest.raises(DataError, match=r"cannot be read any more|has changed"):
                images.get(torch.tensor([2]))
        assert images.get(torch.tensor([0, 7])).shape == (2, SIDE, SIDE, 3)  # the others are still there

    def test_a_run(self, folder, tmp_path, loader):
        run = tmp_path / "run"
        done = command(
            "run",
            "--data",
            folder,
            "--out",
            run,
            *options(),
            "--loader",
            loader,
            "--dataset.image-size",
            SIDE,
        )
        assert done.code == 0, done.text
        assert f"loader {loader}" in done.text

    def test_memory_does_not_grow(self, folder, loader):
        images = load(folder, loader).train.images
        ids = torch.arange(len(images))

        def epoch():
            for part in ids.split(13):
                images.expect(part)
                images.get(part)
            gc.collect()
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        for _ in range(4):
            settled = epoch()
        grown = [epoch() for _ in range(12)][-1] - settled
        assert grown < 12 * 1_000_000


@needs_dali
class TestDali:
    def test_a_file_that_dali_cannot_read(self, tmp_path, monkeypatch):
        """The pipeline is lost, the batch is not: that file is Pillow's for good, and the others stay DALI's."""
        for first, label in enumerate(("cat", "dog")):
            (tmp_path / label).mkdir()
            for i in range(6):
                picture(61, seed=6 * first + i).save(tmp_path / label / f"{i}.png")  # no two alike
        index, everything = index_folder(tmp_path)[0], torch.arange(12)
        of_dali = DaliImages(index, SIDE, 2).get(everything)
        of_pillow = FileImages(index, SIDE, 2).get(everything)
        expected = of_dali.clone()
        expected[[4, 9]] = of_pillow[[4, 9]]
        contents = [(tmp_path / path).read_bytes() for path in index.paths]
        real, tried = dali.build_pipeline, []

        class Weak:
            """A pipeline that cannot decode images 4 and 9."""

            def __init__(self, *arguments):
                self.pipeline = real(*arguments)

            def feed_input(self, name, values):
                if name == "files":
                    tried.append([contents.index(value.tobytes()) for value in values])
                self.pipeline.feed_input(name, values)

            def run(self):
                if {4, 9} & set(tried[-1]):
                    raise RuntimeError("details\nno such codec")
                return self.pipeline.run()

        monkeypatch.setattr(dali, "build_pipeline", Weak)
        ours = DaliImages(index, SIDE, 2)
        with pytest.warns(RuntimeWarning, match=r"DALI cannot decode cat/4\.png \(no such codec\)") as said:
            assert torch.equal(ours.get(everything), expected)
        assert len(said) == 1
        tried.clear()
        order = torch.tensor([9, 0, 4, 11])
        assert torch.equal(ours.get(order), expected[order])
        assert tried == [[0, 11]]  # not tried again

    def test_what_dali_reads_otherwise_goes_to_pillow(self, folder):
        index = index_folder(folder)[0]
        odd = [i for i, mode in enumerate(index.modes) if mode not in dali.MODES]
        assert odd
        ids = torch.tensor(odd)
        assert torch.equal(DaliImages(index, SIDE, 2).get(ids), FileImages(index, SIDE, 2).get(ids))


class TestChoice:
    def test_small_sets_are_resident(self):
        assert sources.choose_loader("auto", 1 << 20, 2)[0] == "resident"

    def test_large_ones_are_read_as_needed(self, monkeypatch):
        monkeypatch.setattr(dali, "available", lambda: None)
        assert sources.choose_loader("auto", 3 << 20, 2) == (
            "dali",
            "3 MiB of pixels do not fit in 2 MiB: files are decoded in every pass, with --loader cached once",
        )

    def test_without_dali(self, monkeypatch):
        monkeypatch.setattr(dali, "available", lambda: "DALI is not installed")
        kind, why = sources.choose_loader("auto", 3 << 20, 2)
        assert kind == "torchvision"
        assert why.endswith("DALI is not installed")

    def test_asked_for_and_not_there(self, folder, monkeypatch):
        monkeypatch.setattr(dali, "available", lambda: "DALI is not installed (pip install dlp-fast[dali])")
        with pytest.raises(
            ResourceError, match=r"--loader dali: DALI is not installed .*torchvision"
        ) as caught:
            load(folder, "dali")
        assert caught.value.exit_code == 5


@needs_dali
def test_dali_writes_nothing_to_the_terminal(tmp_path, capfd):
    """Its decoders have lines of their own for what they do not know, by no name, in colour."""
    image = picture(48, seed=1)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        image.convert("CMYK").save(tmp_path / label / "cmyk.tif")
        image.save(tmp_path / label / "profile.png", icc_profile=b"junk")
        image.save(tmp_path / label / "text.png", pnginfo=_long_text())
        image.convert("CMYK").save(tmp_path / label / "cmyk.jpg")
        for form in ("gif", "avif", "jp2", "webp"):
            image.save(tmp_path / label / f"a.{form}")
        plain = (tmp_path / label / "cmyk.jpg").read_bytes()
        (tmp_path / label / "more.jpg").write_bytes(plain + bytes(100))
    images, expected = load(tmp_path, "dali").train.images, load(tmp_path, "resident").train.images
    ids = torch.arange(len(images))
    difference = (images.get(ids).int() - expected.get(ids).int()).abs().float()
    assert float(difference.flatten(1).mean(1).max()) < 2.5
    assert capfd.readouterr().err == ""


def _long_text() -> PngInfo:
    text = PngInfo()
    text.add_text("Comment", "x" * 5_000_000, zip=True)
    return text
