"""Character error rate (CER) of speech through a recogniser, with edits pooled over the corpus.

CER has no upper end: a recogniser that loops on bad audio ("to to to") hears more characters than
were said. `edits` has a cap for those who want one.

Backends: "wav2vec2" (as in the paper; weights from a hub or a folder) and "moonshine" (a tiny
model with weights in its wheel). "auto" uses wav2vec2 if its weights can be loaded, and otherwise
warns and uses moonshine. Both know only English; a wav2vec2 of another language is given by folder
or hub id.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.extras import require
from tokgen.metrics.backends import find_model, load_if_in_reach
from tokgen.metrics.languages import language_code
from tokgen.metrics.signals import RATE, at_16k, why_unusable
from tokgen.metrics.text import normalise_text
from tokgen.runs.progress import quiet_libraries

__all__ = [
    "ENGLISH",
    "FILES",
    "MIN_SAMPLES",
    "PROCESSOR",
    "WAV2VEC2",
    "Edits",
    "MoonshineRecogniser",
    "Recogniser",
    "RecognitionError",
    "Wav2Vec2Recogniser",
    "edits",
    "languages_of",
    "make_recogniser",
]

WAV2VEC2 = "facebook/wav2vec2-base-960h"
FILES = ("config.json", "model.safetensors")
PROCESSOR = (
    "*processor_config.json",
    "vocab.json",
    "tokenizer*.json",
    "*_tokens*.json",
    "README.md",
)
ENGLISH: tuple[str, ...] = ("en",)
MIN_SAMPLES = RATE // 2  # recognisers need some context: shorter clips are padded with silence


@dataclass(frozen=True)
class Edits:
    """Edits that turn the hypothesis into the reference, and the reference's characters."""

    n_edits: int
    n_chars: int


def edits(reference: str, hypothesis: str, cap: float | None = None) -> Edits:
    """Count character edits between normalised texts.

    Args:
        cap: largest CER of a clip; the edits beyond it are not counted. None for no cap.
    Raises:
        ValueError: the normalised reference is empty.
    """
    wanted, heard = normalise_text(reference), normalise_text(hypothesis)
    if not wanted:
        raise ValueError(f"transcript {reference!r} has no letters, so it has no CER")
    count = len(wanted)
    if heard:
        out = require("jiwer").process_characters(wanted, heard)
        count = out.substitutions + out.deletions + out.insertions
    most = math.inf if cap is None else cap * len(wanted)
    return Edits(count if count <= most else math.floor(most), len(wanted))


class RecognitionError(RuntimeError):
    """A recogniser cannot process a clip. Its CER is then a failure, not 1."""


class Recogniser(Protocol):
    """Converts speech to text.

    Attributes:
        backend: library and weights.
        languages: codes of the languages that it knows; () if it does not state them.
    """

    backend: str
    languages: tuple[str, ...]

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        """Return the text of a waveform [N] or [C, N] in [-1, 1].

        Raises:
            RecognitionError: the clip cannot be processed.
        """
        ...


def _prepare(waveform: Tensor, sample_rate: int) -> Tensor:
    """Resample to 16 kHz and pad to half a second: [N]."""
    audio = at_16k(waveform, sample_rate)
    if audio is None:
        raise RecognitionError(why_unusable(waveform))
    return torch.nn.functional.pad(audio, (0, max(0, MIN_SAMPLES - len(audio))))


class MoonshineRecogniser:
    """The tiny English model of moonshine-voice 0.1.0 (MIT). Deterministic, on the CPU only.

    Its voice activity detector is off: it remembers earlier clips, so transcripts would depend on
    the order of scoring.

    Raises:
        FileNotFoundError: the installed moonshine-voice is a later one, without weights.
    """

    languages = ENGLISH

    def __init__(self) -> None:
        package = require("moonshine_voice")
        self._failure = require("moonshine_voice.errors").MoonshineError
        weights = Path(require("moonshine_voice.utils").get_model_path("tiny-en"))
        found = version("moonshine-voice")
        if not weights.is_dir():
            raise FileNotFoundError(
                f"moonshine-voice {found} has no weights, 0.1.0 has: pip install 'tokgen[eval]'"
            )
        self.backend = f"moonshine (tiny-en, moonshine-voice {found}, whole clips)"
        self._make = partial(
            package.Transcriber,
            model_path=str(weights),
            model_arch=package.ModelArch.TINY,
            options={"vad_threshold": "0.0"},
        )
        self._by_process = {os.getpid(): self._make()}

    @property
    def _transcriber(self) -> Any:
        """The transcriber of this process: a fork does not inherit the threads of its parent."""
        if os.getpid() not in self._by_process:
            self._by_process[os.getpid()] = self._make()
        return self._by_process[os.getpid()]

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        audio = _prepare(waveform, sample_rate)
        try:
            transcript = self._transcriber.transcribe_without_streaming(audio.tolist(), RATE)
        except self._failure as error:
            raise RecognitionError(f"moonshine: {error}") from error
        return " ".join(line.text for line in transcript.lines)


