"""BigCodec (Xin et al. 2024): one level of 8192 entries at 80 Hz, 16 kHz.

It loads from a folder with `bigcodec.pt`, the file of its authors, or from a folder or hub id that
the PyPI package bigcodec loads, with config.json and model.safetensors. Sizes are read from the
weights.

Audio is padded with zeros to whole frames. The authors' script adds a whole frame of zeros if
nothing is missing; this codec does not. The LSTMs run over the whole utterance, so every item is
encoded alone and in one piece.

The quantizer is DAC's: a level projects its residual to a few dimensions and chooses the row at the
smallest angle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokgen.codec.checks import check_codes_layout, check_layout
from tokgen.codec.spec import Quantized
from tokgen.codec.stages import ResidualCodec, in_float32
from tokgen.codec.windows import fit_length
from tokgen.nn.files import brief, read_header, read_json
from tokgen.nn.hub import CONFIG
from tokgen.nn.torch_files import open_checkpoint, tensors_of
from tokgen.quantizers.beam import Level, SearchedLevels, factorized_level
from tokgen.zoo.loading import let_gradients_through, refuse_bandwidth
from tokgen.zoo.networks.bigcodec import BigCodecModel
from tokgen.zoo.rebuilt.loading import RebuiltCodec, fold_weight_norm

__all__ = ["CHECKPOINT", "BigCodec"]

CHECKPOINT = "bigcodec.pt"
_PARTS = {"CodecEnc": "encoder.", "generator": "decoder."}  # of the checkpoint
_DILATIONS = [1, 3, 9]  # of the authors' network
_SAMPLE_RATE = 16000
_FILTER = ".filter"  # weights of fixed low-pass filters


class BigCodec(SearchedLevels, RebuiltCodec, ResidualCodec):
    """BigCodec as a `Codec`."""

    model: BigCodecModel
    network = BigCodecModel
    decoder_parts = ("decoder.model.",)
    whole_reason = "has an LSTM that runs over an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        names = ("sample_rate", "n_codebooks", "codebook_size")
        return {name: config[name] for name in names} | {"hop_length": math.prod(config["strides"])}

    @classmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        path = folder / CHECKPOINT
        if path.is_file():
            return _settings(_open(path), _DILATIONS, path)
        header = read_header(folder)
        shapes = {name: shape for name, (_, shape) in header.tensors.items()}
        config = read_json(folder / CONFIG)
        dilations = config.get("dilations", _DILATIONS)
        return _settings(_folded(shapes), dilations, header.path)

    @classmethod
    def read_weights(cls, folder: Path) -> tuple[dict[str, Tensor], Path, str]:
        path = folder / CHECKPOINT
        if path.is_file():
            return _open(path), path, "BigCodec"
        header = read_header(folder)
        state = tensors_of(load_file(str(header.path)), str(header.path))
        return _plain(state), header.path, CONFIG

    @property
    def levels(self) -> Sequence[Any]:
        return self.model.decoder.quantizer.layers  # type: ignore[return-value]

    def quantizer_modules(self) -> Sequence[nn.Module]:
        return [self.model.decoder.quantizer]

    def search_levels(self) -> list[Level]:
        return [factorized_level(x._codebook, x.in_proj, x.out_proj) for x in self.levels]

    def code_vectors(self) -> Tensor:
        return torch.stack([level._codebook.weight for level in self.levels])

    @in_float32
    def project(self, latents: Tensor) -> Tensor:
        pairs = zip(self.levels, self._descend(latents), strict=True)
        return torch.cat([level.project(residual) for level, (residual, _) in pairs], dim=1)

    @in_float32
    def codebook_rows(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        pairs = zip(self.levels, codes.unbind(1), strict=False)
        return torch.cat([level.rows(indices) for level, indices in pairs], dim=1)

    @in_float32
    def quantize_through(self, latents: Tensor) -> Quantized:
        """Quantize with the gradient straight through the rows, as in BigCodec's training."""
        codes = self.quantize(latents)
        residual, total = latents, torch.zeros_like(latents)
        projected, commitment = [], latents.new_zeros(())
        for level, indices in zip(self.levels, codes.unbind(1), strict=False):
            inside, quantized = level.through(residual, indices)
            residual, total = residual - quantized, total + quantized
            commitment = commitment + (inside - level.rows(indices).detach()).square().mean()
            projected.append(inside)
        vectors = torch.cat(projected, dim=1)
        return Quantized(total, codes, vectors, commitment, latents.new_zeros(()))

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        let_gradients_through(self.model)
        whole = self.spec.n_frames(waveform.shape[-1]) * self.spec.hop_length
        return self.model.encode_latents(fit_length(waveform, whole))

    def decode_latents(self, quantized: Tensor) -> Tensor:
        let_gradients_through(self.model)
        return self.model.decode_latents(quantized)


def _open(path: Path) -> dict[str, Tensor]:
    """Return the weights of the authors' checkpoint."""
    parts = open_checkpoint(path)
    if not isinstance(parts, dict) or set(_PARTS) - set(parts):
        raise ValueError(f"{path} has no {' and '.join(_PARTS)}: it is not BigCodec's checkpoint")
    state: dict[str, Tensor] = {}
    for part, prefix in _PARTS.items():
        tensors = tensors_of(parts[part], f"{path}: {part}")
        state |= {prefix + name: tensor for name, tensor in tensors.items()}
    return _plain(state)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without weight norm and without the fixed filters."""
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(_FILTER)}
    return fold_weight_norm(kept)


def _folded(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return shapes under the names of plain weights."""
    spellings = (".parametrizations.weight.original1", ".weight_v")
    out = dict(shapes)
    for name, shape in shapes.items():
        for direction in spellings:
            if name.endswith(direction):
                out[name[: -len(direction)] + ".weight"] = shape
    return out


def _settings(state: Mapping[str, Any], dilations: Any, path: Path) -> dict[str, Any]:
    """Return the settings of a network with these weights or shapes."""

    def size(name: str, axis: int = 0) -> int:
        found = state[name]
        return tuple(found.shape if isinstance(found, Tensor) else found)[axis]

    def layers(prefix: str) -> int:
        """Return the number of LSTM layers of a part."""
        names = [name for name in state if name.startswith(prefix) and ".lstm." in name]
        return len({name.split("weight_ih_l")[1][0] for name in names if "weight_ih_l" in name})

    try:
        strides = []
        for i in count(1):
            down = f"encoder.block.{i}.block.{len(dilations) + 1}.weight"
            if down not in state:
                break
            strides.append(size(down, -1) // 2)
        levels = [name for name in state if name.endswith("._codebook.weight")]
        reverse = any(name.endswith("_reverse") and "encoder" in name for name in state)
        return {
            "model_type": BigCodecModel.model_type,
            "sample_rate": _SAMPLE_RATE,
            "strides": strides,
            "encoder_channels": size("encoder.block.0.bias"),
            "decoder_channels": size("decoder.model.0.bias"),
            "dilations": dilations,
            "encoder_lstm_layers": layers("encoder."),
            "decoder_lstm_layers": layers("decoder."),
            "bidirectional": reverse,
            "latent_dim": size("decoder.model.0.weight", 1),
            "n_codebooks": len(levels),
            "codebook_size": size(levels[0]),
            "codebook_dim": size(levels[0], 1),
        }
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not have BigCodec's weights: {brief(error)}") from error
