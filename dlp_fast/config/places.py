"""Where images and results lie, as real paths: the same in any working directory, and through any link."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dlp_fast.config.reading import merge
from dlp_fast.config.run import RunConfig
from dlp_fast.config.stages import DataConfig
from dlp_fast.errors import ConfigError

IN_MEMORY = ("array", "dataset")
"""What `data` says where images were given in Python."""


def is_folder(data: str) -> bool:
    """Whether `data` names a folder of images, a table or an archive, and no source that has a name of its own."""
    return data not in ("digits", "cifar10") and not data.startswith("cifar10:")


def real_data(data: str) -> str:
    """`data` with the real path of its folder; a name of a source, or an address, as it is. The name of a table or an
    archive stays, since its ending says what it is, and stores of files link to names without one. ConfigError where it
    is empty, which would be the working directory.
    """
    if not data.strip():
        raise ConfigError("data: empty; give a folder of images, one folder a class")
    if data.startswith("cifar10:"):
        return f"cifar10:{os.path.realpath(data.partition(':')[2])}"
    if not is_folder(data) or "://" in data:
        return data
    if os.path.isfile(data):
        return os.path.join(os.path.realpath(os.path.dirname(data)), os.path.basename(data))
    return os.path.realpath(data)


def _real_options(dataset: dict[str, Any]) -> dict[str, str]:
    """The real paths of the folders that options of the image set name."""
    return {
        name: os.path.realpath(dataset[name]) for name in ("test", "images") if dataset.get(name) is not None
    }


def real_places(settings: dict[str, Any]) -> dict[str, Any]:
    """A resolved configuration with the real paths of its image sets; images that were given in Python stay."""
    data, places = settings.get("data"), _real_options(settings.get("dataset") or {})
    over: dict[str, Any] = {}
    if data is not None and data not in IN_MEMORY:
        over["data"] = real_data(str(data))
    if places:
        over["dataset"] = places
    if settings.get("weights") is not None:
        over["weights"] = os.path.realpath(settings["weights"])
    return merge(settings, over)


def refuse_test_options(source: str, options: DataConfig) -> None:
    """ConfigError where options say what the test set is, and `source` is no folder."""
    unset = DataConfig()
    given = [
        name for name in ("test", "test_split", "splits") if getattr(options, name) != getattr(unset, name)
    ]
    for option in given:
        raise ConfigError(f"dataset.{option}: {source} has its own test set; give this option with a folder")


def at_real_places(config: RunConfig) -> RunConfig:
    """`config`, whose images are not in memory, with the real paths of its image sets."""
    places = _real_options(config.dataset.model_dump())
    dataset = config.dataset.model_copy(update={name: Path(path) for name, path in places.items()})
    weights = config.weights and Path(os.path.realpath(config.weights))
    return config.model_copy(update={"data": real_data(config.data), "dataset": dataset, "weights": weights})


def refuse_overlap(data: str | Path, out: Path, option: str = "--data") -> None:
    """ConfigError where what is written to `out` would lie among the images, and later be read as one of the classes,
    or the images lie in the folder that is written to. Nothing is asked of sources that are no folders.
    """
    if not is_folder(str(data)) or "://" in str(data):
        return
    images, results = (Path(os.path.realpath(path)) for path in (data, out))
    if results.is_relative_to(images):
        raise ConfigError(
            f"--out {out} lies in {option} {images}, where every folder is a class. Choose an --out outside of it."
        )
    if images.is_relative_to(results):
        raise ConfigError(
            f"{option} {images} lies in --out {out}, which is to be written. Choose another --out."
        )


def refuse_overlaps(config: RunConfig, out: Path) -> None:
    """`refuse_overlap` of the run folder with the image set and, where it is a folder of its own, the test set."""
    refuse_overlap(config.data, out)
    if config.dataset.test is not None:
        refuse_overlap(config.dataset.test, out, "--dataset.test")
