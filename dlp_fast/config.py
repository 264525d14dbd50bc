"""Every knob of a run: frozen models, each field with its unit and the paper's symbol.

Precedence: defaults < preset < configuration file < command line. The resolved configuration is written into the
run folder; running it again gives the same run.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlp_fast.errors import ConfigError

PRESETS = Path(__file__).resolve().parent / "presets"


class Section(BaseModel):
    """Base of all sections: unknown keys and values out of range are errors, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataConfig(Section):
    image_size: int | None = Field(None, ge=8, le=256)
    """Side in pixels that images are resized to; unset: their own where all are equal and at most 96, else 224."""
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
    enough: float = Field(0.995, gt=0, le=1)
    """Epochs beyond E1 end when this share of the images is predicted as labeled: nothing is left to be learnt."""
    batch: int = Field(128, ge=2)
    """Images a step."""
    learning_rate: float = Field(0.05, gt=0)
    """Step size of SGD, constant. The paper's 0.01 learns a backdoor later, measured in steps."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 penalty of SGD."""
    augment: Literal["none", "weak"] = "none"
    """weak: flip and crop. A crop moves a trigger and can cut it off, so that the poison is learnt later."""


class FilterConfig(Section):
    """The choice of both suspected sets (DLP Eq. 5)."""

    score: Literal["trajectory", "snapshot", "loss", "activation_clustering", "spectral_signatures"] = (
        "trajectory"
    )
    """trajectory: clusters of learning curves, see docs/filter.md. snapshot: entropy at epoch E1, as published. The
    others are those that the paper compares with."""
    rate: float = Field(0.01, gt=0, le=0.5)
    """γ, share of all images that is unlearnt, and again of the suspected clean (balanced over classes). With filters
    that only rank, it is the share of the suspected poisoned too."""
    floor: int = Field(10, ge=1)
    """Least number of suspected clean and of trusted images a class, and of suspected poisoned ones in all."""
    min_separation: float = Field(2.1, gt=0)
    """With `trajectory`: a class has two clouds of curves from this Bhattacharyya distance on. Measured
    (docs/filter.md): clean classes up to 1.5, poisoned ones whose trigger is well learnt from 2.8 on."""
    membership: float = Field(1e-5, gt=0, lt=1)
    """With `trajectory`: from this probability of being in the suspicious cloud on, a label is not used at first. Up to
    one half stage 3 may take it back; above, the image is suspected."""
    networks: int | None = Field(None, ge=1, le=20)
    """With `trajectory`: networks of stage 1, each with its own weights and order, whose curves are averaged. Unset:
    one, and a second where a sign leaves doubt; where a small set is learnt so soon that several fit into
    `supervised.min_steps`, as many as do, at most five."""
    doubt_from: float = Field(0.7, ge=0)
    """With `networks` unset: where one network's sign of a class (1: found) is this or more and less than `doubt_to`, a
    second one looks. Measured (docs/filter.md): single networks give clean sets up to 0.75, and one poisoned set
    between 1.0 and 2.3."""
    doubt_to: float = Field(3.0, ge=0)
    """With `networks` unset: from this strength on one network is enough; 0: none is ever in doubt."""
    nothing_found: Literal["skip", "suspect"] = "skip"
    """With `trajectory`, where no class has two clouds. skip: nobody is suspected, nothing is unlearnt, all labels are
    used. suspect: the γ of lowest mean entropy are suspected all the same."""
    distrust: float = Field(0.0, ge=0, lt=1)
    """Share of all images, those of the highest mean loss, whose labels are not used: poison that is not yet learnt
    looks like a wrong label. They serve as unlabeled images. It costs accuracy (docs/finetuning.md)."""


class UnlearnConfig(Section):
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


class FinetuneConfig(Section):
    """Stage 3, semi-supervised fine-tuning by FixMatch (DLP Eq. 7)."""

    labeled: Literal["trusted", "hardest"] = "trusted"
    """Whose labels are used. hardest: the suspected clean, as published. trusted: all but the most suspected."""
    rounds: int = Field(2, ge=1)
    """With `trusted`: times that stage 3 may begin. After each, the curves of its own epochs are clustered too; a class
    that falls into two only now loses those labels, and the stage begins anew."""
    readmit: float = Field(0.5, gt=0, le=1)
    """With `trusted`: an unlabeled image's label is used after all while the network, trained without it, gives it this
    probability; 1: never."""
    readmit_edge: float = Field(0.99, gt=0, le=1)
    """The same at the edge of a suspicious cloud: while the label is right with this probability by the network's word
    and the filter's. One poisoned label does more harm than a hundred real ones do good; 1: never."""
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
    learning_rate: float = Field(0.1, gt=0)
    """Step size of SGD with Nesterov momentum, falling by cos(7πk/16K). FixMatch's 0.03 is for 2²⁰ steps."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the step size rises to `learning_rate`; 0: none, as in FixMatch."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Nesterov momentum of SGD."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 penalty (R in DLP Eq. 7, weight β)."""
    logit_adjustment: float = Field(2.0, ge=1)
    """Most that the odds of a class are raised by at the end, where suspicion took labels from it: up to those of the
    median class. 1: never."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights, which are the result; warmed up as min(ema, (1+k)/(10+k))."""
    norm_batches: int = Field(100, ge=0)
    """Batches of labeled images from which the averaged weights get batch-norm statistics of their own; 0: those of the
    last steps' weights, as in FixMatch."""


