"""One interface to train codecs, and the STFT codec and transformers' DacModel behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import DacConfig, DacModel

from tokgen.codec.spec import Quantized
from tokgen.codec.windows import fit_length
from tokgen.nn.cards import ModelCardFacts
from tokgen.quantizers.settings import VariableSettings
from tokgen.quantizers.variable import VariableQuantized, quantize_variable
from tokgen.zoo.adapters.dac import DacCodec, quantize_through
from tokgen.zoo.adapters.dac_training import apply_weight_norm, fold_weight_norm, reset_weights
from tokgen.zoo.adapters.dac_variable import VariableDac, residual_levels
from tokgen.zoo.loading import PretrainedCodec
from tokgen.zoo.networks.causal import fit_taps
from tokgen.zoo.networks.stft import StftCodecModel
from tokgen.zoo.stft import StftCodec

__all__ = [
    "Reconstruction",
    "TrainableCodec",
    "TrainableDac",
    "TrainableStft",
    "importance_config",
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
        codec_class: the class of the trained codec.
        model: the library's own module.
        sample_rate: Hz.
        n_channels: channels of the audio.
        n_bandwidths: bandwidths that it trains for.
        moves_codebooks: codebooks that follow moving averages do so. Set it to False while encoder
            and quantizer are frozen.
        variable: settings of the variable bitrate; None trains without one. In eval mode all levels
            are used.
    """

    codec_class: ClassVar[Any]
    model: Any
    sample_rate: int
    n_channels: int = 1
    n_bandwidths: int = 1
    moves_codebooks: bool = True
    variable: VariableSettings | None = None

    @abstractmethod
    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        """Encode and decode a waveform [B, C, N]. `quantize=False` skips the quantizer."""

    @property
    def frozen(self) -> bool:
        """True if all but the importance network keeps its weights."""
        return self.variable is not None and self.variable.importance_only

    def freeze(self) -> None:
        """Let only the importance network train, if the others are frozen."""
        if self.frozen:
            self.requires_grad_(False)
            self.model.importance.requires_grad_(True)

    def check_new(self) -> None:
        """Raise ValueError if a network with these settings cannot be trained from new weights."""

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

    def open_saved(self, folder: Path) -> Any:
        """Load the library's module from a folder, strictly."""
        return self.codec_class.load_model(folder)

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


def importance_config(variable: VariableSettings | None) -> dict[str, Any]:
    """Return the settings of a model for its importance network."""
    if variable is None:
        return {}
    return {"importance": {"kind": variable.network, "widths": list(variable.widths)}}


class TrainableStft(TrainableCodec):
    """`StftCodecModel` in training."""

    codec_class = StftCodec
    model: StftCodecModel

    def __init__(self, variable: VariableSettings | None = None, **config: Any) -> None:
        super().__init__()
        self.variable = variable
        self.model = StftCodecModel(**config, **importance_config(variable))
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

    Strides must be even, since odd ones shift time. A published codec with odd strides was trained
    with the shift, and can be trained further.
    """

    codec_class = DacCodec
    model: DacModel

    def __init__(self, variable: VariableSettings | None = None, **config: Any) -> None:
        super().__init__()
        settings = DacConfig(**config, **importance_config(variable))
        self.variable = variable
        self.model = DacModel(settings) if variable is None else VariableDac(settings)
        reset_weights(self.model)
        self._split()
        self.sample_rate = settings.sampling_rate

    def check_new(self) -> None:
        strides = self.model.config.downsampling_ratios
        odd = [s for s in strides if s % 2]
        if odd:
            raise ValueError(
                f"strides {strides}: {odd} are odd, and transposed convolutions of odd stride "
                "shift time by half a sample and lose one; use even strides"
            )

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

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.model = fold_weight_norm(self.model)
        super().load_weights(weights)
        self._split()
        self.freeze()  # folding made other parameters

    def _split(self) -> None:
        """Apply weight norm, unless its rounding would change frozen weights."""
        if not self.frozen:
            apply_weight_norm(self.model)

    def as_codec(self) -> PretrainedCodec:
        return DacCodec.from_model(fold_weight_norm(self.model), "dac")
