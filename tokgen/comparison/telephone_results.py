"""Quality against edit rounds, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from tokgen.metrics.statistics import Estimate
from tokgen.plotting import draw_band, new_figure, save_figure, whole_numbers

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
