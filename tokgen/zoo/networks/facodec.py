"""Network of FACodec (Ju et al. 2024, "NaturalSpeech 3"), for inference.

Names of the parameters are those of the published weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.nn.pretrained import Pretrained
from tokgen.zoo.networks.alias_free import AngleLevel, waveform_decoder, waveform_encoder

__all__ = ["FaCodecModel"]


class _FeedForward(nn.Module):
    def __init__(self, dim: int, width: int, kernel_size: int) -> None:
        super().__init__()
        self.ffn_1 = nn.Conv1d(dim, width, kernel_size, padding=kernel_size // 2)
        self.ffn_2 = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn_2(F.relu(self.ffn_1(x.mT).mT))


class _Layer(nn.Module):
    """Self-attention and a convolutional feed-forward network, each after a layer norm."""

    def __init__(self, dim: int, heads: int, width: int, kernel_size: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ffn = _FeedForward(dim, width, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.self_attn(y, y, y, need_weights=False)[0]
        return x + self.ffn(self.ln_2(x))


class _TimbreEncoder(nn.Module):
    """A transformer over frames [B, T, D].

    The published code adds the positional code of an item's place in the batch, not of the frame.
    An item alone has place 0: 0 for sines and 1 for cosines, at every frame. They are added here.
    """

    def __init__(self, dim: int, n_layers: int, heads: int, width: int, kernel_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(dim, heads, width, kernel_size) for _ in range(n_layers))
        self.last_ln = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.arange(x.shape[-1], device=x.device) % 2
        for layer in self.layers:
            x = layer(x)
        return self.last_ln(x)


class _Chain(nn.Module):
    """Levels of one attribute; each quantizes what the levels before it leave."""

    def __init__(self, n_levels: int, dim: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AngleLevel(dim, codebook_size, codebook_dim) for _ in range(n_levels)
        )

    def forward(self, latents: Tensor) -> tuple[list[Tensor], Tensor]:
        """latents [B, D, T] -> indices [B, T] of each level, and their sum [B, D, T]."""
        residual, codes, parts = latents, [], []
        for level in self.layers:
            indices, quantized = level.choose(residual)  # type: ignore[operator]
            residual = residual - quantized
            codes.append(indices)
            parts.append(quantized)
        return codes, torch.stack(parts).sum(0)


class _Encoder(nn.Module):
    def __init__(self, block: nn.Sequential) -> None:
        super().__init__()
        self.block = block


class _Decoder(nn.Module):
    def __init__(
        self,
        dim: int,
        quantizer: Sequence[_Chain],
        model: nn.Sequential,
        timbre_encoder: _TimbreEncoder,
    ) -> None:
        super().__init__()
        self.quantizer = nn.ModuleList(quantizer)
        self.model = model
        self.timbre_encoder = timbre_encoder
        self.timbre_linear = nn.Linear(dim, 2 * dim)


class FaCodecModel(Pretrained):
    """Network of FACodec. `tokgen.zoo.rebuilt.facodec.FaCodec` wraps it as a `Codec`.

    Args:
        sample_rate: Hz.
        strides: of the encoder; the decoder has them in reverse.
        encoder_channels: after the encoder's first convolution.
        decoder_channels: after the decoder's first convolution.
        latent_dim: D, also the length of the speaker vector.
        n_levels: levels of prosody, content and residual.
        codebook_size: entries per level.
        codebook_dim: d.
        timbre_layers: layers of the transformer that makes the speaker vector.
        timbre_heads: its attention heads.
        timbre_width: inner width of its feed-forward networks.
        timbre_kernel: their kernel size.
    """

    model_type = "facodec"

    def __init__(
        self,
        *,
        sample_rate: int,
        strides: list[int],
        encoder_channels: int,
        decoder_channels: int,
        latent_dim: int,
        n_levels: list[int],
        codebook_size: int,
        codebook_dim: int,
        timbre_layers: int,
        timbre_heads: int,
        timbre_width: int,
        timbre_kernel: int,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        if len(n_levels) != 3 or min(n_levels) < 1:
            raise ValueError(f"n_levels = {n_levels}: must be three numbers of at least 1")
        self.encoder = _Encoder(waveform_encoder(encoder_channels, strides, latent_dim))
        sizes = latent_dim, codebook_size, codebook_dim
        self.decoder = _Decoder(
            latent_dim,
            [_Chain(n, *sizes) for n in n_levels],
            waveform_decoder(latent_dim, decoder_channels, strides[::-1]),
            _TimbreEncoder(latent_dim, timbre_layers, timbre_heads, timbre_width, timbre_kernel),
        )

    def encode(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """waveform [1, 1, T * hop_length] -> codes [1, K, T] and speaker vector [1, D]."""
        latents = self.encoder.block(waveform)
        prosody, content, residual = self.decoder.quantizer
        codes, first = prosody(latents)
        more, second = content(latents)
        rest, _ = residual(latents - (first + second))
        speaker = self.decoder.timbre_encoder(latents.mT).mT.mean(2)
        return torch.stack([*codes, *more, *rest], dim=1), speaker

    def decode(self, codes: Tensor, speaker: Tensor) -> Tensor:
        """codes [B, k, T] and speaker vectors [B, D] -> waveform [B, 1, T * hop_length]."""
        levels = [level for chain in self.decoder.quantizer for level in chain.layers]  # type: ignore[union-attr]
        pairs = zip(levels, codes.unbind(1), strict=False)
        parts = [level.decode(indices) for level, indices in pairs]  # type: ignore[operator]
        total = sum(parts[1:], start=parts[0])
        scale, shift = self.decoder.timbre_linear(speaker)[..., None].chunk(2, dim=1)
        normalised = F.layer_norm(total.mT, total.shape[1:2]).mT
        return self.decoder.model(normalised * scale + shift)
