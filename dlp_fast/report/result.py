"""What `defend` gives back, for programs and notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dlp_fast.errors import ResourceError
from dlp_fast.models.classifier import Classifier
from dlp_fast.report.text import notes, percent, verdict_lines
from dlp_fast.runs.contents import title
from dlp_fast.runs.install import advice

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Result:
    """What a run gives back.

    model: for pictures, see Classifier; its attribute `holds` says whether it is a clean model; suspected_poisoned,
    suspected_clean: int64 ids; score: fp32 [n], ascending = more suspicious; paths: of all images, by id; results: as
    in results.json; out: the run folder; samples: the columns of samples.csv by name, each [n].
    """

    model: Classifier
    suspected_poisoned: torch.Tensor
    suspected_clean: torch.Tensor
    score: torch.Tensor
    paths: tuple[str, ...]
    results: dict[str, Any]
    out: Path | None
    samples: dict[str, Sequence[Any]]

    @property
    def verdict(self) -> str:
        """ "poisoned", "nothing found" or "cannot tell"; the reasons are in `results["verdict"]`."""
        return self.results["verdict"]["kind"]

    @property
    def poisoned(self) -> list[str]:
        """Paths of the images that are suspected poisoned, the most suspicious first."""
        return [self.paths[i] for i in self.suspected_poisoned.tolist()]

    @property
    def mislabeled(self) -> list[str]:
        """Paths of the images that are probably mislabeled and not suspected poisoned, in the order of their ids."""
        return [
            self.paths[i] for i, word in enumerate(self.samples["decision"]) if word == "probably_mislabeled"
        ]

    def to_frame(self) -> pandas.DataFrame:
        """The table of samples.csv as a pandas data frame, one row an image, in the order of the ids.

        Raises ResourceError where pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise ResourceError(f"to_frame() needs the package pandas: {advice('pandas')}") from None
        return pandas.DataFrame(self.samples)

    def __repr__(self) -> str:
        where = f", in {self.out}" if self.out else ""
        return (
            f"Result(verdict: {self.verdict}, {len(self.suspected_poisoned):,} of {len(self.paths):,} images suspected"
            f", model: {title(self.model.holds)}{where})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the stages, and where the report is."""
        rows = "".join(
            f"<tr><td>{stage}</td><td>{percent(metrics['clean_accuracy'])}</td>"
            f"<td>{percent(metrics['attack_success_rate'])}</td><td>{metrics['seconds']:.0f} s</td></tr>"
            for stage, metrics in self.results["stages"].items()
        )
        lines = [*verdict_lines(self.results["verdict"]), *notes(self.results)]
        said = "<br>".join(map(html.escape, lines))
        where = f"<p>report: {html.escape(str(self.out / 'report.html'))}</p>" if self.out else ""
        return (
            f"<p><b>{said}</b><br>{len(self.suspected_poisoned)} of {len(self.paths)} images are suspected poisoned</p>"
            "<table><tr><th>after stage</th><th>clean accuracy</th><th>attack success rate</th><th>time</th></tr>"
            f"{rows}</table>{where}"
        )
