"""Random crops of whole corpora for codec training, from a memory map: constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tokgen.corpus.listed import Corpus, Rejection

# K-weighting of ITU-R BS.1770-4, tables 1 and 2: (numerator, denominator) at 48 kHz.
K_RATE = 48_000
K_FILTERS = (
    (
        (1.53512485958697, -2.69169618940638, 1.19839281085285),
        (1.0, -1.69065929318241, 0.73248077421585),
    ),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
QUIET_LUFS = -60.0  # what is under it is silence, which stays silence


class AudioCrops:
    """All utterances of some corpora behind one another, int16, on disk.

    `batch(step, …)` depends on the seed and the step alone, so a resumed run sees the same audio.

    Args:
        corpora: what to read; unreadable clips are in `rejections`.
        sample_rate: Hz.
        cache: folder for the memory map; reused where the corpora's content is the same.
    """

    def __init__(self, corpora: Sequence[Corpus], sample_rate: int, cache: Path) -> None:
        content = "".join(c.fingerprint for c in corpora) + str(sample_rate)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self.sample_rate = sample_rate
        self.rejections: list[Rejection] = []
        path = cache / f"audio-{self.fingerprint[:16]}.i16"
        if not path.exists():
            self._write(corpora, path)
        self._audio = np.memmap(path, dtype=np.int16, mode="r")

    def _write(self, corpora: Sequence[Corpus], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        total = sum(len(c) for c in corpora)
        with partial.open("wb") as file, tqdm(total=total, unit="clip", desc="audio") as bar:
            for corpus in corpora:
                for utterance in corpus.utterances(self.sample_rate, rejected=self.rejections):
                    file.write(to_int16(utterance.waveform).tobytes())
                    bar.update()
        if partial.stat().st_size == 0:
            raise ValueError("no usable audio in the corpora: nothing to train on")
        partial.replace(path)

    @property
    def seconds(self) -> float:
        return len(self._audio) / self.sample_rate

    def batch(self, step: int, *, seed: int, batch_size: int, n_samples: int) -> Tensor:
        """waveform [B, 1, n_samples] of crops drawn for (seed, step)."""
        if n_samples > len(self._audio):
            raise ValueError(
                f"crops of {n_samples} samples from {len(self._audio)} in all: shorten the crops"
            )
        rng = np.random.default_rng((seed, step))
        starts = rng.integers(0, len(self._audio) - n_samples + 1, batch_size)
        crops = np.stack([self._audio[s : s + n_samples] for s in starts])
        return torch.from_numpy(crops.astype(np.float32) / 32768)[:, None]


def to_int16(waveform: Tensor) -> np.ndarray:
    """float [-1, 1] -> int16, clipped."""
    return (waveform.flatten() * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy()


def augment(
    waveform: Tensor,
    sample_rate: int,
    *,
    loudness: float | None,
    gain_db: float,
    phase: bool,
    generator: torch.Generator,
) -> Tensor:
    """Level and phase of training audio, as in DAC's recipe.

    Args:
        waveform: [B, 1, N].
        sample_rate: Hz.
        loudness: LUFS that each item is brought to first; None leaves it.
        gain_db: levels are then changed by U(-gain_db, gain_db) dB, and kept under full scale.
        phase: rotate all frequencies of an item by one angle U(-pi, pi).
        generator: on the CPU.
    """
    batch = len(waveform)
    if phase:
        angle = (torch.rand(batch, 1, 1, generator=generator) * 2 - 1) * torch.pi
        spectrum = torch.fft.rfft(waveform) * torch.polar(torch.ones_like(angle), angle)
        waveform = torch.fft.irfft(spectrum, n=waveform.shape[-1])
    gain = (torch.rand(batch, 1, 1, generator=generator) * 2 - 1) * gain_db
    if loudness is not None:
        measured = loudness_lufs(waveform, sample_rate)[:, None, None]
        gain = gain + torch.where(measured > QUIET_LUFS, loudness - measured, 0.0)
    waveform = waveform * 10 ** (gain / 20)
    return waveform / waveform.abs().amax(-1, keepdim=True).clamp(min=1.0)


def loudness_lufs(waveform: Tensor, sample_rate: int) -> Tensor:
    """Loudness of each item over its whole length: ITU-R BS.1770 without gating.

    The two K-weighting filters are applied as their gains at each frequency; crops of under a
    second are too short for the standard's gates.

    Args:
        waveform: [B, 1, N].
        sample_rate: Hz.
    Returns:
        [B] in LUFS; -inf for digital silence.
    """
    n = waveform.shape[-1]
    turn = 2 * torch.pi * torch.fft.rfftfreq(n, 1 / sample_rate) / K_RATE
    delay = torch.polar(torch.ones_like(turn), -turn)
    weight = torch.ones_like(turn)
    for b, a in K_FILTERS:
        top = b[0] + b[1] * delay + b[2] * delay**2
        bottom = a[0] + a[1] * delay + a[2] * delay**2
        weight = weight * (top.abs() / bottom.abs()) ** 2
    power = torch.fft.rfft(waveform[:, 0]).abs() ** 2 * weight
    power[:, 1 : (n + 1) // 2] *= 2  # negative frequencies
    return -0.691 + 10 * (power.sum(-1) / n**2).log10()
