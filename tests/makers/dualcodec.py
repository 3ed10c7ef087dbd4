"""A folder as DualCodec is published, with small random weights, and the codec from it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from makers.rebuilt import codec_in, loud, weight_norm
from tokgen.codec.base import Codec
from tokgen.zoo.networks.dualcodec import DualCodecModel
from tokgen.zoo.transformers_loading import from_transformers

__all__ = ["DUALCODEC", "make_dualcodec", "published_names", "write_dualcodec"]

BERT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 18,  # one more than are used
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_depthwise_kernel_size": 3,
    "feature_projection_input_dim": 160,
    "initializer_range": 0.2,
    "mask_time_prob": 0.0,
}
DUALCODEC: dict[str, Any] = {
    "sample_rate": 24000,
    "strides": [4, 5, 6, 8],
    "encoder_channels": 2,
    "decoder_channels": 32,
    "n_codebooks": 4,
    "codebook_size": 32,
    "codebook_dim": 4,
    "semantic_size": 60,
    "semantic_dim": 4,
    "block_width": 16,
    "block_hidden": 24,
    "n_blocks": 2,
    "causal": True,
    "semantic_model": BERT | {"num_hidden_layers": 17},
}
_UNIT = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}


def published_names(state: dict[str, Tensor], n_strides: int) -> dict[str, Tensor]:
    """Return the weights of DualCodec's own network with the published names."""
    out = {}
    for name, tensor in state.items():
        name = name.replace("semantic_vq.", "semantic_vq.quantizers.0.")
        for part, own, first in (("encoder", "block", 0), ("decoder", "model", 2)):
            places = {"conv1": 0, "snake1": n_strides + 1, "conv2": n_strides + 2}
            found = re.match(rf"dac\.{part}\.(\w+)\.(\w+)$", name)
            if found and found[1] in places:
                name = f"dac.{part}.{own}.{places[found[1]]}.{found[2]}"
            found = re.match(rf"dac\.{part}\.block\.(\d+)\.(\w+)\.(.*)$", name)
            if found is None or (part == "encoder" and ".block.0.block" in name):
                continue
            place, layer, rest = int(found[1]) + 1, found[2], found[3]
            if layer.startswith("res_unit"):
                kind, rest = rest.split(".", 1)
                rest = f"{int(layer[-1]) - 1 + first}.block.{_UNIT[kind]}.{rest}"
            else:
                at = {"encoder": {"snake1": 3, "conv1": 4}, "decoder": {"snake1": 0, "conv_t1": 1}}
                rest = f"{at[part][layer]}.{rest}"
            name = f"dac.{part}.{own}.{place}.block.{rest}"
        out[name] = tensor
    return out


def write_dualcodec(folder: Path) -> None:
    """Write the files of a small DualCodec."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        bert_class = from_transformers("Wav2Vec2BertModel")
        bert = bert_class(bert_class.config_class(**BERT))
        model = DualCodecModel(**DUALCODEC)
    loud(model.dac)
    loud(model.dac.decoder, gain=0.3)
    loud(model.convnext_encoder)
    loud(model.convnext_decoder)
    loud(model.semantic_vq)
    kept = ("dac.", "semantic_vq.", "convnext_")
    state = {k: v for k, v in model.state_dict().items() if k.startswith(kept)}
    normed = weight_norm(state, without=("pwconv", "dwconv", "codebook"))
    named = published_names(normed, len(DUALCODEC["strides"]))
    save_file({k: v.contiguous() for k, v in named.items()}, folder / "dualcodec_x.safetensors")
    statistics = {"mean": torch.full((32,), 0.1), "var": torch.full((32,), 0.5)}
    torch.save(statistics, folder / "w2vbert2_mean_var_stats_emilia.pt")
    inside = folder / "w2v-bert-2.0"
    bert.save_pretrained(inside)
    config = json.loads((inside / "config.json").read_text())
    assert config["num_hidden_layers"] == 18


def make_dualcodec() -> Codec:
    """1 level of 60 entries and 3 of 32; 24 kHz, hop 960."""
    return codec_in(write_dualcodec, "dualcodec")
