"""The interface of recognisers, audio for them, and the languages that their files state."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tokgen.metrics.languages import language_code
from tokgen.metrics.signals import RATE, at_16k, why_unusable

__all__ = [
    "ENGLISH",
    "MIN_SAMPLES",
    "BatchRecogniser",
    "Recogniser",
    "RecognitionError",
    "prepare",
    "stated_languages",
]

ENGLISH: tuple[str, ...] = ("en",)
MIN_SAMPLES = RATE // 2  # recognisers need some context: shorter clips are padded with silence


class RecognitionError(RuntimeError):
    """A recogniser cannot process a clip. Its error rate is then a failure, not 1."""


class Recogniser(Protocol):
    """Converts speech to text.

    Attributes:
        backend: library and weights.
        languages: codes of the languages that it knows; () if it does not state them.
    """

    backend: str
    languages: tuple[str, ...]

    def transcribe(self, waveform: Tensor, sample_rate: int, language: str | None = None) -> str:
        """Return the text of a waveform [N] or [C, N] in [-1, 1].

        Args:
            language: code or name, for a recogniser that knows several; None if it is unknown.
        Raises:
            RecognitionError: the clip cannot be processed.
        """
        ...


class BatchRecogniser(ABC):
    """A recogniser that processes batches on any device."""

    backend: str
    languages: tuple[str, ...]
    model: Any

    def to(self, device: str | torch.device) -> None:
        """Move the model to a device."""
        self.model.to(device)

    def transcribe(self, waveform: Tensor, sample_rate: int, language: str | None = None) -> str:
        """Return the text of a waveform, as `Recogniser.transcribe`."""
        return self._hear([prepare(waveform, sample_rate)], language)[0]

    def transcribe_batch(
        self, waveforms: Sequence[Tensor], sample_rate: int, language: str | None = None
    ) -> list[str | None]:
        """Return the texts of waveforms of equal length; None if `transcribe` raises."""
        usable = {}
        for i, waveform in enumerate(waveforms):
            with contextlib.suppress(RecognitionError):
                usable[i] = prepare(waveform, sample_rate)
        texts = self._hear(list(usable.values()), language) if usable else []
        heard = dict(zip(usable, texts, strict=True))
        return [heard.get(i) for i in range(len(waveforms))]

    @abstractmethod
    def _hear(self, audio: list[Tensor], language: str | None) -> list[str]:
        """Return the texts of audio [N] at 16 kHz, all of equal length."""


def prepare(waveform: Tensor, sample_rate: int) -> Tensor:
    """Resample to 16 kHz and pad to half a second: [N].

    Raises:
        RecognitionError: there are no samples, or NaN or infinity among them.
    """
    audio = at_16k(waveform, sample_rate)
    if audio is None:
        raise RecognitionError(why_unusable(waveform))
    return torch.nn.functional.pad(audio, (0, max(0, MIN_SAMPLES - len(audio))))


def stated_languages(folder: Path) -> tuple[str, ...]:
    """Return the languages that the files of a model state; () if none.

    Whisper's `generation_config.json` lists them. Then the tokenizer's settings count
    (`target_lang`), then the model card (`language`).
    """
    import yaml
    from huggingface_hub import metadata_load

    known = _read(folder / "generation_config.json").get("lang_to_id")
    if isinstance(known, dict) and known:
        return tuple(dict.fromkeys(language_code(token.strip("<|>")) for token in known))
    if isinstance(language := _read(folder / "tokenizer_config.json").get("target_lang"), str):
        return (language_code(language),)
    found: Any = None
    with contextlib.suppress(OSError, ValueError, AttributeError, yaml.YAMLError):
        found = (metadata_load(folder / "README.md") or {}).get("language")
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return tuple(language_code(name) for name in names if isinstance(name, str))


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; {} if there is none, or it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}
