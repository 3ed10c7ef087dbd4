"""Speaker similarity: the cosine between speaker embeddings of two clips, higher is better.

Backends: "wavlm" (WavLM Base+ fine-tuned for speaker verification, the usual one of the field;
weights from a hub or a folder) and "resemblyzer" (weights in its wheel). "auto" takes WavLM
where its weights can be had and says so where it cannot. Cosines of different backends are not
on one scale.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.extras import require_legacy
from tokgen.metrics.backends import hub_model_in_reach
from tokgen.metrics.signals import RATE, at_16k

WAVLM = "microsoft/wavlm-base-plus-sv"
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
TRAINING_ONLY = ("wavlm.masked_spec_embed", "objective.")  # no embedding depends on them
MIN_SECONDS = 1.0  # the encoders learned from excerpts of 1.6 s and more
MAX_SECONDS = 30.0  # a voice needs no more, and attention grows with the square
SILENCE = 1e-4  # RMS, -80 dB of full scale: under it an encoder would hear rounding noise


class SpeakerEncoder(Protocol):
    """Embeds a voice; `backend` names library and weights."""

    backend: str

    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor | None:
        """Where a voice lies among voices, from the first 30 s.

        Args:
            waveform: [N] or [1, N].
            sample_rate: Hz.
        Returns:
            float32 [D] of length 1, or None for less than a second, silence, NaN or infinity.
        """
        ...


def speaker_similarity(a: Tensor | None, b: Tensor | None) -> float:
    """Cosine of two embeddings of one encoder, -1 to 1; NaN where either is None.

    Raises:
        ValueError: embeddings of different sizes.
    """
    if a is None or b is None:
        return math.nan
    if a.shape != b.shape:
        raise ValueError(
            f"embeddings of {tuple(a.shape)} and {tuple(b.shape)}: take both from one encoder"
        )
    cosine = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0)
    return float(cosine.clamp(-1, 1))


def _prepare(waveform: Tensor, sample_rate: int) -> Tensor | None:
    """[N'] at 16 kHz, 1 to 30 s, or None where no voice can be heard."""
    if not torch.isfinite(waveform).all():
        return None
    longest = round(MAX_SECONDS * sample_rate)
    audio = at_16k(waveform.flatten()[:longest], sample_rate)
    if audio is None or len(audio) < MIN_SECONDS * RATE or audio.std() < SILENCE:
        return None
    return audio


def _normalise(embedding: Tensor) -> Tensor | None:
    """To length 1; None where the encoder gave nothing."""
    unit = embedding.float() / embedding.float().norm()
    return unit if torch.isfinite(unit).all() else None


class WavlmEncoder:
    """WavLM with an x-vector head (Chen et al. 2022) from transformers.

    Args:
        source: a folder or a hub id; weights are safetensors, pickles are not loaded.
        local_files_only: take a hub id from the cache or fail.
    Raises:
        OSError: no safetensors there, or not in reach.
        ValueError: weights that lack parts of the embedding.
    """

    def __init__(self, source: str = WAVLM, *, local_files_only: bool = False) -> None:
        import_torchaudio()  # transformers imports it beside its audio processors
        from transformers import Wav2Vec2FeatureExtractor, WavLMForXVector

        folder = Path(source)
        if not folder.is_dir():
            folder = _cached(source) or _download(source, local_files_only)
            source = f"{source}@{folder.name[:12]}"
        self._extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
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


def _cached(name: str) -> Path | None:
    """The hub cache's copy of a model with all `FILES`, whatever its revision."""
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots"
    for folder in sorted(snapshots.glob("*")):
        if all((folder / file).is_file() for file in FILES):
            return folder
    return None


def _download(name: str, local_files_only: bool) -> Path:
    """`FILES` of a hub model.

    Where the main branch has a pickle only, they come from the pull request by which the hub's
    own converter offers safetensors: transformers reads the same one, but does not find it
    again in the cache.
    """
    from huggingface_hub import get_repo_discussions, snapshot_download

    if local_files_only:
        raise FileNotFoundError(f"{name} with {', '.join(FILES)} is not in the hub's cache")
    folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
    if (folder / "model.safetensors").is_file():
        return folder
    try:
        conversions = list(
            get_repo_discussions(
                name,
                author="SFconvertbot",
                discussion_type="pull_request",
                discussion_status="open",
            )
        )
    except Exception as error:  # the hub's client raises more than OSError here
        raise OSError(f"{name} has no safetensors, conversions not in reach: {error}") from error
    for conversion in conversions:
        folder = Path(
            snapshot_download(name, revision=conversion.git_reference, allow_patterns=list(FILES))
        )
        if (folder / "model.safetensors").is_file():
            return folder
    raise FileNotFoundError(
        f"{name} has no safetensors: convert its weights and give 'wavlm:<folder>'"
    )


class ResemblyzerEncoder:
    """Resemblyzer's LSTM, learned by the GE2E loss (Wan et al. 2018); Apache-2.0.

    Every clip is set to Resemblyzer's level, -30 dBFS. Resemblyzer itself raises quiet clips
    only and cuts pauses: its network hears level (the cosine of a clip and its copy at a
    quarter of the amplitude is then 0.9), and the cuts differ between a clip and its
    reconstruction.
    """

    def __init__(self) -> None:
        self._package = require_legacy("resemblyzer")
        weights = Path(self._package.__file__).with_name("pretrained.pt")
        # Its constructor unpickles this file: pass only what holds tensors and plain values.
        torch.load(weights, map_location="cpu", weights_only=True)
        self._model = self._package.VoiceEncoder("cpu", verbose=False).eval()
        self._level = require_legacy("resemblyzer.hparams").audio_norm_target_dBFS
        self.backend = f"resemblyzer ({version('resemblyzer')}, {self._level} dBFS)"

    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor | None:
        audio = _prepare(waveform, sample_rate)
        if audio is None:
            return None
        levelled = self._package.normalize_volume(audio.numpy(), self._level)
        return _normalise(torch.from_numpy(self._model.embed_utterance(levelled)))


def make_speaker_encoder(name: str = "auto") -> SpeakerEncoder:
    """An encoder by name: "wavlm", "resemblyzer", "auto", or "wavlm:<folder or hub id>".

    Raises:
        ValueError: unknown name, or a folder that is not of a speaker encoder.
        ModuleNotFoundError: its package is missing, naming the extra.
        OSError: wavlm asked for by name and not in reach.
    """
    if name == "resemblyzer":
        return ResemblyzerEncoder()
    if name.startswith("wavlm:"):
        return WavlmEncoder(name.removeprefix("wavlm:"))
    if name == "wavlm":
        return WavlmEncoder()
    if name != "auto":
        raise ValueError(f"speaker encoder {name!r}: known are auto, wavlm, resemblyzer")
    with contextlib.suppress(OSError):
        return WavlmEncoder(local_files_only=True)
    if hub_model_in_reach(WAVLM):
        with contextlib.suppress(OSError):
            return WavlmEncoder()
    warnings.warn(
        f"speaker similarity: {WAVLM} (the field's usual) is neither cached nor in reach; "
        "using resemblyzer",
        stacklevel=2,
    )
    return ResemblyzerEncoder()
