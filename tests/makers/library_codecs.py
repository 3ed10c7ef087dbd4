"""Tiny codecs with random weights: SNAC, WavTokenizer, Higgs Audio v2, VoiceCraft's EnCodec."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from tokgen.codec.base import Codec
from tokgen.zoo.adapters.audiocraft import AudiocraftCodec
from tokgen.zoo.adapters.higgs import HiggsCodec
from tokgen.zoo.adapters.snac import SnacCodec
from tokgen.zoo.adapters.snac import make_model as make_snac_model
from tokgen.zoo.adapters.wavtokenizer import WavTokenizerCodec
from tokgen.zoo.transformers_loading import from_transformers

__all__ = [
    "LIBRARY_CLOSED",
    "LIBRARY_MAKERS",
    "SNAC",
    "VOICECRAFT",
    "make_higgs",
    "make_snac",
    "make_voicecraft",
    "make_wavtokenizer",
    "voicecraft_checkpoint",
]

VOICECRAFT = "encodec_4cb2048_giga.th"
SNAC: dict[str, Any] = {
    "sampling_rate": 8000,
    "encoder_dim": 8,
    "encoder_rates": [2, 4, 5],
    "decoder_dim": 64,
    "decoder_rates": [5, 4, 2],
    "attn_window_size": 32,
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}


def make_snac(**settings: Any) -> SnacCodec:
    """3 levels of 32 entries at 50, 100 and 200 Hz, as 7 levels at 50 Hz; 8 kHz, hop 160."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = make_snac_model({**SNAC, **settings})
        for name, weight in model.encoder.named_parameters():
            if name.endswith("bias"):  # biases would outweigh the input
                weight.data.zero_()
            elif name.endswith("weight.original0"):
                weight.data *= 2
    return SnacCodec.from_model(model)


def make_wavtokenizer() -> WavTokenizerCodec:
    """1 level of 32 entries; 8 kHz, hop 40."""
    model_class = from_transformers("WavTokenizerModel")
    config = model_class.config_class(
        sampling_rate=8000,
        upsampling_ratios=[5, 4, 2],
        num_filters=4,
        hidden_size=8,
        codebook_dim=8,
        num_lstm_layers=1,
        codebook_size=32,
        decoder_hidden_size=32,
        decoder_intermediate_size=32,
        decoder_num_layers=1,
        decoder_attention_num_groups=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = model_class(config)
        for name, weight in model.encoder_model.encoder.named_parameters():
            if name.endswith("weight.original0"):
                weight.data *= 2
            elif name.endswith("bias"):
                weight.data.zero_()
        model.encoder_model.quantizer.codebook.embed.normal_(std=0.1)  # zeros by default
    return WavTokenizerCodec.from_model(model)


def make_higgs(bandwidth: float | None = None) -> HiggsCodec:
    """2 or 4 levels of 32 entries, 0.065 kbps each; 12 kHz, hop 960, semantic model at 8 kHz."""
    model_class = from_transformers("HiggsAudioV2TokenizerModel")
    strides = [8, 5, 4, 3, 2]
    config = model_class.config_class(
        sample_rate=12000,
        semantic_sample_rate=8000,
        target_bandwidths=[0.13, 0.26],
        codebook_size=32,
        codebook_dim=6,
        acoustic_model_config={
            "model_type": "dac",
            "encoder_hidden_size": 2,
            "downsampling_ratios": strides,
            "upsampling_ratios": strides,
            "decoder_hidden_size": 64,
            "hidden_size": 8,
        },
        semantic_model_config={
            "model_type": "hubert",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_dim": [4] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = model_class(config)
        for level in model.quantizer.quantizers:
            level.codebook.embed.normal_(std=0.5)  # zeros by default
            level.project_in.weight.data.normal_(std=0.5)
            level.project_out.weight.data.normal_(std=0.5)
        model.acoustic_decoder.conv2.weight.data.mul_(50)
    return HiggsCodec.from_model(model, bandwidth=bandwidth)


def voicecraft_checkpoint() -> dict[str, Tensor]:
    """Return weights with the names of audiocraft: 4 levels of 32 entries; 16 kHz, hop 40."""
    config = EncodecConfig(
        sampling_rate=16000,
        upsampling_ratios=[5, 4, 2],
        num_filters=4,
        hidden_size=8,
        num_lstm_layers=2,
        codebook_size=32,
        target_bandwidths=[8.0],
        use_causal_conv=False,
        pad_mode="constant",
        use_conv_shortcut=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = EncodecModel(config)
        for name, weight in model.encoder.named_parameters():
            if name.endswith("weight.original0"):
                weight.data *= 2
            elif name.endswith("bias"):
                weight.data.zero_()
        for level in model.quantizer.layers:  # zeros by default
            level.codebook.embed.normal_(std=0.1)
    transposed = {f"decoder.layers.{i}" for i, m in enumerate(model.decoder.layers) if _turned(m)}
    state = {}
    for name, tensor in model.state_dict().items():
        layer = ".".join(name.split(".")[:3])
        conv = ".convtr.convtr." if layer in transposed else ".conv.conv."
        name = name.replace(".conv.", conv).replace("quantizer.layers", "quantizer.vq.layers")
        name = name.replace(".layers.", ".model.", not name.startswith("quantizer"))
        name = name.replace(".codebook.", "._codebook.")
        for spelling, old in (("original0", "weight_g"), ("original1", "weight_v")):
            name = name.replace(f"parametrizations.weight.{spelling}", old)
        state[name] = tensor
    return state


def _turned(layer: torch.nn.Module) -> bool:
    return isinstance(getattr(layer, "conv", None), torch.nn.ConvTranspose1d)


def make_voicecraft() -> Codec:
    """A codec from `voicecraft_checkpoint`."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"best_state": {"model": voicecraft_checkpoint()}}, Path(folder) / VOICECRAFT)
        return AudiocraftCodec.from_pretrained(folder, name="voicecraft")


LIBRARY_MAKERS: dict[str, Callable[[], Codec]] = {
    "snac": make_snac,
    "wavtokenizer": make_wavtokenizer,
    "higgs": make_higgs,
    "voicecraft": make_voicecraft,
}
LIBRARY_CLOSED = {"snac"}
