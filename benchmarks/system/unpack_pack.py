"""Unpack a pack of JPEG bytes (arrays {train,test}_{jpeg,offsets,labels}, classes) into DIR/train and DIR/test.

python -m benchmarks.system.unpack_pack PACK.npz DIR [--limit N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.common import parser_of


def parser() -> argparse.ArgumentParser:
    arguments = parser_of(__doc__, "benchmarks.system.unpack_pack")
    arguments.add_argument("pack", type=Path, help="the .npz file")
    arguments.add_argument("out", type=Path, help="folder to write to")
    arguments.add_argument("--limit", type=int, help="images a class of the training split; unset: all")
    return arguments


def main() -> None:
    options = parser().parse_args()
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
