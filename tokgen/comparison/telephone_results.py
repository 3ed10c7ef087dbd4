"""Results of the token telephone: quality against edit rounds, as JSON, CSV and PNG."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from tokgen.comparison.settings import TelephoneSettings
from tokgen.comparison.telephone import (
    COUNTED,
    MIN_SEGMENT_SECONDS,
    SCORED,
    UNTOUCHED,
    Call,
)
from tokgen.evaluation.metric import METRICS
from tokgen.evaluation.scorer import Scorer
from tokgen.metrics import pesq
from tokgen.metrics.statistics import Estimate, bootstrap_ratio, paired_crossed
from tokgen.plotting import draw_band, new_figure, save_figure, whole_numbers
from tokgen.runs.folder import write_json

__all__ = ["TelephoneCurve", "draw_rounds", "plot_telephone", "write_telephone"]


@dataclass(frozen=True)
class TelephoneCurve:
    """One codec in one metric over edit rounds.

    Attributes:
        codec: name of the codec.
        metric: name of the metric.
        label: heading of the metric.
        points: (round, estimate), with rounds counted from 1.
    """

    codec: str
    metric: str
    label: str
    points: list[tuple[int, Estimate]]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        points = [{"round": n, **estimate.as_dict()} for n, estimate in self.points]
        return {**vars(self), "points": points}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TelephoneCurve:
        """Read the JSON form.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the content is damaged.
        """
        metric = str(content["metric"])
        points = [(int(p["round"]), Estimate.from_dict(p)) for p in content.get("points") or []]
        return cls(str(content["codec"]), metric, str(content.get("label") or metric), points)


def draw_rounds(
    axes: Axes, curves: Sequence[TelephoneCurve], codecs: Sequence[str], title: str
) -> None:
    """Draw one metric with a line for each codec, in the colour of its place in `codecs`."""
    for curve in curves:
        rounds, estimates = zip(*curve.points, strict=True)
        draw_band(axes, rounds, estimates, codecs.index(curve.codec), curve.codec)
    axes.set(title=title, xlabel="edit rounds")
    axes.grid(alpha=0.3)
    whole_numbers(axes)


def plot_telephone(curves: Sequence[TelephoneCurve], path: Path) -> None:
    """Save a PNG with one panel for each metric."""
    labels = {curve.metric: curve.label for curve in curves}
    codecs = list(dict.fromkeys(curve.codec for curve in curves))
    figure = new_figure(3.3 * len(labels), 3.6)
    all_axes = figure.subplots(1, len(labels), squeeze=False)[0]
    for axes, (metric, label) in zip(all_axes, labels.items(), strict=True):
        draw_rounds(axes, [c for c in curves if c.metric == metric], codecs, label)
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(6, len(names)))
    save_figure(figure, path)


def write_telephone(
    calls: Sequence[Call], settings: TelephoneSettings, scorer: Scorer, folder: Path
) -> None:
    """Write telephone.json, telephone.csv and telephone.png.

    Args:
        calls: one call for each codec, over the same utterances.
        settings, scorer: settings and scorer of the calls.
        folder: folder to write to; created if needed.
    """
    scored = [METRICS[name] for name in SCORED if name in scorer.metrics]
    curves: list[TelephoneCurve] = []
    for metric in (*UNTOUCHED, *scored):
        for call in calls:
            points = [
                (n, bootstrap_ratio(*metric.columns(call.records(n))))
                for n in range(1, settings.rounds + 1)
            ]
            curves.append(TelephoneCurve(call.codec, metric.name, metric.label, points))
    differences: list[dict[str, Any]] = []
    for call in calls[1:]:
        for metric in (*UNTOUCHED, *scored):
            first, second = (metric.columns(c.records(settings.rounds)) for c in (calls[0], call))
            estimate = paired_crossed([first[0]], [second[0]], [first[1]], [second[1]])
            about = {"codec": call.codec, "than": calls[0].codec, "metric": metric.name}
            differences.append({**about, "round": settings.rounds, **estimate.as_dict()})
    content = {
        "rounds": settings.rounds,
        "settings": asdict(settings),
        "backends": {metric.name: scorer.backends[metric.name] for metric in scored}
        | {
            "pesq_untouched": f"{pesq.BACKEND}, each untouched segment alone; those shorter than "
            f"{MIN_SEGMENT_SECONDS:g} s or without an utterance are left out",
            "match_untouched": "tokgen (share of codes equal to the original's, after re-encoding)",
        },
        "failures": [
            {"codec": call.codec, "clip": clip, "reason": reason}
            for call in calls
            for clip, reason in call.lost.items()
        ],
        "curves": [curve.as_dict() for curve in curves],
        "differences": differences,
        "untouched": [
            {"codec": call.codec, "round": n}
            | {name: int(call.values[name][:, n - 1].sum()) for name in COUNTED}
            for call in calls
            for n in range(1, settings.rounds + 1)
        ],
    }
    write_json(folder / "telephone.json", content)
    with (folder / "telephone.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["codec", "metric", "round", "mean", "low", "high", "n", "n_failed"])
        for curve in curves:
            for n, estimate in curve.points:
                writer.writerow([curve.codec, curve.metric, n, *asdict(estimate).values()])
    plot_telephone(curves, folder / "telephone.png")
