"""TODO metric"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokgen.metrics.statistics import Direction


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        name: in records, files and settings.
        label: in tables.
        better: "higher", "lower", or None where neither is.
        unit: of the value, "" for a pure number.
        digits: behind the point.
        ratio: where it is pooled over clips: the record's fields for numerator and denominator.
        detail: it goes into a table of its own.
    """

    name: str
    label: str
    better: Direction | None
    unit: str = ""
    digits: int = 2
    ratio: tuple[str, str] | None = None
    detail: bool = False

    def columns(self, records: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
        """Numerators and denominators over clips; the denominators of a mean are 1."""
        above, under = self.ratio or (self.name, "")
        numerators = [r[above] for r in records]
        return numerators, [r[under] for r in records] if under else [1.0] * len(records)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("mos", "MOS", "higher"),
        Metric("pesq", "PESQ", "higher"),
        Metric("cer", "CER", "lower", digits=3, ratio=("edits", "chars")),
        Metric("si_sdr", "SI-SDR", "higher", "dB", 1),
        Metric("speaker", "speaker similarity", "higher", digits=3),
        Metric("f0", "F0 error", "lower", "cents", 0),
        Metric("voicing", "voicing error", "lower", digits=3),
    )
}


DEFAULT_METRICS = ("cer", "mos", "pesq", "si_sdr")


def check_metrics(metrics: Sequence[str]) -> None:
    """Refuse names that are not in `METRICS`, and such as come twice."""
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics {list(metrics)}: give each once")
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(f"metrics {unknown}: known are {', '.join(sorted(METRICS))}")
