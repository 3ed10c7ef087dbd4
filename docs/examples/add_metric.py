"""A metric of one's own, with intervals: the log-spectral distance in dB."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tokgen.metrics.statistics import bootstrap_mean
from tokgen.metrics.tables import Metric, Row, Table

LSD = Metric("lsd", "log-spectral distance", "lower", "dB", backend="torch.stft, 512, hop 128")


def log_spectral_distance(reference: Tensor, estimate: Tensor) -> float:
    """Return the RMS difference of log spectra over bins, averaged over frames.

    Args:
        reference, estimate: [N] or [1, N] of equal length.
    Returns:
        dB, 0 for equal audio. NaN if either is silent: a failure is never a score.
    Raises:
        ValueError: the lengths differ.
    """
    waveforms = reference.flatten().double(), estimate.flatten().double()
    if len(waveforms[0]) != len(waveforms[1]):
        sizes = " and ".join(str(len(w)) for w in waveforms)
        raise ValueError(f"{sizes} samples: trim or pad to equal length first")
    if not all(w.abs().max() > 0 for w in waveforms):
        return math.nan
    window = torch.hann_window(512, dtype=torch.float64)
    a, b = (
        20 * torch.stft(w, 512, 128, window=window, return_complex=True).abs().clamp(1e-5).log10()
        for w in waveforms
    )
    return (a - b).square().mean(0).sqrt().mean().item()


def lsd_table(rows: Mapping[str, Sequence[Tensor]], reference: str = "original") -> Table:
    """Compare every row of waveforms [1, N] with the row named `reference`.

    Failures are left out of the means and counted.
    """
    found = []
    for name, clips in rows.items():
        pairs = zip(rows[reference], clips, strict=True)
        values = [log_spectral_distance(original, clip) for original, clip in pairs]
        kind = name if name in ("original", "resynthesis") else "generated"
        found.append(Row(name, kind, None, {LSD.name: bootstrap_mean(values)}))
    return Table([LSD], found, notes=["means with 95 % intervals over clips"])
