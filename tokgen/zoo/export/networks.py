"""Encoder and decoder of a codec as networks for export: waveform to codes, and codes to waveform.

The codecs themselves compute in windows, with kernels of their own and with complex numbers, which
no exporter takes. These networks have the same layers in one piece, and Fourier transforms as
products with a fixed matrix. They round differently in the last digits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.zoo.adapters.dac import DacCodec
from tokgen.zoo.networks.spectrum import FLOOR, Spectrum
from tokgen.zoo.stft import StftCodec

__all__ = [
    "SCALE",
    "SPARE",
    "DacDecoder",
    "DacEncoder",
    "StftDecoder",
    "StftEncoder",
    "networks_of",
]

SCALE = 8192.0  # of spectra: exporters drop a constant as small as FLOOR**2 from a sum
SPARE = 1  # frames of padding, since exporters treat lengths of 1 as fixed


def networks_of(codec: Codec) -> tuple[nn.Module, nn.Module]:
    """Return encoder and decoder of a codec, in eval mode on the CPU.

    The encoder takes a waveform float32 [B, 1, N] of any length and returns codes int64 [B, K, T],
    T = ceil(N / hop_length). The decoder takes codes [B, K, T] and returns [B, 1, T * hop_length].
    Codes are greedy, and have all levels of the codec's spec.

    Raises:
        ValueError: a codec that cannot be exported.
    """
    pairs: dict[type[Any], tuple[Any, Any]] = {
        StftCodec: (StftEncoder, StftDecoder),
        DacCodec: (DacEncoder, DacDecoder),
    }
    for kind, (encoder, decoder) in pairs.items():
        if isinstance(codec, kind):
            return encoder(codec).cpu().eval(), decoder(codec).cpu().eval()
    raise ValueError(
        f"{codec.spec.name} is a {type(codec).__name__}: only tokgen's STFT codecs and "
        "transformers' DAC can be exported"
    )


class _Fourier(nn.Module):
    """The windowed transforms of a `Spectrum` as strided convolutions with real weights."""

    analysis: Tensor
    synthesis: Tensor
    squares: Tensor

    def __init__(self, spectrum: Spectrum) -> None:
        super().__init__()
        n = spectrum.n_fft
        self.hop_length, self.edge = spectrum.hop_length, spectrum.edge
        self.ratio = n // self.hop_length
        window, eye = spectrum.window.double().cpu(), torch.eye(n, dtype=torch.float64)
        rows = torch.fft.rfft((eye * window).roll(n // 2, -1), norm="ortho")  # [n, F]
        parts = SCALE * torch.cat([rows.real, rows.imag], -1)
        self.register_buffer("analysis", parts.T[:, None].float())
        unit = torch.eye(n // 2 + 1, dtype=torch.float64)
        pair = [torch.fft.irfft(unit * z, n=n, norm="ortho") for z in (1.0, 1j)]
        waves = torch.cat(pair).roll(n // 2, -1) * window  # [2 F, n]
        self.register_buffer("synthesis", waves[:, None].float())
        self.register_buffer("squares", window.square()[None, None].float())

    def analyse(self, waveform: Tensor) -> Tensor:
        """[B, 1, (T + R - 1) * hop] -> real and imaginary parts [B, T, 2 F], times SCALE."""
        return F.conv1d(waveform, self.analysis, stride=self.hop_length).mT

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Real and imaginary parts [B, T, 2 F] -> overlapped and added [B, 1, T * hop]."""
        stride, n_samples = self.hop_length, spectrum.shape[1] * self.hop_length
        total = F.conv_transpose1d(spectrum.mT, self.synthesis, stride=stride)
        ones = torch.ones_like(spectrum[:1, :, :1]).mT
        envelope = F.conv_transpose1d(ones, self.squares, stride=stride)
        inside = slice(self.edge, self.edge + n_samples)
        return total[..., inside] / envelope[..., inside]


