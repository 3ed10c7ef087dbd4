"""Speaker similarity: the cosine between speaker embeddings of two clips, higher is better.

Backends: "wavlm" (WavLM Base+ fine-tuned for speaker verification, the usual choice; weights from
a hub or a folder) and "resemblyzer" (a small LSTM; tokgen contains its weights). "auto" uses WavLM
if its weights can be loaded, and otherwise warns and uses resemblyzer. Cosines of different
backends are not comparable.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.metrics.backends import find_model, load_if_in_reach
from tokgen.metrics.resemblyzer import ResemblyzerNetwork
from tokgen.metrics.signals import RATE, at_16k, why_unusable
from tokgen.runs.progress import quiet_libraries

__all__ = [
    "FILES",
    "LEVEL",
    "MAX_SECONDS",
    "MIN_SECONDS",
    "SILENCE",
    "TRAINING_ONLY",
    "WAVLM",
    "ResemblyzerEncoder",
    "SpeakerEncoder",
    "WavlmEncoder",
    "make_speaker_encoder",
    "speaker_similarity",
    "why_no_embedding",
]

WAVLM = "microsoft/wavlm-base-plus-sv"
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
TRAINING_ONLY = ("wavlm.masked_spec_embed", "objective.")  # embeddings do not depend on them
MIN_SECONDS = 1.0  # the encoders were trained on excerpts of at least 1.6 s
MAX_SECONDS = 30.0  # enough for a voice; the cost of attention grows with the square
SILENCE = 1e-4  # RMS, -80 dB of full scale; below it there is only rounding noise
LEVEL = -30  # dBFS, of clips for resemblyzer


class SpeakerEncoder(Protocol):
    """Embeds a voice. `backend` names library and weights."""

    backend: str

    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor | None:
        """Embed the first 30 s of a waveform.

        Args:
            waveform: [N] or [C, N].
            sample_rate: Hz.
        Returns:
            float32 [D] with norm 1. None for less than a second, silence, NaN or infinity.
        """
        ...


def speaker_similarity(a: Tensor | None, b: Tensor | None) -> float:
    """Return the cosine of two embeddings of one encoder, -1 to 1; NaN if either is None.

    Raises:
        ValueError: the embeddings have different sizes.
    """
    if a is None or b is None:
        return math.nan
    if a.shape != b.shape:
        raise ValueError(
            f"embeddings of {tuple(a.shape)} and {tuple(b.shape)}: make both with one encoder"
        )
    cosine = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0)
    return float(cosine.clamp(-1, 1))


def why_no_embedding(waveform: Tensor, sample_rate: int) -> str:
    """Return why there is no voice to embed in a clip; "" if there may be one."""
    audio = _resampled(waveform, sample_rate)
    return why_unusable(waveform) if audio is None else _problem(audio)


def _resampled(waveform: Tensor, sample_rate: int) -> Tensor | None:
    """Cut to 30 s and resample to 16 kHz: [N']; None for no samples, NaN or infinity."""
    if why_unusable(waveform):
        return None
    return at_16k(waveform[..., : round(MAX_SECONDS * sample_rate)], sample_rate)


def _problem(audio: Tensor) -> str:
    """Return why there is no voice to embed in audio [N'] at 16 kHz; "" if there may be one."""
    if len(audio) < MIN_SECONDS * RATE:
        return f"shorter than {MIN_SECONDS:g} s"
    return "silent" if audio.std() < SILENCE else ""


def _prepare(waveform: Tensor, sample_rate: int) -> Tensor | None:
    """Resample to 16 kHz and cut to 30 s: [N']; None if there is no voice to embed."""
    audio = _resampled(waveform, sample_rate)
    return None if audio is None or _problem(audio) else audio


def _normalise(embedding: Tensor) -> Tensor | None:
    """Scale to norm 1; None if the embedding is 0 or not finite."""
    unit = embedding.float() / embedding.float().norm()
    return unit if torch.isfinite(unit).all() else None


class WavlmEncoder:
    """WavLM with an x-vector head (Chen et al. 2022) from transformers.

    Args:
        source: folder or hub id. Weights must be safetensors; pickles are not loaded.
        local_files_only: load a hub id only from the cache.
    Raises:
        OSError: the weights are not in reach, or are no safetensors; the message names the fix.
        ValueError: the weights lack parts of the embedding.
    """

    def __init__(self, source: str = WAVLM, *, local_files_only: bool = False) -> None:
        import_torchaudio()  # before transformers imports it
        from transformers import Wav2Vec2FeatureExtractor, WavLMForXVector

        folder = Path(source)
        if not folder.is_dir():
            folder = find_model(source, FILES, local_files_only=local_files_only)
            source = f"{source}@{folder.name[:12]}"
        self._extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
        with quiet_libraries():
            loaded: Any = WavLMForXVector.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True
            )
        self._model, info = loaded
        missing = sorted(k for k in info["missing_keys"] if not k.startswith(TRAINING_ONLY))
        if missing:
            raise ValueError(
                f"{source} lacks {len(missing)} weights of a speaker encoder ({missing[0]} ...): "
                "give a WavLMForXVector"
            )
        self._model.eval()
        self.backend = f"wavlm ({source})"

    @torch.inference_mode()
    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor | None:
        audio = _prepare(waveform, sample_rate)
        if audio is None:
            return None
        inputs = self._extractor(audio.numpy(), sampling_rate=RATE, return_tensors="pt")
        return _normalise(self._model(inputs.input_values).embeddings[0])


class ResemblyzerEncoder:
    """Resemblyzer's LSTM, trained with the GE2E loss (Wan et al. 2018), with the weights of 0.1.4.

    Every clip is set to Resemblyzer's level, -30 dBFS, and pauses stay. Resemblyzer itself only
    raises quiet clips, although its network depends on level: the cosine of a clip and its copy at
    a quarter of the amplitude is then 0.9. It also cuts pauses, and the cuts differ between a clip
    and its reconstruction.
    """

    backend = f"resemblyzer (weights of 0.1.4 in float16, {LEVEL} dBFS)"

    def __init__(self) -> None:
        self._model = ResemblyzerNetwork.pretrained()

    @torch.inference_mode()
    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor | None:
        audio = _prepare(waveform, sample_rate)
        if audio is None:
            return None
        gain = 10 ** (LEVEL / 20) / audio.double().square().mean().sqrt()
        return _normalise(self._model.embed(audio * gain.float()))


def make_speaker_encoder(name: str = "auto") -> SpeakerEncoder:
    """Make an encoder: "wavlm", "resemblyzer", "auto", or "wavlm:<folder or hub id>".

    Raises:
        ValueError: unknown name, or the folder has no speaker encoder.
        OSError: the weights of wavlm were asked for by name and cannot be loaded.
    """
    if name == "resemblyzer":
        return ResemblyzerEncoder()
    if name.startswith("wavlm:"):
        return WavlmEncoder(name.removeprefix("wavlm:"))
    if name == "wavlm":
        return WavlmEncoder()
    if name != "auto":
        raise ValueError(f"speaker encoder {name!r}: known are auto, wavlm, resemblyzer")
    if (encoder := load_if_in_reach(WAVLM, WavlmEncoder)) is not None:
        return encoder
    warnings.warn(
        f"speaker similarity: {WAVLM} (the usual choice) is neither cached nor in reach; "
        "using resemblyzer",
        stacklevel=2,
    )
    return ResemblyzerEncoder()
