"""Stage 3: active semi-supervised fine-tuning by FixMatch (DLP Eq. 7; Sohn et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlp_fast.config import FinetuningConfig
from dlp_fast.engine.batches import Cycle, TrainingData
from dlp_fast.engine.distributed import Ranks
from dlp_fast.engine.ema import WeightAverage
from dlp_fast.engine.inference import refit_batch_norm, score
from dlp_fast.engine.muon import Muon
from dlp_fast.engine.schedule import Schedule, peak_of
from dlp_fast.engine.session import Session, StageRun, seed_step
from dlp_fast.engine.stepping import Stepper, rate_on, set_rate, sgd
from dlp_fast.selection.labels import Labels
from dlp_fast.stages.fixmatch import fixmatch_loss
from dlp_fast.stages.label_policy import LabelPolicy
from dlp_fast.stages.logit_adjustment import lost_odds, raise_odds

LABELED, UNLABELED = 3, 4  # streams of the training order
LOG_EVERY = 50  # steps
MOST_DECAY = 0.02  # of a convolution's weights, in one step
LEAST_STEPS = 400  # where `min_steps` is unset


@dataclass(frozen=True)
class Finetuned:
    """steps: optimizer steps taken; mask: share of unlabeled images whose pseudo-label counted at the end;
    labeled: int64 ids whose labels were used at the end; odds: fp32 [classes], how many times those of each class were
    raised, see `lost_odds`; entropy (bits), loss (nats): fp32 [snapshots, n], of every image
    at the evaluation snapshots taken on the way (none: [0, n]).
    """

    steps: int
    mask: float
    seconds: float
    images_per_second: float
    labeled: Tensor
    odds: Tensor
    entropy: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Plan:
    """steps: K; batch: B, labeled images a step; unlabeled_batch: μB; snapshot_after: which evaluation snapshot, from
    0 on, follows which step.
    """

    steps: int
    batch: int
    unlabeled_batch: int
    snapshot_after: dict[int, int]

    def weights(self, ranks: Ranks) -> tuple[float, float] | None:
        """What the labeled and the unlabeled loss of a rank's part of a batch count in those of the batch; None alone.
        The unlabeled one is a sum over the larger of two counts, here of the part, in Eq. 7 of the batch.
        """
        if ranks.world == 1:
            return None
        labeled = len(ranks.part(torch.arange(self.batch)))
        unlabeled = len(ranks.part(torch.arange(self.unlabeled_batch), 0))
        of_all = max(labeled, unlabeled) / max(self.batch, self.unlabeled_batch)
        return ranks.weight(self.batch), of_all


def plan(labels: Labels, config: FinetuningConfig, snapshots: int = 0, steps_before: int = 0) -> Plan:
    """The Plan of a run on `labels`; steps_before: of stage 1, see `planned_steps`."""
    not_used = labels.suspected.clone()
    if config.labeled == "trusted":
        not_used[labels.unlabeled] = True
    steps = planned_steps(len(labels.labeled), int(not_used.sum()), config, steps_before)
    snapshots = min(snapshots, steps)
    after = {round((i + 1) * steps / snapshots) - 1: i for i in range(snapshots)}
    batch = min(config.batch, len(labels.labeled))
    return Plan(steps, batch, unlabeled_batch(len(labels.labeled), len(labels.unlabeled), config), after)


def planned_steps(labeled: int, withheld: int, config: FinetuningConfig, steps_before: int = 0) -> int:
    """K: `steps` where given, else at least `min_steps`, and what `epochs` passes over the labeled images would take if
    those whose labels are withheld were among them: suspicion costs images, and is not to cost training as well.
    `steps_before`: of stage 1; the network that is handed out is not to be trained less than the one that was only
    looked at.
    """
    if config.steps is not None:
        return config.steps
    images = labeled + withheld
    least = max(LEAST_STEPS, steps_before) if config.min_steps is None else config.min_steps
    return max(least, math.ceil(config.epochs * images / min(config.batch, images)))


def unlabeled_batch(labeled: int, unlabeled: int, config: FinetuningConfig) -> int:
    """Unlabeled images a step: μB, where μ is unset 7B as in FixMatch, or in proportion where labels are trusted."""
    if not unlabeled:
        return 0
    batch = min(config.batch, labeled)
    if config.mu is not None:
        return round(config.mu * batch)
    if config.labeled == "hardest":
        return 7 * batch
    return max(1, min(7 * batch, round(batch * unlabeled / labeled)))


def _optimizer(
    session: Session, model: nn.Module, steps: int, config: FinetuningConfig
) -> torch.optim.Optimizer:
    """Muon, or SGD with Nesterov momentum; weights decay, biases and batch-norm scales do not, as in FixMatch."""
    rate, momentum = peak_of(config), config.momentum
    if config.optimizer == "muon":
        lr = rate_on(session.compute, rate)
        decay = min(config.muon_decay / steps, MOST_DECAY) / rate
        return Muon(model, lr, momentum, decay, config.weight_decay, session.compute.autocast)
    return sgd(
        _decay_groups(model, config.weight_decay),
        session.compute,
        lr=rate,
        momentum=momentum,
        nesterov=momentum > 0,
    )


def _schedule(steps: int, config: FinetuningConfig) -> Schedule:
    return Schedule(config.schedule, steps, peak_of(config), config.warmup, config.final_share)


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class _Batches:
    """Labeled and unlabeled batches of each step, as one network input; the next ones are asked for ahead."""

    def __init__(
        self, ranks: Ranks, data: TrainingData, policy: LabelPolicy, unlabeled: Tensor, planned: Plan
    ):
        self.ranks, self.data, self.policy, self.planned = ranks, data, policy, planned
        self.unlabeled = Cycle(unlabeled, planned.unlabeled_batch, data.seed, UNLABELED)
        self._nobody = torch.empty(0, dtype=torch.int64, device=data.device)
        self.choose_labeled()

    def choose_labeled(self) -> None:
        """Draw labeled batches from the images whose labels are used now."""
        self.labeled = Cycle(
            self.policy.used.nonzero().flatten(), self.planned.batch, self.data.seed, LABELED
        )

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """(network input [b + 2u, 3, H, W], of each part of the batch its labeled images, weak and strong views; target
        int64 [b], allowed pseudo-labels int64 [u]).
        """
        data, ids = self.data, self._labeled(step)
        x, allowed = data.views(ids, step, strong=False)[0], self._nobody
        if self.planned.unlabeled_batch:
            others = self.ranks.part(
                self.unlabeled.at(step), 0
            )  # few beside the labeled, which batch norm needs
            weak, strong = data.views(others, step, strong=True)
            u = self.ranks.sizes(self.planned.unlabeled_batch, 0)
            b = self.ranks.sizes(self.planned.batch)
            parts = zip(x.split(b), weak.split(u), strong.split(u), strict=True)
            x = torch.cat([of for part in parts for of in part]).contiguous(memory_format=torch.channels_last)
            allowed = self.policy.allowed[others].to(data.device, non_blocking=True)
        data.expect(self._labeled(step + 1))
        if self.planned.unlabeled_batch:
            data.expect(self.ranks.part(self.unlabeled.at(step + 1), 0))
        return x, data.target(ids), allowed

    def _labeled(self, step: int) -> Tensor:
        return self.ranks.part(self.labeled.at(step))


def _step(
    session: Session,
    stage: StageRun,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    mask_sum: Tensor,
    config: FinetuningConfig,
    planned: Plan,
) -> Callable[[Tensor, Tensor, Tensor], None]:
    """One optimizer step on (network input, target, allowed pseudo-labels), captured as a graph on a GPU.

    One forward pass takes labeled, weak and strong views together, so that batch norm sees them as one batch, as in the
    reference.
    """
    views, u = session.ranks.views, session.ranks.sizes(planned.unlabeled_batch, 0)
    b = session.ranks.sizes(planned.batch)
    images = [labeled + 2 * unlabeled for labeled, unlabeled in zip(b, u, strict=True)]

    def losses(x: Tensor, target: Tensor, allowed: Tensor) -> Iterator[tuple[Tensor, ...]]:
        for view, *part in zip(views, x.split(images), target.split(b), allowed.split(u), strict=True):
            with session.forward(model):
                logits = model(part[0])
            loss, mask = fixmatch_loss(logits.float(), *part[1:], config, planned.weights(view))
            counted = []  # the share of pseudo-labels that count, of all ranks
            if planned.unlabeled_batch:
                share = loss.new_zeros(()) if mask is None else mask.mean()
                counted = [view.weighted(share, planned.unlabeled_batch, 0)]
            yield loss, *counted

    def body(x: Tensor, target: Tensor, allowed: Tensor) -> None:
        loss, *counted = session.update(model, optimizer, losses(x, target, allowed))
        for share in counted:
            mask_sum.add_(share)
        stage.observe(loss)
        optimizer.step()
        average.update()

    return Stepper(session.compute, model, body, session.log.warn)


def finetuning(
    session: Session,
    model: nn.Module,
    data: TrainingData,
    labels: Labels,
    config: FinetuningConfig,
    snapshots: int = 0,
    steps_before: int = 0,
) -> Finetuned:
    """Train `model` in place by FixMatch on `labels`; ends on the averaged (EMA) weights.

    `snapshots` times on the way, evenly spaced, every image is scored, for the learning curves of this stage and for
    the LabelPolicy. `steps_before`: of stage 1, see `planned_steps`.
    Raises NumericError on a non-finite loss, Interrupted on a signal (after saving).
    """
    planned = plan(labels, config, snapshots, steps_before)
    steps, taken = planned.steps, len(planned.snapshot_after)
    policy = LabelPolicy(data.labels, labels, config)
    optimizer = _optimizer(session, model, steps, config)
    average = WeightAverage(model, config.ema)
    progress = {"mask": 0.0}
    mask_sum = torch.zeros((), device=session.compute.device)
    entropy, loss = session.columns(taken, len(data)), session.columns(taken, len(data))
    stage = session.stage(
        "finetuning",
        "stage 3 of 3, fine-tuning",
        steps,
        planned.batch + 2 * planned.unlabeled_batch,
        model=model,
        optimizer=optimizer,
        average=average,
        progress=progress,
        mask_sum=mask_sum,
        entropy=entropy,
        loss=loss,
        used=policy.used,
        allowed=policy.allowed,
    )
    batches = _Batches(session.ranks, data, policy, labels.unlabeled, planned)
    one_step = _step(session, stage, model, optimizer, average, mask_sum, config, planned)
    schedule = _schedule(steps, config)
    model.train()
    for step in stage.steps():
        set_rate(optimizer, schedule.at(step))
        average.begin(step)
        inputs = batches.at(step)
        seed_step(model, data.seed, LABELED, step, session.ranks.rank)
        one_step(*inputs)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            progress["mask"] = _log_steps(session, stage, step, mask_sum)
        if step in planned.snapshot_after:
            snapshot = planned.snapshot_after[step]
            scores = score(session, model, data)
            entropy[snapshot], loss[snapshot] = scores.entropy, scores.loss
            if policy.update(scores, snapshot + 1):
                batches.choose_labeled()
    model.load_state_dict(average.state_dict())
    odds = _finalize(session, model, data, batches, config)
    rate, kept = steps * stage.images / stage.seconds, policy.used.nonzero().flatten()
    return Finetuned(steps, progress["mask"], stage.seconds, rate, kept, odds, entropy, loss)


def _log_steps(session: Session, stage: StageRun, step: int, mask_sum: Tensor) -> float:
    """Log the steps since the last time; returns the share of pseudo-labels that counted in them."""
    since = step % LOG_EVERY + 1
    mask = float(mask_sum) / since
    mask_sum.zero_()
    value = stage.mean_loss(since)
    session.log.event("steps", stage="finetuning", step=step + 1, loss=value, mask=mask)
    stage.note = f"loss {value:.3f}"
    return mask


def _finalize(
    session: Session, model: nn.Module, data: TrainingData, batches: _Batches, config: FinetuningConfig
) -> Tensor:
    """Give the averaged weights batch-norm statistics of their own, and raise the odds of classes that lost labels.
    Returns how many times those of each class were raised, fp32 [classes].
    """
    steps = batches.planned.steps
    if config.norm_batches:
        # the statistics that came along are those of the last steps' weights, and do not fit the average
        seed_step(model, data.seed, LABELED, steps)
        refit_batch_norm(model, _labeled_views(session, data, batches.labeled, steps, config.norm_batches))
        session.ranks.join_statistics(model, len(session.ranks.turns(config.norm_batches)))
    given, used = (
        torch.bincount(labels, minlength=data.classes)
        for labels in (data.labels, data.labels[batches.policy.used])
    )
    odds = lost_odds(given, used, config.logit_adjustment)
    if raise_odds(model, odds):
        return odds
    if (odds > 1).any():
        session.log.warn("this network's last layer has no bias, so finetuning.logit_adjustment does nothing")
    return torch.ones(data.classes)


def _labeled_views(
    session: Session, data: TrainingData, cycle: Cycle, first: int, count: int
) -> Iterator[Tensor]:
    """Weak views of `count` batches, those that would have come next; of several ranks, each takes its turns."""
    session.log.start("stage 3 of 3, batch-norm statistics", count, unit="batches")
    turns = session.ranks.turns(count)
    for k in turns:
        session.poll()
        views = data.views(cycle.at(first + k), first + k, strong=False)[0]
        if k + turns.step < count:
            data.expect(cycle.at(first + k + turns.step))
        yield views
        session.log.advance(k + 1, cycle.batch)
    session.log.finish()
