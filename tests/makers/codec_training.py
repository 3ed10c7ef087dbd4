"""A short training of a codec on audio in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from tokgen.codec_training.balancer import Balancer
from tokgen.codec_training.trainable import TrainableCodec
from tokgen.nn.spectral_losses import MelPower


def fit(codec: TrainableCodec, audio: Tensor, steps: int = 30) -> list[float]:
    """Train a codec with EnCodec's losses but the discriminators', and return the mel losses."""
    mel = MelPower(codec.sample_rate, windows=(256, 512))
    optimizer = torch.optim.AdamW(codec.parameters(), lr=3e-3, betas=(0.5, 0.9), weight_decay=0)
    balancer, losses = Balancer({"time": 0.1, "mel": 1.0}), []
    for _ in range(steps):
        out = codec(audio)
        assert out.waveform.shape == audio.shape and out.codebook_loss == 0
        found = {"mel": mel(out.waveform, audio), "time": (out.waveform - audio).abs().mean()}
        optimizer.zero_grad()
        (balancer.loss(found, out.waveform) + out.commitment_loss).backward()
        optimizer.step()
        losses.append(found["mel"].item())
    return losses
