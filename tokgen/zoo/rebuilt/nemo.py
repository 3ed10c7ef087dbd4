"""NeMo's audio codecs (NVIDIA): spectral codecs at 44.1 and 22.05 kHz, and NanoCodec.

They load from a folder or hub id with one .nemo file. Their quantizers are groups of finite scalar
quantizers: a level is a group. In the spectral codecs it has 1000 entries, and stands for a band of
the mel spectrogram, lowest first. Groups do not refine each other. Decoding without the last groups
sets them to the middle of their range, which the codecs were not trained for.

Audio is padded with zeros to whole frames. NeMo fails for few frames (less than two to seven),
since its networks pad by reflection; this codec pads such audio with more zeros, and such codes
with copies of the last frame. NeMo 2.5 and later give spectral codecs one frame less and set it to
zeros, because they count the frames of the spectrogram otherwise than NeMo up to 2.4, which was
current when the codecs were published; this codec gives all frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.batches import encode_each
from tokgen.codec.spec import Encoded, Side
from tokgen.codec.windows import fit_length
from tokgen.nn.files import brief, shorten
from tokgen.zoo.loading import refuse_bandwidth
from tokgen.zoo.networks.nemo import NemoCodecModel
from tokgen.zoo.rebuilt.loading import RebuiltCodec, fold_weight_norm
from tokgen.zoo.rebuilt.nemo_files import (
    SETTINGS,
    find_nemo,
    read_nemo_settings,
    read_nemo_weights,
)

__all__ = ["NemoCodec"]

_MODULES = "nemo.collections.tts.modules.audio_codec_modules."
_PARTS = ("audio_encoder.", "audio_decoder.")
_QUANTIZER = "vector_quantizer.fsqs."
_BLOCKS = {"resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [1, 3, 5]}
_HIFIGAN = {"in_kernel_size": 7, "activation": "lrelu", **_BLOCKS}
_RESNET = {
    "num_layers": 6,
    "hidden_channels": 256,
    "filters": 768,
    "kernel_size": 3,
    "activation": "lrelu",
    "pad_mode": "reflect",
}
_WAVE_IN = {"down_sample_rates": [2, 2, 8, 8], "base_channels": 32, "out_kernel_size": 7}
_WAVE_OUT = {
    "up_sample_rates": [8, 8, 2, 2],
    "base_channels": 512,
    "out_kernel_size": 3,
    "output_activation": "tanh",
}
_NOT_USED = ("_target_", "dropout_rate")  # settings that do not change the network in use


class NemoCodec(RebuiltCodec):
    """NeMo's `AudioCodecModel` as a `Codec`."""

    model: NemoCodecModel
    network = NemoCodecModel
    decoder_parts = ("audio_decoder.",)
    whole_reason = "is run over whole utterances, as in NeMo"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        names = ("sample_rate", "hop_length", "n_codebooks")
        size = {"codebook_size": math.prod(config["levels"])}
        return {name: config[name] for name in names} | size

    @classmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        path = find_nemo(folder)
        settings = read_nemo_settings(path)
        try:
            return _settings(settings)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: {SETTINGS} lacks or misspells {brief(error)}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {SETTINGS}: {error}") from error

    @classmethod
    def read_weights(cls, folder: Path) -> tuple[dict[str, Tensor], Path, str]:
        path = find_nemo(folder)
        weights = read_nemo_weights(path)
        levels = torch.tensor(cls.read_published(folder)["levels"])
        found = [v for k, v in weights.items() if k.startswith(_QUANTIZER) and "num_levels" in k]
        if not all(torch.equal(v.flatten().long(), levels) for v in found):
            raise ValueError(f"{path}: num_levels differs in {SETTINGS} and in the weights")
        kept = {k: v for k, v in weights.items() if k.startswith(_PARTS)}
        return fold_weight_norm(kept), path, SETTINGS

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Encoded:
            n_frames = self.spec.n_frames(audio.shape[-1])
            enough = max(n_frames, self.model.min_frames)
            audio = fit_length(audio, enough * self.spec.hop_length)
            return Encoded(self.model.quantize(self.model.encode_latents(audio))[..., :n_frames])

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        n_frames = codes.shape[-1]
        missing = max(0, self.model.min_frames - n_frames)
        codes = F.pad(codes.float(), (0, missing), mode="replicate").long() if missing else codes
        audio = self.model.decode_latents(self.model.dequantize(codes))
        return audio[..., : n_frames * self.spec.hop_length]


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of tokgen's network for those of NeMo's `AudioCodecModel`."""
    sample_rate, hop_length = config["sample_rate"], config["samples_per_frame"]
    if config.get("output_sample_rate", sample_rate) != sample_rate:
        raise ValueError(
            f"output_sample_rate = {shorten(config['output_sample_rate'])} with sample_rate = "
            f"{shorten(sample_rate)}: tokgen runs codecs whose rates are equal"
        )
    semantic = [k for k in ("semantic_codec", "semantic_codec_path") if config.get(k) is not None]
    if semantic:
        raise ValueError(f"{semantic[0]}: tokgen does not run codecs with a semantic codec")
    quantizer = config["vector_quantizer"]
    kinds: dict[str, Callable[[dict[str, Any]], Any]] = {"GroupFiniteScalarQuantizer": dict}
    _, found = _choose(quantizer, kinds, "vector_quantizer")
    if found.get("eps", 1e-3) != 1e-3:
        raise ValueError(f"eps = {shorten(found['eps'])} of the quantizer: must be 0.001")
    encoders: dict[str, Callable[[dict[str, Any]], Any]] = {
        "MultiBandMelEncoder": _mel_bands,
        "FullBandMelEncoder": _mel,
        "HiFiGANEncoder": _wave_encoder(causal=False),
        "CausalHiFiGANEncoder": _wave_encoder(causal=True),
    }
    decoders: dict[str, Callable[[dict[str, Any]], Any]] = {
        "HiFiGANDecoder": _wave_decoder(causal=False),
        "CausalHiFiGANDecoder": _wave_decoder(causal=True),
    }
    return {
        "model_type": NemoCodecModel.model_type,
        "sample_rate": sample_rate,
        "hop_length": hop_length,
        "n_codebooks": found["num_groups"],
        "levels": found["num_levels_per_group"],
        "encoder": _choose(config["audio_encoder"], encoders, "audio_encoder")[1],
        "decoder": _choose(config["audio_decoder"], decoders, "audio_decoder")[1],
    }


def _choose(
    part: dict[str, Any], kinds: dict[str, Callable[[dict[str, Any]], Any]], name: str
) -> tuple[str, Any]:
    """Return the class of a part of NeMo's settings, and its translated arguments."""
    target = str(part["_target_"])
    kind = target.removeprefix(_MODULES)
    if kind not in kinds:
        raise ValueError(
            f"{name} is {shorten(target)}, which tokgen cannot run; it runs {', '.join(kinds)}"
        )
    return kind, kinds[kind](part)


