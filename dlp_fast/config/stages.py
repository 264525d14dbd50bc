"""Options of the image set and of the three stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from dlp_fast.config.section import Section

ScheduleName = Literal["constant", "linear", "cosine", "trapezoid", "fixmatch_cosine"]


class DataConfig(Section):
    test: Annotated[Path | None, tyro.conf.arg(aliases=["--test"])] = None
    """Another folder, with a folder a class, as the test set; unset: the test split of the image set."""
    test_split: str | None = None
    """Name of the folder beside train that is the test set; unset: test, testing, tst, eval, evaluation or holdout,
    else val, valid, validation or dev."""
    splits: Literal["auto", "none"] = "auto"
    """auto: folders named train and test (or like them) are splits; none: every folder is a class."""
    follow_links: bool = False
    """Read what links to files and folders lead to, each folder once, though it may lie outside of the image set."""
    image_size: int | None = Field(None, ge=8, le=256)
    """Side in pixels that images are resized to; unset: their own where all are equal and at most 96, else 224."""
    fit: Literal["squash", "pad", "crop"] = "squash"
    """How a picture of another shape gets there. squash: both sides on their own, all of it is seen; pad: by one
    factor, with black added; crop: the shorter side, and what the longer one has too much is cut off and never seen."""
    bit_depth: Literal["auto", 8, 10, 12, 14, 16] = "auto"
    """Bits used in files of 16-bit samples, of which the highest 8 count. auto: the fewest that nearly all training
    files make do with."""
    images: Path | None = None
    """Folder that the paths of a table (`--data table.csv`) start from; unset: the table's own."""
    max_megapixels: float = Field(64, gt=0, le=89)
    """Larger pictures are quarantined, megapixels."""
    max_megabytes: float = Field(64, gt=0)
    """Larger files are quarantined, megabytes."""
    resident_megabytes: int = Field(2048, ge=0)
    """Image sets up to this size, decoded, stay in memory (on the device); larger ones are decoded as needed."""
    workers: int | None = Field(None, ge=1)
    """Processes of the pre-scan and threads of the decoder; unset: one a core."""


class SupervisedConfig(Section):
    """Stage 1, supervised learning on everything (DLP Eq. 3)."""

    epochs: int = Field(10, ge=1)
    """E1, passes over all images."""
    min_steps: int = Field(1000, ge=0)
    """Least number of optimizer steps: small sets get more epochs, since a backdoor is learnt by steps. 0: just E1."""
    target_train_accuracy: float = Field(0.995, gt=0, le=1)
    """Epochs beyond E1 end when this share of the images is predicted as labeled: nothing is left to be learnt."""
    batch: int = Field(128, ge=2)
    """Images a step."""
    learning_rate: float = Field(0.05, gt=0)
    """Peak step size of SGD. The paper's 0.01 learns a backdoor later, measured in steps."""
    schedule: ScheduleName = "constant"
    """How the step size falls, as in `finetuning.schedule`. Detection was measured on learning curves at a constant one
    (as published)."""
    warmup: float = Field(0.0, ge=0, le=1)
    """Share of the steps over which the step size rises to `learning_rate`."""
    final_share: float = Field(0.0, ge=0, le=1)
    """Of `learning_rate`, where the schedules linear, cosine and trapezoid end."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 penalty of SGD."""
    augment: Literal["none", "weak"] = "none"
    """weak: flip and crop. A crop moves a trigger and can cut it off, so that the poison is learnt later."""


class UnlearningConfig(Section):
    """Stage 2, gradient ascent on the suspected poisoned (DLP Eq. 6)."""

    epochs: int = Field(20, ge=0)
    """E2, passes over the suspected poisoned images."""
    batch: int = Field(128, ge=2)
    """Images a step."""
    learning_rate: float = Field(0.01, gt=0)
    """Step size of SGD."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    max_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm: ascent has no minimum to settle in."""
    max_loss: float = Field(20.0, gt=0)
    """Ascent ends when the mean loss of an epoch passes this many nats: by then the association is long gone."""
    max_rollbacks: int = Field(2, ge=0)
    """Times that a non-finite step is undone, the step size quartered, before the run ends with exit code 4."""


