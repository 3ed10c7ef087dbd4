"""Networks of NeMo's audio codecs, for inference: spectral codecs and NanoCodec.

A spectral codec (Langman et al. 2024) encodes bands of a mel spectrogram apart from each other. A
NanoCodec (Casanova et al. 2025) encodes the waveform. Both have finite scalar quantizers in groups
(Mentzer et al. 2023) and a HiFi-GAN decoder. Names of the parameters are those of the published
weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.nn.pretrained import Pretrained
from tokgen.zoo.networks.nemo_layers import Activation, Conv, ResidualBlock, ResidualLayer, UpConv

__all__ = ["ENCODERS", "OUTPUTS", "NemoCodecModel"]

OUTPUTS = ("tanh", "clamp")


class _Features(nn.Module):
    """Log mel spectrogram: waveform [B, 1, T * hop_length] -> [B, mel_dim, T].

    The window and the mel filters are weights, as in NeMo.
    """

    window: Tensor
    fb: Tensor

    def __init__(self, mel_dim: int, win_length: int, hop_length: int, log_guard: float) -> None:
        super().__init__()
        self.hop_length, self.log_guard = hop_length, log_guard
        self.register_buffer("window", torch.hann_window(win_length, periodic=False))
        self.register_buffer("fb", torch.zeros(1, mel_dim, win_length // 2 + 1))

    def forward(self, waveform: Tensor) -> Tensor:
        n_fft = len(self.window)
        edge = (n_fft - self.hop_length) // 2
        audio = F.pad(waveform[:, 0], (edge, edge))
        spectrum = torch.stft(
            audio, n_fft, self.hop_length, window=self.window, center=False, return_complex=True
        )
        magnitude = torch.view_as_real(spectrum).square().sum(-1).sqrt()
        return torch.log(self.fb @ magnitude + self.log_guard)


class _MelProcessor(nn.Module):
    """Nests `_Features` as the names of the weights do."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.preprocessor = nn.Module()
        self.preprocessor.featurizer = _Features(**settings)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.preprocessor.featurizer(waveform)  # type: ignore[operator]


