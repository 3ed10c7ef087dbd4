"""X-Codec as transformers runs it (Ye et al. 2024, "Codec Does Matter: Exploring the Semantic
Shortcoming of Codec for Audio Language Model").

A DAC encoder and a semantic model (HuBERT or WavLM) hear the clip side by side; one residual
quantizer codes both, and a DAC decoder speaks. Audio is padded with zeros to whole frames, on
which both branches agree in length.

Same audio, same codes: the semantic model normalises and attends over the whole clip, so every
item is encoded alone at its true length. For the same reason a clip goes through in one piece:
memory grows with its length, and a long recording should be cut into utterances first.

The semantic model is frozen, as in its training, but passes gradients on to the waveform, which
transformers' own `encode` does not: an idempotence loss then sees the whole encoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec import CodecSpec, fit_length, hash_weights
from tokgen.torchaudio_shim import import_torchaudio
from tokgen.wrappers.loading import load_model
from tokgen.wrappers.residual import ResidualCodec

if TYPE_CHECKING:
    from transformers import XcodecModel


class XcodecCodec(ResidualCodec):
    """`transformers.XcodecModel` as a `Codec`, with every stage open."""

    model: XcodecModel

    def __init__(self, model: XcodecModel, spec: CodecSpec) -> None:
        self.model, self.spec = model, spec

    @classmethod
    def from_model(
        cls,
        model: XcodecModel,
        name: str = "xcodec",
        bandwidth: float | None = None,
        **spec: str | None,
    ) -> XcodecCodec:
        """Wrap a model, whose semantic part is frozen.

        Args:
            bandwidth: kbps, one of `model.config.target_bandwidths`; None takes the highest.
        Raises:
            ValueError: another bandwidth, or branches of unequal frame rates.
        """
        c: Any = model.config
        offered = sorted(c.target_bandwidths)
        if bandwidth is not None and bandwidth not in offered:
            known = ", ".join(f"{kbps:g}" for kbps in offered)
            raise ValueError(f"bandwidth = {bandwidth:g} kbps: {name} offers {known}; use one")
        semantic_hop = math.prod((*c.semantic_model_config.conv_stride, *c.strides))
        if semantic_hop != c.hop_length:
            raise ValueError(
                f"{name}: the semantic branch has a frame every {semantic_hop} samples, the "
                f"acoustic one every {c.hop_length}; their strides in config.json must agree"
            )
        kbps = offered[-1] if bandwidth is None else bandwidth
        model.semantic_model.requires_grad_(False)
        full = CodecSpec(
            name,
            sample_rate=c.sample_rate,
            hop_length=c.hop_length,
            n_codebooks=model.quantizer.get_num_quantizers_for_bandwidth(kbps),
            codebook_size=c.codebook_size,
            weight_hash=hash_weights(model),
            library="transformers",
            **spec,  # type: ignore[arg-type]
        )
        return cls(model.eval(), full)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        revision: str | None = None,
        *,
        name: str | None = None,
        licence: str = "",
        bandwidth: float | None = None,
    ) -> XcodecCodec:
        """From a folder that `XcodecModel.save_pretrained` wrote, or a hub id, in float32.

        Args:
            bandwidth: kbps; None takes the highest that the model offers.
        Raises:
            FileNotFoundError: neither a folder nor a hub model in reach.
            ValueError: another model's config, weights that do not fit, or a bandwidth that
                is not offered.
        """
        import_torchaudio()  # which transformers imports beside it
        from transformers import XcodecModel

        model, label = load_model(XcodecModel, source, revision)
        name = name or label
        return cls.from_model(model, name, bandwidth, revision=revision, licence=licence)

    @property
    def levels(self) -> Sequence[Any]:
        return self.model.quantizer.quantizers[: self.spec.n_codebooks]  # type: ignore[return-value]

    def encode_latents(self, waveform: Tensor) -> Tensor:
        n_samples = self.spec.n_frames(waveform.shape[-1]) * self.spec.hop_length
        waveform = fit_length(waveform, n_samples)
        heard = F.pad(waveform[:, 0], (self.model.pad, self.model.pad))
        hidden = self.model.semantic_model(heard, output_hidden_states=True).hidden_states
        meaning = torch.stack(hidden, dim=1).mean(dim=1).mT
        sound = self.model.acoustic_encoder(waveform)
        latents = torch.cat([sound, self.model.encoder_semantic(meaning)], dim=1)
        return self.model.fc(latents.mT).mT

    def decode_latents(self, quantized: Tensor) -> Tensor:
        return self.model.acoustic_decoder(self.model.fc2(quantized.mT).mT)
