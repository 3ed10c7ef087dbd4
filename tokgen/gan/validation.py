"""Held-out scores of a codec in training."""

from __future__ import annotations

from pathlib import Path

import torch

from tokgen.audio import write_audio
from tokgen.corpus import Corpus, Rejection
from tokgen.gan.trainable import TrainableCodec
from tokgen.metrics.codebook import codebook_use
from tokgen.metrics.pesq import pesq_wb
from tokgen.metrics.si_sdr import si_sdr
from tokgen.metrics.statistics import bootstrap_mean


@torch.inference_mode()
def validate(
    model: TrainableCodec, corpus: Corpus, samples: Path, *, quantize: bool, n_samples: int = 4
) -> dict[str, object]:
    """Score reconstructions of `corpus` and write the first few as audio.

    Args:
        model: in eval mode.
        samples: folder for `<id>.original.wav` and `<id>.decoded.wav`.
        quantize: False scores the continuous autoencoder.
        n_samples: how many clips are written.
    Returns:
        pesq, si_sdr (means), n, n_failed, and codebook_use per level in percent.
    """
    device = next(model.parameters()).device
    rejected: list[Rejection] = []
    pesqs, distortions, codes = [], [], []
    for i, utterance in enumerate(corpus.utterances(model.sample_rate, rejected=rejected)):
        out = model(utterance.waveform[None].to(device), quantize=quantize)
        decoded = out.waveform[0].float().cpu()
        pesqs.append(pesq_wb(utterance.waveform, decoded, model.sample_rate))
        distortions.append(si_sdr(utterance.waveform, decoded))
        if out.codes is not None:
            codes.append(out.codes[0].cpu())
        if i < n_samples:
            for kind, audio in (("original", utterance.waveform), ("decoded", decoded)):
                write_audio(samples / f"{i:03d}.{kind}.wav", audio, model.sample_rate)
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
    return scores
