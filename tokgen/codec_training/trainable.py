"""One interface to train the STFT codec, or transformers' DacModel or EncodecModel."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

from tokgen.codec.chunks import OverlapAdd
from tokgen.codec.spec import CodecSpec, Quantized
from tokgen.codec.windows import fit_length
from tokgen.nn.cards import ModelCardFacts
from tokgen.quantizers.ema import EmaQuantizer
from tokgen.quantizers.settings import VariableSettings
from tokgen.quantizers.variable import VariableQuantized, quantize_variable
from tokgen.zoo.adapters.dac import DacCodec, quantize_through
from tokgen.zoo.adapters.dac_training import apply_weight_norm, fold_weight_norm, reset_weights
from tokgen.zoo.adapters.dac_variable import VariableDac, residual_levels
from tokgen.zoo.adapters.encodec import EncodecCodec, normalised
from tokgen.zoo.loading import PretrainedCodec
from tokgen.zoo.names import find_in_zoo
from tokgen.zoo.networks.causal import fit_taps
from tokgen.zoo.networks.stft import StftCodecModel
from tokgen.zoo.stft import StftCodec

__all__ = [
    "ARCHITECTURES",
    "Reconstruction",
    "TrainableCodec",
    "TrainableDac",
    "TrainableEncodec",
    "TrainableStft",
    "load_into",
    "make_trainable",
    "reconstruction_of",
]


@dataclass
class Reconstruction:
    """Results of a training pass.

    Attributes:
        waveform: decoded audio [B, C, N].
        commitment_loss, codebook_loss: scalars, sums over levels; 0 without the quantizer.
        codes: int64 [B, K, T], K the levels in use; None without the quantizer.
        bandwidth: index of the bandwidth in use; -1 is the highest, or the only one.
        rate_loss: mean importance of frames, a scalar; None without a variable bitrate.
    """

    waveform: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor
    codes: Tensor | None
    bandwidth: int = -1
    rate_loss: Tensor | None = None


def reconstruction_of(decoded: Tensor, result: Quantized | None) -> Reconstruction:
    """Join decoded audio and the quantizer's result, which is None without a quantizer."""
    if result is None:
        zero = decoded.new_zeros(())
        return Reconstruction(decoded, zero, zero, None)
    losses = result.commitment_loss, result.codebook_loss
    rate_loss = result.rate_loss if isinstance(result, VariableQuantized) else None
    return Reconstruction(decoded, *losses, result.codes, rate_loss=rate_loss)


class TrainableCodec(nn.Module, ABC):
    """A codec's network in training.

    Attributes:
        model: the library's own module.
        sample_rate: Hz.
        n_channels: channels of the audio.
        n_bandwidths: bandwidths that it trains for.
        moves_codebooks: codebooks that follow moving averages do so. Set it to False while encoder
            and quantizer are frozen.
        variable: settings of the variable bitrate; None trains without one. In eval mode all levels
            are used.
    """

    model: Any
    sample_rate: int
    n_channels: int = 1
    n_bandwidths: int = 1
    moves_codebooks: bool = True
    variable: VariableSettings | None = None

    @abstractmethod
    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        """Encode and decode a waveform [B, C, N]. `quantize=False` skips the quantizer."""

    def fit_statistics(self, waveforms: Tensor) -> None:
        """Fit fixed statistics, if there are any, to audio [B, C, N] before the first step."""

    def init_quantizer(self, waveforms: Tensor) -> list[float]:
        """Initialise the quantizer from audio [B, C, N].

        Returns:
            share of the latents' energy that is left after each level.
        """
        raise ValueError(
            f"{type(self).__name__} cannot initialise its quantizer from data: set "
            "continuous_steps=0"
        )

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Parameters of encoder, quantizer and importance network."""
        parts = [self.model.encoder, self.model.quantizer]
        if self.variable is not None:
            parts.append(self.model.importance)
        return [weight for part in parts for weight in part.parameters()]

    @abstractmethod
    def as_codec(self) -> PretrainedCodec:
        """Return a `Codec` with the same weights, as they are saved."""

    def open_saved(self, source: str | Path) -> Any:
        """Load the library's module from a folder or a hub id."""
        return type(self.model).from_pretrained(source)

    def weights_of(self, saved: Any) -> dict[str, Tensor]:
        """Return the weights of a saved model, as they start this one.

        An importance network that the saved codec lacks keeps its first weights.
        """
        weights, ours = saved.state_dict(), self.model.state_dict()
        if not any(name.startswith("importance.") for name in weights):
            weights |= {k: w for k, w in ours.items() if k.startswith("importance.")}
        return weights

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Load the weights of a saved model.

        Raises:
            ValueError: their names or shapes differ.
        """
        ours = {name: w.shape for name, w in self.model.state_dict().items()}
        if ours != {name: w.shape for name, w in weights.items()}:
            raise ValueError("the shapes of the weights differ")
        self.model.load_state_dict(weights)

    def save(self, folder: Path, card: ModelCardFacts | None = None) -> None:
        """Save the codec in its library's format, with a card, in `trained_dtype`."""
        codec = self.as_codec()
        codec.save_pretrained(folder, card, dtype=codec.trained_dtype)


