"""Resemblyzer's speaker encoder: an LSTM trained with the GE2E loss (Wan et al. 2018).

The weights are those of Resemblyzer 0.1.4 (Resemble AI, Apache-2.0), converted by
`recipes/data/convert_resemblyzer.py` to float16. Embeddings equal those of its `embed_utterance` to
1e-3, and with weights in float32 to 1e-5.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.metrics.signals import RATE

__all__ = [
    "EXCERPT",
    "HOP",
    "MIN_COVERAGE",
    "N_FFT",
    "N_MELS",
    "STEP",
    "WEIGHTS",
    "ResemblyzerNetwork",
]

WEIGHTS = Path(__file__).with_name("weights") / "resemblyzer.safetensors"
N_FFT, HOP, N_MELS = 400, 160, 40  # windows of 25 ms, every 10 ms
EXCERPT = 160  # frames, 1.6 s
STEP = 77  # frames between the starts of excerpts, 1.3 per second
MIN_COVERAGE = 0.75  # share of the last excerpt that audio must fill


class ResemblyzerNetwork(nn.Module):
    """Mel spectrograms to embeddings [256]; values are positive, with norm 1."""

    window: Tensor  # [400]
    mels: Tensor  # [201, 40]

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.lstm = nn.LSTM(N_MELS, width, num_layers=3, batch_first=True)
        self.linear = nn.Linear(width, width)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        filters = import_torchaudio().functional.melscale_fbanks(
            N_FFT // 2 + 1, 0.0, RATE / 2, N_MELS, RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("mels", filters, persistent=False)

    @classmethod
    def pretrained(cls) -> ResemblyzerNetwork:
        """Load the weights of Resemblyzer 0.1.4."""
        network = cls()
        network.load_state_dict({name: w.float() for name, w in load_file(WEIGHTS).items()})
        return network.eval()

    def forward(self, mels: Tensor) -> Tensor:
        """Embed excerpts, mel spectrograms [B, T, 40]: [B, 256]."""
        _, (hidden, _) = self.lstm(mels)
        return F.normalize(self.linear(hidden[-1]).relu(), dim=-1)

    def spectrogram(self, audio: Tensor) -> Tensor:
        """Return the mel spectrogram of audio [N] at 16 kHz: power, not its logarithm, [T, 40]."""
        spectrum = torch.stft(
            audio, N_FFT, HOP, window=self.window, pad_mode="constant", return_complex=True
        )
        return spectrum.abs().square().T @ self.mels

    def embed(self, audio: Tensor) -> Tensor:
        """Embed audio [N] at 16 kHz: the normalised mean over overlapping excerpts, [256].

        The last excerpt is padded with silence, or left out if audio fills less than 75 % of it.
        """
        n_frames = math.ceil((len(audio) + 1) / HOP)
        starts = list(range(0, max(1, n_frames - EXCERPT + STEP + 1), STEP))
        if len(starts) > 1 and len(audio) - starts[-1] * HOP < MIN_COVERAGE * EXCERPT * HOP:
            starts.pop()
        end = (starts[-1] + EXCERPT) * HOP
        mels = self.spectrogram(F.pad(audio, (0, max(0, end - len(audio)))))
        excerpts = torch.stack([mels[start : start + EXCERPT] for start in starts])
        return F.normalize(self(excerpts).mean(0), dim=0)
