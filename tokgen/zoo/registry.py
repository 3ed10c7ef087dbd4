"""Table of the codecs that tokgen can load, one entry per class of network.

`tokgen.zoo.lookup` finds the entry for a folder, and imports the codec's module only then.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pkgutil import resolve_name
from typing import Any

__all__ = ["ADAPTERS", "CONTINUOUS", "PUBLISHED", "Adapter", "Published"]


@dataclass(frozen=True)
class Published:
    """A folder as a codec's authors publish it, without a `model_type`.

    Attributes:
        files: patterns of file names. Each matches a file of the folder.
        settings: names of settings in config.json.
    """

    files: tuple[str, ...]
    settings: tuple[str, ...] = ()

    def matches(self, names: Collection[str], config: dict[str, Any]) -> bool:
        """Return whether a folder has this form.

        Args:
            names: of its files.
            config: its config.json; {} without one.
        """
        found = all(any(fnmatch(name, p) for name in names) for p in self.files)
        return found and all(key in config for key in self.settings)


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
        published: forms of its published folders, if those have no `model_type`. Its class has
            `read_published`.
    """

    library: str
    class_name: str
    model_type: str
    codec: str
    older_types: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()

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
    Adapter(
        "tokgen",
        "BigCodecModel",
        "bigcodec",
        "rebuilt.bigcodec:BigCodec",
        published=(
            Published(("bigcodec.pt",)),
            Published(("model.safetensors",), ("ngf", "up_ratios", "vq_num_quantizers")),
        ),
    ),
    Adapter(
        "tokgen",
        "NemoCodecModel",
        "nemo_audio_codec",
        "rebuilt.nemo:NemoCodec",
        published=(Published(("*.nemo",)),),
    ),
    Adapter(
        "tokgen",
        "FaCodecModel",
        "facodec",
        "rebuilt.facodec:FaCodec",
        published=(Published(("ns3_facodec_encoder.bin", "ns3_facodec_decoder.bin")),),
    ),
    Adapter(
        "tokgen",
        "EscModel",
        "esc",
        "rebuilt.esc:Esc",
        published=(Published(("model.pth", "config.yaml")),),
    ),
    Adapter(
        "focalcodec",
        "FocalCodec",
        "focalcodec",
        "adapters.focalcodec:FocalCodec",
        published=(Published(("model.safetensors",), ("encoder_name", "compressor_name")),),
    ),
    Adapter(
        "tokgen",
        "DualCodecModel",
        "dualcodec",
        "rebuilt.dualcodec:DualCodec",
        published=(Published(("dualcodec_*.safetensors", "w2vbert2_mean_var_stats_*.pt")),),
    ),
    Adapter("transformers", "DacModel", "dac", "adapters.dac:DacCodec"),
    Adapter("transformers", "EncodecModel", "encodec", "adapters.encodec:EncodecCodec"),
    Adapter(
        "transformers",
        "EncodecModel",
        "voicecraft_encodec",
        "adapters.audiocraft:AudiocraftCodec",
        published=(Published(("encodec_*.th",)),),
    ),
    Adapter("transformers", "MimiModel", "mimi", "adapters.mimi:MimiCodec"),
    Adapter("transformers", "XcodecModel", "xcodec", "adapters.xcodec:XcodecCodec"),
    Adapter("transformers", "Xcodec2Model", "xcodec2", "adapters.xcodec2:Xcodec2Codec"),
    Adapter("transformers", "NeuCodecModel", "neucodec", "adapters.xcodec2:NeuCodecCodec"),
    Adapter(
        "transformers",
        "WavTokenizerModel",
        "wavtokenizer",
        "adapters.wavtokenizer:WavTokenizerCodec",
    ),
    Adapter(
        "transformers",
        "HiggsAudioV2TokenizerModel",
        "higgs_audio_v2_tokenizer",
        "adapters.higgs:HiggsCodec",
    ),
    Adapter(
        "snac",
        "SNAC",
        "snac",
        "adapters.snac:SnacCodec",
        published=(Published(("config.json",), ("vq_strides", "encoder_rates", "noise")),),
    ),
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

# Patterns of the names of published files, for downloads
PUBLISHED = tuple(
    sorted(
        {
            name
            for adapter in ADAPTERS
            for form in adapter.published
            for name in form.files
            if not form.settings  # those with config.json are downloaded like others
        }
    )
)
