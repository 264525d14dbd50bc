"""The three stages in order (and their other orders, DLP Figure 4), from images and labels to a clean model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dlp_fast.config import RunConfig
from dlp_fast.engine.batches import TrainingData
from dlp_fast.engine.features import features
from dlp_fast.engine.session import Session
from dlp_fast.errors import DataError
from dlp_fast.filtering.curves import Split, late_strengths, split_classes, strengths
from dlp_fast.filtering.decisions import Overrides, apply, nobody
from dlp_fast.filtering.doubt import averaged, in_doubt, networks
from dlp_fast.filtering.scores import suspicion
from dlp_fast.filtering.selection import Selection, counts, select
from dlp_fast.filtering.suspicion import Suspicion
from dlp_fast.filtering.vouching import Word, words
from dlp_fast.models.registry import build_model
from dlp_fast.stages.finetuning import READMIT_FROM, finetuning
from dlp_fast.stages.supervised import Supervised, supervised
from dlp_fast.stages.unlearning import unlearning

AGAIN = 101  # added to the seed for each further network of stage 1
LOOKS = 10  # at all images during a round of stage 3, to cluster its curves
# What is known of a model where the truth is; given by the caller, used for the results and for nothing else.
Observer = Callable[[nn.Module], dict[str, float | None]]


@dataclass(frozen=True)
class Defense:
    """What a run found and made.

    stages: for each stage its figures (seconds, images_per_second, what the observer measured); first: what stage 1
    saw, where several networks looked their mean; evidence: for each class that falls into two clouds of curves, where
    and how far apart; nearest: strength of the clearest split that does not count as found; late: images that the last
    round of stage 3 gave away after it had learnt their labels, among the suspected of `selection`.
    """

    model: nn.Module
    selection: Selection
    first: Supervised
    stages: dict[str, dict[str, Any]]
    evidence: list[dict[str, Any]]
    nearest: float
    late: int


class Pipeline:
    """One run of the stages on one image set; goes on where an earlier process was stopped."""

    def __init__(
        self,
        session: Session,
        data: TrainingData,
        config: RunConfig,
        observe: Observer,
        overrides: Overrides | None = None,
    ):
        self.session, self.data, self.config, self.observe = session, data, config, observe
        self.overrides = overrides or nobody()
        self.evidence: list[dict[str, Any]] = []
        self.nearest = 0.0
        self.late = torch.empty(0, dtype=torch.int64)
        self.late_learnt = 0

    def run(self) -> Defense:
        model = self._new_model(self.data.seed)
        first = self._supervised(model)
        figures = {"supervised": self.session.completed("supervised")["figures"]}
        looks = networks(first.steps, self.config)
        if looks > 1:
            first = self._look_again(first, looks, f"{looks} networks look, and their curves are averaged")
        of = self._suspicion(model, first)
        if looks == 1 and in_doubt(of, self.config.filter):
            looks = 2
            why = "the curves leave doubt: another network is trained to look again"
            first = self._look_again(first, looks, why)
            of = self._suspicion(model, first)
        if looks > 1:
            figures["supervised"] = figures["supervised"] | {"networks": looks, "seconds": first.seconds}
        selection = self._filter(of)
        for key in self.config.order.split("-")[1:]:
            if key == "au":
                figures["unlearning"] = self._unlearn(model, selection)
            else:
                model, figures["finetuning"] = self._finetune(model, selection, first.steps)
        selection = selection.with_late(self.late)
        return Defense(model, selection, first, figures, self.evidence, self.nearest, self.late_learnt)

    def _new_model(self, seed: int) -> nn.Module:
        size = max(self.data.images.height, self.data.images.width)
        return build_model(self.config.model, self.data.classes, size, seed).to(self.session.compute.device)

    def _supervised(self, model: nn.Module) -> Supervised:
        kept = self.session.completed("supervised")
        if kept is None:
            result = supervised(self.session, model, self.data, self.config.supervised)
            figures = {
                "seconds": result.seconds,
                "images_per_second": result.images_per_second,
                "steps": result.steps,
            }
            tensors = {"entropy": result.entropy, "loss": result.loss, "prediction": result.prediction}
            kept = {
                "figures": figures | self.observe(model),
                "trajectory": tensors,
                "model": model.state_dict(),
            }
            self.session.complete("supervised", kept)
        model.load_state_dict(kept["model"])
        return Supervised(
            steps=kept["figures"]["steps"],
            **kept["trajectory"],
            seconds=kept["figures"]["seconds"],
            images_per_second=kept["figures"]["images_per_second"],
        )

    def _look_again(self, first: Supervised, looks: int, why: str) -> Supervised:
        """`first` with its curves averaged with those of other networks, `looks` in all, and the seconds of all."""
        kept = self.session.completed("further looks") or {"entropy": [], "loss": [], "seconds": []}
        kept = {name: list(of) for name, of in kept.items()}
        if len(kept["seconds"]) < looks - 1:
            self.session.log.say(why)
        for look in range(2 + len(kept["seconds"]), looks + 1):
            seed = self.data.seed + (look - 1) * AGAIN
            again = supervised(
                self.session,
                self._new_model(seed),
                replace(self.data, seed=seed),
                self.config.supervised,
                look=look,
            )
            for name in kept:
                kept[name].append(getattr(again, name))
            self.session.complete("further looks", kept)
        return replace(
            first,
            entropy=averaged([first.entropy, *kept["entropy"]]),
            loss=averaged([first.loss, *kept["loss"]]),
            seconds=first.seconds + sum(kept["seconds"]),
        )

    def _suspicion(self, model: nn.Module, first: Supervised) -> Suspicion:
        return suspicion(
            first.entropy,
            first.loss,
            self.data.labels,
            self.data.classes,
            self.config.filter,
            lambda: features(self.session, model, self.data),
        )

    def _filter(self, of: Suspicion) -> Selection:
        data, config = self.data, self.config.filter
        new = self.session.completed("filter") is None  # a resumed run chooses again, and logs once
        position = self.session.log.position()
        clear = strengths(of.splits, config.min_separation)
        for split, strength in zip(of.splits, clear, strict=True):
            if strength >= 1:
                self._tell(split, "supervised", int((split.posterior > 0.5).sum()), strength, log=new)
        self.nearest = nearest(clear)
        selection = select(of, data.labels, data.classes, config)
        selection = apply(selection, self.overrides, counts(len(data), data.classes, config)[0])
        if new:
            self.session.log.event(
                "filter",
                score=config.score,
                suspected_poisoned=len(selection.suspected_poisoned),
                suspected_clean=len(selection.suspected_clean),
                trusted=len(selection.trusted),
                unlabeled=len(selection.unlabeled),
                widest_split=max((s.separation for s in of.splits), default=None),
            )
            kept = {"overrides": self.overrides.fingerprint, "log_position": position}
            self.session.complete("filter", kept)
        return selection

    def _tell(self, split: Split, stage: str, images: int, strength: float, log: bool = True) -> None:
        """Keep the evidence of a class that falls into two."""
        found = {
            "stage": stage,
            "label": split.label,
            "images": images,
            "separation": round(split.separation, 3),
            "doubt": round(split.doubt, 4),
            "strength": round(strength, 4),
        }
        self.evidence.append(found)
        if log:
            self.session.log.event("split", **found)

    def _unlearn(self, model: nn.Module, selection: Selection) -> dict[str, Any]:
        kept = self.session.completed("unlearning")
        if kept is None and not len(selection.to_unlearn):
            figures = {"seconds": 0.0, "images_per_second": 0.0, "skipped": True}
            kept = {"figures": figures | self.observe(model), "model": model.state_dict()}
            self.session.complete("unlearning", kept)
        elif kept is None:
            result = unlearning(self.session, model, self.data, selection.to_unlearn, self.config.unlearn)
            figures = {
                "seconds": result.seconds,
                "images_per_second": result.images_per_second,
                "loss": result.loss,
                "rollbacks": result.rollbacks,
                "stopped_at_max_loss": result.stopped,
            }
            kept = {"figures": figures | self.observe(model), "model": model.state_dict()}
            self.session.complete("unlearning", kept)
        model.load_state_dict(kept["model"])
        return kept["figures"]

    def _finetune(
        self, start: nn.Module, selection: Selection, before: int
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Stage 3, begun anew where its own curves give away poison that stage 1, of `before` steps, had not learnt."""
        config = self.config.finetune
        labeled, unlabeled, suspected = labels_to_use(selection, self.config)
        rounds = config.rounds if config.labeled == "trusted" else 1
        weights = {name: value.clone() for name, value in start.state_dict().items()}
        seconds = 0.0
        for number in range(rounds):
            model = self._new_model(self.data.seed + 1 + number)
            if config.start == "unlearned":
                model.load_state_dict(weights)
            kept = self.session.completed(f"finetuning round {number}")
            if kept is None:
                kept = self._round(model, labeled, unlabeled, suspected, selection.posterior, before)
                self.session.complete(f"finetuning round {number}", kept)
            model.load_state_dict(kept["model"])
            seconds += kept["figures"]["seconds"]
            if number == 0:  # later rounds suspect more, and were begun for what this one has learnt
                self._vouch(kept.get("words", {}))  # a run begun before there were any goes on
            for evidence in kept["evidence"]:
                self.evidence.append(evidence)
            self.nearest = max(self.nearest, kept["nearest"])
            self.late = torch.cat([self.late, kept["dropped"]])
            self.late_learnt = len(kept["dropped"])
            if not len(kept["dropped"]) or number + 1 == rounds:
                break
            labeled = labeled[~torch.isin(labeled, kept["dropped"])]
            unlabeled = unlabeled[~torch.isin(unlabeled, kept["dropped"])]
            suspected[kept["dropped"]] = True
            if config.suspects == "relabel":
                unlabeled = torch.cat([unlabeled, kept["dropped"]]).sort().values
        return model, kept["figures"] | {"rounds": number + 1, "seconds": seconds}

    def _round(
        self,
        model: nn.Module,
        labeled: Tensor,
        unlabeled: Tensor,
        suspected: Tensor,
        posterior: Tensor | None,
        before: int,
    ) -> dict[str, Any]:
        result = finetuning(
            self.session,
            model,
            self.data,
            labeled,
            unlabeled,
            self.config.finetune,
            looks=LOOKS if self.config.finetune.labeled == "trusted" else 0,
            suspected=suspected,
            posterior=posterior,
            before=before,
        )
        splits = self._late_splits(result.labeled, result.entropy, result.loss)
        early = any(of["stage"] == "supervised" for of in self.evidence)
        clear = late_strengths(splits, self.config.filter.min_separation, early)
        dropped, evidence = self._late_poison(result.labeled, splits, clear)
        figures = {
            "seconds": result.seconds,
            "images_per_second": result.images_per_second,
            "steps": result.steps,
            "labeled": len(result.labeled),
            "unlabeled": len(unlabeled),
            "mask": result.mask,
            "odds": [round(of, 4) for of in result.odds.tolist()],
        }
        return {
            "figures": figures | self.observe(model),
            "model": model.state_dict(),
            "dropped": dropped,
            "evidence": evidence,
            "nearest": nearest(clear),
            "words": self._words(result.loss, labeled, suspected),
        }

    def _words(self, loss: Tensor, labeled: Tensor, suspected: Tensor) -> dict[int, Word]:
        """Of a network that has not learnt from the suspects: trained from fresh weights, up to the look at which it
        says what they show.
        """
        if self.config.finetune.start != "fresh" or len(loss) < READMIT_FROM or not suspected.any():
            return {}
        return words(loss[READMIT_FROM - 1], self.data.labels, suspected.nonzero().flatten(), labeled)

    def _vouch(self, told: dict[int, Word]) -> None:
        """Note beside the evidence what the first round has said of those whom stage 1 suspected."""
        for found in self.evidence:
            if found["stage"] == "supervised" and found["label"] in told:
                found["word"] = told[found["label"]]

    def _late_splits(self, labeled: Tensor, entropy: Tensor, loss: Tensor) -> list[Split]:
        """Of each class, the clouds that the curves of this round form; members are positions in `labeled`."""
        labels = self.data.labels[labeled].numpy()
        # the first look falls to the end of the warm-up: a large network's outputs are wild there, class by class
        entropy, loss = (of[1:, labeled].numpy() for of in (entropy, loss))
        return split_classes(entropy, loss, labels, self.data.classes)

    def _late_poison(
        self, labeled: Tensor, splits: list[Split], clear: list[float]
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """Ids among `labeled` whose curves in this round form a cloud of their own, and the evidence."""
        before, dropped = len(self.evidence), []
        for split, strength in zip(splits, clear, strict=True):
            if strength >= 1:
                # the clear ones only: here nobody is left to make up for a class that loses too many labels
                inside = split.posterior > 0.5
                ids = labeled[torch.from_numpy(split.members[inside])]
                dropped.append(ids[~torch.isin(ids, self.overrides.keep)])
                self._tell(split, "finetuning", int(inside.sum()), strength)
        evidence, self.evidence = self.evidence[before:], self.evidence[:before]
        return torch.cat(dropped) if dropped else torch.empty(0, dtype=torch.int64), evidence


def nearest(clear: list[float]) -> float:
    """Of the clouds that do not count as found, how near the clearest came: 0 to 1."""
    return max((s for s in clear if s < 1), default=0.0)


def labels_to_use(selection: Selection, config: RunConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(labeled ids, unlabeled ids, suspected: bool [n]) of stage 3, by `finetune.labeled`: the suspected clean and the
    rest, or the trusted and the others.
    """
    everything = torch.ones(len(selection.score), dtype=torch.bool)
    if config.finetune.labeled == "trusted":
        if not len(selection.trusted):
            raise DataError(
                "no label is trusted, so stage 3 has nothing to learn from. Look at the overrides in the decisions "
                "file, or raise filter.floor."
            )
        suspected = everything.clone()
        for ids in (selection.trusted, selection.unlabeled, selection.left_out):
            suspected[ids] = False
        unlabeled = selection.unlabeled
        if config.finetune.suspects == "relabel":
            unlabeled = torch.cat([unlabeled, suspected.nonzero().flatten()]).sort().values
        return selection.trusted, unlabeled, suspected
    if not len(selection.suspected_clean):
        raise DataError(
            f"no image is suspected clean, so stage 3 has no labels: {len(selection.score)} images are too few for "
            f"filter.floor = {config.filter.floor}. Lower it, or use --finetune.labeled trusted."
        )
    everything[selection.suspected_clean] = False  # D'_ur of the paper
    everything[selection.left_out] = False
    return selection.suspected_clean, everything.nonzero().flatten(), torch.zeros_like(everything)


def defend(
    session: Session,
    data: TrainingData,
    config: RunConfig,
    observe: Observer,
    overrides: Overrides | None = None,
) -> Defense:
    """Run the stages of `config.order` on `data`, with a person's decisions where there are any."""
    return Pipeline(session, data, config, observe, overrides).run()