class FinetuningConfig(Section):
    """Stage 3, semi-supervised fine-tuning by FixMatch (DLP Eq. 7)."""

    labeled: Literal["trusted", "hardest"] = "trusted"
    """Whose labels are used. hardest: the suspected clean, as published. trusted: all but the most suspected."""
    rounds: int = Field(2, ge=1)
    """With `trusted`: times that stage 3 may begin. After each, the curves of its own epochs are clustered too; a class
    that falls into two only now loses those labels, and the stage begins anew."""
    reinstate: float = Field(0.5, gt=0, le=1)
    """With `trusted`: an unlabeled image's label is used after all while the network, trained without it, gives it this
    probability; 1: never."""
    reinstate_edge: float = Field(0.99, gt=0, le=1)
    """The same at the edge of a suspected group: while the label is right with this probability by the network's
    prediction and the group's posterior. One poisoned label does more harm than a hundred real ones do good; 1:
    never."""
    start: Literal["fresh", "unlearned"] = "fresh"
    """Weights to start from: new ones, or those that stage 2 left (as published)."""
    epochs: float = Field(30, gt=0)
    """Passes over the labeled images, where `steps` is unset; with `trusted`, as if no label were in doubt."""
    steps: int | None = Field(None, ge=1)
    """K, optimizer steps; unset: from `epochs`, and at least `min_steps`."""
    min_steps: int | None = Field(None, ge=1)
    """Least number of steps where `steps` is unset; unset: 400, or as many as stage 1 took where those are more."""
    batch: int = Field(128, ge=2)
    """B, labeled images a step."""
    suspects: Literal["relabel", "leave_out"] = "relabel"
    """With `trusted`: what becomes of images whose label is suspected. relabel: unlabeled images that may take one
    pseudo-label, the class that the network sees in them before it learns from them, where that is not the suspected
    one, so that the trigger is learnt with the right class. leave_out: not used."""
    mu: float | None = Field(None, ge=0)
    """μ, unlabeled images a step for each labeled one; 0: labeled images only. Unset: FixMatch's 7 with `hardest`; with
    `trusted`, what shows each unlabeled image as often as each labeled one."""
    tau: float = Field(0.95, ge=0, le=1)
    """τ, probability from which a pseudo-label counts."""
    lambda_u: float = Field(1.0, ge=0)
    """λ_u, weight of the unlabeled loss (α in DLP Eq. 7): of its mean where μ ≥ 1, else of each image beside a labeled
    one."""
    optimizer: Literal["sgd", "muon"] = "sgd"
    """sgd: with Nesterov momentum. muon: the same, with steps of convolutions made orthogonal (Jordan et al. 2024),
    which is more accurate, but learns poison that detection missed from far fewer images."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak step size; unset: 0.2 with sgd, 0.05 with muon. FixMatch's 0.03 is for 2²⁰ steps of sgd."""
    schedule: ScheduleName = "trapezoid"
    """How the step size falls after the rise. linear, cosine: to `final_share` of its peak. trapezoid: the same along a
    line, from 0.6 of the steps on. fixmatch_cosine: by cos(7πk/16K), to 0.195 of it (as published). constant: not at
    all."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the step size rises to its peak; 0: none, as in FixMatch."""
    final_share: float = Field(0.0, ge=0, le=1)
    """Of the peak, where the schedules linear, cosine and trapezoid end."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Nesterov momentum."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 penalty (R in DLP Eq. 7, weight β) of all weights with sgd, of linear layers with muon."""
    muon_decay: float = Field(6.0, ge=0)
    """How many times over, at the peak step size, all steps together take a convolution's weights away, with muon: the
    longer the training, the less a step does (Wang and Aitchison 2024)."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Probability spread over all classes in the targets of labeled images (Szegedy et al. 2016); 0: none. It lowers
    every confidence: at 0.05 few reach `tau` and `reinstate_edge`."""
    logit_adjustment: float = Field(2.0, ge=1)
    """Most that the odds of a class are raised by at the end, where suspicion took labels from it: up to those of the
    median class. 1: never."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights, which are the result; warmed up as min(ema, (1+k)/(10+k))."""
    norm_batches: int = Field(100, ge=0)
    """Batches of labeled images from which the averaged weights get batch-norm statistics of their own; 0: those of the
    last steps' weights, as in FixMatch."""
