"""Tiny codecs with random weights, one of every kind.

`MAKERS` lists the causal codec and those of other libraries. tests/codec/test_base.py checks the
contract of `Codec` for each of them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

from makers.audio import RATE, codec_tone
from makers.dualcodec import make_dualcodec
from makers.library_codecs import LIBRARY_CLOSED, LIBRARY_MAKERS
from makers.rebuilt import REBUILT_CLOSED, REBUILT_MAKERS
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec, Encoded, Quantized, Side
from tokgen.codec.stages import StagedCodec
from tokgen.codec.windows import fit_length
from tokgen.nn.cards import ModelCardFacts
from tokgen.nn.hashes import hash_weights, hashes_of
from tokgen.quantizers.residual import ResidualQuantizer
from tokgen.zoo.adapters.dac import DacCodec
from tokgen.zoo.adapters.dac_variable import VariableDac
from tokgen.zoo.adapters.encodec import EncodecCodec
from tokgen.zoo.adapters.encodec_variable import VariableEncodec
from tokgen.zoo.adapters.mimi import MimiCodec
from tokgen.zoo.adapters.speechtokenizer import SpeechTokenizerCodec, make_model
from tokgen.zoo.adapters.xcodec import XcodecCodec
from tokgen.zoo.adapters.xcodec2 import NeuCodecCodec, Xcodec2Codec
from tokgen.zoo.networks.stft import StftCodecModel
from tokgen.zoo.stft import StftCodec
from tokgen.zoo.transformers_loading import from_transformers


def make_stft_codec(seed: int = 0, name: str = "tiny", **settings: int) -> StftCodec:
    """4 levels of 60 entries; 16 kHz, hop 320; about 30k parameters."""
    small = {
        "sample_rate": RATE,
        "hop_length": 320,
        "n_fft": 640,
        "width": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "expansion": 2,
        "latent_dim": 16,
        "n_codebooks": 4,
        "codebook_size": 60,
        "codebook_dim": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = StftCodecModel(**{**small, **settings})
    return StftCodec.from_model(model, name, licence="CC0-1.0")


def with_noise(codec: StftCodec, part: str, name: str = "noisy") -> StftCodec:
    """Return a codec with other weights in its "encoder", "quantizer" or "decoder"."""
    model = copy.deepcopy(codec.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.get_submodule(part).parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return StftCodec.from_model(model, name, licence=codec.spec.licence)


def save_codec(codec: StftCodec, folder: Path, summary: str = "for tests") -> Path:
    """Save a codec as a folder of a zoo."""
    codec.model.save_pretrained(folder)
    codec.write_card(folder, ModelCardFacts(licence=codec.spec.licence, summary=summary))
    return folder


def save_old_codec(codec: StftCodec, folder: Path) -> Path:
    """Save a codec as tokgen 0.1 did: another `model_type`, and codec.toml in place of a card."""
    save_codec(codec, folder)
    (folder / "README.md").unlink()
    config = {"model_type": "StftCodecModel", **codec.model.config}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "codec.toml").write_text(
        'library = "tokgen"\nclass = "StftCodecModel"\n'
        f'licence = "{codec.spec.licence}"\nsummary = "as before"\n'
    )
    return folder


DAC_STRIDES = {"dac-even": [2, 4, 8], "dac-odd": [2, 5, 4]}


def make_dac(name: str) -> DacCodec:
    """3 levels of 32 entries; 8 kHz, hop 64 or 40."""
    config = DacConfig(
        encoder_hidden_size=8,
        downsampling_ratios=DAC_STRIDES[name],
        decoder_hidden_size=32,
        n_codebooks=3,
        codebook_size=32,
        codebook_dim=4,
        sampling_rate=8000,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return DacCodec.from_model(DacModel(config), name)


ENCODEC = {
    "encodec-24k": {"target_bandwidths": [1.0, 2.0, 4.0]},
    "encodec-48k": {
        "target_bandwidths": [1.0, 3.0],
        "audio_channels": 2,
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "norm_type": "time_group_norm",
        "use_causal_conv": False,
    },
}


def make_encodec(name: str, bandwidth: float | None = None, **settings: object) -> EncodecCodec:
    """Levels of 32 entries, 1 kbps each; 8 kHz, hop 40.

    encodec-24k has 1, 2 or 4 levels, encodec-48k has 1 or 3.
    """
    small = {
        "sampling_rate": 8000,
        "upsampling_ratios": [5, 4, 2],
        "num_filters": 4,
        "hidden_size": 8,
        "num_lstm_layers": 1,
        "codebook_size": 32,
    }
    config = EncodecConfig(**{**small, **ENCODEC[name], **settings})
    kind = EncodecModel if getattr(config, "importance", None) is None else VariableEncodec
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = kind(config)
        for parameter, weight in model.encoder.named_parameters():
            if parameter.endswith("weight.original0"):
                weight.data *= 2
            elif parameter.endswith("bias"):  # biases would outweigh the input
                weight.data.zero_()
        for level in model.quantizer.layers:  # zeros by default
            level.codebook.embed.normal_(std=0.1)
    return EncodecCodec.from_model(model, name, bandwidth=bandwidth)


def make_mimi(bandwidth: float | None = None, **settings: object) -> MimiCodec:
    """6 levels of 32 entries, 0.125 kbps each; 8 kHz, hop 320."""
    import_torchaudio()  # transformers imports it
    from transformers import MimiConfig, MimiModel

    small = {
        "sampling_rate": 8000,
        "upsampling_ratios": [8, 5, 4],
        "num_filters": 4,
        "hidden_size": 16,
        "upsample_groups": 16,
        "num_quantizers": 6,
        "codebook_size": 32,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "sliding_window": 20,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = MimiModel(MimiConfig(**{**small, **settings}))
        for parameter, weight in model.encoder.named_parameters():
            if parameter.endswith("bias"):
                weight.data.zero_()
        quantizer = model.quantizer
        for part in (
            quantizer.semantic_residual_vector_quantizer,
            quantizer.acoustic_residual_vector_quantizer,
        ):
            for level in part.layers:  # zeros by default
                level.codebook.embed_sum.normal_()
    return MimiCodec.from_model(model, bandwidth=bandwidth)


def make_xcodec(bandwidth: float | None = None) -> XcodecCodec:
    """1, 2 or 4 levels (0.125, 0.25, 0.5 kbps) of 32 entries; 8 kHz, hop 320."""
    import_torchaudio()  # transformers imports it
    from transformers import XcodecConfig, XcodecModel

    strides = [8, 5, 4, 2]
    config = XcodecConfig(
        sample_rate=8000,
        target_bandwidths=[0.125, 0.25, 0.5],
        codebook_size=32,
        acoustic_model_config={
            "model_type": "dac",
            "encoder_hidden_size": 2,
            "downsampling_ratios": strides,
            "upsampling_ratios": strides,
            "decoder_hidden_size": 32,
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
        model = XcodecModel(config)
        for level in model.quantizer.quantizers:  # zeros by default
            level.codebook.embed.normal_(std=0.5)
        model.acoustic_decoder.conv2.weight.data.mul_(50)
    return XcodecCodec.from_model(model, bandwidth=bandwidth)


def make_xcodec2(adapter: type[Xcodec2Codec]) -> Xcodec2Codec:
    """1 level of 65536 entries; 8 kHz, hop 320. NeuCodec returns 12 kHz, hop 480."""
    model_class = from_transformers(adapter.model_class)
    config = model_class.config_class(
        **{rate: 12000 if rate.startswith("output") else 8000 for rate in adapter.rates},
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        encoder_hidden_size=1,
        quantization_dim=80,
        initializer_range=0.2,
        semantic_model_config={
            "model_type": "wav2vec2-bert",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_depthwise_kernel_size": 3,
            "initializer_range": 0.2,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = model_class(config)
    return adapter.from_model(model)


def make_causal(lookahead: int = 1, **settings: int) -> StftCodec:
    """A causal `make_stft_codec`, with convolutions of 5 frames."""
    more = {"causal": True, "lookahead": lookahead, "kernel_size": 5, "decoder_depth": 2}
    return make_stft_codec(name="stft-causal", **{**more, **settings})


def make_variable(level: float | None = 1.0, **settings: int) -> StftCodec:
    """A `make_stft_codec` of variable bitrate, at a level; None gives all levels."""
    codec = make_stft_codec(
        name="stft-variable",
        **{"importance": {"kind": "paper", "widths": [8, 4]}, "kernel_size": 5, **settings},
    )
    return vary(codec, level)


def make_variable_dac(level: float | None = 1.0) -> DacCodec:
    """A `make_dac` of variable bitrate, at a level; None gives all levels."""
    config = make_dac("dac-odd").model.config
    config.importance = {"kind": "public", "widths": [8, 4]}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        codec = DacCodec.from_model(VariableDac(config), "dac-variable")
    return vary(codec, level)


def make_variable_encodec(level: float | None = 1.0, kind: str = "encodec-24k") -> EncodecCodec:
    """A `make_encodec` of variable bitrate, at a level; None gives all levels."""
    codec = make_encodec(kind, importance={"kind": "paper", "widths": [8, 4]})
    codec.spec = replace(codec.spec, name="encodec-variable")
    return vary(codec, level)


def vary(codec: Codec, level: float | None) -> Any:
    """Spread the importance over (0, 1), so that the depth of frames differs."""
    last = codec.model.importance.layers[-1]
    with torch.no_grad():
        tone = codec_tone(codec, codec.spec.sample_rate)
        spread = codec.encode_with_importance(tone).side["importance"].logit()
        last.bias -= spread.mean()
        last.weight_g *= 2 / spread.std()
        last.bias *= 2 / spread.std()
    codec.spec = replace(codec.spec, **hashes_of(codec.model, codec.decoder_parts))
    return codec if level is None else codec.with_rate(level=level)


SPEECHTOKENIZER = {
    "model_type": "speechtokenizer",
    "sample_rate": 8000,
    "strides": [8, 5, 4, 2],
    "n_q": 8,
    "codebook_size": 32,
    "dimension": 8,
    "semantic_dimension": 6,
    "n_filters": 2,
    "n_residual_layers": 1,
    "residual_kernel_size": 3,
    "dilation_base": 2,
    "activation": "ELU",
    "lstm_layers": 1,
    "bidirectional": True,
}


def make_speechtokenizer() -> SpeechTokenizerCodec:
    """8 levels of 32 entries; 8 kHz, hop 320."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = make_model(SPEECHTOKENIZER)
        for name, weight in model.named_parameters():  # so that codes vary
            weight.data.mul_({"weight_g": 2, "bias": 0}.get(name.rsplit(".")[-1], 1))
        for level in model.quantizer.vq.layers:  # zeros by default
            level.codebook.normal_(std=0.16)
            level._codebook.inited.fill_(1)
    return SpeechTokenizerCodec.from_model(model)


