"""Network of the STFT codec: spectrum -> ConvNeXt -> RVQ -> ConvNeXt -> inverse STFT.

`tokgen.zoo.networks.autoencoder` has all but the quantizer, which follows DAC (Kumar et al. 2023).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tokgen.codec.spec import Quantized
from tokgen.codec.windows import fit_length
from tokgen.quantizers.residual import ResidualQuantizer
from tokgen.quantizers.settings import VariableSettings
from tokgen.quantizers.variable import ImportanceNetwork, quantize_variable
from tokgen.zoo.networks.autoencoder import StftNetwork

__all__ = ["StftCodecModel"]


class StftCodecModel(StftNetwork):
    """Network of the STFT codec. `tokgen.zoo.stft.StftCodec` wraps it as a `Codec`.

    Args:
        sample_rate: Hz.
        hop_length: samples per frame.
        n_fft: window length in samples, a multiple of hop_length.
        width: channels of the ConvNeXt blocks.
        encoder_depth: blocks before the quantizer.
        decoder_depth: blocks after it.
        expansion: inner width of a block, as a multiple of `width`.
        kernel_size: kernel size of the depthwise convolutions, odd.
        latent_dim: D.
        n_codebooks: K.
        codebook_size: entries per level.
        codebook_dim: d.
        quantizer_dropout: share of training items that keep a random number of levels.
        causal: no frame depends on later ones, except by `lookahead`, and by windows that overlap.
        lookahead: frames after its own that a frame of latents depends on, if `causal`.
        importance: arguments of the `ImportanceNetwork` of a variable bitrate, without its
            `feature_dim`; None for a codec without one.
    """

    model_type = "tokgen_stft_codec"

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        hop_length: int = 320,
        n_fft: int = 640,
        width: int = 320,
        encoder_depth: int = 3,
        decoder_depth: int = 4,
        expansion: int = 3,
        kernel_size: int = 7,
        latent_dim: int = 64,
        n_codebooks: int = 8,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        quantizer_dropout: float = 0.5,
        causal: bool = False,
        lookahead: int = 0,
        importance: dict[str, Any] | None = None,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        if not 0 <= lookahead < (kernel_size if causal else 1):
            raise ValueError(
                f"lookahead = {lookahead} with causal = {causal}: must be 0, or with causal "
                f"0..{kernel_size - 1} (kernel_size - 1)"
            )
        if causal and importance is not None:
            raise ValueError("importance with causal = True: the network looks ahead; use only one")
        self.build_encoder(causal=causal, lookahead=lookahead)
        self.quantizer = ResidualQuantizer(
            latent_dim=latent_dim,
            n_codebooks=n_codebooks,
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            dropout=quantizer_dropout,
        )
        self.build_decoder()
        self.importance = None if importance is None else ImportanceNetwork(width, **importance)
        self.reset_head()

    def encode_with_importance(
        self, waveform: Tensor, lengths: list[int] | None = None, *, detach: bool = False
    ) -> tuple[Tensor, Tensor]:
        """waveform [B, 1, N] -> the latents of `encode_latents`, and importance [B, T] in (0, 1).

        Args:
            waveform: see above.
            lengths: samples of each item; None means all.
            detach: no gradient flows from the importance to the encoder.
        """
        assert self.importance is not None
        features, mask, n_frames = self._analyse(waveform, lengths)
        x = self.encoder.body(features, mask)
        inside = None if mask is None else mask[..., 0] > 0
        importance = self.importance((x.detach() if detach else x).mT, inside)
        return self._latents(self.encoder.finish(x), n_frames), importance[:, :n_frames]

    def forward(
        self, waveform: Tensor, *, quantize: bool = True, variable: VariableSettings | None = None
    ) -> tuple[Tensor, Quantized | None]:
        """waveform [B, 1, N] -> reconstruction [B, 1, N], and the quantizer's result.

        Args:
            waveform: see above.
            quantize: False skips the quantizer, as the first phase of training does.
            variable: train the importance network with these settings; the result is then a
                `VariableQuantized`.
        """
        result: Quantized | None = None
        if variable is not None and quantize:
            latents, importance = self.encode_with_importance(waveform, detach=variable.detach)
            result = quantize_variable(self.quantizer.levels, latents, importance, variable)
        else:
            latents = self.encode_latents(waveform)
            result = self.quantizer(latents) if quantize else None
        decoded = self.decode_latents(latents if result is None else result.quantized)
        return fit_length(decoded, waveform.shape[-1]), result
