"""Training curves and spectrograms as PNG. Drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

SILENCE_DB = -80.0  # bottom of the colour scale, under the loudest bin


def new_figure(width: float, height: float) -> Figure:
    """Inches, drawn without a display."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def plot_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and accuracy per level against steps.

    Args:
        history: rows with "step", "loss" and, where known, "accuracy/level<k>",
            "validation/loss" and "validation/accuracy".
        path: of the PNG.
    """
    figure = new_figure(11, 4)
    losses, accuracies = figure.subplots(1, 2)
    names = sorted({name for row in history for name in row if name != "step"})
    levels = [n for n in names if n.startswith("accuracy/")]
    for name in names:
        steps = [row["step"] for row in history if name in row]
        values = [row[name] for row in history if name in row]
        is_validation = name.startswith("validation/")
        style = {"color": "black", "marker": "o", "linewidth": 1} if is_validation else {}
        axes = losses if name.endswith("loss") else accuracies
        if name in levels:
            shade = levels.index(name) / max(1, len(levels) - 1)
            values = list(_smooth(values))
            style = {"color": (0.1 + 0.6 * shade, 0.3, 0.8 - 0.5 * shade)}
        axes.plot(steps, values, label=name.removeprefix("accuracy/"), **style)
    losses.set(xlabel="step", ylabel="cross-entropy of masked tokens (nats)", title="loss")
    accuracies.set(xlabel="step", ylabel="share of masked tokens right", title="accuracy")
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
    save_figure(figure, path)


def _smooth(values: Sequence[float], decay: float = 0.8) -> np.ndarray:
    """Running mean that forgets with `decay` per point, started at the first."""
    out, current = [], values[0]
    for value in values:
        current = decay * current + (1 - decay) * value
        out.append(current)
    return np.array(out)


def plot_spectrograms(
    clips: Mapping[str, Tensor], sample_rate: int, path: Path, n_fft: int = 512
) -> None:
    """One spectrogram a clip, side by side, in dB under the loudest bin of all.

    Args:
        clips: title -> waveform [1, N].
        sample_rate: Hz.
        path: of the PNG.
        n_fft: window in samples; hop is a quarter of it.
    """
    figure = new_figure(3.6 * len(clips), 3.2)
    all_axes = figure.subplots(1, len(clips), sharey=True, squeeze=False)[0]
    pictures = {title: _decibels(wave.flatten().numpy(), n_fft) for title, wave in clips.items()}
    top = max(picture.max() for picture in pictures.values())
    for axes, (title, picture) in zip(all_axes, pictures.items(), strict=True):
        seconds = clips[title].numel() / sample_rate
        image = axes.imshow(
            picture - top,
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, sample_rate / 2000),
            vmin=SILENCE_DB,
            vmax=0,
            cmap="magma",
        )
        axes.set(title=title, xlabel="seconds")
    all_axes[0].set_ylabel("kHz")
    figure.colorbar(image, ax=all_axes[-1], label="dB")
    save_figure(figure, path)


def _decibels(waveform: np.ndarray, n_fft: int) -> np.ndarray:
    """waveform [N] -> power in dB [n_fft/2 + 1, frames]."""
    padded = np.pad(waveform, n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 4]
    spectrum = np.fft.rfft(frames * np.hanning(n_fft), axis=-1)
    return 10 * np.log10(np.abs(spectrum.T) ** 2 + 1e-12)