MAKERS: dict[str, Callable[[], Codec]] = {name: partial(make_dac, name) for name in DAC_STRIDES}
MAKERS |= {name: partial(make_encodec, name) for name in ENCODEC}
MAKERS |= {
    "stft-causal": make_causal,
    "stft-variable": make_variable,
    "dac-variable": make_variable_dac,
    "encodec-variable": make_variable_encodec,
    "encodec-48k-variable": partial(make_variable_encodec, kind="encodec-48k"),
    "mimi": make_mimi,
    "xcodec": make_xcodec,
    "xcodec2": partial(make_xcodec2, Xcodec2Codec),
    "neucodec": partial(make_xcodec2, NeuCodecCodec),
    "speechtokenizer": make_speechtokenizer,
    "dualcodec": make_dualcodec,
}
MAKERS |= REBUILT_MAKERS | LIBRARY_MAKERS
# Codecs that do not expose their stages
CLOSED = REBUILT_CLOSED | LIBRARY_CLOSED
CLOSED |= {"encodec-48k", "encodec-48k-variable", "mimi", "xcodec2", "neucodec", "dualcodec"}

VARIABLE = ("stft-variable", "dac-variable", "encodec-variable", "encodec-48k-variable")
BLOCKWISE = {
    name: MAKERS[name] for name in (*DAC_STRIDES, *ENCODEC, "stft-causal", "voicecraft", *VARIABLE)
} | {
    "stft": partial(make_stft_codec, kernel_size=7, encoder_depth=2, decoder_depth=2),
    "encodec-centred": partial(make_encodec, "encodec-24k", use_causal_conv=False),
}  # codecs that code audio block by block


