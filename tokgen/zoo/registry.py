"""Table of the codecs that tokgen can load, one entry per class of network.

`tokgen.zoo.lookup` finds the entry for a folder, and imports the codec's module only then.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Adapter:
    """A kind of codec folder, and the `Codec` class that loads it.

    The class has `from_pretrained(folder, name=, revision=, licence=)`, and `numbers(config)`,
    which returns the fields of `CodecSpec` for a config.json.

    Attributes:
        library: library of the network; `library` in codec.toml.
        class_name: class of the network; `class` in codec.toml.
        model_type: `model_type` in config.json.
        module: module of the `Codec` class, in `tokgen.zoo`.
        codec: name of the `Codec` class.
        bandwidths: True if `from_pretrained` takes `bandwidth=` in kbps.
    """

    library: str
    class_name: str
    model_type: str
    module: str
    codec: str
    bandwidths: bool = False

    def codec_class(self) -> Any:
        return getattr(importlib.import_module(f"tokgen.zoo.{self.module}"), self.codec)


ADAPTERS = (
    Adapter("tokgen", "StftCodecModel", "StftCodecModel", "stft", "StftCodec"),
    Adapter("transformers", "DacModel", "dac", "adapters.dac", "DacCodec"),
    Adapter("transformers", "EncodecModel", "encodec", "adapters.encodec", "EncodecCodec", True),
    Adapter("transformers", "MimiModel", "mimi", "adapters.mimi", "MimiCodec", True),
    Adapter("transformers", "XcodecModel", "xcodec", "adapters.xcodec", "XcodecCodec", True),
    Adapter("transformers", "Xcodec2Model", "xcodec2", "adapters.xcodec2", "Xcodec2Codec"),
    Adapter("transformers", "NeuCodecModel", "neucodec", "adapters.xcodec2", "NeuCodecCodec"),
    Adapter(
        "speechtokenizer",
        "SpeechTokenizer",
        "speechtokenizer",
        "adapters.speechtokenizer",
        "SpeechTokenizerCodec",
    ),
)
