"""Table of the codecs that tokgen can load, one entry per class of network.

`tokgen.zoo.lookup` finds the entry for a folder, and imports the codec's module only then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

__all__ = ["ADAPTERS", "CONTINUOUS", "Adapter"]


@dataclass(frozen=True)
class Adapter:
    """A kind of codec folder, and the class that loads it.

    Attributes:
        library: library of the network.
        class_name: class of the network.
        model_type: `model_type` in config.json.
        older_types: spellings of `model_type` in older folders.
        codec: module in `tokgen.zoo` and name of the class: a `PretrainedCodec`, or a
            `PretrainedContinuous` in the table of continuous codecs.
    """

    library: str
    class_name: str
    model_type: str
    codec: str
    older_types: tuple[str, ...] = ()

    def codec_class(self) -> Any:
        return resolve_name(f"tokgen.zoo.{self.codec}")


ADAPTERS = (
    Adapter(
        "tokgen",
        "StftCodecModel",
        "tokgen_stft_codec",
        "stft:StftCodec",
        older_types=("StftCodecModel",),
    ),
    Adapter("tokgen", "OfflineModel", "tokgen_offline_codec", "offline:OfflineCodec"),
    Adapter("transformers", "DacModel", "dac", "adapters.dac:DacCodec"),
    Adapter("transformers", "EncodecModel", "encodec", "adapters.encodec:EncodecCodec"),
    Adapter("transformers", "MimiModel", "mimi", "adapters.mimi:MimiCodec"),
    Adapter("transformers", "XcodecModel", "xcodec", "adapters.xcodec:XcodecCodec"),
    Adapter("transformers", "Xcodec2Model", "xcodec2", "adapters.xcodec2:Xcodec2Codec"),
    Adapter("transformers", "NeuCodecModel", "neucodec", "adapters.xcodec2:NeuCodecCodec"),
    Adapter(
        "speechtokenizer",
        "SpeechTokenizer",
        "speechtokenizer",
        "adapters.speechtokenizer:SpeechTokenizerCodec",
    ),
)

# Codecs without a quantizer
CONTINUOUS = (
    Adapter("tokgen", "StftAutoencoder", "tokgen_stft_autoencoder", "continuous:StftContinuous"),
    Adapter(
        "transformers",
        "VibeVoiceAcousticTokenizerModel",
        "vibevoice_acoustic_tokenizer",
        "adapters.continuous:VibeVoiceContinuous",
    ),
    Adapter(
        "transformers",
        "PocketTTSAudioTokenizerModel",
        "pocket_tts_audio_tokenizer",
        "adapters.continuous:PocketTtsContinuous",
    ),
)
