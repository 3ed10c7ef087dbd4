"""tokgen: generative modelling on neural-audio-codec tokens.

    import tokgen

    codec = tokgen.load_codec("speech-16k")
    waveform, rate = tokgen.read_audio("speech.wav", sample_rate=16000)  # [1, N] float32
    codes = codec.encode(waveform[None])                # [1, 8, T] int64, T = ceil(N / 320)
    decoded = codec.decode(codes, waveform.shape[-1])   # [1, 1, N]
    tokgen.write_audio("decoded.wav", decoded[0], rate)

A name below is imported from its module when it is first used, so `import tokgen` is fast.

Letters in shapes:
    B: batch
    K: levels (codebooks)
    T: frames
    N: samples
    D: width of the latents
    d: width of one codebook entry
    L: utterances
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from tokgen.audio.torchaudio_shim import allow_torchaudio
from tokgen.zoo.auto import register_codecs

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tokgen.audio.files import read_audio, write_audio
    from tokgen.bitstream.files import decode_file, encode_file
    from tokgen.codec.grid import find_grid
    from tokgen.codec.grid_segments import find_grids
    from tokgen.codec.stable.settings import StableDecoding
    from tokgen.codec.streaming import CodecStream
    from tokgen.comparison.plan import compare_codecs
    from tokgen.corpus.listed import open_corpus
    from tokgen.drift.compare import measure_drift
    from tokgen.evaluation.codec_scores import score_codec
    from tokgen.evaluation.rows import score_audio
    from tokgen.generation.generate import generate
    from tokgen.generation.settings import SamplingSettings
    from tokgen.modelling.masked import MaskedTransformer
    from tokgen.modelling.settings import ModelSettings
    from tokgen.report.page import write_report
    from tokgen.tokens.dataset import load_tokens
    from tokgen.tokens.latents import load_latents
    from tokgen.tokens.tokenizing import tokenize_corpus
    from tokgen.training.settings import TrainingSettings
    from tokgen.training.train import train
    from tokgen.zoo.continuous import load_continuous
    from tokgen.zoo.lookup import list_codecs, load_codec

__all__ = [
    "CodecStream",
    "MaskedTransformer",
    "ModelSettings",
    "SamplingSettings",
    "StableDecoding",
    "TrainingSettings",
    "compare_codecs",
    "decode_file",
    "encode_file",
    "find_grid",
    "find_grids",
    "generate",
    "list_codecs",
    "load_codec",
    "load_continuous",
    "load_latents",
    "load_tokens",
    "measure_drift",
    "open_corpus",
    "read_audio",
    "score_audio",
    "score_codec",
    "tokenize_corpus",
    "train",
    "write_audio",
    "write_report",
]

# Module of each name in `__all__`.
_MODULES = {
    "CodecStream": "codec.streaming",
    "MaskedTransformer": "modelling.masked",
    "ModelSettings": "modelling.settings",
    "SamplingSettings": "generation.settings",
    "StableDecoding": "codec.stable.settings",
    "TrainingSettings": "training.settings",
    "compare_codecs": "comparison.plan",
    "decode_file": "bitstream.files",
    "encode_file": "bitstream.files",
    "find_grid": "codec.grid",
    "find_grids": "codec.grid_segments",
    "generate": "generation.generate",
    "list_codecs": "zoo.lookup",
    "load_codec": "zoo.lookup",
    "load_continuous": "zoo.continuous",
    "load_latents": "tokens.latents",
    "load_tokens": "tokens.dataset",
    "measure_drift": "drift.compare",
    "open_corpus": "corpus.listed",
    "read_audio": "audio.files",
    "score_audio": "evaluation.rows",
    "score_codec": "evaluation.codec_scores",
    "tokenize_corpus": "tokens.tokenizing",
    "train": "training.train",
    "write_audio": "audio.files",
    "write_report": "report.page",
}

if not TYPE_CHECKING:  # a type checker would take any name for defined

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        close = get_close_matches(name, __all__, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


allow_torchaudio()  # next to a torch without CUDA
register_codecs()  # with transformers' Auto classes, once they are imported
