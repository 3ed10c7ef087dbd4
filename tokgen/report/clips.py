"""Sounds and their pictures: equal loudness over an utterance, spectrograms on one scale."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.image import imsave
from torch import Tensor

from tokgen.audio.files import AudioError, read_audio
from tokgen.codec_training.augment import QUIET_LUFS, loudness_lufs
from tokgen.plotting import SILENCE_DB, decibels
from tokgen.report.encoding import AudioFormat
from tokgen.report.json_files import clean_text
from tokgen.report.listening import Clip, Column

MAX_SECONDS = 120.0  # longer files are not embedded
MAX_GAIN_DB = 20.0
ANCHOR_HZ = (3500.0, 4000.0)  # of ITU-R BS.1534's low anchor: pass band up to, stop band from
PICTURE = (96, 320)  # pixels
SHADES = 64
BLOCK_SECONDS, HOP_SECONDS = 0.4, 0.1  # of BS.1770's gates
RELATIVE_GATE = -10.0  # LU under the loudness of what passes the absolute gate
ABSOLUTE_GATE = -70.0  # LUFS


@dataclass(frozen=True)
class Sound:
    """One cell of the listening table.

    Attributes:
        audio: an encoded file, base64.
        picture: data URI of the spectrogram.
        loudness: LUFS as found; -inf for silence.
        gain_db: what it was changed by.
    """

    audio: str
    picture: str
    seconds: float
    sample_rate: int
    loudness: float
    gain_db: float


@dataclass(frozen=True)
class ClipSounds:
    """An utterance, ready for the page.

    Attributes:
        sounds: one a column, None where there is none.
        anchor: the low anchor; None without an original, or where it would change nothing.
        lowered_db: by how much all were lowered together so that no peak passes full scale.
        matched: whether there is an original, whose loudness all have.
        problems: what could not be read, and why.
    """

    clip: Clip
    sounds: list[Sound | None]
    anchor: Sound | None
    lowered_db: float
    matched: bool
    problems: list[str]


@dataclass(frozen=True)
class _Wave:
    samples: Tensor  # [1, N]
    rate: int

    @property
    def seconds(self) -> float:
        return self.samples.shape[-1] / self.rate


def make_sounds(clip: Clip, columns: Sequence[Column], audio: AudioFormat) -> ClipSounds:
    """Read an utterance's files, bring them to one loudness, encode and picture them."""
    waves, problems = [], []
    for column in columns:
        wave, problem = _read(clip, column.name)
        waves.append(wave)
        problems += [f"{clip.id}, {column.name}: {problem}"] if problem else []
    originals = [w for w, c in zip(waves, columns, strict=True) if w and c.kind == "original"]
    original = originals[0] if originals else None
    anchor = None
    if original is not None and original.rate >= 2 * ANCHOR_HZ[1]:
        anchor = _Wave(low_pass(original.samples, original.rate), original.rate)
    known = [w for w in (*waves, anchor) if w is not None]
    loudness = [integrated_loudness(w.samples, w.rate) for w in known]
    target = loudness[known.index(original)] if original is not None else math.nan
    gains = [gain_to(target, found) for found in loudness]
    peaks = [float(w.samples.abs().max()) * amplitude(g) for w, g in zip(known, gains, strict=True)]
    lowered = max(0.0, 20 * math.log10(max(peaks))) if any(peaks) else 0.0
    scaled = [
        _Wave((w.samples * amplitude(g - lowered)).clamp(-1, 1), w.rate)
        for w, g in zip(known, gains, strict=True)
    ]
    pictures = spectrograms([(w.samples[0].numpy(), w.rate) for w in scaled])
    made = iter(
        Sound(
            base64.b64encode(audio.encode(wave.samples, wave.rate)).decode(),
            picture,
            wave.seconds,
            wave.rate,
            found,
            gain - lowered,
        )
        for wave, picture, found, gain in zip(scaled, pictures, loudness, gains, strict=True)
    )
    sounds = [None if wave is None else next(made) for wave in waves]
    return ClipSounds(clip, sounds, next(made, None), lowered, math.isfinite(target), problems)


def _read(clip: Clip, column: str) -> tuple[_Wave | None, str]:
    """The audio, or why there is none; a column that the clip was never made in is no problem."""
    path = clip.files.get(column)
    if path is None:
        return None, "no plain file name of a file in the folder" if column in clip.files else ""
    try:
        return _Wave(*read_audio(path, name=path.name, max_seconds=MAX_SECONDS)), ""
    except AudioError as error:
        return None, clean_text(str(error))
    except OSError as error:
        return None, clean_text(str(error))


