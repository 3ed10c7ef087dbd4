"""Mimi as transformers runs it (Défossez et al. 2024, "Moshi: a speech-text foundation model").

Mimi is causal. A bandwidth is rounded down to whole levels; the first one is semantic. Every item
is encoded alone and in one piece, because the transformers attend over minutes of past audio.
Memory grows with the square of the length: cut recordings to a few minutes first, or stream them.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.codec.batches import encode_each
from tokgen.codec.spec import Encoded, Side
from tokgen.codec.steps import Frames
from tokgen.codec.windows import BlockDecoder, BlockEncoder, decoder_reach, encoder_reach
from tokgen.zoo.adapters.carried import Carried, geometry, is_causal
from tokgen.zoo.loading import TransformersCodec

if TYPE_CHECKING:
    from transformers import MimiModel

__all__ = ["MimiCodec"]


class MimiCodec(TransformersCodec):
    """`transformers.MimiModel` as a `Codec`."""

    model: MimiModel
    model_class = "MimiModel"
    decoder_parts = ("decoder.", "decoder_transformer.", "upsample.")
    whole_reason = "attends over minutes of past audio"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        rate, product = config["sampling_rate"], math.prod(config["upsampling_ratios"])
        given = config.get("frame_rate") or config.get("_frame_rate")  # saved by transformers 5
        frame_rate = given or rate / (2 * product)
        hop_length = product * int(math.ceil(rate / product) / frame_rate)
        levels, bits = config["num_quantizers"], math.log2(config["codebook_size"])
        if bandwidth is not None:
            level = bits * rate / hop_length / 1000
            if not 0 < bandwidth <= levels * level + 1e-9:
                raise ValueError(
                    f"bandwidth {bandwidth:g} kbps: this Mimi has {levels} levels of {level:g} "
                    f"kbps; give at most {levels * level:g}"
                )
            levels = max(1, int(bandwidth / level + 1e-9))
        return {
            "sample_rate": rate,
            "hop_length": hop_length,
            "n_codebooks": levels,
            "codebook_size": config["codebook_size"],
            "channels": config["audio_channels"],
            "latency_samples": hop_length if is_causal(config) else 0,
        }

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        levels = self.spec.n_codebooks
        needed = max(levels, self.model.config.num_semantic_quantizers)  # transformers' minimum

        def encode(audio: Tensor) -> Encoded:
            found = self.model.encode(audio, num_quantizers=needed)
            return Encoded(found.audio_codes[:, :levels])

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(codes).audio_values

    def live_encoder(self) -> BlockEncoder:
        if not self.spec.latency_samples:
            return super().live_encoder()
        levels = self.spec.n_codebooks
        needed = max(levels, self.model.config.num_semantic_quantizers)
        model: Any = self.model
        # before 5.24, transformers had the parts in the model itself
        convolutions = getattr(model.encoder, "encoder_seanet", model.encoder)
        owner = model if convolutions is model.encoder else model.encoder
        transformer, downsample = owner.encoder_transformer, owner.downsample
        weights: dict[nn.Module, Tensor] = {}

        def run(audio: Tensor, states: Any) -> tuple[Tensor, Any]:
            first, cache, last = states or ([], None, [])
            before, after = Carried(first, weights), Carried(last, weights)
            x, cache = _attend(transformer, before.run(convolutions.layers, audio), cache)
            latents = x if downsample is None else after.run([downsample], x)
            codes = model.quantizer.encode(latents, needed).transpose(0, 1)[:, :levels]
            return codes, (before.after, cache, after.after)

        first = self._frames(encoder_reach(*geometry(convolutions)).first)
        return BlockEncoder(Frames(run, hop_in=self.spec.hop_length, first=first))

    def live_decoder(self) -> BlockDecoder:
        if not self.spec.latency_samples:
            return super().live_decoder()
        model: Any = self.model
        convolutions = getattr(model.decoder, "decoder_seanet", model.decoder)
        owner = model if convolutions is model.decoder else model.decoder
        transformer, upsample = owner.decoder_transformer, owner.upsample
        weights: dict[nn.Module, Tensor] = {}

        def run(codes: Tensor, states: Any) -> tuple[Tensor, Any]:
            first, cache, last = states or ([], None, [])
            before, after = Carried(first, weights), Carried(last, weights)
            latents = model.quantizer.decode(codes)
            x = latents if upsample is None else before.run([upsample], latents)
            x, cache = _attend(transformer, x, cache)
            return after.run(convolutions.layers, x), (before.after, cache, after.after)

        first = self._frames(decoder_reach(*geometry(convolutions)).first)
        return BlockDecoder(Frames(run, hop_out=self.spec.hop_length, first=first))

    def _frames(self, n: int) -> int:
        """Return the frames of codes that cover `n` frames of the convolutions."""
        ratios: Any = self.model.config.upsampling_ratios
        return -(-n * math.prod(ratios) // self.spec.hop_length)

    def code_vectors(self) -> Tensor:
        levels = [level.codebook.embed for level in self._levels()]
        return torch.stack(levels[: self.spec.n_codebooks])

    def to(self, device: torch.device | str) -> Codec:
        for level in self._levels():
            level.codebook._embed = None  # a cache of transformers, which stays on its device
        return super().to(device)

    def _levels(self) -> list[Any]:
        quantizer: Any = self.model.quantizer
        semantic = quantizer.semantic_residual_vector_quantizer.layers
        return [*semantic, *quantizer.acoustic_residual_vector_quantizer.layers]


def _attend(transformer: Any, x: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Run a transformer on the next frames [1, C, t], with the keys and values of those before."""
    given = inspect.signature(transformer.forward).parameters
    name = "cache" if "cache" in given else "past_key_values"  # before 5.24
    out = transformer(x.mT, use_cache=True, **{name: cache})
    return out.last_hidden_state.mT, out[name]
