"""How much of the paper a machine can do: smoke for CI, small for an afternoon on a CPU, full for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scale:
    """images: of the training set, the same number of each class (None: all); test: images tested on (None: all);
    image_size: side in pixels (None: their own); model: network; effort: multiplies the epochs that a rival trains on
    the whole set; config: sections of RunConfig for our method; paper_steps: of FixMatch in the row "as published";
    attacks: which; networks: of Table 6; clean_share: clean images that rivals are given, as a share of the size of the
    training set (5 % in their papers). They come from the test set, at most a quarter of it, and no method is tested on
    them.
    """

    images: int | None
    test: int | None
    image_size: int | None
    model: str
    effort: float
    paper_steps: int
    attacks: tuple[str, ...]
    networks: tuple[str, ...]
    clean_share: float = 0.05
    config: dict[str, Any] = field(default_factory=dict)


NETWORKS = tuple(
    f"torchvision:{name}" for name in ("vgg16_bn", "resnet18", "inception_v3", "mobilenet_v2", "densenet121")
)
ATTACKS = ("badnets", "trojannn", "blended", "lca", "sig")
SCALES = {
    "smoke": Scale(
        images=None,
        test=None,
        image_size=None,
        model="wrn-10-1",
        effort=0.02,
        paper_steps=6,
        attacks=("badnets", "sig"),
        networks=("torchvision:mobilenet_v2",),
        config={
            "supervised": {"epochs": 3, "min_steps": 0},
            "unlearning": {"epochs": 1},
            "finetuning": {"steps": 12, "rounds": 1, "norm_batches": 5},
        },
    ),
    "small": Scale(
        images=5000,
        test=2000,
        image_size=16,
        model="wrn-16-1",
        effort=0.5,
        paper_steps=400,
        attacks=ATTACKS,
        networks=NETWORKS,
        # 30 epochs and as many steps as stage 1 took are the default: an afternoon has no time for them
        config={"finetuning": {"epochs": 20, "min_steps": 400}},
    ),
    "full": Scale(
        images=None,
        test=None,
        image_size=None,
        model="wrn-16-1",
        effort=1.0,
        paper_steps=16384,
        attacks=ATTACKS,
        networks=NETWORKS,
    ),
}
