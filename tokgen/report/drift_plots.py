"""Code Drift's Figures 1 to 3 for any codecs, as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tokgen.drift_summary import DriftSummary
from tokgen.metrics.statistics import Estimate
from tokgen.phase import Correlation, PhaseSummary
from tokgen.report.plots import new_figure, save_figure

PANELS = (  # metric, title, label of the axis
    ("pesq", "PESQ", "MOS-LQO"),
    ("si_sdr_aligned", "SI-SDR, delay taken out", "dB"),
    ("codebook_use", "codebook use", "% of log2(size)"),
    ("match_previous", "token match", "share equal to the pass before"),
)
COLOURS = ("#1f4e9c", "#c8501e", "#2a8c4a", "#8c2a7d", "#b8960c", "#2a8c8c", "#7d4a2a", "#555555")


def plot_drift(summaries: Sequence[DriftSummary], path: Path) -> None:
    """Quality, codebook use and match against passes, with 95 % intervals.

    Args:
        summaries: one a codec; those without codes are left out of the last two panels.
        path: of the PNG.
    """
    figure = new_figure(13, 3.6)
    for axes, (metric, title, label) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for i, summary in enumerate(summaries):
            curve = summary.curve(metric)
            _band(axes, [n for n, _ in curve], [e for _, e in curve], i, summary.name)
        axes.set(title=title, xlabel="passes", ylabel=label)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if metric == "match_previous":
            axes.set_ylim(0, 1.02)
        if not axes.lines:
            axes.text(0.5, 0.5, "no codes", ha="center", transform=axes.transAxes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    save_figure(figure, path)


def plot_phase(phases: Sequence[PhaseSummary], correlation: Correlation | None, path: Path) -> None:
    """Match against the shift, and against PESQ after the last pass.

    Args:
        phases: one a codec.
        correlation: over codecs; None where PESQ was not measured.
        path: of the PNG.
    """
    figure = new_figure(9.5, 3.8)
    left, right = figure.subplots(1, 2)
    for i, phase in enumerate(phases):
        _band(left, phase.shifts_ms, phase.match, i, phase.name)
    left.set(title="sensitivity to shifts", xlabel="shift (ms)", ylabel="share of equal codes")
    left.set_ylim(0, 1.02)
    left.legend(fontsize=7)
    right.set(xlabel="mean match under shifts")
    if correlation is not None:
        for i, (name, match, pesq) in enumerate(correlation.pairs):
            right.plot(match, pesq, "o", color=COLOURS[i % len(COLOURS)])
            right.annotate(
                name, (match, pesq), fontsize=7, xytext=(4, 3), textcoords="offset points"
            )
        right.set(title=str(correlation), ylabel=f"PESQ @ {correlation.passes}")
    right.locator_params(axis="x", nbins=5)
    right.margins(0.2)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def _band(axes, x: Sequence[float], estimates: Sequence[Estimate], i: int, label: str) -> None:
    colour = COLOURS[i % len(COLOURS)]
    style = "-" if i < len(COLOURS) else "--"
    axes.plot(x, [e.mean for e in estimates], style, color=colour, label=label, linewidth=1.4)
    known = [(a, e) for a, e in zip(x, estimates, strict=True) if not math.isnan(e.low)]
    if known:
        low, high = [e.low for _, e in known], [e.high for _, e in known]
        axes.fill_between([a for a, _ in known], low, high, color=colour, alpha=0.15, linewidth=0)
