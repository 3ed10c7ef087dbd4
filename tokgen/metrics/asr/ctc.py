"""wav2vec2 of transformers, with greedy decoding."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.metrics.asr.base import ENGLISH, BatchRecogniser, stated_languages
from tokgen.metrics.backends import find_model
from tokgen.metrics.signals import RATE
from tokgen.runs.progress import quiet_libraries

__all__ = ["FILES", "PROCESSOR", "WAV2VEC2", "Wav2Vec2Recogniser"]

WAV2VEC2 = "facebook/wav2vec2-base-960h"
FILES = ("config.json", "model.safetensors")
PROCESSOR = (
    "*processor_config.json",
    "vocab.json",
    "tokenizer*.json",
    "*_tokens*.json",
    "README.md",
)


class Wav2Vec2Recogniser(BatchRecogniser):
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
        self.languages = ENGLISH if name == WAV2VEC2 else stated_languages(folder)

    @torch.inference_mode()
    def _hear(self, audio: list[Tensor], language: str | None = None) -> list[str]:
        arrays = [a.numpy() for a in audio]
        inputs = self.processor(arrays, sampling_rate=RATE, return_tensors="pt")
        best = self.model(inputs.input_values.to(self.model.device)).logits.argmax(-1)
        return self.processor.batch_decode(best)
