"""Unpack a pack of JPEG bytes (arrays {train,test}_{jpeg,offsets,labels}, classes) into DIR/train and DIR/test.

python benchmarks/unpack_pack.py PACK.npz DIR [--limit N]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro


@dataclass
class Options:
    pack: tyro.conf.Positional[Path]
    """The .npz file."""
    out: tyro.conf.Positional[Path]
    """Folder to write to."""
    limit: int | None = None
    """Images a class of the training split; unset: all."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    pack = np.load(options.pack)
    classes = [str(name).replace(" ", "_") for name in pack["classes"]]
    for split in ("train", "test"):
        data, offsets, labels = (pack[f"{split}_{part}"] for part in ("jpeg", "offsets", "labels"))
        seen = dict.fromkeys(range(len(classes)), 0)
        for i, label in enumerate(labels.tolist()):
            if split == "train" and options.limit is not None and seen[label] >= options.limit:
                continue
            place = options.out / split / classes[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{seen[label]:05d}.jpg").write_bytes(data[offsets[i] : offsets[i + 1]].tobytes())
            seen[label] += 1
        print(f"{split}: {sum(seen.values())} images in {len(classes)} classes")


if __name__ == "__main__":
    main()
