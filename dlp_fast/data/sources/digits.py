"""The embedded image set, at hand without a download."""

from __future__ import annotations

import numpy as np

from dlp_fast.data.sources.arrays import from_numpy
from dlp_fast.data.sources.dataset import Dataset


def digits(image_size: int | None) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 with values 0..16, shown as 16 x 16 RGB.

    Of each digit every fifth, in the order of the file, is a test image: no random generator is asked, so
    that the split is the same for ever.
    """
    from sklearn.datasets import load_digits  # half a second that other sources need not pay

    file = load_digits()
    grey = np.rint(file.images * 255 / 16).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    labels = file.target.astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[4::5]] = True
    rgb = np.repeat(grey[..., None], 3, axis=3)
    return from_numpy(
        "digits",
        (rgb[~is_test], labels[~is_test]),
        (rgb[is_test], labels[is_test]),
        tuple(map(str, range(10))),
        image_size=image_size,
        flip=False,
    )
