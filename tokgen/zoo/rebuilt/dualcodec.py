"""DualCodec (Li et al. 2025): a semantic level of 16384 entries and smaller acoustic ones, 24 kHz.

It loads from a folder with one of the published checkpoints, the statistics of the features, and
w2v-BERT 2.0:

    dualcodec_12hz_16384_4096.safetensors    or dualcodec_25hz_16384_1024.safetensors
    w2vbert2_mean_var_stats_emilia.pt        both from amphion/dualcodec
    w2v-bert-2.0/                            facebook/w2v-bert-2.0: config.json, model.safetensors

Sizes are read from the weights. The package runs w2v-BERT in float16; here it runs in float32.
w2v-BERT needs a little more audio than the frames have, so audio is padded with zeros; the package
drops the last frame instead. w2v-BERT attends over all of an utterance, so every item is encoded
alone and in one piece.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tokgen.codec.batches import encode_each
from tokgen.codec.spec import Encoded, Side
from tokgen.codec.windows import fit_length
from tokgen.nn.files import brief, read_header, read_json
from tokgen.nn.hub import CONFIG
from tokgen.nn.torch_files import open_checkpoint, tensors_of
from tokgen.zoo.loading import refuse_bandwidth
from tokgen.zoo.networks.dualcodec import SEMANTIC_LAYERS, DualCodecModel
from tokgen.zoo.rebuilt.loading import RebuiltCodec, fold_weight_norm

__all__ = ["CHECKPOINTS", "SEMANTIC_FOLDER", "STATISTICS", "DualCodec"]

CHECKPOINTS = "dualcodec_*.safetensors"
STATISTICS = "w2vbert2_mean_var_stats_*.pt"
SEMANTIC_FOLDER = "w2v-bert-2.0"
_SAMPLE_RATE = 24000
_UNIT = ("snake1", "conv1", "snake2", "conv2")  # of a residual unit in transformers


class DualCodec(RebuiltCodec):
    """DualCodec as a `Codec`. Its levels differ in size, see `CodecSpec.sizes`."""

    model: DualCodecModel
    network = DualCodecModel
    decoder_parts = ("dac.decoder.",)
    whole_reason = "attends over all of an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        levels = config["n_codebooks"]
        sizes = [config["semantic_size"], *[config["codebook_size"]] * (levels - 1)]
        return {
            "sample_rate": config["sample_rate"],
            "hop_length": math.prod(config["strides"]),
            "n_codebooks": levels,
            "codebook_size": max(sizes),
            "level_sizes": tuple(sizes) if len(set(sizes)) > 1 else (),
        }

    @classmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        path = _one(folder, CHECKPOINTS)
        semantic = folder / SEMANTIC_FOLDER
        if not (semantic / CONFIG).is_file():
            raise ValueError(
                f"{folder} lacks {SEMANTIC_FOLDER}, with which DualCodec encodes: hf download "
                f"facebook/w2v-bert-2.0 --local-dir {semantic}"
            )
        settings = read_json(semantic / CONFIG)
        settings = {k: v for k, v in settings.items() if k not in ("architectures", "torch_dtype")}
        layers = settings.get("num_hidden_layers", SEMANTIC_LAYERS)
        settings["num_hidden_layers"] = min(layers, SEMANTIC_LAYERS)
        return _settings(_plain(load_file(str(path))), path) | {"semantic_model": settings}

    @classmethod
    def read_weights(cls, folder: Path) -> tuple[dict[str, Tensor], Path, str]:
        path, statistics = _one(folder, CHECKPOINTS), _one(folder, STATISTICS)
        state = _plain(load_file(str(path)))
        found = tensors_of(open_checkpoint(statistics), str(statistics))
        if {"mean", "var"} - set(found):
            raise ValueError(f"{statistics} has no mean and var: not DualCodec's statistics")
        state["semantic_mean"] = found["mean"].float()
        state["semantic_std"] = found["var"].float().sqrt()
        header = read_header(folder / SEMANTIC_FOLDER)
        for name, tensor in load_file(str(header.path)).items():
            layer = re.match(r"encoder\.layers\.(\d+)\.", name)
            if layer is None or int(layer[1]) < SEMANTIC_LAYERS:
                state[f"semantic_model.{name}"] = tensor
        return state, path, SEMANTIC_FOLDER

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Encoded:
            n_frames = self.spec.n_frames(audio.shape[-1])
            padded = fit_length(audio, self.model.padded_length(n_frames))
            return Encoded(self.model.encode(padded, self.model.features(padded)))

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(codes)

    def code_vectors(self) -> Tensor | None:
        """Return the codebooks, with zeros past the size of a level."""
        acoustic: Any = self.model.dac.quantizer.quantizers
        levels = [self.model.semantic_vq, *acoustic]
        rows = [level.codebook.weight for level in levels]
        if len({row.shape[1] for row in rows}) > 1:
            return None
        most = max(len(row) for row in rows)
        return torch.stack([F.pad(row, (0, 0, 0, most - len(row))) for row in rows])


def _one(folder: Path, pattern: str) -> Path:
    """Return the file of a folder whose name matches a pattern."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ValueError(f"{folder} has {len(found)} files {pattern}: DualCodec needs one")
    return found[0]


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without weight norm, with the names of tokgen's network."""
    state = fold_weight_norm(state)
    ends = {}  # the last two layers of encoder and decoder
    for part in ("encoder.block", "decoder.model"):
        found = re.compile(rf"dac\.{re.escape(part)}\.(\d+)\.")
        ends[part] = max((int(m[1]) for name in state if (m := found.match(name))), default=0)
    return {_renamed(name, ends): tensor for name, tensor in state.items()}


