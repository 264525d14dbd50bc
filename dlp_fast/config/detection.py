"""Options of detection, with every threshold of its decision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from dlp_fast.config.section import Section


class LearningCurvesConfig(Section):
    """The proposal of two-component mixtures of learning curves: how they are made and fitted. Nothing here decides."""

    min_class_size: int = Field(40, ge=4)
    """Images of a class; smaller classes have no components to tell apart."""
    components: int = Field(3, ge=1)
    """Principal components of the curves that mixtures are fitted in."""
    regularisation: float = Field(1e-4, gt=0)
    """Added to the variances of a component, in units of the variance of the first principal component."""
    entropy_floor: float = Field(0.02, gt=0)
    """Bits; below this an entropy has nothing more to say, and its logarithm would only add noise."""
    least_doubt: float = Field(1e-4, gt=0, lt=1)
    """1 - p at which log-odds end above: fp32 probabilities nearer to 1 are rounding."""
    least_probability: float = Field(1e-6, gt=0, lt=1)
    """p at which log-odds end below."""
    late_epochs: int = Field(3, ge=1)
    """Epochs at the end that decide which of two components was learnt deeper."""
    rare_epochs: int = Field(8, ge=2)
    """Epochs from which on fits begin in the tails of a class too: after three, chance alone made components of up to
    1.5 times what counts."""
    rare_components: int = Field(6, ge=1)
    """Principal components in whose tails such fits begin."""
    rare_shares: tuple[float, ...] = (0.03, 0.1)
    """Of the class, in a tail that a fit begins in."""
    rare_tail: int = Field(10, ge=2)
    """Least number of images in such a tail."""
    rare_tries: int = Field(8, ge=1)
    """Iterations of every such fit before the likeliest are chosen."""
    rare_fits: int = Field(3, ge=1)
    """How many of the likeliest go on to the end."""
    fit_images: int = Field(50_000, ge=1000)
    """Images of a class, drawn, that mixtures are fitted to where it has more; all are then measured by them."""


class StaticPatternsConfig(Section):
    """The search for static patterns. "Measured" is studies/static_patterns: CIFAR-10, seeds 0 and 1."""

    scan_side: int = Field(64, ge=8, le=256)
    """Pixels: larger images are brought down to it for the whole picture, and scanned in tiles at their own size."""
    tile: int = Field(32, ge=8, le=256)
    """Side of a tile, pixels: a mark of 7 px on 224 px is lost in anything much larger (design notes, 2026-11-28)."""
    components: int = Field(64, ge=1, le=256)
    """Principal components searched. Measured: 40 lose 10 BadNets images of 10,000 for two seeds in three."""
    images_per_component: int = Field(8, ge=1)
    """Images of a class for each component: fewer, and every single image is a direction of its own."""
    oversampling: int = Field(10, ge=0)
    """Components more in the subspace iteration (Halko et al. 2011, section 4.2: 5 to 10)."""
    subspace_iterations: int = Field(4, ge=1)
    """Products with the covariance. Measured: 8 change a purity by 0.03, 2 lose half of the rarest groups."""
    skew_directions: int = Field(4, ge=0)
    """Directions of greatest skewness, for each view and class."""
    starts: int = Field(6, ge=1)
    """Random starts for each; 20 find the same."""
    iterations: int = Field(60, ge=1)
    """Fixed-point steps at most."""
    robust_deviations: float = Field(6.0, gt=0)
    """How far from the median the group of a skewed direction begins, in robust deviations (1.4826 MAD)."""
    bimodal_directions: int = Field(4, ge=0)
    """Leading principal directions that a mixture of two parts is fitted to: the first was enough everywhere."""
    min_purity: float = Field(0.3, ge=0, le=1)
    """Groups below are not reported. Measured: poison 0.57 to 0.98, the purest clean groups 0.3 to 0.42."""
    min_images: int = Field(3, ge=2)
    """Images that a group has at least."""
    min_class_images: int = Field(20, ge=2)
    """Classes with fewer are searched only together with all other images."""
    groups_per_class: int = Field(4, ge=1)
    """Groups along a direction reported of one class, the purest first."""
    groups_overall: int = Field(6, ge=1)
    """Groups along a direction reported of all images together."""
    windows_each: int = Field(1, ge=0)
    """Groups of a repeated window reported beside them, of each class and of all images, the most telling first."""
    fit_images: int = Field(8192, ge=64)
    """Images of a class (drawn by `seed`) that directions are fitted to; the others are then measured along them."""
    hold_megabytes: int = Field(1024, ge=16)
    """Pixels held at once, megabytes: lowers `fit_images` for large pictures."""
    window_contrast: int = Field(160, ge=1, le=255)
    """Levels that a 3 x 3 window spans in one channel. Clean ones occur in up to 1 % of images at 96, 0.3 % at 160."""
    window_nats: float = Field(12.0, gt=0)
    """k ln(share of the window's images in the class / share of the class) from which it marks a class. Measured:
    poison 23 (10 images) and more, clean classes up to 20."""
    window_excess: float = Field(2.0, gt=1)
    """A window marks images of all classes where it occurs so many times as often as the 20th most frequent one (of
    other images)."""
    batch: int = Field(512, ge=1)
    """Images read at once; the groups do not depend on it."""
    seed: int = 0
    """Of the images that are fitted to, and of all random starts."""


class DetectionConfig(Section):
    """Which images are suspected (DLP Eq. 5), and its thresholds (used in decide.py, convict.py, settle.py and
    mislabeled.py)."""

    method: Literal["learning_curves", "entropy", "loss", "activation_clustering", "spectral_signatures"] = (
        "learning_curves"
    )
    """learning_curves: groups of learning curves, see docs/detection.md. entropy: at epoch E1, as published. The others
    are those that the paper compares with."""
    rate: float = Field(0.01, gt=0, le=0.5)
    """γ, share of all n images that is unlearnt, and again of the suspected clean, see `clean_of`. With methods that
    only rank, it is the share of the suspected poisoned too."""
    clean_of: Literal["all", "class"] = "all"
    """How many suspected clean images, in which the paper can be read in two ways. all: nγ in all, the same number of
    each class. class: nγ of each class, 500 on CIFAR-10."""
    min_images: int = Field(10, ge=1)
    """Least number of suspected clean and of trusted images a class, and of suspected poisoned ones in all."""
    min_separation: float = Field(2.1, gt=0)
    """With `learning_curves`: a class has two components from this Bhattacharyya distance on. Measured
    (docs/decisions): clean classes up to 1.5, poisoned ones whose trigger is well learnt from 2.8 on."""
    min_group: int = Field(10, ge=2)
    """Images of a group that counts; fewer are outliers."""
    max_share: float = Field(0.9, gt=0, le=1)
    """Of a class that the deeper-learnt component may have: beyond, the other is a few that were not learnt."""
    main_share: float = Field(0.6, ge=0.5, le=1)
    """Of a class: a larger component is the class itself, and the other one is the group in question. A clean-label
    attack on half of a class stays below."""
    min_purity: float = Field(0.5, gt=0)
    """With `static_patterns`: purity of a group that counts as a mark. Measured (studies/static_patterns, CIFAR-10,
    seeds 0 and 1): poison 0.57 to 0.98, groups of clean sets at most 0.42."""
    min_window_nats: float = Field(23.0, gt=0)
    """The same for a window that repeats in one class. Measured there: poison from 23 on, clean classes up to 20."""
    min_mark_apart: float = Field(3.75, ge=0)
    """Ashman's D of images with a mark and the others of their class, from which unknown labels convict it. Below, it
    convicts only as a trigger, and is shown only where it explains a group of learning curves. Measured
    (docs/decisions/025): large groups of clean photographs 2.1 to 3.5, poison 4.0 to 15."""
    clear_purity: float = Field(0.85, gt=0)
    """Purity of a mark that counts even where marks abound. Measured: poison mostly 0.87 to 0.98, natural
    marks of the embedded digits up to 0.81."""
    max_marked_classes: float = Field(0.5, gt=0, le=1)
    """Marks abound where so many of the classes, and two at least, have marks of their own."""
    min_distinct: int = Field(5, ge=2)
    """Different pictures that carry the mark: below, they are copies of one another."""
    min_attack_success: float = Field(0.5, ge=0, le=1)
    """Estimated attack success rate from which a mark acts as a trigger."""
    min_lead: float = Field(0.2, ge=0, le=1)
    """And so much above that of every placebo, a group of an unsuspicious class that is treated alike."""
    verify_from: float = Field(0.4, ge=0)
    """Score of learning curves from which a group that does not count as found is put to a network that was not given
    its labels."""
    max_label_support: float = Field(0.5, ge=0, le=1)
    """Marked images are under wrong labels where a network that was not given these labels knows them only so well, as
    a share of how well it knows those of the class's other images, held out alike."""
    min_abounding: int = Field(20, ge=2)
    """Where marks abound: different images of a mark whose labels must be known half as well again for it to count.
    Measured on digits: groups of a rare style have up to 13."""
    min_apart: float = Field(8.0, gt=0)
    """Where marks abound, small groups are grown, and count from this Ashman's D on. Measured (docs/decisions/020):
    grown poison of the digits 8.4 to 30, their styles up to 7.7, or 8.9 with a lower purity."""
    min_grown_purity: float = Field(0.8, gt=0, le=1)
    """And from this purity on. Measured there: poison 0.87 to 0.99, styles that are so far apart 0.47 to 0.69."""
    min_together: float = Field(0.3, gt=0, le=1)
    """Grown marks count together, however small, where so many of the classes, and three at least, have one whose
    labels are as little known as `min_abounding` demands of a single one."""
    min_unknown: float = Field(0.75, ge=0, le=1)
    """And where so many of the grown marks are of such labels: of a change of pictures some are known all the same."""
    max_taken_for_one: float = Field(0.5, gt=0, le=1)
    """And where the network without these labels takes no more than this share of their images for one class, nor half
    as much again for two; else they are images that were changed, and shown."""
    min_shared_labels: float = Field(0.5, gt=0)
    """Labels are right where the pictures most like the images have these so often, above chance, as a share of how
    often they do of the class's other images. Measured (docs/decisions/028): poison up to 0.1, changed
    pictures from 0.9."""
    min_familiar: float = Field(0.25, ge=0, le=1)
    """A group of `half_from` of its class or more may be the class itself where it is so little like other pictures: 1
    as any picture is, 0 as any is like those of other classes. Measured there: a class that a whole other one was put
    into -0.4 to -0.3, poison whose own class is left in part from 0.3 on."""
    min_variety: float = Field(0.85, gt=0, le=1)
    """Of two halves of a class that one is the suspect that is like known pictures of all other classes: as mixed as
    these are, and more so than the other half by what this leaves to 1. Measured (docs/decisions/029): poison from
    0.90 on, a class itself up to 0.65, a whole other class put into it up to 0.76."""
    min_apart_from_alike: float = Field(6.0, gt=0)
    """Standard errors by which a found group differs from the pictures most like its images, more than others of its
    kind do, from which it has a mark of its own; else half of it has to teach the other. A grown mark needs a third
    more to be suspected by that alone. Measured there: static triggers from 6.6 on, wrong labels up to 4.4; grown
    marks: poison from 9.6 on, others up to 7.5."""
    min_agreement: float = Field(0.5, gt=0, le=1)
    """Images that no picture like them shares its label with are probably mislabeled where pictures that look alike
    share their labels so much, from 0 by chance to 1. Measured: digits 0.97, with a fifth of wrong labels 0.7; CIFAR-10
    0.1."""
    min_taught: float = Field(0.3, ge=0, le=1)
    """Wrong labels without such a mark are poison where half of the images teach a network the labels of the others, as
    a share of how well it knows held-out ones of the class. Below, they are probably mislabeled."""
    max_support_p: float = Field(1e-3, gt=0, lt=1)
    """And probability of that by chance."""
    min_outlasting: float = Field(0.8, ge=0)
    """Marked images are under right labels where such a network, once the mark is off, takes them for their label so
    many times as often as controls. Between this and `max_label_support` nothing is said."""
    max_copies: float = Field(0.5, gt=0, le=1)
    """Of a group of learning curves, the share of images that show one picture: above, they are copies of it."""
    min_gap: float = Field(0.25, gt=0, le=1)
    """Held-out probability of the labels of a group of learning curves: so much below that of images learnt alike."""
    max_gap_support: float = Field(0.6, gt=0, le=1)
    """And at most so many times that of the class's other images."""
    false_alarm_rate: float = Field(0.01, gt=0, lt=1)
    """And probability of such a gap by chance, of all groups of a set together, by the placebo groups of the set."""
    half_from: float = Field(0.25, gt=0, le=0.5)
    """Share of its class from which a group, and what it leaves of the class, may each be the class itself."""
    min_foreign: float = Field(0.5, gt=0, le=1)
    """Then the half is suspected that a network without any label of the class is surer of, by so much of what it is
    surer of held-out images of other classes. Measured (docs/decisions/016): relabelled halves 0.93 to 0.98, one under
    right labels 0.27."""
    rare_base: float = Field(1.1, gt=0)
    """A group of k images that a fit from a tail ends in counts from rare_base + rare_each / k times `min_separation`
    on: chance makes small groups too, the fewer images the clearer (measured on clean sets, docs/decisions)."""
    rare_each: float = Field(30.0, ge=0)
    """Images; see `rare_base`."""
    rare_max_share: float = Field(0.3, gt=0, le=1)
    """Of the class; a larger group is the whole class's fit to find."""
    stands_out: float = Field(2.0, ge=0)
    """Scores are divided by this many times the median of the other classes' where that is above 1. In 27 learnt
    poisonings the poisoned class was over 2.2 times as far apart as any other (docs/decisions)."""
    unclear_score: float = Field(0.9, ge=0, lt=1)
    """Least score of a class that falls into two but does not stand out: not found, and nothing to be sure of."""
    near_score: float = Field(0.85, ge=0, le=1)
    """From this score on, below 1, the verdict is `cannot tell`: a person should look."""
    clear_score: float = Field(1.5, ge=1)
    """Score from which held-out agreement takes nothing back: a network that has learnt the backdoor agrees with
    poison too."""
    late_max_share: float = Field(0.5, gt=0, le=1)
    """In stage 3, of the class: a larger group is the images already known."""
    late_beside: float = Field(2.0, ge=1)
    """In stage 3, score from which a group counts where stage 1 has found a class: all seven that it found beside one
    were false, at scores of 1.0 to 1.6 (docs/decisions)."""
    membership: float = Field(1e-5, gt=0, lt=1)
    """With `learning_curves`: from this probability of being in a suspected group on, a label is not used at first. Up
    to one half stage 3 may take it back; above, the image is suspected."""
    networks: int | None = Field(None, ge=1, le=20)
    """With `learning_curves`: networks of stage 1, each with its own weights and order, whose curves are averaged.
    Unset: one, and a second where a score leaves doubt; where a small set is learnt so soon that several fit into
    `supervised.min_steps`, as many as do, at most five."""
    ensemble_from: float = Field(1.0, ge=0)
    """With `networks` unset: where one network's score of a class (1: found) is this or more and less than
    `ensemble_to`, a second one is trained: that it is found, and who belongs to it, is partly chance. Below, a network
    that is not given the labels in question decides. Measured (docs/decisions/004, 030, 031): single networks give
    clean sets of 10,000 up to 0.75 and of 800 photographs up to 2.0, and one poisoned set between 1.0 and 2.3."""
    ensemble_to: float = Field(3.0, ge=0)
    """With `networks` unset: from this score on one network is enough; 0: none is ever in doubt."""
    nothing_found: Literal["skip", "suspect"] = "skip"
    """With `learning_curves`, where no class has two groups. skip: nobody is suspected, nothing is unlearnt, all
    labels are used. suspect: the γ of lowest mean entropy are suspected all the same."""
    proposals: tuple[Literal["learning_curves", "static_patterns"], ...] = (
        "learning_curves",
        "static_patterns",
    )
    """With method `learning_curves`: what looks for groups. static_patterns: marks that images share, whether they are
    learnt or not."""
    mislabeled_quantile: float = Field(0.2, ge=0, le=1)
    """Images whose label is known as little, over stage 1, as random wrong labels are, but for this share of them, the
    best known, are probably mislabeled; 1: none is. Measured (docs/decisions/018): with 10 % wrong labels F1 is best
    from 0.1 to 0.2, and of right ones 1 % is listed."""
    heart_share: float = Field(1.0, gt=0, le=1)
    """Stage 1 ends knowing the labels by heart where it knows so many of them (over its last epochs; more than half of
    the probability is on the label). Then wrong ones are known too, and two networks, each trained on half of the
    images, are asked of the other half: one more stage 1. 1: never; 0.8 was tried (docs/decisions/021)."""
    power: int = Field(0, ge=0, le=200)
    """Rounds that tell what would have been found: each plants own triggers (patch, blend, warp; 0.3 to 2 % of all
    images) in a copy of the set, one in every third class, and takes one more stage 1."""
    power_scans: int = Field(0, ge=0, le=1000)
    """Trials of each own trigger (patch, blend; 0.1 to 3 % of all images) by the scan for marks alone, in copies of the
    set: which it would have seen. No network is trained; a copy takes about as long as the scan of the set."""
    learning_curves: LearningCurvesConfig = LearningCurvesConfig()
    """How groups of learning curves are proposed."""
    static_patterns: StaticPatternsConfig = StaticPatternsConfig()
    """How marks are looked for."""
    high_loss_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of all images, those of the highest mean loss, whose labels are not used: poison that is not yet learnt
    looks like a wrong label. They serve as unlabeled images. It costs accuracy (docs/finetuning.md)."""

    @field_validator("power_scans")
    @classmethod
    def _has_a_scan(cls, trials: int, others: ValidationInfo) -> int:
        scans = "static_patterns" in others.data.get("proposals", ("static_patterns",))
        if trials and not (scans and others.data.get("method", "learning_curves") == "learning_curves"):
            raise ValueError(
                "there is no scan for marks to try: leave detection.method at learning_curves and static_patterns in "
                "detection.proposals, or give 0"
            )
        return trials
