"""Network of BigCodec (Xin et al. 2024), for inference."""

from __future__ import annotations

from torch import Tensor, nn

from tokgen.nn.pretrained import Pretrained
from tokgen.zoo.networks.alias_free import AngleLevel, waveform_decoder, waveform_encoder

__all__ = ["BigCodecModel"]


class _ResidualLstm(nn.Module):
    """x + an LSTM over it, [B, C, T]."""

    def __init__(self, channels: int, n_layers: int, *, bidirectional: bool = False) -> None:
        super().__init__()
        width = channels // 2 if bidirectional else channels
        self.lstm = nn.LSTM(
            channels, width, n_layers, batch_first=True, bidirectional=bidirectional
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lstm(x.mT)[0].mT


class _Quantizer(nn.Module):
    def __init__(self, n_codebooks: int, dim: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AngleLevel(dim, codebook_size, codebook_dim) for _ in range(n_codebooks)
        )


class _Encoder(nn.Module):
    def __init__(self, block: nn.Sequential) -> None:
        super().__init__()
        self.block = block


class _Decoder(nn.Module):
    def __init__(self, model: nn.Sequential, quantizer: _Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.model = model


class BigCodecModel(Pretrained):
    """Network of BigCodec. `tokgen.zoo.rebuilt.bigcodec.BigCodec` wraps it as a `Codec`.

    Args:
        sample_rate: Hz.
        strides: of the encoder; the decoder has them in reverse.
        encoder_channels: after the encoder's first convolution.
        decoder_channels: after the decoder's first convolution.
        dilations: of the residual units.
        encoder_lstm_layers: 0 for none.
        decoder_lstm_layers: 0 for none.
        bidirectional: the encoder's LSTM runs in both directions.
        latent_dim: D.
        n_codebooks: K.
        codebook_size: entries per level.
        codebook_dim: d.
    """

    model_type = "bigcodec"

    def __init__(
        self,
        *,
        sample_rate: int,
        strides: list[int],
        encoder_channels: int,
        decoder_channels: int,
        dilations: list[int],
        encoder_lstm_layers: int,
        decoder_lstm_layers: int,
        bidirectional: bool,
        latent_dim: int,
        n_codebooks: int,
        codebook_size: int,
        codebook_dim: int,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        middle, width = [], encoder_channels << len(strides)
        if encoder_lstm_layers:
            middle = [_ResidualLstm(width, encoder_lstm_layers, bidirectional=bidirectional)]
        self.encoder = _Encoder(
            waveform_encoder(encoder_channels, strides, latent_dim, dilations, middle)
        )
        middle = []
        if decoder_lstm_layers:
            middle = [_ResidualLstm(decoder_channels, decoder_lstm_layers)]
        back = strides[::-1]
        self.decoder = _Decoder(
            waveform_decoder(latent_dim, decoder_channels, back, dilations, middle),
            _Quantizer(n_codebooks, latent_dim, codebook_size, codebook_dim),
        )

    def encode_latents(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, T * hop_length] -> latents [B, D, T]."""
        return self.encoder.block(waveform)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        """quantized [B, D, T] -> waveform [B, 1, T * hop_length]."""
        return self.decoder.model(quantized)
