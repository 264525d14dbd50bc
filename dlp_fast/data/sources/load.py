"""From the name of a source to its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dlp_fast.config import DataConfig, is_folder, is_streamed, refuse_test_options
from dlp_fast.data.near import ARCHIVE_SUFFIXES as ARCHIVES
from dlp_fast.data.near import TABLE_SUFFIXES as TABLES
from dlp_fast.data.near import other_file
from dlp_fast.data.scan import Progress
from dlp_fast.data.sources.archive import shards, unpacked
from dlp_fast.data.sources.cifar import cifar10
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.digits import digits
from dlp_fast.data.sources.folder import load_folder
from dlp_fast.data.sources.parquet_pictures import load_pictures, picture_files
from dlp_fast.data.sources.saved import is_saved, load_saved
from dlp_fast.data.sources.streamed import load_streamed
from dlp_fast.data.sources.table import load_table
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
    """Load `digits`, `cifar10`, `cifar10:DIR`, a folder `DIR/<class>/...` or `DIR/train` + `DIR/test` (see
    `find_splits`), a table of paths and labels, an archive of such a folder, tar shards, Parquet files of pictures,
    what Hugging Face's `save_to_disk` wrote, or .tar and .parquet shards at an address, see `load_streamed`.

    Args:
        data: the source. A folder that is itself called digits or cifar10 is given as `./digits`.
        options: size of the images and limits, see DataConfig; None: its defaults. Every image is brought to a
            square of `image_size` pixels by `fit`.
        loader: resident (pixels in memory), cached (on the disk), dali or torchvision (decoded when needed, by DALI or
            Pillow), or auto: resident up to `options.resident_megabytes`, else dali where it is installed.
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
    table = name.lower().endswith(TABLES) and Path(name).is_file()
    pictures = picture_files(name) if is_folder(name) else []
    if not is_folder(name) or is_streamed(name) or table or pictures or is_saved(name):
        refuse_test_options(name, options)
    if is_streamed(name):
        return load_streamed(name, options, loader=loader, progress=progress)
    if "://" in name:
        raise DataError(
            f"{printable(name)}: an address; download the images, and give the folder that they are in"
        )
    reading = {"loader": loader, "cache": cache, "progress": progress}
    if name == "digits":
        return digits(options.image_size)
    if not is_folder(name):
        return cifar10(name.partition(":")[2] or None, options.image_size)
    if pictures:
        return load_pictures(name, pictures, options)
    if table:
        return load_table(name, options, **reading)
    if is_saved(name):
        return load_saved(name, options)
    archives = shards(name)
    if archives:
        return load_archives(archives, options, **reading)
    if Path(name).is_file():
        advice = f"{other_file(name)}; or " if other_file(name) else ""
        raise DataError(
            f"{printable(name)}: none of what is read; {advice}give a folder of images, one folder a class, a table "
            f"({', '.join(TABLES)}) or an archive ({', '.join(ARCHIVES)})"
        )
    return load_folder(name, options, **reading)


def load_archives(
    archives: list[Path],
    options: DataConfig,
    *,
    loader: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The images of one archive, or of shards of one set. Arguments and errors as in `load`."""
    of = unpacked(archives, options, progress)
    if of.labeled:  # the folders in a class are the shards: nobody's splits
        options = options.model_copy(update={"splits": "none"})
    try:
        dataset = load_folder(str(of.root), options, loader=loader, cache=cache, progress=progress)
    except DataError as error:
        told = DataError(f"{printable(str(archives[0]))}, unpacked into {of.root}: {error}")
        told.quarantine = [*of.refused, *getattr(error, "quarantine", [])]
        raise told from None
    return replace(
        dataset,
        name=printable(archives[0].name.partition(".")[0]) or "archive",
        quarantine=(*of.refused, *dataset.quarantine),
        warnings=(*of.warnings, *dataset.warnings),
    )