class Wav2Vec2Recogniser:
    """A CTC model of transformers with greedy decoding.

    Its languages are those of its tokenizer (`target_lang`) or of its model card (`language`).

    Args:
        name: folder or hub id. Weights must be safetensors; pickles are not loaded.
        local_files_only: load a hub id only from the cache.
    Raises:
        OSError: the weights are not in reach, or are no safetensors; the message names the fix.
    """

    def __init__(self, name: str = WAV2VEC2, *, local_files_only: bool = False) -> None:
        import_torchaudio()  # before transformers imports it
        from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

        folder = Path(name)
        if not folder.is_dir():
            folder = find_model(name, FILES, PROCESSOR, local_files_only=local_files_only)
        self.processor = Wav2Vec2Processor.from_pretrained(folder)
        with quiet_libraries():
            self.model = Wav2Vec2ForCTC.from_pretrained(folder, use_safetensors=True).eval()
        self.backend = f"wav2vec2 ({name})"
        self.languages = ENGLISH if name == WAV2VEC2 else _stated_languages(folder)

    def to(self, device: str | torch.device) -> None:
        """Move the model to a device."""
        self.model.to(device)

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        return self._hear([_prepare(waveform, sample_rate)])[0]

    def transcribe_batch(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str | None]:
        """Return the texts of waveforms of equal length; None if `transcribe` raises."""
        usable = {}
        for i, waveform in enumerate(waveforms):
            with contextlib.suppress(RecognitionError):
                usable[i] = _prepare(waveform, sample_rate)
        heard = dict(zip(usable, self._hear(list(usable.values())), strict=True)) if usable else {}
        return [heard.get(i) for i in range(len(waveforms))]

    @torch.inference_mode()
    def _hear(self, audio: list[Tensor]) -> list[str]:
        arrays = [a.numpy() for a in audio]
        inputs = self.processor(arrays, sampling_rate=RATE, return_tensors="pt")
        best = self.model(inputs.input_values.to(self.model.device)).logits.argmax(-1)
        return self.processor.batch_decode(best)


def languages_of(name: str) -> tuple[str, ...]:
    """Return the languages that a backend states without loading its weights; () if none.

    Args:
        name: as in `make_recogniser`.
    """
    source = name.partition(":")[2]
    if not source or source == WAV2VEC2:
        return ENGLISH
    return _stated_languages(Path(source)) if Path(source).is_dir() else ()


def _stated_languages(folder: Path) -> tuple[str, ...]:
    """Return the languages in the tokenizer's settings, else those of the model card."""
    import yaml
    from huggingface_hub import metadata_load

    with contextlib.suppress(OSError, ValueError, AttributeError):
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if isinstance(language := settings.get("target_lang"), str):
            return (language_code(language),)
    found: Any = None
    with contextlib.suppress(OSError, ValueError, AttributeError, yaml.YAMLError):
        found = (metadata_load(folder / "README.md") or {}).get("language")
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return tuple(language_code(name) for name in names if isinstance(name, str))


def make_recogniser(name: str = "auto") -> Recogniser:
    """Make a recogniser: "wav2vec2", "moonshine", "auto", or "wav2vec2:<folder or hub id>".

    Raises:
        ValueError: unknown name.
        ModuleNotFoundError: the package of the recogniser is missing; the error names the extra.
        OSError: the weights of wav2vec2 were asked for by name and cannot be loaded.
    """
    if name == "moonshine":
        return MoonshineRecogniser()
    if name.startswith("wav2vec2:"):
        return Wav2Vec2Recogniser(name.removeprefix("wav2vec2:"))
    if name == "wav2vec2":
        return Wav2Vec2Recogniser()
    if name != "auto":
        raise ValueError(f"recogniser {name!r}: known are auto, wav2vec2, moonshine")
    if (recogniser := load_if_in_reach(WAV2VEC2, Wav2Vec2Recogniser)) is not None:
        return recogniser
    warnings.warn(
        f"CER: {WAV2VEC2} (as in the paper) is neither cached nor in reach; using moonshine",
        stacklevel=2,
    )
    return MoonshineRecogniser()