def _importance(variable: VariableSettings | None) -> dict[str, Any]:
    """Return the settings of a model for its importance network."""
    if variable is None:
        return {}
    return {"importance": {"kind": variable.network, "widths": list(variable.widths)}}


class TrainableStft(TrainableCodec):
    """`StftCodecModel` in training."""

    model: StftCodecModel

    def __init__(self, variable: VariableSettings | None = None, **config: Any) -> None:
        super().__init__()
        self.variable = variable
        self.model = StftCodecModel(**config, **_importance(variable))
        self.sample_rate = self.model.sample_rate

    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        variable = self.variable if self.training else None
        decoded, result = self.model(waveform, quantize=quantize, variable=variable)
        return reconstruction_of(decoded, result)

    def fit_statistics(self, waveforms: Tensor) -> None:
        self.model.spectrum.fit_levels(waveforms)

    @torch.no_grad()
    def init_quantizer(self, waveforms: Tensor) -> list[float]:
        latents = torch.cat(
            [self.model.encode_latents(w).mT.flatten(0, 1) for w in waveforms.split(16)]
        )
        return self.model.quantizer.init_from_data(latents).tolist()

    def weights_of(self, saved: StftCodecModel) -> dict[str, Tensor]:
        """Fit the weights of a codec that looks ahead to a causal one, see `fit_taps`."""
        return super().weights_of(saved) | fit_taps(self.model, saved)

    def as_codec(self) -> PretrainedCodec:
        return StftCodec.from_model(self.model)


