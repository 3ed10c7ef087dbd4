"""Sounds and spectrograms of utterances: equal loudness, and common axes for spectrograms."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.image import imsave
from torch import Tensor

from tokgen.audio.files import AudioError, open_blocks, read_audio
from tokgen.codec_training.augment import QUIET_LUFS, loudness_lufs
from tokgen.plotting import SILENCE_DB, decibels
from tokgen.report.depth import DepthCurve, read_depth
from tokgen.report.encoding import AudioFormat
from tokgen.report.json_files import clean_text
from tokgen.report.listening import Clip, Column, Listening

__all__ = [
    "ABSOLUTE_GATE",
    "ANCHOR_HZ",
    "BLOCK_SECONDS",
    "HOP_SECONDS",
    "MAX_GAIN_DB",
    "MAX_HZ",
    "MAX_SECONDS",
    "PICTURE",
    "RELATIVE_GATE",
    "SHADES",
    "TICKS_KHZ",
    "ClipSounds",
    "Sound",
    "amplitude",
    "frequency_ticks",
    "gain_to",
    "integrated_loudness",
    "low_pass",
    "make_sounds",
    "spectrograms",
    "top_frequency",
]

MAX_SECONDS = 120.0  # longer files are an error
MAX_GAIN_DB = 20.0
ANCHOR_HZ = (3500.0, 4000.0)  # low anchor of ITU-R BS.1534: end of pass band, start of stop band
MAX_HZ = 24_000.0  # spectrograms end here, whatever the sample rate
TICKS_KHZ = (1, 2, 4, 8, 16)
PICTURE = (96, 320)  # height and width in pixels
SHADES = 64
BLOCK_SECONDS, HOP_SECONDS = 0.4, 0.1  # gating blocks of BS.1770
RELATIVE_GATE = -10.0  # LU, relative to the loudness after the absolute gate
ABSOLUTE_GATE = -70.0  # LUFS


@dataclass(frozen=True)
class Sound:
    """One cell of the listening table.

    Attributes:
        audio: encoded file, base64.
        picture: data URI of the spectrogram.
        seconds: duration in seconds.
        sample_rate: sample rate in Hz, before encoding.
        loudness: measured loudness in LUFS; -inf for silence.
        gain_db: applied gain in dB.
        depth: levels of each frame; None if the sound has no file of them.
    """

    audio: str
    picture: str
    seconds: float
    sample_rate: int
    loudness: float
    gain_db: float
    depth: DepthCurve | None = None


@dataclass(frozen=True)
class ClipSounds:
    """An utterance, ready for the page.

    Attributes:
        clip: the utterance.
        sounds: one per column, None if there is no audio.
        anchor: low anchor; None without an original, or if its sample rate is below 8 kHz.
        problems: one message for each file that could not be read.
    """

    clip: Clip
    sounds: list[Sound | None]
    anchor: Sound | None
    problems: list[str]

    @property
    def seconds(self) -> float:
        """Duration of the longest sound: the time axis of the spectrograms."""
        known = [sound for sound in (*self.sounds, self.anchor) if sound is not None]
        return max((sound.seconds for sound in known), default=0.0)


@dataclass(frozen=True)
class _Wave:
    samples: Tensor  # [1, N]
    rate: int
    depth: DepthCurve | None = None


def top_frequency(listenings: Iterable[Listening]) -> float:
    """Return half the highest sample rate of all audio in Hz, at most `MAX_HZ`."""
    clips = [clip for listening in listenings for clip in listening.clips]
    rates = []
    for path in (path for clip in clips for path in clip.files.values() if path is not None):
        with suppress(AudioError, OSError), open_blocks(path, name=path.name) as blocks:
            rates.append(blocks.sample_rate)
    return min(MAX_HZ, max(rates) / 2) if rates else MAX_HZ


def make_sounds(
    clip: Clip, columns: Sequence[Column], audio: AudioFormat, top_hz: float = MAX_HZ
) -> ClipSounds:
    """Read the files of an utterance, match their loudness, encode them and draw spectrograms.

    All columns get the loudness of the original. If a peak would then exceed full scale, all are
    lowered by the same amount. Spectrograms end at `top_hz`.
    """
    waves, problems = [], []
    for column in columns:
        wave, problem = _read(clip, column.name)
        waves.append(wave)
        problems += [f"{clip.id}, {column.name}: {problem}"] if problem else []
    originals = [w for w, c in zip(waves, columns, strict=True) if w and c.is_original]
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
        _Wave((w.samples * amplitude(g - lowered)).clamp(-1, 1), w.rate, w.depth)
        for w, g in zip(known, gains, strict=True)
    ]
    pictures = spectrograms([(w.samples[0].numpy(), w.rate) for w in scaled], top_hz)
    made = iter(
        Sound(
            base64.b64encode(audio.encode(wave.samples, wave.rate)).decode(),
            picture,
            wave.samples.shape[-1] / wave.rate,
            wave.rate,
            found,
            gain - lowered,
            wave.depth,
        )
        for wave, picture, found, gain in zip(scaled, pictures, loudness, gains, strict=True)
    )
    sounds = [None if wave is None else next(made) for wave in waves]
    return ClipSounds(clip, sounds, next(made, None), problems)


def _read(clip: Clip, column: str) -> tuple[_Wave | None, str]:
    """Read the audio and depth of a column, or say why not.

    A column that the clip lacks is no problem.
    """
    path = clip.files.get(column)
    if path is None:
        return None, "not the name of a file in the folder" if column in clip.files else ""
    try:
        wave = _Wave(*read_audio(path, name=path.name, max_seconds=MAX_SECONDS))
    except (AudioError, OSError) as error:
        return None, clean_text(str(error))
    try:
        return replace(wave, depth=read_depth(path)), ""
    except (ValueError, OSError) as error:
        return wave, clean_text(str(error))


def gain_to(target: float, loudness: float) -> float:
    """Gain in dB from a loudness to the target, both in LUFS; 0 if either is silence or unknown."""
    if not (math.isfinite(target) and math.isfinite(loudness)):
        return 0.0
    if min(target, loudness) < QUIET_LUFS:
        return 0.0
    return min(MAX_GAIN_DB, max(-MAX_GAIN_DB, target - loudness))


def amplitude(db: float) -> float:
    """Convert dB to a factor of the amplitude."""
    return 10 ** (db / 20)


def integrated_loudness(waveform: Tensor, sample_rate: int) -> float:
    """Integrated loudness of ITU-R BS.1770 with both gates.

    Args:
        waveform: [1, N]; audio under 0.4 s is one block without gates.
        sample_rate: sample rate in Hz.
    Returns:
        loudness in LUFS; -inf for silence.
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
    """Low-pass a waveform [1, N] by a windowed sinc: flat to 3.5 kHz, -60 dB from 4 kHz."""
    edge, stop = ANCHOR_HZ
    attenuation, beta = 60.0, 5.65  # dB, and the shape of the Kaiser window for it
    n = math.ceil((attenuation - 7.95) / (14.36 * (stop - edge)) * sample_rate) // 2
    times = np.arange(-n, n + 1)
    cutoff = (edge + stop) / sample_rate  # middle of the band, as a fraction of Nyquist
    taps = cutoff * np.sinc(cutoff * times) * np.kaiser(2 * n + 1, beta)
    taps /= taps.sum()
    samples = waveform[0].double().numpy()
    size = len(samples) + 2 * n
    product = np.fft.rfft(samples, size) * np.fft.rfft(taps, size)
    filtered = np.fft.irfft(product, size)[n : n + len(samples)]
    return torch.from_numpy(filtered.astype(np.float32))[None]


