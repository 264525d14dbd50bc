"""From the name of a source to its images."""

from __future__ import annotations

from pathlib import Path

from dlp_fast.config import DataConfig, is_folder, refuse_test_options
from dlp_fast.data.scan import Progress
from dlp_fast.data.sources.cifar import cifar10
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.digits import digits
from dlp_fast.data.sources.folder import load_folder
from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable


def load(
    data: str | Path,
    options: DataConfig | None = None,
    *,
    loader: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load `digits`, `cifar10`, `cifar10:DIR`, or a folder `DIR/<class>/...` or `DIR/train` + `DIR/test`, see
    `find_splits`.

    Args:
        data: the source. A folder that is itself called digits or cifar10 is given as `./digits`.
        options: size of the images and limits, see DataConfig; None: its defaults. Every image is brought to a
            square of `image_size` pixels (shorter side resized, centre cropped).
        loader: resident (all pixels in memory), dali or torchvision (files are decoded when they are needed, by DALI
            or by Pillow), or auto: resident up to `options.resident_megabytes`, else dali where it is installed.
        cache: a file that remembers what was checked, see `scan_files`.
        progress: called as `progress(what, done, total)`.

    Raises:
        DataError: the images cannot be used; where files were quarantined before that, they are in its
            attribute `quarantine`.
        ConfigError: an option that does not go with this source.
        ResourceError: processes or the cache file cannot be used.
    """
    options = options or DataConfig()
    name = str(data)
    if not is_folder(name):
        refuse_test_options(name, options)
    if "://" in name:
        raise DataError(
            f"{printable(name)}: an address; download the images, and give the folder that they are in"
        )
    if name == "digits":
        return digits(options.image_size)
    if not is_folder(name):
        return cifar10(name.partition(":")[2] or None, options.image_size)
    return load_folder(name, options, loader=loader, cache=cache, progress=progress)