def _fill(given: dict[str, Any], defaults: dict[str, Any], *required: str) -> dict[str, Any]:
    """Return arguments with NeMo's defaults for those that are not given."""
    given = {k: v for k, v in given.items() if k not in _NOT_USED}
    unknown = sorted(set(given) - set(defaults) - set(required))
    if unknown:
        raise ValueError(f"settings that tokgen does not know: {shorten(unknown)}")
    return {**defaults, **{name: given[name] for name in required}, **given}


def _features(part: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the mel spectrogram."""
    defaults = {"mel_dim": 80, "log_guard": 1.0}
    _, found = _choose(part, {"MelSpectrogramProcessor": dict}, "mel_processor")
    sizes = "sample_rate", "win_length", "hop_length"
    filled = _fill(found, defaults, *sizes)
    return {k: v for k, v in filled.items() if k != "sample_rate"} | {
        "log_guard": float(filled["log_guard"])
    }


def _mel_bands(part: dict[str, Any]) -> dict[str, Any]:
    filled = _fill(part, _RESNET, "mel_bands", "mel_processor", "out_channels")
    mel = _features(filled.pop("mel_processor"))
    return {"kind": "mel_bands", "mel": mel, **filled}


def _mel(part: dict[str, Any]) -> dict[str, Any]:
    _, resnet = _choose(part["encoder"], {"ResNetEncoder": dict}, "encoder")
    filled = _fill(resnet, _RESNET, "in_channels", "out_channels")
    del filled["in_channels"]  # the mel bands
    return {"kind": "mel", "mel": _features(part["mel_processor"]), **filled}


def _wave_encoder(*, causal: bool) -> Callable[[dict[str, Any]], Any]:
    edge = {"pad_mode": "zeros" if causal else "reflect"}

    def translate(part: dict[str, Any]) -> dict[str, Any]:
        filled = _fill(part, _HIFIGAN | _WAVE_IN | edge, "encoded_dim")
        return {"kind": "waveform", "causal": causal, **filled}

    return translate


def _wave_decoder(*, causal: bool) -> Callable[[dict[str, Any]], Any]:
    edge = {"pad_mode": "zeros" if causal else "reflect", "n_groups_equal_to_out_channels": causal}

    def translate(part: dict[str, Any]) -> dict[str, Any]:
        filled = _fill(part, _HIFIGAN | _WAVE_OUT | edge, "input_dim")
        grouped = filled.pop("n_groups_equal_to_out_channels")
        return {"causal": causal, "grouped": grouped, **filled}

    return translate
