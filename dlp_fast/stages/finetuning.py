"""Stage 3: active semi-supervised fine-tuning by FixMatch (DLP Eq. 7; Sohn et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlp_fast.config import FinetuneConfig
from dlp_fast.engine.batch_norm import refit_batch_norm
from dlp_fast.engine.batches import Cycle, TrainingData
from dlp_fast.engine.ema import WeightAverage
from dlp_fast.engine.scoring_pass import score
from dlp_fast.engine.session import Session, seed_step
from dlp_fast.engine.stepping import Stepper, set_rate, sgd
from dlp_fast.stages.odds import lost_odds, raise_odds
from dlp_fast.stages.readmission import needed_probability

LABELED, UNLABELED = 3, 4  # streams of the training order
LOG_EVERY = 50  # steps
LEAST_STEPS = 400  # where `min_steps` is unset
READMIT_FROM = 3  # looks; before, the network has nothing to say about labels
ANY, NONE = -1, -2  # pseudo-labels that an unlabeled image may get


@dataclass(frozen=True)
class Finetuning:
    """steps: optimizer steps taken; mask: share of unlabeled images whose pseudo-label counted at the end;
    labeled: int64 ids whose labels were used at the end; odds: fp32 [classes], how many times those of each class were
    raised, see `lost_odds`; entropy (bits), loss (nats): fp32 [looks, n], of every image
    at the looks taken on the way (none: [0, n]).
    """

    steps: int
    mask: float
    seconds: float
    images_per_second: float
    labeled: Tensor
    odds: Tensor
    entropy: Tensor
    loss: Tensor


def planned_steps(labeled: int, in_doubt: int, config: FinetuneConfig, before: int = 0) -> int:
    """K: `steps` where given, else at least `min_steps`, and what `epochs` passes over the labeled images would take if
    those in doubt were among them: suspicion costs images, and is not to cost training as well. `before`: steps that
    stage 1 took; the network that is handed out is not to be trained less than the one that was only looked at.
    """
    if config.steps is not None:
        return config.steps
    of = labeled + in_doubt
    least = max(LEAST_STEPS, before) if config.min_steps is None else config.min_steps
    return max(least, math.ceil(config.epochs * of / min(config.batch, of)))


def unlabeled_batch(labeled: int, unlabeled: int, config: FinetuneConfig) -> int:
    """Unlabeled images a step: μB, where μ is unset 7B as in FixMatch, or in proportion where labels are trusted."""
    if not unlabeled:
        return 0
    batch = min(config.batch, labeled)
    if config.mu is not None:
        return round(config.mu * batch)
    return (
        7 * batch
        if config.labeled == "hardest"
        else max(1, min(7 * batch, round(batch * unlabeled / labeled)))
    )


def unlabeled_loss(logits: Tensor, pseudo_label: Tensor, mask: Tensor, labeled: int) -> Tensor:
    """L2 of DLP Eq. 7, in nats: the masked cross-entropy of strong views, fp32 [u, classes]; its mean where u ≥
    `labeled` (μ ≥ 1). Of fewer unlabeled images a mean would have each outweigh a labeled one by 1/μ, and its
    pseudo-label a label; so each counts as one.
    """
    loss = F.cross_entropy(logits, pseudo_label, reduction="none") * mask
    return loss.sum() / max(len(logits), labeled)


def step_size(step: int, steps: int, config: FinetuneConfig) -> float:
    """FixMatch's cosine. The rise before it keeps deep networks from diverging in their first steps."""
    rise = min(1.0, (step + 1) / max(1.0, config.warmup * steps))
    return config.learning_rate * rise * math.cos(7 * math.pi * step / (16 * steps))


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and batch-norm scales do not, as in FixMatch."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _labeled_views(
    session: Session, data: TrainingData, cycle: Cycle, first: int, count: int
) -> Iterator[Tensor]:
    """Weak views of `count` batches, those that would have come next."""
    session.log.start("stage 3 of 3, batch-norm statistics", count, unit="batches")
    for k in range(count):
        session.poll()
        views = data.views(cycle.at(first + k), first + k, strong=False)[0]
        if k + 1 < count:
            data.expect(cycle.at(first + k + 1))
        yield views
        session.log.advance(k + 1, cycle.batch)
    session.log.finish()


