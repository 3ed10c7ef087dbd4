"""Recognisers of transformers that write text: Whisper and Moonshine, by folder or hub id."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.metrics.asr.base import ENGLISH, BatchRecogniser, stated_languages
from tokgen.metrics.backends import find_model
from tokgen.metrics.languages import language_code
from tokgen.metrics.signals import RATE
from tokgen.runs.progress import quiet_libraries

__all__ = ["FILES", "PROCESSOR", "WHISPER", "HubMoonshineRecogniser", "WhisperRecogniser"]

WHISPER = "openai/whisper-large-v3-turbo"
FILES = ("config.json", "generation_config.json", "model.safetensors")
PROCESSOR = (
    "*processor_config.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "tokenizer*",
    "*_tokens*.json",
    "README.md",
)
_WINDOW = 30 * RATE  # samples that Whisper hears at once
_TOKENS_PER_SECOND = {"en": 6.5}  # the most that Moonshine's authors allow; 13 for others


class WhisperRecogniser(BatchRecogniser):
    """Whisper (Radford et al. 2023), greedy; audio beyond 30 s is heard window by window.

    It is told the language of a clip if it is known, and finds it otherwise.

    Args:
        name: folder or hub id. Weights must be safetensors; pickles are not loaded.
        local_files_only: load a hub id only from the cache.
    Raises:
        OSError: the weights are not in reach, or are no safetensors; the message names the fix.
    """

    def __init__(self, name: str = WHISPER, *, local_files_only: bool = False) -> None:
        import_torchaudio()  # before transformers imports it
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        folder = _find(name, local_files_only)
        self.processor: Any = WhisperProcessor.from_pretrained(folder)
        with quiet_libraries():
            load: Any = WhisperForConditionalGeneration.from_pretrained
            self.model = load(folder, use_safetensors=True).eval()
        self.backend = f"whisper ({name})"
        self._asked = getattr(self.model.generation_config, "lang_to_id", None) is not None
        self.languages = stated_languages(folder) if self._asked else ENGLISH

    @torch.inference_mode()
    def _hear(self, audio: list[Tensor], language: str | None) -> list[str]:
        long = len(audio[0]) > _WINDOW
        shape = {"truncation": False, "padding": "longest"} if long else {}
        inputs = self.processor.feature_extractor(
            [a.numpy() for a in audio],
            sampling_rate=RATE,
            return_tensors="pt",
            return_attention_mask=True,
            **shape,
        )
        options: dict[str, Any] = {"return_timestamps": True} if long else {}
        if self._asked:
            code = None if language is None else language_code(language)
            options |= {"task": "transcribe"}
            options |= {"language": code} if code in self.languages else {}
        ids = self.model.generate(
            inputs.input_features.to(self.model.device, self.model.dtype),
            attention_mask=inputs.attention_mask.to(self.model.device),
            do_sample=False,
            **options,
        )
        return [t.strip() for t in self.processor.batch_decode(ids, skip_special_tokens=True)]


class HubMoonshineRecogniser(BatchRecogniser):
    """Moonshine (Jeffries et al. 2024) by transformers, greedy; one language for each model.

    Args:
        name: folder or hub id, such as "UsefulSensors/moonshine-base". Weights must be safetensors.
        local_files_only: load a hub id only from the cache.
    Raises:
        OSError: the weights are not in reach, or are no safetensors; the message names the fix.
    """

    def __init__(self, name: str, *, local_files_only: bool = False) -> None:
        import_torchaudio()  # before transformers imports it
        from transformers import AutoProcessor, MoonshineForConditionalGeneration

        folder = _find(name, local_files_only)
        self.processor: Any = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        with quiet_libraries():
            load: Any = MoonshineForConditionalGeneration.from_pretrained
            self.model = load(folder, use_safetensors=True).eval()
        self.backend = f"moonshine ({name}, transformers)"
        self.languages = stated_languages(folder)

    @torch.inference_mode()
    def _hear(self, audio: list[Tensor], language: str | None) -> list[str]:
        inputs = self.processor(
            [a.numpy() for a in audio], sampling_rate=RATE, return_tensors="pt"
        ).to(self.model.device, self.model.dtype)
        per_second = max(_TOKENS_PER_SECOND.get(code, 13.0) for code in self.languages or ("",))
        most = max(1, math.ceil(per_second * len(audio[0]) / RATE))
        ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=most)
        return [t.strip() for t in self.processor.batch_decode(ids, skip_special_tokens=True)]


def _find(name: str, local_files_only: bool) -> Path:
    folder = Path(name)
    if folder.is_dir():
        return folder
    return find_model(name, FILES, PROCESSOR, local_files_only=local_files_only)