def spectrograms(waves: Sequence[tuple[np.ndarray, int]], top_hz: float) -> list[str]:
    """Draw spectrograms that share their scales of time, frequency (mel) and level.

    Pixels after the end of a sound, and above half its sample rate, are transparent.

    Args:
        waves: samples [N] and sample rate in Hz of each sound.
        top_hz: frequency at the upper edge.
    Returns:
        data URIs of PNG files.
    """
    if not waves:
        return []
    seconds = max(len(samples) / rate for samples, rate in waves)
    grids = [_grid(samples, rate, seconds, top_hz) for samples, rate in waves]
    top = max(np.nanmax(grid) for grid in grids)
    return [_png(np.clip(grid - top, SILENCE_DB, 0.0)) for grid in grids]


def frequency_ticks(top_hz: float) -> list[tuple[str, float]]:
    """Return the ticks of the frequency axis: label, and distance from the top in percent."""
    heights = {khz: float(_mel(1000 * khz) / _mel(top_hz)) for khz in TICKS_KHZ}
    return [(f"{khz} kHz", round(100 - 100 * at, 1)) for khz, at in heights.items() if at < 0.97]


def _mel(hertz: float | np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def _grid(samples: np.ndarray, rate: int, seconds: float, top_hz: float) -> np.ndarray:
    """Compute dB per pixel [height, width], low frequencies first; NaN outside the sound."""
    height, width = PICTURE
    n_fft = 2 * max(16, round(0.016 * rate))
    hop = max(1, round(seconds * rate / width))
    found = decibels(samples, n_fft, hop) - 20 * math.log10(n_fft)
    edges = 700 * (10 ** (np.linspace(0, _mel(top_hz), height + 1) / 2595) - 1)  # Hz
    bins = np.minimum((edges * n_fft / rate).astype(int), len(found) - 1)
    end = max(1, bins[-1])
    rows = np.maximum.reduceat(found[:end], np.minimum(bins[:-1], end - 1))
    rows[edges[:-1] >= rate / 2] = np.nan
    centres = np.round((np.arange(width) + 0.5) * seconds * rate / width / hop).astype(int)
    inside = centres < rows.shape[1]
    grid = np.full((height, width), np.nan)
    grid[:, inside] = rows[:, centres[inside]]
    return grid


def _png(grid: np.ndarray) -> str:
    """Draw dB [height, width] from SILENCE_DB to 0 as a PNG; return its data URI."""
    shades = np.round((np.nan_to_num(grid, nan=SILENCE_DB) / SILENCE_DB) * (SHADES - 1))
    colours = colormaps["magma"](1 - shades / (SHADES - 1))
    colours[np.isnan(grid)] = 0.0
    out = io.BytesIO()
    imsave(out, colours[::-1], format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
