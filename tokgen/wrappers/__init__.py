"""Codecs of third-party libraries, one module each, imported when one is loaded.

`WRAPPERS` is the table by which `tokgen.zoo` finds the class for a folder; tokgen's own
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
        numbers: config.json -> sample_rate, hop_length, n_codebooks, codebook_size.
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


def _dac_numbers(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "sample_rate": config["sampling_rate"],
        "hop_length": math.prod(config["downsampling_ratios"]),
        "n_codebooks": config["n_codebooks"],
        "codebook_size": config["codebook_size"],
    }


WRAPPERS = (
    Wrapper(
        "tokgen",
        "StftCodecModel",
        "StftCodecModel",
        "tokgen.stft_codec",
        "StftCodec",
        _own_numbers,
    ),
    Wrapper("transformers", "DacModel", "dac", "tokgen.wrappers.dac", "DacCodec", _dac_numbers),
)
