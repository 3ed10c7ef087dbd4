"""Figures 1 to 3 of Code Drift for any codecs. `draw_*` fill a panel, `plot_*` save a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from tokgen.drift.phase import Correlation, PhaseSummary
from tokgen.drift.summary import DriftSummary
from tokgen.plotting import COLOURS, draw_band, new_figure, save_figure, shortened, whole_numbers

__all__ = [
    "DEPTH_PANELS",
    "PANELS",
    "Panel",
    "draw_correlation",
    "draw_drift",
    "draw_shifts",
    "panels_of",
    "plot_drift",
    "plot_phase",
]


class Panel(NamedTuple):
    """A metric with the title of its panel and the label of its axis."""

    metric: str
    title: str
    label: str


PANELS = (
    Panel("pesq", "PESQ", "MOS-LQO"),
    Panel("si_sdr_aligned", "SI-SDR, delay taken out", "dB"),
    Panel("codebook_use", "codebook use", "% of log2(size)"),
    Panel("match_previous", "token match", "share equal to the pass before"),
)
DEPTH_PANELS = (  # of codecs of variable bitrate
    Panel("depth_match_previous", "depth match", "share equal to the pass before"),
    Panel("kbps", "bitrate", "kbps"),
)


def plot_drift(summaries: Sequence[DriftSummary], path: Path) -> None:
    """Plot quality, codebook use and match against passes, with 95 % intervals.

    The panels of codebook use and match leave out codecs without codes, and those of depth and
    bitrate, which only codecs of variable bitrate have, leave out all others. The title says how
    it was measured.
    """
    panels = panels_of(summaries)
    figure = new_figure(13 / len(PANELS) * len(panels), 3.6)
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        draw_drift(axes, summaries, panel)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    conditions = list(dict.fromkeys(s.conditions for s in summaries if s.conditions))
    figure.suptitle("; ".join(conditions), fontsize=9)
    save_figure(figure, path)


def panels_of(summaries: Sequence[DriftSummary]) -> tuple[Panel, ...]:
    """Return the panels of drift: those of depth and bitrate only if a codec has them."""
    variable = any(p.metric == "kbps" for s in summaries for p in s.points)
    return PANELS + DEPTH_PANELS if variable else PANELS


def draw_drift(axes: Axes, summaries: Sequence[DriftSummary], panel: Panel) -> None:
    """Draw one metric against passes, with a line for each codec."""
    curves = [summary.curve(panel.metric) for summary in summaries]
    for i, (summary, curve) in enumerate(zip(summaries, curves, strict=True)):
        draw_band(axes, [n for n, _ in curve], [e for _, e in curve], i, summary.name)
    axes.set(title=panel.title, xlabel="passes", ylabel=panel.label)
    axes.grid(alpha=0.3)
    whole_numbers(axes)
    if panel.metric.endswith("match_previous"):
        axes.set_ylim(0, 1.02)
    if not any(curves):
        coded = any(s.n_frames for s in summaries)
        axes.text(
            0.5,
            0.5,
            "not defined under shifts" if coded else "no codes",
            ha="center",
            transform=axes.transAxes,
        )


def plot_phase(phases: Sequence[PhaseSummary], correlation: Correlation, path: Path) -> None:
    """Plot match against the shift, and against PESQ after the last pass."""
    figure = new_figure(9.5, 3.8)
    left, right = figure.subplots(1, 2)
    draw_shifts(left, phases)
    left.legend(fontsize=7)
    draw_correlation(right, correlation)
    save_figure(figure, path)


def draw_shifts(axes: Axes, phases: Sequence[PhaseSummary]) -> None:
    """Draw match against the shift, with a line for each codec."""
    for i, phase in enumerate(phases):
        draw_band(axes, phase.shifts_ms, phase.match, i, phase.name)
    axes.set(title="sensitivity to shifts", xlabel="shift (ms)", ylabel="share of equal codes")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def draw_correlation(axes: Axes, correlation: Correlation) -> None:
    """Draw mean match under shifts against PESQ, with a dot for each codec."""
    for i, (name, match, pesq) in enumerate(correlation.pairs):
        axes.plot(match, pesq, "o", color=COLOURS[i % len(COLOURS)])
        axes.annotate(
            shortened(name, 30), (match, pesq), (4, 3), textcoords="offset points", fontsize=7
        )
    axes.set(xlabel="mean match under shifts", ylabel=f"PESQ @ {correlation.passes}")
    axes.set(title=str(correlation))
    axes.locator_params(axis="x", nbins=5)
    axes.margins(0.2)
    axes.grid(alpha=0.3)