class _ResNet(nn.Module):
    """Residual blocks at the frame rate."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_layers: int,
        hidden_channels: int,
        filters: int,
        kernel_size: int,
        activation: str,
        pad_mode: str,
    ) -> None:
        super().__init__()
        self.pre_conv = Conv(in_channels, hidden_channels, kernel_size, pad_mode=pad_mode)
        block = {"activation": activation, "pad_mode": pad_mode}
        self.res_layers = nn.ModuleList(
            ResidualBlock(hidden_channels, filters, kernel_size, **block)  # type: ignore[arg-type]
            for _ in range(num_layers)
        )
        self.post_activation = Activation(activation, hidden_channels)
        self.post_conv = Conv(hidden_channels, out_channels, kernel_size, pad_mode=pad_mode)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre_conv(x)
        for layer in self.res_layers:
            x = layer(x)
        return self.post_conv(self.post_activation(x))


class _BandEncoder(nn.Module):
    """One `_ResNet` for each band of the mel spectrogram."""

    def __init__(self, mel_bands: list[list[int]], mel: dict[str, Any], **resnet: Any) -> None:
        super().__init__()
        self.mel_bands = mel_bands
        self.mel_processor = _MelProcessor(**mel)
        self.encoders = nn.ModuleList(_ResNet(last - first, **resnet) for first, last in mel_bands)

    def forward(self, waveform: Tensor) -> Tensor:
        mel = self.mel_processor(waveform)
        pairs = zip(self.mel_bands, self.encoders, strict=True)
        return torch.cat([encoder(mel[:, a:b]) for (a, b), encoder in pairs], dim=1)


class _MelEncoder(nn.Module):
    """One `_ResNet` for the whole mel spectrogram."""

    def __init__(self, mel: dict[str, Any], **resnet: Any) -> None:
        super().__init__()
        self.mel_processor = _MelProcessor(**mel)
        self.encoder = _ResNet(mel["mel_dim"], **resnet)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.encoder(self.mel_processor(waveform))


class _WaveEncoder(nn.Module):
    """HiFi-GAN in reverse: waveform [B, 1, T * product of rates] -> [B, encoded_dim, T]."""

    def __init__(
        self,
        *,
        encoded_dim: int,
        down_sample_rates: list[int],
        base_channels: int,
        in_kernel_size: int,
        out_kernel_size: int,
        resblock_kernel_sizes: list[int],
        resblock_dilation_sizes: list[int],
        activation: str,
        causal: bool,
        pad_mode: str,
    ) -> None:
        super().__init__()
        edge: dict[str, Any] = {"causal": causal, "pad_mode": pad_mode}
        self.pre_conv = Conv(1, base_channels, in_kernel_size, **edge)
        self.activations, self.down_sample_conv_layers = nn.ModuleList(), nn.ModuleList()
        self.res_layers, width = nn.ModuleList(), base_channels
        kinds = resblock_kernel_sizes, resblock_dilation_sizes
        for rate in down_sample_rates:
            self.res_layers.append(ResidualLayer(width, *kinds, activation=activation, **edge))
            self.activations.append(Activation(activation, width))
            self.down_sample_conv_layers.append(
                Conv(width, 2 * width, 2 * rate, stride=rate, **edge)
            )
            width *= 2
        self.post_activation = Activation(activation, width)
        self.post_conv = Conv(width, encoded_dim, out_kernel_size, **edge)

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.pre_conv(waveform)
        layers = self.res_layers, self.activations, self.down_sample_conv_layers
        for residual, activation, down in zip(*layers, strict=True):
            x = down(activation(residual(x)))
        return self.post_conv(self.post_activation(x))


class _WaveDecoder(nn.Module):
    """HiFi-GAN: [B, input_dim, T] -> waveform [B, 1, T * product of rates]."""

    def __init__(
        self,
        *,
        input_dim: int,
        up_sample_rates: list[int],
        base_channels: int,
        in_kernel_size: int,
        out_kernel_size: int,
        resblock_kernel_sizes: list[int],
        resblock_dilation_sizes: list[int],
        activation: str,
        output_activation: str,
        causal: bool,
        pad_mode: str,
        grouped: bool,
    ) -> None:
        super().__init__()
        if output_activation not in OUTPUTS:
            raise ValueError(f"output_activation {output_activation!r}: must be tanh or clamp")
        self.output_activation = output_activation
        edge: dict[str, Any] = {"causal": causal, "pad_mode": pad_mode}
        self.pre_conv = Conv(input_dim, base_channels, in_kernel_size, **edge)
        self.activations, self.up_sample_conv_layers = nn.ModuleList(), nn.ModuleList()
        self.res_layers, width = nn.ModuleList(), base_channels
        kinds = resblock_kernel_sizes, resblock_dilation_sizes
        for rate in up_sample_rates:
            self.activations.append(Activation(activation, width))
            half = width // 2
            groups = half if grouped else 1
            self.up_sample_conv_layers.append(
                UpConv(width, half, rate, causal=causal, groups=groups)
            )
            self.res_layers.append(ResidualLayer(half, *kinds, activation=activation, **edge))
            width = half
        self.post_activation = Activation(activation, width)
        self.post_conv = Conv(width, 1, out_kernel_size, **edge)

    def forward(self, quantized: Tensor) -> Tensor:
        x = self.pre_conv(quantized)
        layers = self.activations, self.up_sample_conv_layers, self.res_layers
        for activation, up, residual in zip(*layers, strict=True):
            x = residual(up(activation(x)))
        x = self.post_conv(self.post_activation(x))
        return x.tanh() if self.output_activation == "tanh" else x.clamp(-1, 1)


ENCODERS: dict[str, type[nn.Module]] = {
    "mel_bands": _BandEncoder,
    "mel": _MelEncoder,
    "waveform": _WaveEncoder,
}


class NemoCodecModel(Pretrained):
    """Network of NeMo's audio codecs. `tokgen.zoo.rebuilt.nemo.NemoCodec` wraps it as a `Codec`.

    Args:
        sample_rate: Hz.
        hop_length: samples per frame.
        n_codebooks: groups of the quantizer, K.
        levels: values of each dimension of a group.
        encoder: "kind", one of `ENCODERS`, and its arguments.
        decoder: arguments of the decoder.
    Attributes:
        min_frames: fewer frames cannot be padded by reflection.
    """

    model_type = "nemo_audio_codec"
    sizes: Tensor
    places: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        hop_length: int,
        n_codebooks: int,
        levels: list[int],
        encoder: dict[str, Any],
        decoder: dict[str, Any],
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        if not levels or min(levels) < 2:
            raise ValueError(f"levels = {levels}: each must be at least 2")
        kind = {k: v for k, v in encoder.items() if k != "kind"}
        self.audio_encoder = ENCODERS[encoder["kind"]](**kind)
        self.audio_decoder = _WaveDecoder(**decoder)
        sizes = torch.tensor(levels)
        self.register_buffer("sizes", sizes[:, None], persistent=False)
        places = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])
        self.register_buffer("places", places[:, None], persistent=False)
        self.min_frames = self._min_frames()

    def _min_frames(self) -> int:
        """Return the fewest frames at which every reflection is shorter than its input."""
        encoder, decoder = self.audio_encoder, self.audio_decoder
        parts: list[tuple[nn.Module, int]]
        if isinstance(encoder, _WaveEncoder):
            rates = self.config["encoder"]["down_sample_rates"]
            down = encoder.down_sample_conv_layers
            parts = [(encoder.pre_conv, math.prod(rates)), (encoder.post_conv, 1)]
            for i in range(len(rates)):
                size = math.prod(rates[i:])
                parts += [(encoder.res_layers[i], size), (down[i], size)]
        else:
            parts = [(encoder, 1)]
        rates = self.config["decoder"]["up_sample_rates"]
        parts += [(decoder.pre_conv, 1), (decoder.post_conv, math.prod(rates))]
        parts += [(layer, math.prod(rates[: i + 1])) for i, layer in enumerate(decoder.res_layers)]
        needed = [
            module.reflected // size + 1
            for part, size in parts
            for module in part.modules()
            if isinstance(module, Conv)
        ]
        return max(needed)

    def encode_latents(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, T * hop_length] -> latents [B, D, T], T at least `min_frames`."""
        return self.audio_encoder(waveform)

    def quantize(self, latents: Tensor) -> Tensor:
        """latents [B, D, T] -> codes [B, K, T]."""
        grouped = latents.unflatten(1, (self.config["n_codebooks"], -1))
        scale = (self.sizes - 1) / 2 * (1 - 1e-3)
        offset = torch.where(self.sizes % 2 == 0, 0.5, 0)
        compressed = scale * (grouped + (offset / scale).tan()).tanh() - offset
        digits = compressed.round().long() + self.sizes // 2
        return (digits * self.places).sum(2)

    def dequantize(self, codes: Tensor) -> Tensor:
        """codes [B, k, T] -> quantized [B, D, T]; the dimensions of missing groups are 0."""
        half = self.sizes // 2
        digits = codes[:, :, None] // self.places % self.sizes
        quantized = ((digits - half) / half).flatten(1, 2)
        missing = (self.config["n_codebooks"] - codes.shape[1]) * len(self.sizes)
        return F.pad(quantized, (0, 0, 0, missing))

    def decode_latents(self, quantized: Tensor) -> Tensor:
        """quantized [B, D, T] -> waveform [B, 1, T * hop_length], T at least `min_frames`."""
        return self.audio_decoder(quantized)