class RunConfig(Section):
    """One run: an image set goes in; a clean model, the suspected images and the figures come out."""

    data: str = "digits"
    """digits | cifar10 | cifar10:DIR | DIR with a folder a class (or DIR/train and DIR/test)."""
    out: Path | None = None
    """Run folder; unset: runs/<date>-<data>. The same command again goes on where it stopped."""
    loader: Literal["auto", "resident", "dali", "torchvision"] = "auto"
    """resident: images in memory; dali, torchvision: files decoded as needed, by DALI or by Pillow. auto: resident up
    to `dataset.resident_megabytes`, else dali where it is installed. All show the same images."""
    model: str = "wrn-16-1"
    """wrn-D-K, or torchvision:NAME (resnet18, vgg16_bn, ...); no pretrained weights."""
    attack: Literal["auto", "none", "badnets", "blended", "sig", "trojannn", "lca"] = "auto"
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
    """CPU threads of torch; unset: torch's choice. Part of the configuration: other threads, other last bits."""
    graphs: Literal["auto", "off"] = "auto"
    """auto: on a GPU, training steps are captured as CUDA graphs; off: launched kernel by kernel. No effect on CPUs."""
    batch: Literal["as-set", "auto"] = "as-set"
    """auto: before the run, the batches of the stages are halved until a step fits into the free memory; what came out
    is kept in batches.json of the run folder."""
    order: Literal["sl-au-assft", "sl-au", "sl-assft", "sl-assft-au"] = "sl-au-assft"
    """Stages and their order: supervised learning, active unlearning, active semi-supervised fine-tuning (Fig. 4)."""
    decisions: Path | None = None
    """The run's samples.csv with a column `override` (keep, drop, suspect) that overrules the filter; the run goes on
    from there."""
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
    filter: FilterConfig = FilterConfig()
    """Between stages 1 and 2."""
    unlearn: UnlearnConfig = UnlearnConfig()
    """Stage 2."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Stage 3."""


# What may differ between two commands that mean the same run: none of these changes a result, but for `decisions`,
# whose content is kept and compared by itself.
NOT_COMPARED = frozenset({"out", "checkpoint_seconds", "decisions", "track", "dry_run"})


def presets() -> list[str]:
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` laid on it, section by section; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file; ConfigError where it is missing, broken or no mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"configuration file {path}: expected `key: value` lines, got a {type(values).__name__}"
        )
    return values


def read_preset(name: str) -> dict[str, Any]:
    if name not in presets():
        near = difflib.get_close_matches(name, presets(), n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise ConfigError(f"preset {name!r} does not exist{hint}; there are: {', '.join(presets())}")
    return read_yaml(PRESETS / f"{name}.yaml")


def _known_keys(dotted: tuple[Any, ...]) -> list[str]:
    section: Any = RunConfig
    for key in dotted:
        section = getattr(section.model_fields.get(key), "annotation", None)
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
    return list(section.model_fields)


def build(values: dict[str, Any], origin: str) -> RunConfig:
    """A checked RunConfig from nested `values`; `origin` says in errors where they came from."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                near = difflib.get_close_matches(
                    str(problem["loc"][-1]), _known_keys(problem["loc"][:-1]), n=1
                )
                hint = (
                    f"; perhaps you meant {'.'.join([*map(str, problem['loc'][:-1]), near[0]])}"
                    if near
                    else ""
                )
                lines.append(f"{name}: no such option{hint}")
            else:
                lines.append(f"{name}: {problem['msg']}, got {problem['input']!r}")
        raise ConfigError(f"{origin}: " + "; ".join(lines)) from None


def differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two resolved configurations, with both values."""
    found = []
    for key in sorted(a.keys() | b.keys()):
        if not prefix and key in NOT_COMPARED:
            continue
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            found += differences(x, y, f"{prefix}{key}.")
        elif x != y:
            found.append(f"{prefix}{key}: {x} there, {y} now")
    return found


def resolve(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain JSON values, with `attack: auto` decided."""
    values = config.model_dump(mode="json")
    if values["attack"] == "auto":
        values["attack"] = "badnets" if config.data == "digits" else "none"
    return values
