"""Repeated encoding: how audio and codes change when a codec hears its own output.

    clips = DriftClips(open_corpus("speech/"), seconds=5.0)
    run = measure_drift(load_roundtrip("opus:12"), clips, passes=25, out=Path("drift"))

The protocol is Code Drift's (O'Reilly et al., section III): encode and decode again and again,
and compare each pass with the original, and its codes with those of the pass before. One pass is
encode, decode, and cut to the input's length; `match_level` also brings it to the original's
level, as the paper does. That is off by default: it changes what the next pass hears, so that
even a codec with f(f(x)) = f(x) would drift. Audio stays in float between passes, so nothing
clips. The cost of a pass is flat, and a clip's results are on disk once it is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tokgen.audio.files import AudioError, write_audio
from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.spec import Encoded
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import Corpus
from tokgen.corpus.reading import SILENCE_PEAK
from tokgen.metrics.codebook import token_match
from tokgen.metrics.delay import Delay, align, measure_delay
from tokgen.metrics.pesq import pesq_wb
from tokgen.metrics.si_sdr import si_sdr
from tokgen.nn.spectral_losses import MultiScaleMel
from tokgen.runs.store import ClipStore, slug

PER_CLIP = ("pesq", "si_sdr", "si_sdr_aligned", "log_mel", "level")  # one value a pass
PER_LEVEL = ("match_previous", "match_first")  # one value a pass and level of the codes


@dataclass(frozen=True)
class ClipDrift:
    """One clip through all passes.

    Attributes:
        values: metric -> [passes] for `PER_CLIP`, [passes, K] for `PER_LEVEL`; NaN where it failed.
        codes: [passes, K, T] of every encoding; None for a waveform codec.
    """

    values: dict[str, np.ndarray]
    codes: np.ndarray | None

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it in one."""
        return self.values if self.codes is None else {**self.values, "codes": self.codes}

    @staticmethod
    def of(arrays: dict[str, np.ndarray]) -> ClipDrift:
        """From `arrays`."""
        return ClipDrift({k: v for k, v in arrays.items() if k != "codes"}, arrays.get("codes"))


@dataclass(frozen=True)
class DriftRun:
    """One codec on all clips.

    Attributes:
        name: the codec's.
        spec: `CodecSpec.as_dict()` or `WaveformSpec.as_dict()`.
        bitrate: bits per second.
        delay: of one pass.
        ids: of the clips that were measured,
        clips: and what was found.
        codebook_size: None for a waveform codec.
        rejections: clips that could not be used, those that listing the corpus left out included.
    """

    name: str
    spec: dict[str, Any]
    bitrate: float
    delay: Delay
    ids: list[str]
    clips: list[ClipDrift]
    codebook_size: int | None
    rejections: list[Rejection]

    def without_codes(self) -> DriftRun:
        """What comparing clip by clip needs."""
        return replace(self, clips=[ClipDrift(clip.values, None) for clip in self.clips])


class DriftClips:
    """The same excerpts for every codec: the first seconds of each utterance.

    Args:
        corpus: where they come from.
        seconds: longer utterances are cut to it; None keeps them whole.
        n_clips: the first so many; None takes all.
    """

    def __init__(self, corpus: Corpus, seconds: float | None = 5.0, n_clips: int | None = None):
        if seconds is not None and not seconds > 0:
            raise ValueError(f"seconds = {seconds}: clips need some length; None keeps them whole")
        self.corpus = corpus if n_clips is None else corpus.select(n=n_clips)
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self.corpus)

    def ids(self) -> list[str]:
        return [entry.id for entry in self.corpus.entries]

    def load(self, index: int, sample_rate: int) -> Tensor:
        """waveform [1, N].

        Raises:
            AudioError: it cannot be read, or the excerpt is silent.
        """
        entry = self.corpus.entries[index]
        waveform = self.corpus.load(entry, sample_rate).waveform
        if self.seconds is None:
            return waveform
        excerpt = waveform[:, : round(self.seconds * sample_rate)]
        if excerpt.abs().max() < SILENCE_PEAK:
            raise AudioError(entry.source, f"its first {self.seconds:g} s are silent")
        return excerpt

    @property
    def fingerprint(self) -> str:
        return f"{self.corpus.fingerprint} {self.seconds}"


