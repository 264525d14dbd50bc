"""What the decision says of a class: one frozen record from the place that makes it to every place that tells of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

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
    """A class in which the learning curves of some images form a component of their own.

    stage: whose curves; label: number of the class; images: size of the component; separation: Bhattacharyya distance
    of the two components; posterior_entropy: mean binary entropy of the memberships, bits; score: separation score,
    1 = what counts as found; held_out: see HeldOutAgreement, None where no network could say; likely_benign: whether
    the decision takes the images for harmless ones.
    """

    stage: Stage
    label: int
    images: int
    separation: float
    posterior_entropy: float
    score: float
    held_out: HeldOutAgreement | None = None
    likely_benign: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Finding:
        held_out = values.get("held_out")
        return cls(**{**values, "held_out": HeldOutAgreement(**held_out) if held_out else None})
