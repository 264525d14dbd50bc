"""All options of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from dlp_fast.config.detection import DetectionConfig
from dlp_fast.config.section import Section
from dlp_fast.config.stages import DataConfig, FinetuningConfig, SupervisedConfig, UnlearningConfig

AttackName = Literal[
    "badnets",
    "blended",
    "trojannn",
    "lca",
    "sig",
    "badnets-all-to-all",
    "blended-all-to-all",
    "three-triggers",
    "ten-triggers",
    "wanet",
    "wanet-strong",
    "bpp",
    "low-frequency",
    "adaptive-blend",
    "adaptive-patch",
    "tact",
    "input-aware",
    "random-place",
    "soft-focus",
    "many-squares",
]
"""The attacks of `dlp_fast.attacks`, by name."""


class RunConfig(Section):
    """One run: an image set goes in; a clean model, the suspected images and the figures come out."""

    data: str = "digits"
    """digits | cifar10 | cifar10:DIR | DIR with a folder a class (or DIR/train and DIR/test) | FILE.csv of paths and
    labels | FILE.zip or FILE.tar of such a DIR | tar shards | a folder that Hugging Face's save_to_disk wrote."""
    out: Path | None = None
    """Run folder; unset: runs/<date>-<data>. The same command again goes on where it stopped."""
    loader: Literal["auto", "resident", "cached", "dali", "torchvision"] = "auto"
    """resident: images in memory; cached: files decoded once, by Pillow, and their pixels kept on the disk, for later
    runs too; dali, torchvision: decoded in every pass, by DALI or by Pillow. auto: resident up to
    `dataset.resident_megabytes`, else dali where it is installed. All show the same images."""
    model: str = "wrn-16-1"
    """wrn-D-K, torchvision:NAME (resnet18, vgg16_bn, ...), or timm:NAME, with the extra timm."""
    weights: Path | None = None
    """safetensors file that every network of the run starts from, but for its classifier; unset: new weights."""
    pretrained: bool = False
    """Start from the weights that torchvision or timm have for the network; they may download them. Nothing here checks
    them: see limits."""
    attack: Literal["auto", "none", AttackName] = "auto"
    """Poison the training set first, to measure the defence. auto: badnets for the embedded demo, else none."""
    poison_rate: float = Field(0.1, gt=0, le=1)
    """α, share of the training images that the attack poisons."""
    poison_of: Literal["auto", "all", "class"] = "auto"
    """What `poison_rate` is a share of: all images, or the target class. auto: class where labels stay (sig, lca)."""
    target: str = "0"
    """Class that the attack aims at: its name or number."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Fixes every random choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on GPUs and on CPUs with bf16 instructions, else fp32. Scores and losses are fp32 always."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of torch; unset: torch's choice, or on a CPU, where fewer processors are idle when the run begins, as
    many as those; kept in threads.json of the run folder. Other threads, other last bits."""
    graphs: Literal["auto", "off"] = "auto"
    """auto: on a GPU, training steps are captured as CUDA graphs; off: launched kernel by kernel. No effect on CPUs."""
    batch: Literal["as-set", "auto"] = "as-set"
    """auto: before the run, the batches of the stages are halved until a step fits into the free memory; what came out
    is kept in batches.json of the run folder."""
    sync_batch_norm: bool = False
    """Of several processes (torchrun): batch norm takes its statistics over the batch of all; else each takes them over
    its own part, and what is remembered is averaged."""
    batch_parts: int | None = Field(None, ge=2)
    """Batches fall into so many parts, each with batch norm of its own, whatever the number of processes, which is as
    many at most: all give the same bytes. Unset: one part a process."""
    order: Literal[
        "supervised-unlearning-finetuning",
        "supervised-unlearning",
        "supervised-finetuning",
        "supervised-finetuning-unlearning",
    ] = "supervised-unlearning-finetuning"
    """Stages and their order; the paper's SL, AU and ASSFT (DLP Fig. 4)."""
    decisions: Path | None = None
    """The run's table of images (samples.csv or samples.parquet) with a column `override` (keep, drop, suspect,
    relabel) that overrules the detection; the run goes on from there."""
    dry_run: bool = False
    """Only try two batches of every stage, and say what the run would take; nothing is written."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Where else metrics go, besides metrics.jsonl; each needs its package, and none can stop a run."""
    checkpoint_seconds: float = Field(20, ge=0)
    """Seconds between checkpoints within a stage; 0: after every step."""
    dataset: DataConfig = DataConfig()
    """How images are read."""
    supervised: SupervisedConfig = SupervisedConfig()
    """Stage 1."""
    detection: DetectionConfig = DetectionConfig()
    """Between stages 1 and 2."""
    unlearning: UnlearningConfig = UnlearningConfig()
    """Stage 2."""
    finetuning: FinetuningConfig = FinetuningConfig()
    """Stage 3."""
