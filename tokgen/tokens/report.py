"""The report of a tokenizing run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tokgen.corpus.entries import Rejection
from tokgen.corpus.reading import Readable
from tokgen.results import Grid, Result, finite
from tokgen.storage import Storage
from tokgen.tokens.existing import check_same
from tokgen.tokens.precision import PrecisionChoice
from tokgen.tokens.provenance import Provenance
from tokgen.tokens.rates import DepthTotals, depths_in
from tokgen.tokens.saved import REJECTIONS, lengths_in

__all__ = ["TokenizeReport", "mean_kbps", "report_existing"]


@dataclass(frozen=True)
class TokenizeReport(Result):
    """Result of a run.

    Attributes:
        out: folder or URL of the dataset.
        n_rows: utterances in the dataset.
        rejections: what was left out while listing and reading the corpus.
        audio_seconds: duration of the dataset's audio.
        wall_seconds: time of this run.
        resumed_rows: number of rows from an earlier run.
        precision: the precision of encoding, and the measurements behind it.
        kbps: mean bitrate of the tokens with that of the depth, if it is variable.
    """

    out: str
    n_rows: int
    rejections: list[Rejection]
    audio_seconds: float
    wall_seconds: float
    resumed_rows: int
    precision: PrecisionChoice
    kbps: float | None = None

    @property
    def n_rejected(self) -> int:
        return len(self.rejections)

    def parts(self) -> list[Grid | str]:
        resumed = f" ({self.resumed_rows} of them from before)" if self.resumed_rows else ""
        rate = "" if self.kbps is None else f" at {self.kbps:.2f} kbps"
        line = (
            f"{self.out}: {self.n_rows} rows{resumed}, "
            f"{self.audio_seconds / 3600:.2f} h of audio{rate}, {self.n_rejected} rejected, "
            f"{self.wall_seconds:.1f} s"
        )
        return [*([str(self.precision)] if self.precision.measured else []), line]

    def records(self) -> list[dict[str, Any]]:
        precision = {"precision": self.precision.precision, "n_rejected": self.n_rejected}
        return [{k: v for k, v in vars(self).items() if k != "rejections"} | precision]

    def to_dict(self) -> dict[str, Any]:
        return finite(asdict(self))


def report_existing(
    storage: Storage, out: str, provenance: Provenance, corpus: Readable, started: float
) -> TokenizeReport:
    """Report on the dataset at `out`, or raise ValueError if it is not this run's result."""
    theirs = check_same(storage, provenance, corpus)
    lines = storage.read(REJECTIONS).splitlines()
    lengths, kbps = list(lengths_in(storage)), None
    if theirs.rate is not None:
        kbps = mean_kbps([DepthTotals.of(depths_in(storage, theirs), theirs.spec)], theirs)
    return TokenizeReport(
        out=out,
        n_rows=len(lengths),
        rejections=[Rejection(**json.loads(line)) for line in lines],
        audio_seconds=sum(lengths) / provenance.sample_rate,
        wall_seconds=time.monotonic() - started,
        resumed_rows=len(lengths),
        precision=PrecisionChoice(theirs.precision),
        kbps=kbps,
    )


def mean_kbps(depth: Iterable[DepthTotals], provenance: Provenance) -> float | None:
    """Return the mean bitrate of rows of a variable bitrate; None for other rows."""
    if provenance.rate is None:
        return None
    return DepthTotals.sum(depth).kbps(provenance.spec)
