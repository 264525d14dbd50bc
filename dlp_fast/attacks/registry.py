"""All attacks: a line each."""

from __future__ import annotations

import difflib

from dlp_fast.attacks import triggers, wanet
from dlp_fast.attacks.adaptive import adaptive_blend, adaptive_patch
from dlp_fast.attacks.all_to_all import all_to_all
from dlp_fast.attacks.base import Attack
from dlp_fast.attacks.bpp import bpp
from dlp_fast.attacks.input_aware import input_aware
from dlp_fast.attacks.own import many_squares, soft_focus
from dlp_fast.attacks.random_place import random_place
from dlp_fast.attacks.several_triggers import ten_triggers, three_triggers
from dlp_fast.attacks.single_trigger import label_consistent, single_trigger, trojannn
from dlp_fast.attacks.tact import tact
from dlp_fast.errors import ConfigError

_CHECKERBOARD = "3x3 checkerboard, white corners, lower right corner, cell = side/32"
_NOISE = "uniform noise image drawn from the seed, opacity 0.2"

_ALL = (
    Attack("badnets", _CHECKERBOARD, single_trigger(triggers.badnets)),
    Attack("blended", _NOISE, single_trigger(triggers.blended)),
    Attack(
        "trojannn",
        "opaque square of 0.22 of the side, lower right, optimised to drive 2 neurons of our own network",
        trojannn,
    ),
    Attack(
        "lca",
        "PGD, L-inf 16/255, 30 steps, on our own robust network; then a 3x3 checkerboard in each corner",
        label_consistent,
        clean_label=True,
    ),
    Attack(
        "sig",
        "40 sin(2 pi 6 j / width) added to column j, clamped",
        single_trigger(triggers.sig),
        clean_label=True,
    ),
    Attack("badnets-all-to-all", f"{_CHECKERBOARD}; all to all", all_to_all(triggers.badnets)),
    Attack("blended-all-to-all", f"{_NOISE}; all to all", all_to_all(triggers.blended)),
    Attack(
        "three-triggers",
        "checkerboard, noise image and stripes, each with a target of its own",
        three_triggers,
    ),
    Attack(
        "ten-triggers",
        "3x3 squares of random colours at ten places, each with a target of its own",
        ten_triggers,
    ),
    Attack(
        "wanet",
        "elastic warp of a 4x4 grid, s = 0.5; as many cover images, warped with noise",
        wanet.wanet(wanet.PUBLISHED),
    ),
    Attack(
        "wanet-strong",
        "elastic warp of a 4x4 grid, s = 2; as many cover images, warped with noise",
        wanet.wanet(wanet.STRONG),
    ),
    Attack("bpp", "8 levels a channel, Floyd-Steinberg dithering", bpp),
    Attack(
        "low-frequency",
        "sum of the cosines of up to 3 half-waves a side, drawn from the seed, 24 of 255 at most, added",
        single_trigger(triggers.low_frequency),
    ),
    Attack(
        "adaptive-blend",
        "noise image in 16 pieces, half of them at opacity 0.15 in training, all at 0.2 in a test; as many cover "
        "images",
        adaptive_blend,
    ),
    Attack(
        "adaptive-patch",
        "four squares of random colours, one at opacity 0.5 in training, all four opaque in a test; twice as many "
        "cover images",
        adaptive_patch,
    ),
    Attack(
        "tact",
        f"{_CHECKERBOARD}; only for the class after the target; as many cover images of the other classes",
        tact,
    ),
    Attack(
        "input-aware",
        "a trigger of each image's own on about 3 % of its pixels, from a generator trained beside our own network; as "
        "many cover images carry another image's",
        input_aware,
    ),
    Attack("random-place", "4x4 square of random colours, cell = side/32, anywhere", random_place),
    Attack(
        "soft-focus",
        "blur of one pixel, between 0.3 of it and all in each image; as many cover images have up to 0.3",
        soft_focus,
    ),
    Attack(
        "many-squares",
        "forty 4x4 squares of random colours, cell = side/32, one anywhere in each image",
        many_squares,
    ),
)

REGISTRY = {attack.name: attack for attack in _ALL}
ATTACKS = tuple(REGISTRY)


def find_attack(name: str) -> Attack:
    """The attack called `name`; ConfigError naming those that there are."""
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, ATTACKS, n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise ConfigError(f"attack {name!r} does not exist{hint}; there are: {', '.join(ATTACKS)}")
    return REGISTRY[name]
