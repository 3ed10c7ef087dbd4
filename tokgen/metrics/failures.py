"""Metrics that failed on clips, and how tables list them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SHOWN_CLIPS", "SHOWN_REASONS", "Failure", "failure_lines"]

SHOWN_CLIPS = 3  # for each reason
SHOWN_REASONS = 5


@dataclass(frozen=True)
class Failure:
    """A metric that failed on a clip.

    Attributes:
        clip: id or number of the clip.
        row: name of the row.
        metric: name of the metric.
        reason: why it failed.
    """

    clip: str
    row: str
    metric: str
    reason: str


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """Return a line for each of the first metrics and reasons, with rows and the first clips."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.metric, failure.reason), []).append(failure)
    lines = []
    for (metric, reason), group in list(groups.items())[:SHOWN_REASONS]:
        rows, clips = (
            list(dict.fromkeys(names))
            for names in ([f.row for f in group], [f.clip for f in group])
        )
        more = f" and {len(clips) - SHOWN_CLIPS} more" if len(clips) > SHOWN_CLIPS else ""
        shown = ", ".join(clips[:SHOWN_CLIPS]) + more
        lines.append(f"  {metric} of {shown} in {', '.join(rows)}: {reason}")
    n_left = sum(len(group) for group in list(groups.values())[SHOWN_REASONS:])
    if n_left:
        lines.append(f"  and {n_left} failures for other reasons")
    if lines:
        lines.append('  the JSON form lists all under "failures"')
    return lines
