"""Mimi as transformers runs it (Défossez et al. 2024, "Moshi: a speech-text foundation model").

Causal, 12.5 frames a second, 32 levels unless a bandwidth asks for fewer; the first level is
semantic and has a quantizer of its own, so fewer levels are the first ones of all.

Same audio, same codes: every item is encoded alone, at its true length. Its transformers see
minutes of what came before, so long audio is not cut into windows: memory grows with its length,
for the attention's mask with the square of it. Cut recordings of more than some minutes first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokgen.codec import Codec, CodecSpec, Encoded, Side, hash_weights
from tokgen.torchaudio_shim import import_torchaudio
from tokgen.wrappers import mimi_numbers
from tokgen.wrappers.loading import load_model

if TYPE_CHECKING:
    from transformers import MimiModel


class MimiCodec(Codec):
    """`transformers.MimiModel` as a `Codec`; its stages are closed."""

    model: MimiModel

    def __init__(self, model: MimiModel, spec: CodecSpec) -> None:
        self.model, self.spec = model, spec

    @classmethod
    def from_model(
        cls,
        model: MimiModel,
        name: str = "mimi",
        *,
        bandwidth: float | None = None,
        **spec: str | None,
    ) -> MimiCodec:
        """A codec with as many levels as fit into `bandwidth` kbps; None takes all.

        Raises:
            ValueError: a bandwidth not above 0, or more than all levels take.
        """
        numbers = mimi_numbers(model.config.to_dict(), bandwidth)
        full = CodecSpec(
            name,
            **numbers,
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
    ) -> MimiCodec:
        """From a folder that `MimiModel.save_pretrained` wrote, or a hub id, in float32.

        Args:
            bandwidth: kbps that the levels must fit into; None takes all levels.
        Raises:
            FileNotFoundError: neither a folder nor a hub model in reach.
            ValueError: another model's config, weights that do not fit, or a bandwidth not above
                0, or more than all levels take.
        """
        import_torchaudio()  # which transformers imports beside it
        from transformers import MimiModel

        model, label = load_model(MimiModel, source, revision)
        return cls.from_model(
            model, name or label, bandwidth=bandwidth, revision=revision, licence=licence
        )

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_levels, n_frames = self.spec.n_codebooks, self.spec.n_frames(waveform.shape[-1])
        fewest = self.model.config.num_semantic_quantizers  # that transformers gives
        codes = waveform.new_zeros(len(lengths), n_levels, n_frames, dtype=torch.long)
        for item, audio, n in zip(codes, waveform, lengths, strict=True):
            found = self.model.encode(audio[None, :, :n], num_quantizers=max(n_levels, fewest))
            item[:, : self.spec.n_frames(n)] = found.audio_codes[0, :n_levels]
        return Encoded(codes)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(codes).audio_values

    def code_vectors(self) -> Tensor:
        levels = [level.codebook.embed for level in self._levels()]
        return torch.stack(levels[: self.spec.n_codebooks])

    def to(self, device: torch.device | str) -> Codec:
        for level in self._levels():
            level.codebook._embed = None  # kept by transformers on the device it was made on
        return super().to(device)

    def _levels(self) -> list[Any]:
        quantizer: Any = self.model.quantizer
        semantic = quantizer.semantic_residual_vector_quantizer.layers
        return [*semantic, *quantizer.acoustic_residual_vector_quantizer.layers]
