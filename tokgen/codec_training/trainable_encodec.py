"""transformers' EncodecModel in training."""

from __future__ import annotations

from typing import Any, cast

import torch
from accelerate.utils import broadcast
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from tokgen.codec.chunks import OverlapAdd
from tokgen.codec.spec import CodecSpec, Quantized
from tokgen.codec.windows import fit_length
from tokgen.codec_training.trainable import Reconstruction, TrainableCodec, importance_config
from tokgen.quantizers.ema import EmaQuantizer
from tokgen.quantizers.settings import VariableSettings
from tokgen.quantizers.variable import VariableQuantized, allocate
from tokgen.zoo.adapters.encodec import EncodecCodec, normalised
from tokgen.zoo.adapters.encodec_variable import VariableEncodec
from tokgen.zoo.loading import PretrainedCodec

__all__ = ["TrainableEncodec"]


class TrainableEncodec(TrainableCodec):
    """transformers' `EncodecModel` in training.

    Each batch is coded at one of `target_bandwidths`, drawn at random; in eval mode at the highest.
    Codebooks are moving averages, see `EmaQuantizer`, and have no codebook loss. With a variable
    bitrate, the importance takes the place of the bandwidths, and the quantizer has all levels of
    the highest one.

    A model with chunks, such as the stereo one at 48 kHz, trains on crops of at most one chunk.
    Longer audio, as in validation, is coded in overlapping chunks as by the saved codec. With
    `normalize`, each chunk is divided by its loudness, and its decoded audio multiplied again.
    """

    codec_class = EncodecCodec
    model: EncodecModel

    def __init__(self, variable: VariableSettings | None = None, **config: Any) -> None:
        super().__init__()
        self.variable = variable
        settings = EncodecConfig(**config, **importance_config(variable))
        self._spec = CodecSpec("encodec", **EncodecCodec.numbers(settings.to_dict()))
        self.model = (EncodecModel if variable is None else VariableEncodec)(settings)
        layers: Any = self.model.quantizer.layers
        self.quantizer = EmaQuantizer(
            latent_dim=settings.hidden_size,
            n_codebooks=len(layers),
            codebook_size=settings.codebook_size,
        )
        self.sample_rate, self.n_channels = settings.sampling_rate, settings.audio_channels
        self.n_bandwidths = len(settings.target_bandwidths) if variable is None else 1

    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        chunks, scales = self._chunks(waveform)
        if self.training and quantize and isinstance(self.model, VariableEncodec):
            return self._variable(self.model, chunks, scales, waveform)
        latents = self.model.encoder(chunks)
        zero = latents.new_zeros(())
        if not quantize:
            return Reconstruction(self._join(latents, scales, waveform), zero, zero, None)
        bandwidth = self._draw_bandwidth() if self.training else -1
        n_codebooks = None
        if bandwidth >= 0:
            kbps = self.model.config.target_bandwidths[bandwidth]
            n_codebooks = self.model.quantizer.get_num_quantizers_for_bandwidth(kbps)
        out = self.quantizer(latents, n_codebooks, learn=self.moves_codebooks)
        return self._reconstruction(out, scales, waveform, bandwidth)

    def _variable(
        self, model: VariableEncodec, chunks: Tensor, scales: Tensor | None, waveform: Tensor
    ) -> Reconstruction:
        """Code chunks at a variable bitrate."""
        how = cast(VariableSettings, self.variable)
        latents, importance = model.encode_with_importance(chunks, detach=how.detach)
        chosen = allocate(importance, len(self.quantizer.levels), how)
        learn = self.moves_codebooks and not self.frozen
        found = self.quantizer(latents, learn=learn, mask=chosen.mask)
        return self._reconstruction(chosen.joined(found), scales, waveform)

    def _reconstruction(
        self, out: Quantized, scales: Tensor | None, waveform: Tensor, bandwidth: int = -1
    ) -> Reconstruction:
        decoded = self._join(out.quantized, scales, waveform)
        codes = out.codes.unflatten(0, (len(waveform), -1)).transpose(1, 2).flatten(2)
        losses = out.commitment_loss, out.codebook_loss
        rate_loss = out.rate_loss if isinstance(out, VariableQuantized) else None
        return Reconstruction(decoded, *losses, codes, bandwidth, rate_loss)

    def _chunks(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the chunks [B * W, C, n] of [B, C, N], normalised, and their scales [B * W, 1]."""
        length, stride = self._spec.chunk_length, self._spec.chunk_stride
        if length and not (self.training and waveform.shape[-1] <= length):
            n = (self._spec.n_chunks(waveform.shape[-1]) - 1) * stride + length
            chunks = fit_length(waveform, n).unfold(-1, length, stride)  # [B, C, W, n]
            waveform = chunks.transpose(1, 2).flatten(0, 1)
        return normalised(waveform) if self.model.config.normalize else (waveform, None)

    def _join(self, quantized: Tensor, scales: Tensor | None, waveform: Tensor) -> Tensor:
        """Decode chunks [B * W, D, T], and join them to the shape of a waveform."""
        decoded = self.model.decoder(quantized)
        decoded = decoded if scales is None else decoded * scales[..., None]
        n_chunks = len(decoded) // len(waveform)
        if n_chunks > 1:
            s = self._spec
            adder = OverlapAdd(s.chunk_length, s.chunk_stride)
            chunks = fit_length(decoded, s.chunk_length).unflatten(0, (-1, n_chunks))
            pieces = adder.push(chunks.transpose(1, 2).flatten(2))
            decoded = torch.cat([*pieces, *adder.finish()], dim=-1)
        return fit_length(decoded, waveform.shape[-1])

    def _draw_bandwidth(self) -> int:
        """Draw the index of a batch's bandwidth, the same on all processes."""
        device = next(self.model.parameters()).device
        return int(broadcast(torch.randint(self.n_bandwidths, (1,)).to(device)))

    @torch.no_grad()
    def init_quantizer(self, waveforms: Tensor) -> list[float]:
        chunks, _ = self._chunks(waveforms)
        latents = [self.model.encoder(w).mT.flatten(0, 1) for w in chunks.split(16)]
        return self.quantizer.init_from_data(torch.cat(latents)).tolist()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        super().load_weights(weights)
        self.quantizer.copy_from(self._layers())

    def as_codec(self) -> PretrainedCodec:
        self.quantizer.copy_to(self._layers())
        return EncodecCodec.from_model(self.model, "encodec")

    def _layers(self) -> list[Any]:
        layers: Any = self.model.quantizer.layers
        return list(layers)
