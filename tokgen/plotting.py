"""Plots of training curves and spectrograms, drawn without a display. `plot_...` save a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from scipy.signal import lfilter
from torch import Tensor

from tokgen.metrics.statistics import Estimate

__all__ = [
    "COLOURS",
    "SILENCE_DB",
    "decibels",
    "draw_band",
    "draw_training",
    "new_figure",
    "plot_curves",
    "plot_depths",
    "plot_spectrograms",
    "save_figure",
    "series_style",
    "shortened",
    "whole_numbers",
]

SILENCE_DB = -80.0  # lower end of the colour scale, relative to the loudest bin
COLOURS = ("#1f4e9c", "#c8501e", "#2a8c4a", "#8c2a7d", "#b8960c", "#2a8c8c", "#7d4a2a", "#555555")


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of the given size in inches that needs no display."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure; missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def series_style(i: int) -> dict[str, Any]:
    """Return colour and dashes of the i-th line. The first 16 lines all differ."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": "-" if i < len(COLOURS) else "--"}


def draw_band(
    axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], i: int, label: str
) -> None:
    """Draw the i-th line of a panel and shade its 95 % interval."""
    x, style = [float(value) for value in x], series_style(i)
    axes.plot(x, [e.mean for e in estimates], label=label, linewidth=1.4, **style)
    known = [(a, e) for a, e in zip(x, estimates, strict=True) if not math.isnan(e.low)]
    if known:
        low, high = [e.low for _, e in known], [e.high for _, e in known]
        axes.fill_between(
            [a for a, _ in known], low, high, color=style["color"], alpha=0.15, linewidth=0
        )


def whole_numbers(axes: Axes) -> None:
    """Label the x axis with integers only."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def shortened(name: str, size: int) -> str:
    """Cut a name to at most `size` characters."""
    return name if len(name) <= size else name[: size - 1] + "…"


def plot_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Plot loss and accuracy per level against training steps.

    Args:
        history: rows with "step", "loss" and optionally "accuracy/level<k>", "validation/loss" and
            "validation/accuracy".
    """
    figure = new_figure(11, 4)
    losses, accuracies = figure.subplots(1, 2)
    names = sorted({name for row in history for name in row if name != "step"})
    levels = [n for n in names if n.startswith("accuracy/")]
    for name in names:
        steps, values = _column(history, name)
        is_validation = name.startswith("validation/")
        style = {"color": "black", "marker": "o", "linewidth": 1} if is_validation else {}
        axes = losses if name.endswith("loss") else accuracies
        if name in levels:
            shade = levels.index(name) / max(1, len(levels) - 1)
            values = _smooth(values).tolist()
            style = {"color": (0.1 + 0.6 * shade, 0.3, 0.8 - 0.5 * shade)}
        axes.plot(steps, values, label=name.removeprefix("accuracy/"), **style)
    _label_training(losses, accuracies)
    for axes in (losses, accuracies):
        if axes.lines:
            axes.legend(fontsize=7)
    save_figure(figure, path)


def draw_training(
    losses: Axes, accuracies: Axes, histories: Sequence[Sequence[Mapping[str, float]]]
) -> None:
    """Draw several trainings in two panels: smoothed lines, and dots for validations.

    Args:
        losses, accuracies: the panels; accuracies are means over levels.
        histories: rows of each training, as for `plot_curves`.
    """
    for i, history in enumerate(histories):
        levels = sorted({n for row in history for n in row if n.startswith("accuracy/")})
        means = [
            {"step": row["step"], "accuracy": sum(row[n] for n in levels) / len(levels)}
            for row in history
            if levels and all(n in row for n in levels)
        ]
        style = series_style(i)
        for axes, rows, name in ((losses, history, "loss"), (accuracies, means, "accuracy")):
            steps, values = _column(rows, name)
            if values:
                axes.plot(steps, _smooth(values), linewidth=1.2, **style)
            axes.plot(
                *_column(history, f"validation/{name}"),
                linestyle="none",
                marker="o",
                markersize=4,
                color=style["color"],
            )
    _label_training(losses, accuracies)