def finetuning(
    session: Session,
    model: nn.Module,
    data: TrainingData,
    labeled: Tensor,
    unlabeled: Tensor,
    config: FinetuneConfig,
    looks: int = 0,
    suspected: Tensor | None = None,
    posterior: Tensor | None = None,
    before: int = 0,
) -> Finetuning:
    """Train `model` in place on `labeled` ids with their labels and `unlabeled` ids without; ends on the EMA weights.
    `before`: steps that stage 1 took, see `planned_steps`.

    `suspected`, bool [n]: images that never get the label that came with them, and are never readmitted. At the third
    look the network, which has not learnt from them yet, says what each of them shows; from then on only this class
    counts as its pseudo-label, and none where it is the label that came with it. Where that is the attacker's, the
    pseudo-label is the right class and unteaches the trigger; where a clean-label attack left the right one, the image
    teaches nothing, or what the attacker made this network see in it. Without the word of a network that does not know
    them, what they have in common would be learnt as any other class, which then confirms itself.

    One forward pass takes labeled, weak and strong views together, so that batch norm sees them as one batch, as
    in the reference. `looks` times on the way, evenly spaced, every image is scored, for the curves of this stage; from
    the third look on, an unlabeled image counts as labeled while the network gives its label the probability `readmit`,
    or where the filter has a `posterior`, fp32 [n], the one that this asks for (see `needed_probability`).
    """
    barred = torch.zeros(len(data), dtype=torch.bool) if suspected is None else suspected
    in_doubt = barred.clone()
    if config.labeled == "trusted":
        in_doubt[unlabeled] = True
    steps = planned_steps(len(labeled), int(in_doubt.sum()), config, before)
    batch = min(config.batch, len(labeled))
    extra = unlabeled_batch(len(labeled), len(unlabeled), config)
    readmissible = unlabeled[~barred[unlabeled]]
    asked = torch.zeros(len(data)) if posterior is None else posterior
    highest_loss = -needed_probability(asked, config.readmit, config.readmit_edge)[readmissible].log()
    optimizer = sgd(
        _decay_groups(model, config.weight_decay),
        session.compute,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
    )
    average = WeightAverage(model, config.ema)
    facts = {"mask": 0.0}
    mask_sum = torch.zeros((), device=session.compute.device)
    looks = min(looks, steps)
    look_after = {round((i + 1) * steps / looks) - 1: i for i in range(looks)}
    entropy, loss_of = torch.zeros(looks, len(data)), torch.zeros(looks, len(data))
    use = torch.zeros(len(data), dtype=torch.bool)
    use[labeled] = True
    permitted = torch.where(barred, NONE, ANY)
    stage = session.stage(
        "finetuning",
        "stage 3 of 3, fine-tuning",
        steps,
        batch + 2 * extra,
        model=model,
        optimizer=optimizer,
        average=average,
        facts=facts,
        mask_sum=mask_sum,
        entropy=entropy,
        loss=loss_of,
        use=use,
        permitted=permitted,
    )
    labeled_cycle = Cycle(use.nonzero().flatten(), batch, data.seed, LABELED)
    unlabeled_cycle = Cycle(unlabeled, extra, data.seed, UNLABELED)
    model.train()

    def body(x: Tensor, target: Tensor, allowed: Tensor) -> None:
        """One step on the views `x`, labeled ones first; `allowed`: pseudo-label of each unlabeled image, or ANY."""
        with session.compute.forward():
            logits = model(x)
        logits = logits.float()
        loss = F.cross_entropy(logits[:batch], target)  # first term of DLP Eq. 7
        if extra:
            of_weak, of_strong = logits[batch:].chunk(2)
            confidence, pseudo_label = of_weak.detach().softmax(1).max(1)
            mask = ((confidence >= config.tau) & ((allowed == ANY) | (allowed == pseudo_label))).float()
            loss = loss + config.lambda_u * unlabeled_loss(of_strong, pseudo_label, mask, batch)
            mask_sum.add_(mask.mean())
        stage.observe(loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update()

    one_step = Stepper(session.compute, model, body, session.log.warn)
    nobody = torch.empty(0, dtype=torch.int64, device=data.device)
    for step in stage.steps():
        set_rate(optimizer, step_size(step, steps, config))
        average.begin(step)
        ids = labeled_cycle.at(step)
        x, allowed = data.views(ids, step, strong=False)[0], nobody
        if extra:
            others = unlabeled_cycle.at(step)
            weak, strong = data.views(others, step, strong=True)
            x = torch.cat([x, weak, strong]).contiguous(memory_format=torch.channels_last)
            allowed = permitted[others].to(data.device, non_blocking=True)
        data.expect(labeled_cycle.at(step + 1))
        if extra:
            data.expect(unlabeled_cycle.at(step + 1))
        seed_step(model, data.seed, LABELED, step)
        one_step(x, data.target(ids), allowed)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            since = step % LOG_EVERY + 1
            facts["mask"] = float(mask_sum) / since
            mask_sum.zero_()
            value = stage.mean_loss(since)
            session.log.event("steps", stage="finetuning", step=step + 1, loss=value, mask=facts["mask"])
            stage.note = f"loss {value:.3f}"
        if step in look_after:
            scores = score(session, model, data)
            look = look_after[step]
            entropy[look], loss_of[look] = scores.entropy, scores.loss
            if look + 1 == READMIT_FROM:
                shown = torch.where(scores.prediction == data.labels, NONE, scores.prediction)
                permitted.copy_(torch.where(barred, shown, ANY))
            if look + 1 >= READMIT_FROM:
                use[readmissible] = scores.loss[readmissible] < highest_loss
                labeled_cycle = Cycle(use.nonzero().flatten(), batch, data.seed, LABELED)
    model.load_state_dict(average.state_dict())
    if config.norm_batches:
        # the statistics that came along are those of the last steps' weights, and do not fit the average
        seed_step(model, data.seed, LABELED, steps)
        refit_batch_norm(model, _labeled_views(session, data, labeled_cycle, steps, config.norm_batches))
    given, used = (torch.bincount(of, minlength=data.classes) for of in (data.labels, data.labels[use]))
    odds = lost_odds(given, used, config.logit_adjustment)
    if not raise_odds(model, odds):
        if (odds > 1).any():
            session.log.warn(
                "this network's last layer has no bias, so finetune.logit_adjustment does nothing"
            )
        odds = torch.ones(data.classes)
    rate = steps * (batch + 2 * extra) / stage.seconds
    kept = use.nonzero().flatten()
    return Finetuning(steps, facts["mask"], stage.seconds, rate, kept, odds, entropy, loss_of)
