"""What the decision says of a class: one frozen record from the place that makes it to every place that tells of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

MOST_IDS = 1000  # of a shown group that are listed
Stage = Literal["supervised", "finetuning"]


@dataclass(frozen=True)
class HeldOutAgreement:
    """Shares, 0 to 1, to which a network that was given no label of the suspects assigns the given label: suspects: of
    a class's suspected images; others: of the class's other images, whose labels it was given.
    """

    suspects: float
    others: float


@dataclass(frozen=True)
class Finding:
    """A class in which some images form a group of their own.

    stage: whose network; label: number of the class; images: size of the group; separation: of the group from the
    others, by learning curves the Bhattacharyya distance of two components; posterior_entropy: mean binary entropy of
    the memberships, bits; score: 1 = what counts as found; held_out: see HeldOutAgreement, None where no network could
    say; likely_benign: whether the decision takes the images for harmless ones, or, of what is
    shown, for typical ones; proposal: what found the group;
    purity: of a mark that its images share, 1 = a point, apart; attack_success, placebo_success: estimated attack
    success rate of what they have in common on the network of stage 1, 0 to 1, and the highest of groups of harmless
    classes; attack_success_after: the same rate on the model that the run hands out; label_support: probability that a
    network without their labels gives these labels, over that of the class's other images held out alike; label_gap:
    how much lower that probability is than for images that were learnt alike; gap_p: probability of such a gap by
    chance; unmarked_support: share of the images that such a network takes for their label once the mark is off, over
    that of the class's controls; copies: share of the images that show one and the same picture, where these are most
    of them; sides: mean entropy, bits, of a network that was given no label of the class, of these images, of the rest
    of the class, and of held-out images of other classes, where the group could be the class itself; None where not
    asked; foreign: whether these say that the images are taken for other classes, and the rest is not; changed: of a
    mark that is shown, whether images of many classes have such marks, under labels that are right; shared_labels:
    share, above chance, of the pictures most like them that have their label, over that of other images of their
    classes; apart_from_alike: by how many standard errors the images differ from the pictures most like them, more than
    others of their kind do; taught: how well a network that is given half of the images knows the labels of the others,
    over that of other images of the class; alone: whether they are of a kind that nothing else in the set is like, so
    that neither they nor the rest of their class can be told to be the class; variety: where it told which half of a
    class is the class, how evenly the pictures most like the images, and most like the rest of the class, are of all
    other classes; unclear: of a mark that is shown, whether it may be poison as well as pictures of a kind of their
    own; part_success: highest estimated attack success rate of marks that act as triggers and that some of the images
    share, where learning curves found more than one mark does; sample_ids: of what is shown and not suspected, which
    images these are, the first MOST_IDS; of a finding the table of images says it.
    """

    stage: Stage
    label: int
    images: int
    separation: float
    posterior_entropy: float
    score: float
    held_out: HeldOutAgreement | None = None
    likely_benign: bool = False
    proposal: str = "learning_curves"
    purity: float | None = None
    attack_success: float | None = None
    placebo_success: float | None = None
    attack_success_after: float | None = None
    label_support: float | None = None
    label_gap: float | None = None
    gap_p: float | None = None
    unmarked_support: float | None = None
    copies: float | None = None
    sides: tuple[float, float, float] | None = None
    foreign: bool = False
    changed: bool = False
    shared_labels: float | None = None
    apart_from_alike: float | None = None
    taught: float | None = None
    alone: bool = False
    variety: tuple[float, float] | None = None
    unclear: bool = False
    part_success: float | None = None
    sample_ids: tuple[int, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Finding:
        held_out = values.get("held_out")
        sides, ids = values.get("sides"), values.get("sample_ids")
        nested = {
            "held_out": HeldOutAgreement(**held_out) if held_out else None,
            "sides": tuple(sides) if sides else None,
            "sample_ids": tuple(ids) if ids is not None else None,
        }
        return cls(**{**values, **nested})