class StftEncoder(nn.Module):
    """Encoder and quantizer of an STFT codec."""

    mean: Tensor
    std: Tensor

    def __init__(self, codec: StftCodec) -> None:
        super().__init__()
        model = codec.model
        self.n_levels = codec.spec.n_codebooks
        self.causal, self.ahead = model.causal, model.lookahead
        self.fourier, self.encoder = _Fourier(model.spectrum), model.encoder
        self.quantizer = model.quantizer
        self.register_buffer("mean", model.spectrum.level_mean.clone())
        self.register_buffer("std", model.spectrum.level_std.clone())

    def forward(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, N] -> codes [B, K, T]."""
        fourier, n_samples = self.fourier, waveform.shape[-1]
        hop, edge = fourier.hop_length, fourier.edge
        n_frames = (n_samples + hop - 1) // hop
        total = n_frames + self.ahead + SPARE
        after = (total + fourier.ratio - 1) * hop - edge - n_samples
        real, imag = fourier.analyse(F.pad(waveform, (edge, after))).chunk(2, dim=-1)
        magnitude = (real * real + imag * imag + (SCALE * FLOOR) ** 2).sqrt()
        level = ((magnitude / SCALE).log() - self.mean) / self.std
        features = torch.cat([level, real / magnitude, imag / magnitude], dim=-1)
        encoded = self.encoder(features, None if self.causal else _mask(features, n_frames))
        latents = F.layer_norm(encoded, encoded.shape[-1:])
        codes = self.quantizer.encode(latents.mT)[0][:, : self.n_levels]
        return codes[..., self.ahead : self.ahead + n_frames]


class StftDecoder(nn.Module):
    """Codebooks and decoder of an STFT codec."""

    mean: Tensor
    std: Tensor

    def __init__(self, codec: StftCodec) -> None:
        super().__init__()
        model = codec.model
        self.causal = model.causal
        self.fourier, self.decoder = _Fourier(model.spectrum), model.decoder
        self.quantizer = model.quantizer
        self.register_buffer("mean", model.spectrum.level_mean.clone())
        self.register_buffer("std", model.spectrum.level_std.clone())

    def forward(self, codes: Tensor) -> Tensor:
        """codes [B, K, T] -> waveform [B, 1, T * hop]."""
        n_frames = codes.shape[-1]
        quantized = F.pad(self.quantizer.decode(codes).mT, (0, 0, 0, SPARE))
        mask = None if self.causal else _mask(quantized, n_frames)
        features = self.decoder(quantized, mask)[:, :n_frames]
        level, real, imag = features.chunk(3, dim=-1)
        length = (real * real + imag * imag + 1e-6).sqrt()
        scale = (level * self.std + self.mean).clamp(max=6.0).exp() / length
        return self.fourier.synthesise(torch.cat([scale * real, scale * imag], dim=-1))


def _mask(x: Tensor, n_frames: int) -> Tensor:
    """Return a mask [1, T, 1] for x [B, T, C], 1 in the first `n_frames` frames."""
    return (torch.arange(x.shape[1], device=x.device) < n_frames).to(x.dtype)[None, :, None]


class DacEncoder(nn.Module):
    """Encoder and quantizer of a DAC."""

    def __init__(self, codec: DacCodec) -> None:
        super().__init__()
        model: Any = codec.model
        self.hop_length = codec.spec.hop_length
        self.encoder, self.quantizer = model.encoder, model.quantizer

    def forward(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, N] -> codes [B, K, T]."""
        n_samples, hop = waveform.shape[-1], self.hop_length
        missing = (n_samples + hop - 1) // hop * hop - n_samples
        return self.quantizer(self.encoder(F.pad(waveform, (0, missing))))[1]


class DacDecoder(nn.Module):
    """Codebooks and decoder of a DAC."""

    def __init__(self, codec: DacCodec) -> None:
        super().__init__()
        model: Any = codec.model
        self.hop_length = codec.spec.hop_length
        self.decoder, self.quantizer = model.decoder, model.quantizer
        strides: Any = model.config.upsampling_ratios
        self.spare = self.hop_length if any(s % 2 for s in strides) else 0

    def forward(self, codes: Tensor) -> Tensor:
        """codes [B, K, T] -> waveform [B, 1, T * hop]."""
        waveform = self.decoder(self.quantizer.from_codes(codes)[0])
        if self.spare:  # odd strides lose samples
            waveform = F.pad(waveform, (0, self.spare))
        return waveform[..., : codes.shape[-1] * self.hop_length]
