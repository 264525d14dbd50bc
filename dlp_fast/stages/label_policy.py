"""Whose labels stage 3 uses, and which pseudo-label an unlabeled image may get; both change as the network learns."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.config import FinetuningConfig
from dlp_fast.engine.inference import Scores
from dlp_fast.selection.labels import Labels

ASK_FROM = 3  # evaluation snapshots; before, the network has nothing to say about labels
ANY, NONE = -1, -2  # pseudo-labels that an unlabeled image may get


def needed_probability(posterior: Tensor, reinstate: float, edge: float) -> Tensor:
    """The probability that the network must give the label of each image for the label to count again; fp32 [n].

    `posterior`, fp32 [n]: of being poisoned, by a proposal; 0 where it has none, and then `reinstate` is asked for.

    Else: a picture of what its label says gets that label from the network with its probability p; poison has the
    attacker's label whatever it shows. By Bayes' rule the label is right with probability
    p (1 - posterior) / (p (1 - posterior) + posterior), and this is to reach `edge`. Above 1: never.
    """
    odds = torch.tensor(edge) / torch.tensor(1 - edge)  # inf at 1
    return torch.where(posterior > 0, odds * posterior / (1 - posterior), reinstate)


class LabelPolicy:
    """Labels of one run of stage 3, over n images.

    `used`, bool [n]: whose label counts at the moment. `allowed`, int64 [n]: the only class that counts as an unlabeled
    image's pseudo-label, or ANY, or NONE. Both are changed in place, and kept in checkpoints.

    Images whose label is withheld come back while the network, trained without them, gives the label the probability
    that `needed_probability` asks for. Suspected images never do. At snapshot ASK_FROM the network, which has not
    learnt from them yet, says what each of them shows; from then on only this class counts as its pseudo-label, and
    none where it is the label that came with it. Where that is the attacker's, the pseudo-label is the right class and
    unteaches the trigger; where a clean-label attack left the right one, the image teaches nothing, or what the
    attacker made this network see in it. Without the prediction of a network that does not know them, what they have in
    common would be learnt as any other class, which then confirms itself.
    """

    def __init__(self, given: Tensor, labels: Labels, config: FinetuningConfig):
        """given: int64 [n], the labels as they came; labels: which of them to begin with."""
        n, suspected = len(given), labels.suspected
        self.labels, self.suspected = given, suspected
        self.used = torch.zeros(n, dtype=torch.bool)
        self.used[labels.labeled] = True
        self.allowed = torch.where(suspected, NONE, ANY)
        self._withheld = labels.unlabeled[~suspected[labels.unlabeled]]
        posterior = torch.zeros(n) if labels.posterior is None else labels.posterior
        needed = needed_probability(posterior, config.reinstate, config.reinstate_edge)
        self._highest_loss = -needed[self._withheld].log()

    def update(self, scores: Scores, snapshot: int) -> bool:
        """Hear what the network says at evaluation snapshot number `snapshot`, from 1 on; whether `used` may differ."""
        if snapshot == ASK_FROM:
            shown = torch.where(scores.prediction == self.labels, NONE, scores.prediction)
            self.allowed.copy_(torch.where(self.suspected, shown, ANY))
        if snapshot < ASK_FROM:
            return False
        self.used[self._withheld] = scores.loss[self._withheld] < self._highest_loss
        return True
