"""Codecs of third-party libraries, one module each, imported when one is loaded.

`WRAPPERS` is the table by which `tokgen.zoo.lookup` finds the class for a folder; tokgen's own
codecs stand in it too.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SPEC_NUMBERS = ("sample_rate", "hop_length", "n_codebooks", "codebook_size")


@dataclass(frozen=True)
class Wrapper:
    """How folders of one kind are loaded.

    Attributes:
        library: who runs the network, `library` in codec.toml.
        class_name: of the network, `class` in codec.toml.
        model_type: in config.json.
        module: where the `Codec` class lives.
        codec: its name; `from_pretrained(folder, name=, revision=, licence=)` loads it.
        numbers: config.json -> sample_rate, hop_length, n_codebooks, codebook_size, and what
            else `CodecSpec` needs to know of the network.
        bandwidths: whether `from_pretrained` takes `bandwidth=` in kbps.
    """

    library: str
    class_name: str
    model_type: str
    module: str
    codec: str
    numbers: Callable[[dict[str, Any]], dict[str, Any]]
    bandwidths: bool = False

    def codec_class(self) -> Any:
        return getattr(importlib.import_module(self.module), self.codec)


def _own_numbers(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in _SPEC_NUMBERS}


def dac_numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
    """Numbers of a DAC, which has one bitrate."""
    _refuse(bandwidth)
    return {
        "sample_rate": config["sampling_rate"],
        "hop_length": math.prod(config["downsampling_ratios"]),
        "n_codebooks": config["n_codebooks"],
        "codebook_size": config["codebook_size"],
    }


def encodec_numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
    """Numbers of an EnCodec at one of its bandwidths in kbps; None takes the highest.

    Raises:
        ValueError: a bandwidth that is none of them.
    """
    kbps = config["target_bandwidths"]
    chosen = _one_of(kbps, bandwidth)
    rate, hop_length = config["sampling_rate"], math.prod(config["upsampling_ratios"])
    level = math.ceil(rate / hop_length) * math.log2(config["codebook_size"])  # bits per second
    numbers = {
        "sample_rate": rate,
        "hop_length": hop_length,
        "n_codebooks": max(1, int(1000 * min(chosen, kbps[-1]) // level)),
        "codebook_size": config["codebook_size"],
        "channels": config["audio_channels"],
    }
    if config["chunk_length_s"]:
        numbers["chunk_length"] = length = int(config["chunk_length_s"] * rate)
        numbers["chunk_stride"] = max(1, int((1.0 - (config["overlap"] or 0.0)) * length))
    return numbers


def mimi_numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
    """Numbers of a Mimi with as many levels as fit into `bandwidth` kbps; None takes all.

    Raises:
        ValueError: not above 0, or more than all levels take.
    """
    rate, product = config["sampling_rate"], math.prod(config["upsampling_ratios"])
    given = config.get("frame_rate") or config.get("_frame_rate")  # the second: saved by 5.x
    frame_rate = given or rate / (2 * product)
    hop_length = product * int(math.ceil(rate / product) / frame_rate)
    levels, bits = config["num_quantizers"], math.log2(config["codebook_size"])
    if bandwidth is not None:
        level = bits * rate / hop_length / 1000
        if not 0 < bandwidth <= levels * level + 1e-9:
            raise ValueError(
                f"bandwidth {bandwidth:g} kbps: this Mimi has {levels} levels of {level:g} kbps; "
                f"give at most {levels * level:g}"
            )
        levels = max(1, int(bandwidth / level + 1e-9))
    return {
        "sample_rate": rate,
        "hop_length": hop_length,
        "n_codebooks": levels,
        "codebook_size": config["codebook_size"],
        "channels": config["audio_channels"],
    }


def xcodec_numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
    """Numbers of an X-Codec at one of its bandwidths in kbps; None takes the highest.

    Raises:
        ValueError: a bandwidth that is none of them.
    """
    chosen = _one_of(config["target_bandwidths"], bandwidth)
    hop_length = math.prod(config["acoustic_model_config"]["downsampling_ratios"])
    bits = 1000 * chosen / math.ceil(config["sample_rate"] / hop_length)
    return {
        "sample_rate": config["sample_rate"],
        "hop_length": hop_length,
        "n_codebooks": int(bits // math.log2(config["codebook_size"])),
        "codebook_size": config["codebook_size"],
    }


def xcodec2_numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
    """Numbers of an X-Codec2 or a NeuCodec, which have one bitrate."""
    _refuse(bandwidth)
    heard_hop = math.prod(config["downsampling_ratios"])
    spoken = config.get("output_sampling_rate", config.get("sampling_rate"))
    return {
        "sample_rate": spoken,
        "hop_length": heard_hop * spoken // config.get("input_sampling_rate", spoken),
        "n_codebooks": 1,
        "codebook_size": math.prod(config["quantization_levels"]),
    }


def _one_of(kbps: list[float], bandwidth: float | None) -> float:
    """`bandwidth` where it is one of `kbps`; None takes the highest."""
    chosen = max(kbps) if bandwidth is None else bandwidth
    if chosen not in kbps:
        known = ", ".join(f"{k:g}" for k in sorted(kbps))
        raise ValueError(f"bandwidth {chosen:g} kbps: the model has {known}; give one of them")
    return chosen


def _refuse(bandwidth: float | None) -> None:
    if bandwidth is not None:
        raise ValueError(f"bandwidth {bandwidth:g} kbps: the model has one bitrate; leave it out")


def _speechtokenizer_numbers(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "sample_rate": config["sample_rate"],
        "hop_length": math.prod(config["strides"]),
        "n_codebooks": config["n_q"],
        "codebook_size": config["codebook_size"],
    }


WRAPPERS = (
    Wrapper(
        "tokgen",
        "StftCodecModel",
        "StftCodecModel",
        "tokgen.zoo.stft",
        "StftCodec",
        _own_numbers,
    ),
    Wrapper("transformers", "DacModel", "dac", "tokgen.zoo.adapters.dac", "DacCodec", dac_numbers),
    Wrapper(
        "transformers",
        "EncodecModel",
        "encodec",
        "tokgen.zoo.adapters.encodec",
        "EncodecCodec",
        encodec_numbers,
        bandwidths=True,
    ),
    Wrapper(
        "transformers",
        "MimiModel",
        "mimi",
        "tokgen.zoo.adapters.mimi",
        "MimiCodec",
        mimi_numbers,
        bandwidths=True,
    ),
    Wrapper(
        "transformers",
        "XcodecModel",
        "xcodec",
        "tokgen.zoo.adapters.xcodec",
        "XcodecCodec",
        xcodec_numbers,
        bandwidths=True,
    ),
    Wrapper(
        "transformers",
        "Xcodec2Model",
        "xcodec2",
        "tokgen.zoo.adapters.xcodec2",
        "Xcodec2Codec",
        xcodec2_numbers,
    ),
    Wrapper(
        "transformers",
        "NeuCodecModel",
        "neucodec",
        "tokgen.zoo.adapters.xcodec2",
        "NeuCodecCodec",
        xcodec2_numbers,
    ),
    Wrapper(
        "speechtokenizer",
        "SpeechTokenizer",
        "speechtokenizer",
        "tokgen.zoo.adapters.speechtokenizer",
        "SpeechTokenizerCodec",
        _speechtokenizer_numbers,
    ),
)
