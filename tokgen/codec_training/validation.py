"""Scores of a codec in training on held-out audio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokgen.audio.files import AudioError, write_audio
from tokgen.codec.base import Codec
from tokgen.codec.depth import mean_kbps, scale_for
from tokgen.codec.spec import DEPTH, IMPORTANCE
from tokgen.codec_training.trainable import TrainableCodec
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import Corpus
from tokgen.drift.clips import DriftClips
from tokgen.drift.passes import drift_of
from tokgen.metrics.codebook import codebook_use
from tokgen.metrics.pesq import pesq_wb
from tokgen.metrics.si_sdr import si_sdr
from tokgen.metrics.statistics import bootstrap_mean
from tokgen.nn.spectral_losses import MultiScaleMel, SpectralDistance

__all__ = ["N_SAVED", "Tuned", "validate", "validate_tuned"]

N_SAVED = 4  # clips


@torch.inference_mode()
def validate(
    model: TrainableCodec, corpus: Corpus, samples: Path, *, quantize: bool
) -> dict[str, object]:
    """Score a codec's reconstructions and save the first `N_SAVED` as audio.

    PESQ is that of the mean of the channels, SI-SDR that of all channels.

    Args:
        model: in eval mode.
        corpus: held-out audio.
        samples: folder for `<number>.original.wav` and `<number>.decoded.wav`.
        quantize: use the quantizer.
    Returns:
        means of pesq and si_sdr, n, n_failed, and codebook_use of each level in percent. With a
        variable bitrate, they are those of all levels; `pesq_half` and `kbps_half` are those of
        half the levels on average, chosen by the importance, with the bits of the depth.
    """
    coder = model.as_codec() if quantize and model.variable is not None else None
    halves: list[tuple[float, float]] = []
    device = next(model.parameters()).device
    rejected: list[Rejection] = []
    pesqs, distortions, codes = [], [], []
    rate, channels = model.sample_rate, model.n_channels
    for i, utterance in enumerate(corpus.utterances(rate, rejected=rejected, channels=channels)):
        original = utterance.waveform
        out = model(original.expand(channels, -1)[None].to(device), quantize=quantize)
        decoded = out.waveform[0].float().cpu()
        decoded = decoded.mean(0, keepdim=True) if len(original) == 1 else decoded
        pesqs.append(pesq_wb(original, decoded, rate))
        distortions.append(si_sdr(original, decoded))
        if out.codes is not None:
            codes.append(out.codes[0].cpu())
        if coder is not None:
            halves.append(_at_half(coder, original))
        if i < N_SAVED:
            write_audio(samples / f"{i:03d}.original.wav", original, rate)
            write_audio(samples / f"{i:03d}.decoded.wav", decoded, rate)
    pesq = bootstrap_mean(pesqs)
    scores: dict[str, object] = {
        "pesq": pesq.mean,
        "si_sdr": bootstrap_mean(distortions).mean,
        "n": pesq.n,
        "n_failed": pesq.n_failed + len(rejected),
    }
    if codes:
        use = codebook_use(codes, model.as_codec().spec.codebook_size)
        scores["codebook_use"] = [round(float(u), 1) for u in use]
    if halves:
        kbps, found = zip(*halves, strict=True)
        scores |= {"kbps_half": bootstrap_mean(kbps).mean, "pesq_half": bootstrap_mean(found).mean}
    return scores


def _at_half(codec: Codec, original: Tensor) -> tuple[float, float]:
    """Return the kbps and the PESQ of [C, N] with half the levels on average."""
    n_codebooks, n_samples = codec.spec.n_codebooks, original.shape[-1]
    encoded = codec.encode_with_importance(original[None])
    importance = encoded.side[IMPORTANCE][0]
    level = scale_for(importance, max(1.0, n_codebooks / 2), n_codebooks)
    chosen = codec.allocate(encoded, level=level)
    heard = codec.decode(chosen.codes, n_samples, chosen.side, mono=len(original) == 1)[0].cpu()
    depth = chosen.side[DEPTH][0]
    return mean_kbps(depth, codec.spec), pesq_wb(original, heard, codec.spec.sample_rate)


@dataclass(frozen=True)
class Tuned:
    """Scores of a codec in tuning, as means over held-out clips.

    Attributes:
        loss: validation loss, the weighted sum of `mel` and `spectral`.
        mel, spectral: multi-scale mel distance and complex spectral distance of the first pass.
        pesq_first, pesq_last: PESQ of the first and the last pass.
        si_sdr_last: SI-SDR of the last pass, in dB.
        match_second, match_last: share of codes that the second and the last encoding repeat.
        n: number of clips.
        n_failed: clips that are unreadable or without PESQ.
    """

    loss: float
    mel: float
    spectral: float
    pesq_first: float
    pesq_last: float
    si_sdr_last: float
    match_second: float
    match_last: float
    n: int
    n_failed: int


@torch.inference_mode()
def validate_tuned(
    codec: Codec, clips: DriftClips, *, passes: int, weights: Mapping[str, float]
) -> Tuned:
    """Compute the validation loss of the first pass, and the drift over several passes.

    Args:
        codec: codec to validate, on any device.
        clips: held-out audio.
        passes: passes of the drift protocol, at least 2.
        weights: weights of the "mel" and "spectral" distances in the loss.
    Raises:
        ValueError: passes below 2, or no clip can be read.
    """
    if passes < 2:
        raise ValueError(f"passes = {passes}: must be at least 2 to measure drift")
    rate = codec.spec.sample_rate
    mel, distance = MultiScaleMel(rate).eval(), SpectralDistance()
    values: dict[str, list[float]] = {}
    n_unreadable = 0
    for index in range(len(clips)):
        try:
            original = clips.load(index, rate)
        except AudioError:
            n_unreadable += 1
            continue
        first = codec.roundtrip(original[None]).cpu()
        drift = drift_of(codec, original, passes).values
        found = {
            "mel": float(mel(first, original[None])),
            "spectral": float(distance(first, original[None])),
            "pesq_first": drift["pesq"][0],
            "pesq_last": drift["pesq"][-1],
            "si_sdr_last": drift["si_sdr"][-1],
            "match_second": drift["match_previous"][1].mean(),
            "match_last": drift["match_previous"][-1].mean(),
        }
        for key, value in found.items():
            values.setdefault(key, []).append(float(value))
    if not values:
        raise ValueError(f"{clips.corpus.name} has no readable clip for validation")
    means = {key: bootstrap_mean(column).mean for key, column in values.items()}
    failed = sum(not math.isfinite(v) for v in values["pesq_first"])
    loss = sum(weights[key] * means[key] for key in ("mel", "spectral"))
    return Tuned(loss=loss, **means, n=len(values["mel"]), n_failed=failed + n_unreadable)