def _renamed(name: str, ends: Mapping[str, int]) -> str:
    name = name.replace("semantic_vq.quantizers.0.", "semantic_vq.")
    found = re.match(r"dac\.(encoder\.block|decoder\.model)\.(\d+)\.(.*)", name)
    if found is None:
        return name
    part, place, rest = found[1], int(found[2]), found[3]
    into, last = part.split(".")[0], ends[part]
    if place in (0, last - 1, last):  # the last layer of the decoder is an activation, unnamed
        layer = {0: "conv1", last - 1: "snake1", last: "conv2"}[place]
        return f"dac.{into}.{layer}.{rest}"
    inner = re.match(r"block\.(\d+)\.(.*)", rest)
    if inner is None:
        return name
    at, rest = int(inner[1]), inner[2]
    units = range(3) if into == "encoder" else range(2, 5)
    if at in units and (unit := re.match(r"block\.(\d+)\.(.*)", rest)):
        layer = f"res_unit{units.index(at) + 1}.{_UNIT[int(unit[1])]}"
        rest = unit[2]
    else:
        layer = {("encoder", 3): "snake1", ("encoder", 4): "conv1", ("decoder", 0): "snake1"}.get(
            (into, at), "conv_t1"
        )
    return f"dac.{into}.block.{place - 1}.{layer}.{rest}"


def _settings(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return the settings of a network with these weights, except those of w2v-BERT."""

    def count(pattern: str) -> int:
        return len({m[0] for name in state if (m := re.match(pattern, name))})

    try:
        n_strides = count(r"dac\.encoder\.block\.\d+\.")
        strides = [
            state[f"dac.encoder.block.{i}.conv1.weight"].shape[-1] // 2 for i in range(n_strides)
        ]
        sizes = {
            name: tuple(state[f"{name}.codebook.weight"].shape)
            for name in ("semantic_vq", "dac.quantizer.quantizers.0")
        }
        return {
            "model_type": DualCodecModel.model_type,
            "sample_rate": _SAMPLE_RATE,
            "strides": strides,
            "encoder_channels": len(state["dac.encoder.conv1.bias"]),
            "decoder_channels": len(state["dac.decoder.conv1.bias"]),
            "n_codebooks": 1 + count(r"dac\.quantizer\.quantizers\.\d+\."),
            "codebook_size": sizes["dac.quantizer.quantizers.0"][0],
            "codebook_dim": sizes["dac.quantizer.quantizers.0"][1],
            "semantic_size": sizes["semantic_vq"][0],
            "semantic_dim": sizes["semantic_vq"][1],
            "block_width": len(state["convnext_encoder.0.bias"]),
            "block_hidden": len(state["convnext_encoder.1.pwconv1.bias"]),
            "n_blocks": count(r"convnext_encoder\.\d+\.pwconv1\."),
            "causal": True,
        }
    except (IndexError, KeyError) as error:
        raise ValueError(f"{path} does not have DualCodec's weights: {brief(error)}") from error
