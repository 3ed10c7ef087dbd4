"""Measure drift: how audio and codes change when a codec encodes its own output repeatedly.

    clips = DriftClips(open_corpus("speech/"), seconds=5.0)
    run = run_drift(load_roundtrip("opus:12"), clips, passes=25, out=Path("drift"))

The protocol is Code Drift's (O'Reilly et al., section III). Each pass encodes, decodes and cuts to
the length of the input. It is compared with the original, and its codes with those of the pass
before. `match_level` also scales the output to the level of the original, as the paper does. It is
off by default because it changes the input of the next pass, so even a codec with f(f(x)) = f(x)
would drift. Audio stays in float between passes, so nothing clips.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.files import AudioError, write_audio
from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.spec import Encoded
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import Corpus
from tokgen.corpus.reading import SILENCE_PEAK
from tokgen.metrics.codebook import token_match
from tokgen.metrics.delay import Delay, align, measure_delay
from tokgen.metrics.pesq import measure_pesq
from tokgen.metrics.si_sdr import si_sdr
from tokgen.nn.spectral_losses import MultiScaleMel
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import ClipStore, slug

__all__ = ["PER_CLIP", "PER_LEVEL", "ClipDrift", "DriftClips", "DriftRun", "drift_of", "run_drift"]

PER_CLIP = ("pesq", "si_sdr", "si_sdr_aligned", "log_mel", "level")  # one value per pass
PER_LEVEL = ("match_previous", "match_first")  # one value per pass and level of the codes
_CHECK_RATE = 16_000  # Hz


@dataclass(frozen=True)
class ClipDrift:
    """One clip through all passes.

    Attributes:
        values: metric to [passes] (`PER_CLIP`) or [passes, K] (`PER_LEVEL`); NaN for a failure.
        codes: [passes, K, T] of every encoding; None for a waveform codec.
        failures: pass, metric and reason of each failure. The SI-SDR of audio that equals the
            original is infinite, which is no failure.
    """

    values: dict[str, np.ndarray]
    codes: np.ndarray | None
    failures: list[tuple[int, str, str]] = field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the clip as arrays, to store."""
        codes = {} if self.codes is None else {"codes": self.codes}
        text = json.dumps(self.failures).encode()
        return self.values | codes | {"failures": np.frombuffer(text, np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ClipDrift:
        """Read the result of `arrays`."""
        values = {k: v for k, v in arrays.items() if k in (*PER_CLIP, *PER_LEVEL)}
        failures = [(n, m, why) for n, m, why in json.loads(arrays["failures"].tobytes())]
        return cls(values, arrays.get("codes"), failures)


@dataclass(frozen=True)
class DriftRun:
    """One codec on all clips.

    Attributes:
        name: name of the codec.
        spec: `CodecSpec.as_dict()` or `WaveformSpec.as_dict()`.
        bitrate: bits per second.
        delay: delay of one pass.
        ids: ids of the measured clips.
        clips: results of the measured clips.
        codebook_size: entries per level; None for a waveform codec.
        rejections: clips that could not be used, including those rejected by the corpus.
    """

    name: str
    spec: dict[str, Any]
    bitrate: float
    delay: Delay
    ids: list[str]
    clips: list[ClipDrift]
    codebook_size: int | None
    rejections: list[Rejection]


class DriftClips:
    """The first seconds of each utterance of a corpus, the same for every codec.

    Args:
        seconds: length to cut utterances to; None keeps them whole.
        n_clips: number of utterances, from the first on; None for all. Those that cannot be read
            do not count; they become rejections of the corpus.
    """

    def __init__(self, corpus: Corpus, seconds: float | None = 5.0, n_clips: int | None = None):
        if seconds is not None and not seconds > 0:
            raise ValueError(f"seconds = {seconds}: must be above 0, or None to keep clips whole")
        self.corpus, self.seconds = corpus, seconds
        if n_clips is not None:
            self._keep(n_clips)

    def _keep(self, n_clips: int) -> None:
        """Keep the first utterances that can be read."""
        if n_clips < 1:
            raise ValueError(f"n_clips = {n_clips}: must be at least 1, or None for all clips")
        kept: list[str] = []
        unread: list[Rejection] = []
        for index, entry in enumerate(self.corpus.entries):
            try:
                self.load(index, _CHECK_RATE)
            except AudioError as error:
                unread.append(Rejection(error.source, error.reason))
            else:
                kept.append(entry.id)
            if len(kept) == n_clips:
                break
        self.corpus = self.corpus.select(ids=kept)
        self.corpus.rejections += unread

    def __len__(self) -> int:
        return len(self.corpus)

    def ids(self) -> list[str]:
        return [entry.id for entry in self.corpus.entries]

    def load(self, index: int, sample_rate: int) -> Tensor:
        """Load an excerpt as a waveform [1, N].

        Raises:
            AudioError: it cannot be read, or it is silent.
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


def run_drift(
    codec: Codec | WaveformCodec,
    clips: DriftClips,
    *,
    out: Path,
    passes: int = 25,
    match_level: bool = False,
    n_samples: int = 2,
    progress: bool = True,
) -> DriftRun:
    """Send every clip through a codec repeatedly.

    Args:
        out: folder for the results. `out`/clips keeps the results of clips, so the same call
            resumes after a kill. `out`/audio gets the first clips as audio.
        passes: number of encodings, at least 1.
        match_level: scale each output to the RMS level of its original before the next pass.
        n_samples: number of clips whose original, first and last pass are written as audio.
    Raises:
        ValueError: fewer than 1 pass, or no clip can be read.
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
    bar = progress_bar(f"drift {name}", total=len(clips), unit="clip", show=progress)
    with bar:
        for index, clip_id in enumerate(clips.ids()):
            arrays = store.read(index)
            audio = out / "audio" / slug(name) / slug(clip_id) if index < n_samples else None
            written = audio is None or (audio / _pass_file(passes)).is_file()
            if arrays is None or "failures" not in arrays or not written:
                try:
                    original = clips.load(index, rate)
                except AudioError as error:
                    rejections.append(Rejection(error.source, error.reason))
                    bar.update()
                    continue
                clip = drift_of(codec, original, passes, delay.samples, match_level, audio)
                store.write(index, clip.arrays())
            else:
                clip = ClipDrift.from_arrays(arrays)
            done[clip_id] = clip
            bar.update()
    if not done:
        reasons = "; ".join(map(str, rejections[:3]))
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
    """Send one clip through a codec repeatedly.

    Args:
        codec, passes, match_level: as in `run_drift`.
        original: [1, N] at the codec's rate.
        delay: delay of one pass in samples, for `si_sdr_aligned`.
        audio: folder for original.wav and the first and last pass; None to write none.
    """
    rate = codec.spec.sample_rate
    values: dict[str, list] = {metric: [] for metric in (*PER_CLIP, *PER_LEVEL)}
    codes: list[Tensor] = []
    failures: list[tuple[int, str, str]] = []
    for n, (output, level, code) in enumerate(_passes(codec, original, passes, match_level), 1):
        aligned = align(original, output, n * delay)
        pesq = measure_pesq(original, output, rate)
        values["pesq"].append(pesq.value)
        values["si_sdr"].append(si_sdr(original, output))
        values["si_sdr_aligned"].append(si_sdr(*aligned) if aligned else math.nan)
        with torch.inference_mode():
            values["log_mel"].append(float(_mel(rate)(output[None], original[None])))
        values["level"].append(level)
        failures += _failures(n, values, pesq.reason, f"{n * delay} samples of delay")
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
        return ClipDrift(kept, None, failures)
    kept |= {k: torch.stack(values[k]).double().numpy() for k in PER_LEVEL}
    return ClipDrift(kept, torch.stack(codes).to(torch.int32).numpy(), failures)


def _failures(
    n: int, values: dict[str, list], pesq_reason: str, delay: str
) -> list[tuple[int, str, str]]:
    """Return pass, metric and reason of the newest values that failed."""
    found = []
    silent = "the output is silent or not finite"
    for metric in PER_CLIP:
        value = values[metric][-1]
        if math.isfinite(value) or value == math.inf:
            continue
        if metric == "pesq":
            reason = pesq_reason
        elif metric == "si_sdr_aligned" and math.isfinite(values["si_sdr"][-1]):
            reason = f"the clip is not longer than {delay}"
        else:
            reason = silent
        found.append((n, metric, reason))
    return found


def _pass_file(n: int) -> str:
    return f"pass{n:02d}.wav"


def _passes(
    codec: Codec | WaveformCodec, original: Tensor, passes: int, match_level: bool
) -> Iterator[tuple[Tensor, float, Tensor | None]]:
    """Yield the output [1, N] of each pass, its level over the original's in dB, and its codes."""
    heard = original
    for _ in range(passes):
        code = None
        if isinstance(codec, Codec):
            encoded: Encoded = codec.encode_with_side(heard[None])
            output = codec.decode(encoded.codes, heard.shape[-1], encoded.side)[0].cpu()
            code = encoded.codes[0].cpu()
        else:
            output = codec.roundtrip(heard[None])[0]
        power = original.double().square().mean().item()
        level = math.sqrt(output.double().square().mean().item() / power) if power else math.nan
        if match_level and level > 0 and math.isfinite(level):
            output = output / level
        yield output, 20 * math.log10(level) if level > 0 else math.nan, code
        heard = output


@lru_cache(maxsize=4)
def _mel(sample_rate: int) -> MultiScaleMel:
    return MultiScaleMel(sample_rate).eval()