def _column(history: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Return steps and values of the rows that have a value `name`."""
    known = [(row["step"], row[name]) for row in history if name in row]
    return [step for step, _ in known], [value for _, value in known]


def _label_training(losses: Axes, accuracies: Axes) -> None:
    losses.set(xlabel="step", ylabel="cross-entropy of masked tokens (nats)", title="loss")
    accuracies.set(xlabel="step", ylabel="share of masked tokens right", title="accuracy")
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)


def _smooth(values: Sequence[float], decay: float = 0.8) -> np.ndarray:
    """Compute the exponential moving average, starting at the first value."""
    return lfilter([1 - decay], [1, -decay], values, zi=[decay * values[0]])[0]


def plot_spectrograms(clips: Mapping[str, Tensor], sample_rate: int, path: Path) -> None:
    """Plot spectrograms side by side, in dB relative to the loudest bin of all.

    Args:
        clips: title -> waveform [1, N].
        sample_rate: Hz.
    """
    figure = new_figure(3.6 * len(clips), 3.2)
    all_axes = figure.subplots(1, len(clips), sharey=True, squeeze=False)[0]
    pictures = {
        title: decibels(wave[0].numpy(), n_fft=512, hop=128) for title, wave in clips.items()
    }
    top = max(picture.max() for picture in pictures.values())
    for axes, (title, picture) in zip(all_axes, pictures.items(), strict=True):
        seconds = clips[title].numel() / sample_rate
        image = _draw_picture(axes, picture - top, seconds, sample_rate)
        axes.set(title=title, xlabel="seconds")
    all_axes[0].set_ylabel("kHz")
    figure.colorbar(image, ax=all_axes[-1], label="dB")
    save_figure(figure, path)


def plot_depths(
    waveform: Tensor,
    sample_rate: int,
    depths: Mapping[str, Tensor],
    n_codebooks: int,
    hop_length: int,
    path: Path,
) -> None:
    """Plot a spectrogram, and under it the number of levels of each frame (VRVQ, Figure 3).

    Args:
        waveform: [1, N].
        sample_rate: Hz.
        depths: title -> levels of each frame [T], in one panel each.
        n_codebooks: K, the most levels.
        hop_length: samples per frame.
    """
    heights = [2.4, *[0.9] * len(depths)]
    figure = new_figure(9, sum(heights))
    top, *panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    seconds = waveform.shape[-1] / sample_rate
    picture = decibels(waveform[0].numpy(), n_fft=512, hop=128)
    image = _draw_picture(top, picture - picture.max(), seconds, sample_rate)
    top.set_ylabel("kHz")
    figure.colorbar(image, ax=top, label="dB")
    for axes, (title, depth) in zip(panels, depths.items(), strict=True):
        edges = np.arange(len(depth) + 1) * hop_length / sample_rate
        axes.stairs(depth.numpy(), edges, fill=True, color=COLOURS[0])
        axes.set(xlim=(0, seconds), ylim=(0, n_codebooks), yticks=(0, n_codebooks))
        axes.set_title(title, fontsize=9, loc="left")
        axes.grid(alpha=0.3)
    panels[len(panels) // 2].set_ylabel("levels")
    panels[-1].set_xlabel("seconds")
    save_figure(figure, path)


def _draw_picture(axes: Axes, picture: np.ndarray, seconds: float, sample_rate: int) -> AxesImage:
    """Draw dB relative to the loudest bin over seconds and kHz."""
    return axes.imshow(
        picture,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, sample_rate / 2000),
        vmin=SILENCE_DB,
        vmax=0,
        cmap="magma",
    )


def decibels(waveform: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """Compute power in dB, [n_fft/2 + 1, frames], of a waveform [N]; one frame per hop."""
    padded = np.pad(waveform, n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    spectrum = np.fft.rfft(frames * np.hanning(n_fft), axis=-1)
    return 10 * np.log10(np.abs(spectrum.T) ** 2 + 1e-12)
