"""Recognisers by name.

- "wav2vec2" - a CTC model of transformers, as in the paper; English by default
- "whisper" - Whisper of transformers, of many languages
- "moonshine" - the embedded one, English; with a folder or hub id, Moonshine of transformers
- "auto" - wav2vec2 if its weights can be loaded; otherwise it warns and uses moonshine

All but "auto" may be followed by ":<folder or hub id>".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from tokgen.metrics.asr.base import ENGLISH, Recogniser, stated_languages
from tokgen.metrics.asr.ctc import WAV2VEC2, Wav2Vec2Recogniser
from tokgen.metrics.asr.embedded import MoonshineRecogniser
from tokgen.metrics.asr.seq2seq import WHISPER, HubMoonshineRecogniser, WhisperRecogniser
from tokgen.metrics.backends import load_if_in_reach

__all__ = ["languages_of", "make_recogniser"]


def languages_of(name: str) -> tuple[str, ...]:
    """Return the languages that a backend states without loading its weights; () if none.

    Args:
        name: as in `make_recogniser`.
    """
    kind, _, source = name.partition(":")
    if not source or source == WAV2VEC2:
        return () if kind == "whisper" else ENGLISH
    if Path(source).is_dir():
        return stated_languages(Path(source))
    return ENGLISH if kind == "whisper" and source.endswith(".en") else ()


def make_recogniser(name: str = "auto") -> Recogniser:
    """Make a recogniser, as the module describes.

    Raises:
        ValueError: unknown name.
        ModuleNotFoundError: the package of the recogniser is missing; the error names the extra.
        OSError: weights were asked for by name and cannot be loaded.
    """
    kind, _, source = name.partition(":")
    if name == "moonshine":
        return MoonshineRecogniser()
    by_source: dict[str, Callable[[str], Recogniser]] = {
        "wav2vec2": Wav2Vec2Recogniser,
        "whisper": WhisperRecogniser,
        "moonshine": HubMoonshineRecogniser,
    }
    if kind in by_source:
        return by_source[kind](source or (WHISPER if kind == "whisper" else WAV2VEC2))
    if name != "auto":
        raise ValueError(f"recogniser {name!r}: known are auto, wav2vec2, whisper, moonshine")
    if (recogniser := load_if_in_reach(WAV2VEC2, Wav2Vec2Recogniser)) is not None:
        return recogniser
    warnings.warn(
        f"CER: {WAV2VEC2} (as in the paper) is neither cached nor in reach; using moonshine",
        stacklevel=2,
    )
    return MoonshineRecogniser()