class TrainableDac(TrainableCodec):
    """transformers' `DacModel` in training, with weight norm.

    Strides must be even, since odd ones shift time.
    """

    model: DacModel

    def __init__(self, variable: VariableSettings | None = None, **config: Any) -> None:
        super().__init__()
        settings = DacConfig(**config, **_importance(variable))
        odd = [s for s in settings.downsampling_ratios if s % 2]
        if odd:
            raise ValueError(
                f"strides {settings.downsampling_ratios}: {odd} are odd, and transposed "
                "convolutions of odd stride lose one sample per frame; use even strides"
            )
        self.variable = variable
        self.model = DacModel(settings) if variable is None else VariableDac(settings)
        reset_weights(self.model)
        apply_weight_norm(self.model)
        self.sample_rate = settings.sampling_rate

    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        n_samples, hop_length = waveform.shape[-1], int(self.model.config.hop_length)
        padded = fit_length(waveform, -(-n_samples // hop_length) * hop_length)
        out: Quantized | None = None
        if self.training and quantize and isinstance(self.model, VariableDac):
            how = cast(VariableSettings, self.variable)
            latents, importance = self.model.encode_with_importance(padded, detach=how.detach)
            out = quantize_variable(residual_levels(self.model.quantizer), latents, importance, how)
        else:
            latents = self.model.encoder(padded)
            out = quantize_through(self.model.quantizer, latents) if quantize else None
        decoded = self.model.decoder(latents if out is None else out.quantized)
        return reconstruction_of(fit_length(decoded, n_samples), out)

    def open_saved(self, source: str | Path) -> Any:
        plain = getattr(DacConfig.from_pretrained(source), "importance", None) is None
        return (DacModel if plain else VariableDac).from_pretrained(source)

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.model = fold_weight_norm(self.model)
        super().load_weights(weights)
        apply_weight_norm(self.model)

    def as_codec(self) -> PretrainedCodec:
        return DacCodec.from_model(fold_weight_norm(self.model), "dac")


class TrainableEncodec(TrainableCodec):
    """transformers' `EncodecModel` in training.

    Each batch is coded at one of `target_bandwidths`, drawn at random; in eval mode at the highest.
    Codebooks are moving averages, see `EmaQuantizer`, and have no codebook loss.

    A model with chunks, such as the stereo one at 48 kHz, trains on crops of at most one chunk.
    Longer audio, as in validation, is coded in overlapping chunks as by the saved codec. With
    `normalize`, each chunk is divided by its loudness, and its decoded audio multiplied again.
    """

    model: EncodecModel

    def __init__(self, **config: Any) -> None:
        super().__init__()
        settings = EncodecConfig(**config)
        self._spec = CodecSpec("encodec", **EncodecCodec.numbers(settings.to_dict()))
        self.model = EncodecModel(settings)
        layers: Any = self.model.quantizer.layers
        self.quantizer = EmaQuantizer(
            latent_dim=settings.hidden_size,
            n_codebooks=len(layers),
            codebook_size=settings.codebook_size,
        )
        self.sample_rate, self.n_channels = settings.sampling_rate, settings.audio_channels
        self.n_bandwidths = len(settings.target_bandwidths)

    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        chunks, scales = self._chunks(waveform)
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
        decoded = self._join(out.quantized, scales, waveform)
        codes = out.codes.unflatten(0, (len(waveform), -1)).transpose(1, 2).flatten(2)
        losses = out.commitment_loss, out.codebook_loss
        return Reconstruction(decoded, *losses, codes, bandwidth)

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


ARCHITECTURES: dict[str, type[TrainableCodec]] = {
    "stft": TrainableStft,
    "dac": TrainableDac,
    "encodec": TrainableEncodec,
}


def make_trainable(
    architecture: str, config: dict[str, Any], variable: VariableSettings | None = None
) -> TrainableCodec:
    """Create a network of an architecture in `ARCHITECTURES` with the settings in `config`.

    Args:
        architecture, config: see above.
        variable: settings of a variable bitrate; None for a codec without one.
    Raises:
        ValueError: unknown architecture, or settings that cannot be trained.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture {architecture!r}: known are {', '.join(ARCHITECTURES)}")
    if variable is not None:
        return ARCHITECTURES[architecture](variable=variable, **config)
    return ARCHITECTURES[architecture](**config)


def load_into(trainable: TrainableCodec, source: str | Path) -> None:
    """Load the weights of a saved codec.

    Args:
        source: name in the zoo, folder or hub id.
    Raises:
        ValueError: the shapes of the weights differ.
    """
    folder = find_in_zoo(str(source)) or source
    saved = trainable.open_saved(folder)
    try:
        trainable.load_weights(trainable.weights_of(saved))
    except ValueError as error:
        config = saved.config if isinstance(saved.config, dict) else saved.config.to_diff_dict()
        raise ValueError(
            f"the weights in {folder} have other shapes than the settings; use the settings of "
            f"its config.json ({json.dumps(config)[:300]})"
        ) from error
