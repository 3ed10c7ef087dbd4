"""Network of DualCodec (Li et al. 2025), for inference.

The first level quantizes features of w2v-BERT 2.0. The others quantize what a DAC encoder adds to
the first level. The parts of w2v-BERT and DAC are those of transformers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.nn.pretrained import Pretrained
from tokgen.zoo.transformers_loading import from_transformers

__all__ = ["SEMANTIC_LAYERS", "SEMANTIC_RATE", "DualCodecModel"]

SEMANTIC_LAYERS = 17  # of w2v-BERT, whose output is quantized
SEMANTIC_RATE = 16000  # Hz
_SEMANTIC_HOP = 320  # samples per frame of w2v-BERT
_SEMANTIC_PAD = 240  # samples at the end, for the last frame


class _Block(nn.Module):
    """A ConvNeXt block on [B, C, T]; a causal one sees no later frames."""

    def __init__(self, width: int, hidden: int, *, causal: bool) -> None:
        super().__init__()
        self.reach = (6, 0) if causal else (3, 3)
        self.dwconv = nn.Conv1d(width, width, 7, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, hidden)
        self.pwconv2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.dwconv(F.pad(x, self.reach)).mT)
        return x + self.pwconv2(F.gelu(self.pwconv1(mixed))).mT


class DualCodecModel(Pretrained):
    """Network of DualCodec. `tokgen.zoo.rebuilt.dualcodec.DualCodec` wraps it as a `Codec`.

    Args:
        sample_rate: Hz.
        strides: of the DAC encoder; its decoder has them in reverse.
        encoder_channels: after the DAC encoder's first convolution.
        decoder_channels: after the DAC decoder's first convolution.
        n_codebooks: levels, with the semantic one.
        codebook_size: entries of the acoustic levels.
        codebook_dim: width of their rows.
        semantic_size: entries of the semantic level.
        semantic_dim: width of its rows.
        block_width: of the ConvNeXt blocks around the semantic level.
        block_hidden: of their linear layers.
        n_blocks: their number on each side.
        causal: they see no later frames.
        semantic_model: settings of w2v-BERT as in its config.json.
    """

    model_type = "dualcodec"
    semantic_mean: Tensor
    semantic_std: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        strides: list[int],
        encoder_channels: int,
        decoder_channels: int,
        n_codebooks: int,
        codebook_size: int,
        codebook_dim: int,
        semantic_size: int,
        semantic_dim: int,
        block_width: int,
        block_hidden: int,
        n_blocks: int,
        causal: bool,
        semantic_model: dict[str, Any],
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        dac, bert = from_transformers("DacModel"), from_transformers("Wav2Vec2BertModel")
        config = dac.config_class(
            encoder_hidden_size=encoder_channels,
            downsampling_ratios=strides,
            decoder_hidden_size=decoder_channels,
            n_codebooks=n_codebooks - 1,
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            sampling_rate=sample_rate,
        )
        self.dac, width = dac(config), config.hidden_size
        level = dac.config_class(codebook_size=semantic_size, codebook_dim=semantic_dim)
        level.hidden_size = block_width
        self.semantic_vq = type(self.dac.quantizer.quantizers[0])(level)
        blocks = [_Block(block_width, block_hidden, causal=causal) for _ in range(2 * n_blocks)]
        self.convnext_encoder = nn.Sequential(nn.Conv1d(width, block_width, 1), *blocks[:n_blocks])
        self.convnext_decoder = nn.Sequential(*blocks[n_blocks:], nn.Conv1d(block_width, width, 1))
        self.semantic_model = bert(bert.config_class(**semantic_model))
        self.register_buffer("semantic_mean", torch.zeros(width))
        self.register_buffer("semantic_std", torch.ones(width))
        self.hop_length, self.sample_rate = math.prod(strides), sample_rate
        self.extractor = from_transformers("SeamlessM4TFeatureExtractor")(padding_value=1.0)

    def padded_length(self, n_frames: int) -> int:
        """Return the samples that audio of some frames is padded to."""
        return n_frames * self.hop_length + _SEMANTIC_PAD * self.sample_rate // SEMANTIC_RATE

    def features(self, waveform: Tensor) -> Tensor:
        """Return the normalised features [1, D, T] of one padded waveform [1, 1, N]."""
        resample = import_torchaudio().functional.resample
        audio = resample(waveform[0, 0], self.sample_rate, SEMANTIC_RATE)
        inputs = self.extractor(audio.cpu(), sampling_rate=SEMANTIC_RATE, return_tensors="pt")
        hidden = self.semantic_model(**inputs.to(waveform.device)).last_hidden_state
        features = ((hidden - self.semantic_mean) / self.semantic_std).mT
        n_mean = self.hop_length * SEMANTIC_RATE // (self.sample_rate * _SEMANTIC_HOP)
        return F.avg_pool1d(features, n_mean, n_mean)

    def encode(self, waveform: Tensor, features: Tensor) -> Tensor:
        """Return codes [B, K, T] of waveforms [B, 1, N] and their features [B, D, T]."""
        semantic = self.convnext_encoder(features)
        codes = self.semantic_vq.decode_latents(self.semantic_vq.in_proj(semantic))[1]
        n_samples = -(-waveform.shape[-1] // self.hop_length) * self.hop_length
        latents = self.dac.encoder(F.pad(waveform, (0, n_samples - waveform.shape[-1])))
        rest = latents[..., : codes.shape[-1]] - self._semantic(codes)
        return torch.cat([codes[:, None], self.dac.quantizer(rest)[1]], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the waveform of codes [B, k, T], coarse levels first."""
        latents = self._semantic(codes[:, 0])
        if codes.shape[1] > 1:
            latents = latents + self.dac.quantizer.from_codes(codes[:, 1:])[0]
        return self.dac.decoder(latents)

    def _semantic(self, codes: Tensor) -> Tensor:
        """Return the quantized features [B, D, T] of semantic codes [B, T]."""
        rows = self.semantic_vq.codebook(codes).mT
        return self.convnext_decoder(self.semantic_vq.out_proj(rows))
