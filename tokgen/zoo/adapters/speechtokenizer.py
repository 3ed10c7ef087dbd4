"""SpeechTokenizer (Zhang et al. 2023) as its PyPI package runs it. Needs extra `speechtokenizer`.

The published checkpoints are pickles, which can run code when they are opened, so tokgen does
not load them. To use one, make a folder with two files:

    model.safetensors  the published tensors, opened with torch's `weights_only=True` and saved
                       by `safetensors.torch.save_file({k: v.clone() for k, v in state.items()}, …)`
    config.json        the published file, with `"model_type": "speechtokenizer"` added

Same audio, same codes: the encoder's LSTM runs over the whole clip in both directions, so every
item is encoded alone, at its true length and in one piece. Memory grows with the length.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.spec import CodecSpec
from tokgen.extras import require
from tokgen.nn.pretrained import CONFIG, WEIGHTS, folder_name, hash_weights, resolve_folder
from tokgen.zoo.residual import ResidualCodec, let_gradients_through

SETTINGS = (
    *("sample_rate", "strides", "n_q", "codebook_size", "dimension", "semantic_dimension"),
    *("n_filters", "n_residual_layers", "residual_kernel_size", "dilation_base", "activation"),
    *("lstm_layers", "bidirectional"),
)


class SpeechTokenizerCodec(ResidualCodec):
    """`speechtokenizer.SpeechTokenizer` as a `Codec`."""

    model: Any
    whole_reason = "runs over an utterance in both directions"

    @staticmethod
    def numbers(config: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of `CodecSpec` for a config.json."""
        return {
            "sample_rate": config["sample_rate"],
            "hop_length": math.prod(config["strides"]),
            "n_codebooks": config["n_q"],
            "codebook_size": config["codebook_size"],
        }

    @classmethod
    def from_model(
        cls,
        model: Any,
        name: str = "speechtokenizer",
        *,
        revision: str | None = None,
        licence: str = "",
    ) -> SpeechTokenizerCodec:
        spec = CodecSpec(
            name,
            sample_rate=model.sample_rate,
            hop_length=int(model.downsample_rate),
            n_codebooks=model.n_q,
            codebook_size=model.quantizer.bins,
            weight_hash=hash_weights(model),
            library="speechtokenizer",
            revision=revision,
            licence=licence,
        )
        return cls(model.eval(), spec)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        revision: str | None = None,
        *,
        name: str | None = None,
        licence: str = "",
    ) -> SpeechTokenizerCodec:
        """Load config.json and model.safetensors from a folder or a hub id, in float32.

        Raises:
            FileNotFoundError: no such folder, no such hub model in reach, or no safetensors.
            ModuleNotFoundError: the extra is not installed.
            ValueError: another model's config, or weights that do not fit.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = resolve_folder(source, revision)
        config = read_config(folder)
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(
                f"{folder} has no {WEIGHTS}; tokgen opens no pickles (.pt, .ckpt): convert them "
                f"with safetensors.torch.save_file, as {__name__} describes"
            )
        try:
            model = make_model(config, device="meta")
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / CONFIG}: a setting is wrong: {error}") from error
        try:
            state = load_file(str(folder / WEIGHTS))
            state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
            model.load_state_dict(state, strict=True, assign=True)
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"{folder}: weights do not fit config.json: {error}") from error
        name = name or (folder_name(folder) if Path(source).is_dir() else str(source))
        return cls.from_model(model, name, revision=revision, licence=licence)

    @property
    def levels(self) -> Sequence[Any]:
        return self.model.quantizer.vq.layers

    def encode_latents(self, waveform: Tensor) -> Tensor:
        let_gradients_through(self.model.encoder)
        return self.model.encoder(waveform)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        let_gradients_through(self.model.decoder)
        return self.model.decoder(quantized)


def make_model(config: dict[str, Any], device: str = "cpu") -> Any:
    """Return the package's network for a config.json, with random weights.

    Raises:
        ModuleNotFoundError: the extra is not installed.
    """
    import_torchaudio()  # the package's training code imports it
    require("beartype", "speechtokenizer")  # imported too, but missing from its metadata
    package = require("speechtokenizer", "speechtokenizer")
    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it uses torch's old weight norm
        return package.SpeechTokenizer(config)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a folder.

    Raises:
        ValueError: it cannot be read, is another model's, or lacks a setting.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
    if found != "speechtokenizer":
        raise ValueError(f"{path} is of a {found!r}, not a 'speechtokenizer' model")
    missing = [key for key in SETTINGS if key not in config]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: copy them from the published file")
    return config
