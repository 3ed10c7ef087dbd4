"""SpeechTokenizer (Zhang et al. 2023) as its PyPI package runs it. Needs extra `speechtokenizer`.

The published checkpoints are pickles, which can run code when they are opened, so tokgen does
not load them. To use one, make a folder with two files:

    model.safetensors  the published tensors, opened with torch's `weights_only=True` and saved
                       by `safetensors.torch.save_file({k: v.clone() for k, v in state.items()}, …)`
    config.json        the published file, with `"model_type": "speechtokenizer"` added

The encoder's LSTM runs in both directions, so every item is encoded alone and in one piece.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.checks import check_layout
from tokgen.codec.stages import ResidualCodec
from tokgen.extras import require
from tokgen.nn.checks import building, check_count, check_fit, check_settings
from tokgen.nn.files import read_header, read_json, shorten
from tokgen.nn.hub import CONFIG
from tokgen.nn.pretrained import load_weights
from tokgen.quantizers.beam import SearchedLevels
from tokgen.zoo.loading import PretrainedCodec, let_gradients_through, refuse_bandwidth

__all__ = ["SETTINGS", "SpeechTokenizerCodec", "make_model"]

SETTINGS: dict[str, Any] = {
    "sample_rate": int,
    "strides": list[int],
    "n_q": int,
    "codebook_size": int,
    "dimension": int,
    "semantic_dimension": int,
    "n_filters": int,
    "n_residual_layers": int,
    "residual_kernel_size": int,
    "dilation_base": int,
    "activation": str,
    "lstm_layers": int,
    "bidirectional": bool,
}  # type by name


class SpeechTokenizerCodec(SearchedLevels, PretrainedCodec, ResidualCodec):
    """`speechtokenizer.SpeechTokenizer` as a `Codec`."""

    model: Any
    library = "speechtokenizer"
    savable = False
    decoder_parts = ("decoder.",)
    whole_reason = "runs over an utterance in both directions"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        return {
            "sample_rate": config["sample_rate"],
            "hop_length": math.prod(config["strides"]),
            "n_codebooks": config["n_q"],
            "codebook_size": config["codebook_size"],
        }

    @classmethod
    def config_of(cls, model: Any) -> dict[str, Any]:
        return {
            "model_type": "speechtokenizer",
            "sample_rate": model.sample_rate,
            "strides": [int(model.downsample_rate)],
            "n_q": model.n_q,
            "codebook_size": model.quantizer.bins,
        }

    @classmethod
    def load_model(cls, folder: Path) -> Any:
        path = folder / CONFIG
        config = read_json(path)
        if (found := config.get("model_type")) != "speechtokenizer":
            raise ValueError(f"{path} is of a {shorten(found)}, not a 'speechtokenizer' model")
        missing = [key for key in SETTINGS if key not in config]
        if missing:
            raise ValueError(
                f"{path} lacks {', '.join(missing)}: copy them from the published file"
            )
        header = read_header(folder)
        check_settings({key: config[key] for key in SETTINGS}, SETTINGS, header)
        check_count("n_q", config["n_q"], header)
        with building(header, config, meta=True):
            model = make_model(config)
        check_fit(model.state_dict(), header)
        load_weights(model, header, assign=True)
        return model

    def save_model(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Raise ValueError: the package's networks do not keep their settings."""
        raise ValueError(f"{self.spec.name} cannot be saved: copy or upload the folder it is from")

    @property
    def levels(self) -> Sequence[Any]:
        return self.model.quantizer.vq.layers

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        let_gradients_through(self.model.encoder)
        return self.model.encoder(waveform)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        let_gradients_through(self.model.decoder)
        return self.model.decoder(quantized)


def make_model(config: dict[str, Any]) -> Any:
    """Return the package's network for a config.json, with random weights."""
    import_torchaudio()  # the package's training code imports it
    require("beartype", "speechtokenizer")  # imported too, but missing from its metadata
    package = require("speechtokenizer", "speechtokenizer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it uses torch's old weight norm
        return package.SpeechTokenizer(config)
