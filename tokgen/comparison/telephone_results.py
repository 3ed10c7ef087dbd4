"""Quality against edit rounds, as PNG."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from tokgen.comparison.telephone import SCORED, UNTOUCHED, Call, TelephoneSettings
from tokgen.evaluation.metric import METRICS
from tokgen.evaluation.scorer import Scorer
from tokgen.metrics import pesq
from tokgen.metrics.statistics import Estimate, paired_crossed
from tokgen.plotting import draw_band, new_figure, save_figure, whole_numbers
from tokgen.runs.folder import write_json

Curve = tuple[str, Sequence[int], Sequence[Estimate]]  # codec, rounds, estimates


def draw_rounds(axes: Axes, curves: Sequence[Curve], codecs: Sequence[str], title: str) -> None:
    """One metric: a line a codec, coloured by its place in `codecs`."""
    for codec, rounds, estimates in curves:
        draw_band(axes, rounds, estimates, codecs.index(codec), codec)
    axes.set(title=title, xlabel="edit rounds")
    axes.grid(alpha=0.3)
    whole_numbers(axes)


def plot_telephone(panels: Sequence[tuple[str, Sequence[Curve]]], path: Path) -> None:
    """Several metrics side by side.

    Args:
        panels: title and curves of each.
        path: of the PNG.
    """
    figure = new_figure(3.3 * len(panels), 3.6)
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    codecs = list(dict.fromkeys(codec for _, curves in panels for codec, *_ in curves))
    for axes, (title, curves) in zip(all_axes, panels, strict=True):
        draw_rounds(axes, curves, codecs, title)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    save_figure(figure, path)


def write_telephone(
    calls: Sequence[Call],
    settings: TelephoneSettings,
    scorer: Scorer,
    folder: Path,
) -> dict[str, Any]:
    """Write telephone.json, telephone.csv and telephone.png; what the first holds.

    Args:
        calls: one a codec, over the same utterances.
        settings, scorer: that they were made with.
        folder: is made.
    """

    metrics = [*UNTOUCHED, *(METRICS[n] for n in SCORED if n in scorer.metrics)]
    rounds = range(1, settings.rounds + 1)
    panels: list[tuple[str, list[Any]]] = []
    curves: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for metric in metrics:
        lines = [(c.codec, rounds, [c.estimate(metric, n) for n in rounds]) for c in calls]
        panels.append((metric.label, lines))
        for codec, _, estimates in lines:
            points = [{"round": n, **asdict(e)} for n, e in zip(rounds, estimates, strict=True)]
            about = {"codec": codec, "metric": metric.name, "label": metric.label}
            curves.append({**about, "points": points})
    for call in calls[1:]:
        for metric in metrics:
            first, second = calls[0].columns(metric), call.columns(metric)
            last = [table[:, -1:].T for table in (first[0], second[0], first[1], second[1])]
            about = {"codec": call.codec, "than": calls[0].codec, "metric": metric.name}
            differences.append({**about, "round": settings.rounds, **asdict(paired_crossed(*last))})
    backends = {n: scorer.backends[n] for n in SCORED if n in scorer.metrics}
    backends |= {
        "pesq_untouched": f"{pesq.BACKEND}, edited regions replaced by the original's audio",
        "match_untouched": "tokgen (share of codes equal to the original's, after re-encoding)",
    }
    content = {
        "rounds": settings.rounds,
        "settings": asdict(settings),
        "backends": backends,
        "curves": curves,
        "differences": differences,
    }
    write_json(folder / "telephone.json", content)
    with (folder / "telephone.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["codec", "metric", "round", "mean", "low", "high", "n", "n_failed"])
        for curve in curves:
            for point in curve["points"]:
                table.writerow([curve["codec"], curve["metric"], *point.values()])
    plot_telephone(panels, folder / "telephone.png")
    return content
