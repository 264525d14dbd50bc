"""Which images are probably mislabeled: their labels were learnt as little as random wrong ones are known.

While a network learns, it comes to know right labels first (Liu et al. 2020, early learning), so the loss over all
epochs tells wrong labels apart better than the last network does. How large a loss is that of a wrong label depends on
the network, the classes and the length of stage 1; so it is measured on the same set: each image is asked for another
label as well, drawn by its id, and almost all of these are wrong.
"""

from __future__ import annotations

import numpy as np

from dlp_fast.config import DetectionConfig
from dlp_fast.detection.propose import Observed
from dlp_fast.detection.propose.learning_curves import by_class


def probably_mislabeled(seen: Observed, config: DetectionConfig) -> np.ndarray:
    """bool [n]: the mean loss of its label over the epochs is as high as those of the other labels are, all but the
    `config.mislabeled_quantile` lowest; both in relation to what is usual for the class of the label.
    """
    n = len(seen.labels)
    if seen.other_loss is None or seen.other_labels is None or seen.classes < 2 or len(seen.loss) < 2:
        return np.zeros(n, dtype=bool)
    labels = seen.labels.numpy()
    own, other = (of.numpy().mean(0, dtype=np.float64) for of in (seen.loss, seen.other_loss))
    usual = np.array([np.median(own[ids]) if len(ids) else 0.0 for ids in by_class(labels, seen.classes)])
    placebo = np.sort(other - usual[seen.other_labels.numpy()])
    least = placebo[min(int(config.mislabeled_quantile * n), n - 1)]
    return (own - usual[labels] >= least) & (config.mislabeled_quantile < 1)
