"""The step size as a function of the step alone, so that a run goes on from any checkpoint as if it had not stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlp_fast.config import FinetuningConfig, ScheduleName

PEAK = {"sgd": 0.2, "muon": 0.05}  # step sizes of stage 3 (studies/recipe)
HOLD = 0.6  # of the steps, before a trapezoid falls


@dataclass(frozen=True)
class Schedule:
    """Step sizes of `steps` optimizer steps, K: a linear rise to `peak` over the first `warmup` share of them, times or
    followed by one of

    - constant: `peak` to the end;
    - linear, cosine: a fall from the end of the rise to `final_share` of the peak, along a line or half a cosine
      (Loshchilov and Hutter 2017, without restarts);
    - trapezoid: `peak` up to HOLD of the steps, then a line to `final_share` of it (Hägele et al. 2024, "cooldown");
    - fixmatch_cosine: `peak` cos(7πk/16K), which ends at 0.195 of it (Sohn et al. 2020, section 2.4).

    The value at K is where the schedule ends; the last step taken is K - 1, so that no step is of size zero. The rise
    keeps deep networks from diverging in their first steps.
    """

    name: ScheduleName
    steps: int
    peak: float
    warmup: float = 0.0
    final_share: float = 0.0

    def at(self, step: int) -> float:
        """Step size of step number `step`, 0 to K."""
        risen = self.warmup * self.steps
        rise = min(1.0, (step + 1) / max(1.0, risen))
        return self.peak * rise * self._fall(step, risen)

    def _fall(self, step: int, risen: float) -> float:
        """Share of the peak at `step`, without the rise, which takes `risen` steps."""
        if self.name == "constant":
            return 1.0
        if self.name == "fixmatch_cosine":
            return math.cos(7 * math.pi * step / (16 * self.steps))
        if self.name == "trapezoid":
            done = min(1.0, max(0.0, step - HOLD * self.steps) / ((1 - HOLD) * self.steps))
            return self.final_share + (1 - self.final_share) * (1 - done)
        done = min(1.0, max(0.0, step - risen) / max(1e-9, self.steps - risen))
        left = 1 - done if self.name == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final_share + (1 - self.final_share) * left


def peak_of(config: FinetuningConfig) -> float:
    """Peak step size of stage 3: the one that is given, or that of its optimizer."""
    return PEAK[config.optimizer] if config.learning_rate is None else config.learning_rate
