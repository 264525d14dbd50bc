"""The same cells put to cleanlab, which needs the package (pip install cleanlab): the same networks' probabilities.

    python -m studies.cross_fit.beside --pack PACK.npz --cell digits-symmetric-0.2-0 --keep KEPT --out BESIDE.json

It is given the held-out probabilities that our list is made of, in the mean over the same epochs, and nothing of
stage 1.
"""

from __future__ import annotations

import json

import numpy as np

from benchmarks.common import chosen, write_result
from studies.cross_fit.run import cell_of, judged, recorded
from studies.cross_fit.run import parser as parser_of_cells


def main() -> None:
    options = parser_of_cells().parse_args()
    from cleanlab.filter import find_label_issues  # after --help, which needs no cleanlab

    rows = []
    for name in options.cell:
        data, true, poisoned = cell_of(name, options.pack)
        probability = recorded(data, options.keep / f"{name}.npz")["probability"]
        labels = data.labels.numpy()
        wrong = (labels != true) & ~poisoned
        scaled = probability / probability.sum(1, keepdims=True)
        row = {"cell": name, "wrong": int(wrong.sum())}
        for rule in ("prune_by_noise_rate", "both", "confident_learning"):  # the first is its default
            listed = np.asarray(find_label_issues(labels, scaled, filter_by=rule, n_jobs=1))
            row[rule] = judged(listed, wrong, poisoned)
        rows.append(row)
        print(json.dumps(row), flush=True)
        write_result(options.out, {"options": chosen(options), "rows": rows}, "CPU")


if __name__ == "__main__":
    main()