def gain_to(target: float, loudness: float) -> float:
    """dB from a loudness to another, both LUFS; silence stays, and so does all without a target."""
    if not (math.isfinite(target) and math.isfinite(loudness)):
        return 0.0
    if min(target, loudness) < QUIET_LUFS:
        return 0.0
    return min(MAX_GAIN_DB, max(-MAX_GAIN_DB, target - loudness))


def amplitude(db: float) -> float:
    return 10 ** (db / 20)


def integrated_loudness(waveform: Tensor, sample_rate: int) -> float:
    """Loudness with both gates of ITU-R BS.1770, in LUFS; -inf for silence.

    Args:
        waveform: [1, N]; under 0.4 s it is one block, ungated.
        sample_rate: Hz.
    """
    block, hop = round(BLOCK_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    if waveform.shape[-1] < block:
        return float(loudness_lufs(waveform[None], sample_rate))
    found = loudness_lufs(waveform[0].unfold(0, block, hop)[:, None], sample_rate)
    found = found[found > ABSOLUTE_GATE]
    found = found[found > _mean_loudness(found) + RELATIVE_GATE]
    return float(_mean_loudness(found)) if len(found) else -math.inf


def _mean_loudness(blocks: Tensor) -> Tensor:
    return 10 * (10 ** (blocks / 10)).mean().log10()


def low_pass(waveform: Tensor, sample_rate: int) -> Tensor:
    """[1, N] without what is above 3.5 kHz: a windowed sinc, flat to 3.5 kHz, -60 dB from 4 kHz."""
    edge, stop = ANCHOR_HZ
    attenuation, beta = 60.0, 5.65  # dB, and the Kaiser window for it
    n = math.ceil((attenuation - 7.95) / (14.36 * (stop - edge)) * sample_rate) // 2
    times = np.arange(-n, n + 1)
    cutoff = (edge + stop) / sample_rate  # of half the rate
    taps = cutoff * np.sinc(cutoff * times) * np.kaiser(2 * n + 1, beta)
    taps /= taps.sum()
    samples = waveform[0].double().numpy()
    size = len(samples) + 2 * n
    product = np.fft.rfft(samples, size) * np.fft.rfft(taps, size)
    filtered = np.fft.irfft(product, size)[n : n + len(samples)]
    return torch.from_numpy(filtered.astype(np.float32))[None]


def spectrograms(waves: Sequence[tuple[np.ndarray, int]]) -> list[str]:
    """Data URIs of PNGs: the same seconds, hertz and decibels over all of them.

    Args:
        waves: samples [N] and rate in Hz of each.
    """
    if not waves:
        return []
    seconds = max(len(samples) / rate for samples, rate in waves)
    top_hz = max(rate for _, rate in waves) / 2
    grids = [_grid(samples, rate, seconds, top_hz) for samples, rate in waves]
    top = max(grid.max() for grid in grids)
    return [_png(np.clip(grid - top, SILENCE_DB, 0.0)) for grid in grids]


def _grid(samples: np.ndarray, rate: int, seconds: float, top_hz: float) -> np.ndarray:
    """dB [height, width] of pixels, low frequencies first; what is not there is very quiet."""
    height, width = PICTURE
    n_fft = 2 * max(16, round(0.016 * rate))
    hop = max(1, round(seconds * rate / width))
    found = decibels(samples, n_fft, hop) - 20 * math.log10(n_fft)
    n_bins = max(height, round(top_hz / (rate / n_fft)))
    padded = np.full((n_bins, found.shape[1]), -200.0)
    padded[: len(found)] = found[:n_bins]
    rows = np.maximum.reduceat(padded, np.linspace(0, n_bins, height, endpoint=False).astype(int))
    centres = np.round((np.arange(width) + 0.5) * seconds * rate / width / hop).astype(int)
    inside = centres < rows.shape[1]
    grid = np.full((height, width), -200.0)
    grid[:, inside] = rows[:, centres[inside]]
    return grid


def _png(grid: np.ndarray) -> str:
    """dB [height, width] from SILENCE_DB to 0 -> data URI."""
    shades = np.round((grid / SILENCE_DB) * (SHADES - 1)) / (SHADES - 1)
    out = io.BytesIO()
    imsave(out, 1 - shades, cmap="magma", vmin=0, vmax=1, origin="lower", format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