class BlockModel(nn.Module):
    """Latents are frames of samples, scaled by one number before the quantizer and one after it."""

    def __init__(self, hop_length: int, codebook_size: int, encoder: float, decoder: float) -> None:
        super().__init__()
        self.encoder = nn.Parameter(torch.tensor(encoder))
        self.decoder = nn.Parameter(torch.tensor(decoder))
        self.quantizer = ResidualQuantizer(
            latent_dim=hop_length,
            n_codebooks=1,
            codebook_size=codebook_size,
            codebook_dim=hop_length,
            dropout=0.5,
        )
        for projection in (self.quantizer.levels[0].in_proj, self.quantizer.levels[0].out_proj):
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)


class BlockCodec(StagedCodec):
    """A codec f with f(f(x)) = f(x) exactly if encoder * decoder = 1; 1 level."""

    model: BlockModel

    def __init__(
        self, encoder: float = 2.0, decoder: float = 0.5, name: str = "block", hop: int = 4
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = BlockModel(hop, 64, encoder, decoder).eval()
        self.spec = CodecSpec(name, RATE, hop, 1, 64, hash_weights(self.model))

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        return Encoded(self.quantize(self.encode_latents(waveform)))

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.decode_latents(self.dequantize(codes))

    def encode_latents(self, waveform: Tensor) -> Tensor:
        n_frames = self.spec.n_frames(waveform.shape[-1])
        padded = fit_length(waveform, n_frames * self.spec.hop_length)
        return self.model.encoder * padded[:, 0].unflatten(-1, (n_frames, -1)).mT

    def project(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents)[1]

    def quantize(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents)[0]

    def codebook_rows(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.codebook_rows(codes)

    def dequantize(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.decode(codes)

    def quantize_through(self, latents: Tensor) -> Quantized:
        return self.model.quantizer(latents)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        return self.model.decoder * quantized.mT.flatten(1)[:, None]


@contextmanager
def noisy_decoder(codec: Any) -> Iterator[None]:
    """Add noise to the weights that only decoding uses, and take it away again."""
    parts = codec.decoder_parts or codec.parts_of_decoder(codec.model)
    state = codec.model.state_dict()
    kept = {k: w.clone() for k, w in state.items() if k.startswith(parts) and w.is_floating_point()}
    try:
        for name in kept:
            state[name] += 0.1 * (1 + state[name].abs()) * torch.rand_like(state[name])
        yield
    finally:
        for name, weight in kept.items():
            state[name].copy_(weight)


def assert_same(found: Encoded, expected: Encoded) -> None:
    """Check that codes and side information are equal to the bit."""
    assert torch.equal(found.codes, expected.codes) and found.codes.dtype == torch.int64
    assert set(found.side) == set(expected.side)
    for name, values in expected.side.items():
        assert torch.equal(found.side[name], values)
