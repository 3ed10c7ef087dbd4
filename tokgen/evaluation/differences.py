"""Paired differences between rows of the same clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokgen.metrics.statistics import judge, paired_crossed
from tokgen.metrics.tables import Difference, Metric

__all__ = ["row_differences"]

_Records = Sequence[Mapping[str, Any]]


def row_differences(
    rows: Mapping[str, _Records], metrics: Sequence[Metric], than: str
) -> list[Difference]:
    """Compare rows with one of them, metric by metric, over the clips that have both values.

    Args:
        rows: name of a row to the records of its clips, in the same order in each.
        metrics: metrics of clips.
        than: the row that the others are compared with.
    Returns:
        the other rows minus `than`, with a verdict if one direction of the metric is better. A clip
        that failed in one of both counts as failed. Metrics that apply to no clip are left out.
    """
    found = []
    for name, records in rows.items():
        if name == than:
            continue
        for metric in metrics:
            pairs = [
                (theirs, ours)
                for theirs, ours in zip(rows[than], records, strict=True)
                if metric.applies(theirs) and metric.applies(ours)
            ]
            if not pairs:
                continue
            sides = [metric.columns([pair[i] for pair in pairs]) for i in (0, 1)]
            (a, below_a), (b, below_b) = (
                [np.array(part, dtype=float)[None] for part in side] for side in sides
            )
            estimate = paired_crossed(a, b, below_a, below_b)
            verdict = judge(estimate, better=metric.better) if metric.better else ""
            found.append(Difference(name, than, metric.name, estimate, None, verdict))
    return found
