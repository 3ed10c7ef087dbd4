"""A continuous codec and a quantizer that was fitted to its latents, as a codec.

    codec = OfflineCodec.join(continuous, quantizer, "mine", beam=16)
    codec.save_pretrained("folder")
    codec = load_codec("folder")

The folder has the parts `autoencoder/` and `quantizer/`, each with its own config.json and weights.
`recipes/quantize_offline.py` makes such folders.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

import tokgen
from tokgen.codec.batches import encode_each
from tokgen.codec.checks import check_codes_layout
from tokgen.codec.continuous import ContinuousCodec
from tokgen.codec.spec import MAX_BEAM, CodecSpec, Encoded, Search, Side
from tokgen.codec.windows import BlockDecoder, BlockEncoder, run_whole
from tokgen.nn.dense import only_inputs
from tokgen.nn.files import read_json
from tokgen.nn.hub import CONFIG
from tokgen.quantizers.beam import Level
from tokgen.quantizers.offline.additive import AdditiveQuantizer
from tokgen.quantizers.offline.base import OfflineQuantizer
from tokgen.quantizers.offline.registry import load_quantizer
from tokgen.zoo.continuous import load_continuous
from tokgen.zoo.loading import PretrainedCodec, choose_bandwidth

__all__ = ["AUTOENCODER", "QUANTIZER", "OfflineCodec", "OfflineModel"]

AUTOENCODER, QUANTIZER = "autoencoder", "quantizer"  # folders
_NUMBERS = ("sample_rate", "hop_length", "n_codebooks", "codebook_size", "nested")


class OfflineModel(nn.Module):
    """The networks of an `OfflineCodec`.

    Args:
        continuous: the codec whose network is `autoencoder`.
        quantizer: is fitted to its latents.
        beam: paths of the quantizer's search, unless another number is asked for; 1 is greedy.
    """

    def __init__(self, continuous: Any, quantizer: OfflineQuantizer, beam: int = 1) -> None:
        super().__init__()
        if quantizer.dim != continuous.spec.latent_dim:
            raise ValueError(
                f"a quantizer of {quantizer.dim} dimensions for {continuous.spec.latent_dim} "
                f"latents of {continuous.spec.name}: fit one to its latents"
            )
        most = MAX_BEAM if quantizer.searches else 1
        if type(beam) is not int or not 1 <= beam <= most:
            kind = type(quantizer).__name__
            fix = f"use 1 (greedy) to {most}" if most > 1 else f"{kind} has no search; use 1"
            raise ValueError(f"beam = {beam!r}: {fix}")
        self.continuous, self.beam = continuous, beam
        self.autoencoder: nn.Module = continuous.model
        self.quantizer = quantizer

    def config(self) -> dict[str, Any]:
        """Return the settings for config.json."""
        s, q = self.continuous.spec, self.quantizer
        return {
            "sample_rate": s.sample_rate,
            "hop_length": s.hop_length,
            "n_codebooks": q.n_codebooks,
            "codebook_size": q.codebook_size,
            "nested": q.nested,
            "beam": self.beam,
        }


class OfflineCodec(PretrainedCodec):
    """A continuous codec with a quantizer, as a `Codec`.

    Codes of fewer levels are searched anew, since the first levels of a beam's codes are not the
    best short codes.
    """

    model: OfflineModel
    library = "tokgen"
    saved_in_dtype = (f"{AUTOENCODER}.",)

    def __init__(self, model: OfflineModel, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        if model.beam > 1:
            self.search = Search(model.beam, "latent")

    @classmethod
    def join(
        cls, continuous: ContinuousCodec, quantizer: OfflineQuantizer, name: str, *, beam: int = 1
    ) -> Self:
        """Make a codec of its two parts; arguments as for `OfflineModel`.

        Raises:
            ValueError: the quantizer has another width than the latents, or no search for a beam.
        """
        model = OfflineModel(continuous, quantizer.eval().to(continuous.device), beam)
        return cls.from_model(model, name, licence=continuous.spec.licence)

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        numbers = {name: config[name] for name in _NUMBERS[:4]}
        if bandwidth is None:
            return numbers
        per_level = config["sample_rate"] / config["hop_length"] / 1000
        per_level *= math.log2(config["codebook_size"])
        most = numbers["n_codebooks"]
        levels = range(1, most + 1) if config["nested"] else [most]
        kbps = {round(k * per_level, 4): k for k in levels}
        return {**numbers, "n_codebooks": kbps[choose_bandwidth(list(kbps), bandwidth)]}

    @classmethod
    def config_of(cls, model: OfflineModel) -> dict[str, Any]:
        return {**model.config(), "model_type": "offline"}

    @classmethod
    def parts_of_decoder(cls, model: OfflineModel) -> tuple[str, ...]:
        parts = getattr(model.continuous, "decoder_parts", ())
        return tuple(f"{AUTOENCODER}.{part}" for part in parts)

    @classmethod
    def load_model(cls, folder: Path) -> OfflineModel:
        config = read_json(folder / CONFIG)
        continuous = load_continuous(folder / AUTOENCODER)
        model = OfflineModel(continuous, load_quantizer(folder / QUANTIZER), config.get("beam", 1))
        for name, value in model.config().items():
            if config.get(name) != value:
                raise ValueError(
                    f"{folder / CONFIG}: {name} = {config.get(name)!r}, but its parts make it "
                    f"{value!r}"
                )
        return model

    def save_model(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Save both parts; `dtype` is that of the autoencoder, the quantizer keeps its own."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"model_type": "tokgen_offline_codec", "tokgen_version": tokgen.__version__}
        config = {**about, **self.model.config()}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        self.model.continuous.save_pretrained(folder / AUTOENCODER, dtype=dtype)
        self.model.quantizer.save_pretrained(folder / QUANTIZER)

    @property
    def _place(self) -> str:
        """Place the codec was loaded from, since the folder of many is called "codec"."""
        return self.spec.name if self.loaded_from is None else self.loaded_from[0]

    @property
    def continuous(self) -> ContinuousCodec:
        """The codec without its quantizer."""
        return self.model.continuous

    def with_beam(self, beam: int, distance: str | None = None) -> Self:
        if distance not in (None, "latent"):
            raise ValueError(
                f"distance {distance!r}: {self._place} was fitted to its latents; use 'latent'"
            )
        if beam != 1 and not self.model.quantizer.searches:
            raise ValueError(f"beam = {beam}: the quantizer of {self._place} has none; use 1")
        codec = copy.copy(self)
        codec.search = None if beam == 1 else Search(beam, "latent")
        return codec

    def for_levels(self, n_codebooks: int) -> Self:
        self.model.quantizer.check_levels(n_codebooks)
        return super().for_levels(n_codebooks)

    def search_levels(self) -> list[Level] | None:
        quantizer = self.model.quantizer
        if isinstance(quantizer, AdditiveQuantizer) and quantizer.nested:
            return quantizer.levels(self.spec.n_codebooks)
        return None

    def encode_latents(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, N] -> latents [B, D, T], with gradient."""
        return self.continuous.encode_latents(waveform)

    def search_latents(self, waveform: Tensor) -> Tensor:
        with only_inputs():
            return self.encode_latents(waveform)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """latents [B, D, T] -> waveform [B, 1, T * hop_length], with gradient."""
        return self.continuous.decode_latents(latents)

    def quantize(self, latents: Tensor) -> Tensor:
        """latents [B, D, T] -> codes [B, k, T], k the levels that are searched for."""
        n, beam = self.spec.n_codebooks, 1
        if self.search is not None:
            n, beam = self.search.n_codebooks or n, self.search.beam
        frames = latents.mT.flatten(0, 1).float()
        codes = self.model.quantizer.encode(frames, n, beam=beam)
        return codes.unflatten(0, (len(latents), -1)).mT.contiguous()

    def dequantize(self, codes: Tensor) -> Tensor:
        """codes [B, k, T] -> latents [B, D, T]."""
        check_codes_layout(codes, self.spec)
        frames = self.model.quantizer.decode(codes.mT.flatten(0, 1))
        return frames.unflatten(0, (len(codes), -1)).mT

    def code_vectors(self) -> Tensor | None:
        levels = self.search_levels()
        return None if levels is None else torch.stack([level.rows for level in levels])

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        if self.continuous.reaches is not None:
            windows = self.continuous.encoder_windows(lengths=lengths, finish=self.quantize)
            return Encoded(run_whole([windows], waveform))

        def encode(audio: Tensor) -> Encoded:
            return Encoded(self.quantize(self.encode_latents(audio)))

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        if self.continuous.reaches is None:
            return self.decode_latents(self.dequantize(codes))
        return run_whole([self.continuous.decoder_windows(start=self.dequantize)], codes)

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        if self.continuous.reaches is None:
            return super().block_encoder(step)
        return BlockEncoder(self.continuous.encoder_windows(step, finish=self.quantize))

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        if self.continuous.reaches is None:
            return super().block_decoder(step)
        return BlockDecoder(self.continuous.decoder_windows(step, start=self.dequantize))
