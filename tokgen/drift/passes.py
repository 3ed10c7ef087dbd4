"""Measure drift: how audio and codes change when a codec encodes its own output repeatedly.

    clips = DriftClips(open_corpus("speech/"), seconds=5.0)
    run = run_drift(load_roundtrip("opus:12"), clips, passes=25, out=Path("drift"))

The protocol is Code Drift's (O'Reilly et al., section III). Each pass encodes, decodes, cuts to the
length of the input and scales to the level of the original. It is compared with the original, and
its codes with those of the pass before. Without `match_level`, levels stay as they come: a codec
with f(f(x)) = f(x) then shows no drift at all, while scaling changes what its next pass hears.
Audio stays in float between passes, so nothing clips.

With `shift`, the clip is moved before every pass and moved back after it (see
`tokgen.drift.shifts`). All scores still compare the same samples. Frames of two passes then cover
different samples, so the match of their codes is not defined and is left out, unless the codec
finds the frame grid of its input (see `tokgen.drift.chain`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.files import AudioError, write_audio
from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.depth import OutOfReach
from tokgen.codec.depth_files import write_depth
from tokgen.codec.identity import audio_key
from tokgen.corpus.entries import Rejection
from tokgen.drift.chain import PLAIN, Treatment, check_treatment, send_through
from tokgen.drift.clips import DriftClips
from tokgen.drift.depths import (
    PER_DEPTH,
    depth_values,
    live_match,
    match_over_levels,
    name_of,
    rate_plan,
)
from tokgen.drift.shifts import Shift, frame_of, place_clip, say_shift
from tokgen.metrics.delay import Delay, align, measure_delay
from tokgen.metrics.pesq import measure_pesq
from tokgen.metrics.si_sdr import si_sdr
from tokgen.nn.spectral_losses import WINDOWS, MultiScaleMel
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import ClipStore, slug

__all__ = [
    "PER_CLIP",
    "PER_LEVEL",
    "ClipDrift",
    "DriftRun",
    "check_scored",
    "drift_of",
    "run_drift",
]

PER_CLIP = ("pesq", "si_sdr", "si_sdr_aligned", "log_mel", "level")  # one value per pass
PER_LEVEL = ("match_previous", "match_first")  # one value per pass and level of the codes
_MEL_REACH = max(WINDOWS) // 2  # samples that the longest window mirrors at the edges


@dataclass(frozen=True)
class ClipDrift:
    """One clip through all passes.

    Attributes:
        values: metric to [passes] (`PER_CLIP`, `PER_DEPTH`) or [passes, K] (`PER_LEVEL`); NaN for
            a failure and for passes that are not scored. No matches for a waveform codec, or with
            shifts if the grid is not searched. `PER_DEPTH` is of codecs of variable bitrate.
        codes: [passes, K, T] of every encoding; None for a waveform codec.
        failures: pass, metric and reason of each failure. The SI-SDR of audio that equals the
            original is infinite, which is no failure.
        depth: [passes, T], the levels of each frame; None if all frames have all levels.
    """

    values: dict[str, np.ndarray]
    codes: np.ndarray | None
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    depth: np.ndarray | None = None

    def over_levels(self, metric: str) -> np.ndarray:
        """Return a metric [passes]. Of `PER_LEVEL`, it is the match of all levels together."""
        values = self.values[metric]
        if metric not in PER_LEVEL:
            return values
        return match_over_levels(values, self.depth, metric == "match_first")

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the clip as arrays, to store."""
        parts = {"codes": self.codes, "depth": self.depth}
        codes = {name: part for name, part in parts.items() if part is not None}
        text = json.dumps(self.failures).encode()
        return self.values | codes | {"failures": np.frombuffer(text, np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ClipDrift:
        """Read the result of `arrays`."""
        values = {k: v for k, v in arrays.items() if k in (*PER_CLIP, *PER_LEVEL, *PER_DEPTH)}
        failures = [(n, m, why) for n, m, why in json.loads(arrays["failures"].tobytes())]
        return cls(values, arrays.get("codes"), failures, arrays.get("depth"))


@dataclass(frozen=True)
class DriftRun:
    """One codec on all clips.

    Attributes:
        name: name of the codec.
        spec: `CodecSpec.as_dict()` or `WaveformSpec.as_dict()`.
        bitrate: bits per second; of a variable bitrate, the mean of the first pass.
        delay: delay of one pass.
        ids: ids of the measured clips.
        clips: results of the measured clips.
        codebook_size: entries per level; None for a waveform codec.
        rejections: clips that could not be used, including those rejected by the corpus.
        conditions: how it was measured, as text; runs of other conditions are not compared.
        scored: the passes whose audio was scored; None for all.
    """

    name: str
    spec: dict[str, Any]
    bitrate: float
    delay: Delay
    ids: list[str]
    clips: list[ClipDrift]
    codebook_size: int | None
    rejections: list[Rejection]
    conditions: str = ""
    scored: list[int] | None = None

    @property
    def scored_passes(self) -> list[int]:
        """The passes whose audio was scored, in order."""
        return self.scored or list(range(1, len(self.clips[0].values["pesq"]) + 1))

    def at(self, metric: str, n: int) -> np.ndarray:
        """Return a metric [clips] after n passes, as the mean over levels if it has levels.

        Raises:
            KeyError: it was not measured.
        """
        clips = [clip for clip in self.clips if metric in clip.values]
        passes = range(1, len(clips[0].values[metric]) + 1) if clips else []
        if n not in (self.scored_passes if metric in PER_CLIP else passes):
            raise KeyError(f"{self.name}: no {metric} after {n} passes")
        return np.array([clip.over_levels(metric)[n - 1] for clip in clips])


def run_drift(
    codec: Codec | WaveformCodec,
    clips: DriftClips,
    *,
    out: Path,
    passes: int = 25,
    match_level: bool = True,
    shift: Shift = 0,
    seed: int = 0,
    scored: Sequence[int] | None = None,
    treatment: Treatment = PLAIN,
    n_samples: int = 2,
    progress: bool = True,
) -> DriftRun:
    """Send every clip through a codec repeatedly, and keep the values of each clip.

        run = run_drift(codec, clips, out=Path("drift"), shift="random", scored=[1, 16, 25])
        gain = run.at("pesq", 16) - base.at("pesq", 16)  # [clips], in the order of run.ids

    Args:
        out: folder for the results. `out`/clips keeps the results of clips, so the same call
            resumes after a kill. `out`/audio gets the first clips as audio.
        passes: number of encodings, at least 1.
        match_level: scale each output to the RMS level of its original before the next pass.
        shift: samples by which the clip moves between passes, or "random" (see `place_clip`).
        seed: of random shifts.
        scored: passes whose audio is scored, the last one among them; None scores all. The match
            of codes is measured in every pass.
        treatment: what is done against drift, named in the run's name.
        n_samples: number of clips whose original, first and last pass are written as audio.
    Raises:
        ValueError: fewer than 1 pass, a shift of whole frames, `scored` without the last pass, no
            clip can be read, or a treatment that the codec does not have.
    """
    if passes < 1:
        raise ValueError(f"passes = {passes}: give at least 1")
    scored = check_scored(scored, passes)
    check_treatment(codec, treatment)
    name, spec = treatment.name(name_of(codec)), codec.spec.as_dict()
    rate, frame = codec.spec.sample_rate, frame_of(codec.spec)
    places = {id: place_clip(shift, passes, frame, seed=seed, clip=id) for id in clips.ids()}
    delay = measure_delay(codec.roundtrip, rate)
    plan = [audio_key(codec), clips.fingerprint, passes, match_level, delay.samples]
    plan += [shift, seed if shift == "random" else 0, scored] if shift or scored else []
    store = ClipStore(out / "clips", name, plan + treatment.plan() + rate_plan(codec))
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
                try:
                    clip = drift_of(
                        codec,
                        original,
                        passes,
                        delay=delay.samples,
                        match_level=match_level,
                        places=places[clip_id] if shift else None,
                        scored=scored,
                        treatment=treatment,
                        audio=audio,
                    )
                except OutOfReach as error:
                    rejections.append(Rejection(clip_id, str(error)))
                    bar.update()
                    continue
                store.write(index, clip.arrays())
            else:
                clip = ClipDrift.from_arrays(arrays)
            done[clip_id] = clip
            bar.update()
    if not done:
        reasons = "; ".join(map(str, rejections[:3]))
        raise ValueError(f"no usable clip in {clips.corpus.name}: {reasons or 'it is empty'}")
    levels = "levels matched" if match_level else "levels not matched"
    rates = [clip.values["kbps"][0] for clip in done.values() if "kbps" in clip.values]
    return DriftRun(
        name,
        spec,
        1000 * float(np.mean(rates)) if rates else codec.spec.bitrate,
        delay,
        list(done),
        list(done.values()),
        codec.spec.codebook_size if isinstance(codec, Codec) else None,
        rejections,
        ", ".join(filter(None, [clips.label, levels, say_shift(shift)])),
        scored,
    )


def check_scored(scored: Sequence[int] | None, passes: int) -> list[int] | None:
    """Return the scored passes in order, or raise ValueError if the last pass is not among them."""
    if scored is None:
        return None
    found = sorted(set(scored))
    if not found or found[0] < 1 or found[-1] != passes:
        raise ValueError(
            f"scored = {list(scored)}: must be passes from 1 to {passes}, and {passes} among them"
        )
    return found


def drift_of(
    codec: Codec | WaveformCodec,
    original: Tensor,
    passes: int,
    *,
    delay: int = 0,
    match_level: bool = True,
    places: Sequence[int] | None = None,
    scored: Sequence[int] | None = None,
    treatment: Treatment = PLAIN,
    audio: Path | None = None,
) -> ClipDrift:
    """Send one clip through a codec repeatedly.

    Args:
        codec, passes, match_level, scored, treatment: as in `run_drift`.
        original: [1, N] at the codec's rate.
        delay: delay of one pass in samples, for `si_sdr_aligned`.
        places: samples before the clip in each pass, as in `place_clip`; None does not move it.
        audio: folder for original.wav and the first and last pass; None to write none.
    """
    rate = codec.spec.sample_rate
    values: dict[str, list] = {metric: [] for metric in (*PER_CLIP, *PER_LEVEL)}
    codes: list[Tensor] = []
    depths: list[Tensor | None] = []
    failures: list[tuple[int, str, str]] = []
    chain = send_through(codec, original, places or [0] * passes, match_level, treatment)
    for n, (output, level, code, depth) in enumerate(chain, 1):
        if scored is None or n in scored:
            aligned = align(original, output, n * delay)
            pesq = measure_pesq(original, output, rate)
            values["pesq"].append(pesq.value)
            values["si_sdr"].append(si_sdr(original, output))
            values["si_sdr_aligned"].append(si_sdr(*aligned) if aligned else math.nan)
            values["log_mel"].append(_log_mel(output, original, rate))
            values["level"].append(level)
            failures += _failures(
                n, values, pesq.reason, f"{n * delay} samples of delay", original.shape[-1]
            )
        else:
            for metric in PER_CLIP:
                values[metric].append(math.nan)
        if code is not None:
            codes.append(code)
            depths.append(depth)
            none = torch.full((len(code),), math.nan, dtype=torch.float64)
            before = none if n == 1 else live_match(codes[-2], code, depths[-2], depth)
            values["match_previous"].append(before)
            values["match_first"].append(live_match(codes[0], code, depths[0], depth))
        if audio is not None and n in (1, passes):
            write_audio(audio / "original.wav", original, rate)
            write_audio(audio / _pass_file(n), output, rate)
            if depth is not None:
                write_depth(audio / _pass_file(n), depth, cast(Codec, codec).spec)
    kept = {k: np.array(v, dtype=np.float64) for k, v in values.items() if k in PER_CLIP}
    if not codes:
        return ClipDrift(kept, None, failures)
    compared = treatment.grid is not None or not places or not any(places)
    if compared:
        kept |= {k: torch.stack(values[k]).numpy() for k in PER_LEVEL}
    found, live = torch.stack(codes).to(torch.int32).numpy(), [d for d in depths if d is not None]
    if not live:
        return ClipDrift(kept, found, failures)
    kept |= depth_values(live, cast(Codec, codec).spec, compared)
    return ClipDrift(kept, found, failures, torch.stack(live).to(torch.int32).numpy())


def _failures(
    n: int, values: dict[str, list], pesq_reason: str, delay: str, n_samples: int
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
        elif metric == "log_mel" and n_samples <= _MEL_REACH:
            reason = f"the clip is not longer than {_MEL_REACH} samples, half the longest window"
        else:
            reason = silent
        found.append((n, metric, reason))
    return found


def _pass_file(n: int) -> str:
    return f"pass{n:02d}.wav"


@lru_cache(maxsize=4)
def _mel(sample_rate: int) -> MultiScaleMel:
    return MultiScaleMel(sample_rate).eval()


def _log_mel(output: Tensor, original: Tensor, rate: int) -> float:
    """Return the distance of waveforms [1, N]; NaN if they are too short for it."""
    if original.shape[-1] <= _MEL_REACH:
        return math.nan
    with torch.inference_mode():
        return float(_mel(rate)(output[None], original[None]))
