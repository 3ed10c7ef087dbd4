"""Paired differences of drift between two codecs, over the clips that both were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokgen.drift.passes import DriftRun
from tokgen.metrics.statistics import Estimate, bootstrap_mean, format_estimate

__all__ = ["DriftDifference", "difference_lines", "differences"]


@dataclass(frozen=True)
class DriftDifference:
    """Paired difference of a metric after some passes: `codec` minus `than`."""

    codec: str
    than: str
    passes: int
    metric: str
    estimate: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**vars(self), "estimate": self.estimate.as_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DriftDifference:
        """Read the JSON form.

        Raises:
            KeyError, TypeError, ValueError: the content is damaged.
        """
        return cls(
            str(content["codec"]),
            str(content["than"]),
            int(content["passes"]),
            str(content["metric"]),
            Estimate.from_dict(content["estimate"]),
        )


def differences(base: DriftRun, other: DriftRun) -> list[DriftDifference]:
    """Return paired differences of `other` from `base` after the first and the last shared pass.

    The match with the pass before (mean over levels) is compared if both have it.

    Raises:
        ValueError: the runs were measured in different ways.
    """
    if base.conditions != other.conditions:
        raise ValueError(
            f"{base.name} was measured with {base.conditions}, {other.name} with "
            f"{other.conditions}: measure both in the same way to compare them"
        )
    theirs = dict(zip(base.ids, base.clips, strict=True))
    ours = zip(other.ids, other.clips, strict=True)
    pairs = [(theirs[id], clip) for id, clip in ours if id in theirs]
    if not pairs:
        return []
    both = set(base.scored_passes) & set(other.scored_passes)
    if not both:
        return []
    last = max(both)
    found = []
    for metric in ("pesq", "si_sdr_aligned", "match_previous"):
        if any(metric not in clip.values for clip in pairs[0]):
            continue
        for n in sorted({min(both), last}) if metric != "match_previous" else (last,):
            estimate = bootstrap_mean(
                [b.over_levels(metric)[n - 1] - a.over_levels(metric)[n - 1] for a, b in pairs]
            )
            found.append(DriftDifference(other.name, base.name, n, metric, estimate))
    return found


def difference_lines(found: Sequence[DriftDifference]) -> list[str]:
    """Format differences as text, one line for each codec."""
    lines: dict[tuple[str, str], list[str]] = {}
    for d in found:
        text = f"{d.metric} @ {d.passes} {format_estimate(d.estimate, 3, sign=True)}"
        lines.setdefault((d.codec, d.than), []).append(text)
    return [f"{codec} over {than}, paired: {', '.join(v)}" for (codec, than), v in lines.items()]