def measure_drift(
    codec: Codec | WaveformCodec,
    clips: DriftClips,
    *,
    out: Path,
    passes: int = 25,
    match_level: bool = False,
    n_samples: int = 2,
    progress: bool = True,
) -> DriftRun:
    """Send every clip through `codec` again and again.

    Args:
        codec: what to measure.
        clips: what it hears.
        out: results of clips are kept in `out`/clips, so that the same call goes on after a kill;
            `out`/audio gets the first clips as they are measured.
        passes: encodings, at least 1.
        match_level: bring every output to its original's RMS level before the next pass.
        n_samples: clips whose original, first and last pass are written as audio.
        progress: show a bar.
    Raises:
        ValueError: passes under 1, or no clip can be read.
    """
    if passes < 1:
        raise ValueError(f"passes = {passes}: give at least 1")
    name, spec = codec.spec.name, codec.spec.as_dict()
    rate = codec.spec.sample_rate
    delay = measure_delay(codec.roundtrip, rate)
    plan = [spec, clips.fingerprint, passes, match_level, delay.samples]
    store = ClipStore(out / "clips", name, plan)
    done: dict[str, ClipDrift] = {}
    rejections = list(clips.corpus.rejections)
    bar = tqdm(total=len(clips), desc=f"drift {name}", unit="clip", disable=not progress)
    with bar:
        for index, clip_id in enumerate(clips.ids()):
            arrays = store.read(index)
            audio = out / "audio" / slug(name) / slug(clip_id) if index < n_samples else None
            heard = audio is None or (audio / _pass_file(passes)).is_file()
            if arrays is None or not heard:
                try:
                    original = clips.load(index, rate)
                except AudioError as error:
                    rejections.append(Rejection(error.source, error.reason))
                    bar.update()
                    continue
                clip = drift_of(codec, original, passes, delay.samples, match_level, audio)
                store.write(index, clip.arrays())
            else:
                clip = ClipDrift.of(arrays)
            done[clip_id] = clip
            bar.update()
    if not done:
        reasons = "; ".join(f"{r.source}: {r.reason}" for r in rejections[:3])
        raise ValueError(f"no usable clip in {clips.corpus.name}: {reasons or 'it is empty'}")
    size = codec.spec.codebook_size if isinstance(codec, Codec) else None
    ids, found = list(done), list(done.values())
    return DriftRun(name, spec, codec.spec.bitrate, delay, ids, found, size, rejections)


def drift_of(
    codec: Codec | WaveformCodec,
    original: Tensor,
    passes: int,
    delay: int = 0,
    match_level: bool = False,
    audio: Path | None = None,
) -> ClipDrift:
    """One clip through all passes.

    Args:
        original: [1, N] at the codec's rate.
        passes: encodings.
        delay: samples by which a pass comes late, for `si_sdr_aligned`.
        match_level: bring every output to the original's RMS level.
        audio: folder for original.wav and the first and last pass.
    """
    rate = codec.spec.sample_rate
    values: dict[str, list] = {metric: [] for metric in (*PER_CLIP, *PER_LEVEL)}
    codes: list[Tensor] = []
    for n, (output, level, code) in enumerate(_passes(codec, original, passes, match_level), 1):
        aligned = align(original, output, n * delay)
        values["pesq"].append(pesq_wb(original, output, rate))
        values["si_sdr"].append(si_sdr(original, output))
        values["si_sdr_aligned"].append(si_sdr(*aligned) if aligned else math.nan)
        values["log_mel"].append(_log_mel(original, output, rate))
        values["level"].append(level)
        if code is not None:
            codes.append(code)
            before = codes[-2] if n > 1 else None
            none = torch.full((len(code),), math.nan)
            values["match_previous"].append(none if before is None else token_match(before, code))
            values["match_first"].append(token_match(codes[0], code))
        if audio is not None and n in (1, passes):
            write_audio(audio / "original.wav", original, rate)
            write_audio(audio / _pass_file(n), output, rate)
    kept = {k: np.array(v, dtype=np.float64) for k, v in values.items() if k in PER_CLIP}
    if not codes:
        return ClipDrift(kept, None)
    kept |= {k: torch.stack(values[k]).double().numpy() for k in PER_LEVEL}
    return ClipDrift(kept, torch.stack(codes).to(torch.int32).numpy())


def _pass_file(n: int) -> str:
    return f"pass{n:02d}.wav"


def _passes(
    codec: Codec | WaveformCodec, original: Tensor, passes: int, match_level: bool
) -> Iterator[tuple[Tensor, float, Tensor | None]]:
    """Output [1, N], its level over the original's in dB, and the codes [K, T] behind it."""
    heard = original
    for _ in range(passes):
        code = None
        if isinstance(codec, Codec):
            encoded: Encoded = codec.encode_with_side(heard[None])
            output = codec.decode(encoded.codes, heard.shape[-1], encoded.side)[0].cpu()
            code = encoded.codes[0].cpu()
        else:
            output = codec.roundtrip(heard[None])[0]
        level = rms_ratio(output, original)
        if match_level and level > 0 and math.isfinite(level):
            output = output / level
        yield output, 20 * math.log10(level) if level > 0 else math.nan, code
        heard = output


def rms_ratio(output: Tensor, original: Tensor) -> float:
    """RMS of `output` over that of `original`; NaN where the original is silent."""
    power = original.double().square().mean().item()
    return math.sqrt(output.double().square().mean().item() / power) if power > 0 else math.nan


@torch.inference_mode()
def _log_mel(original: Tensor, output: Tensor, sample_rate: int) -> float:
    return float(_mel(sample_rate)(output[None], original[None]))


@lru_cache(maxsize=4)
def _mel(sample_rate: int) -> MultiScaleMel:
    return MultiScaleMel(sample_rate).eval()
