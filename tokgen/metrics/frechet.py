"""Fréchet audio distance (FAD) of the embeddings of two sets of clips; from 0, lower is better.

The distance is that of two normal distributions with the means and covariances of the embeddings
(Kilgour et al. 2019). It compares sets, so it has one value for a row of clips and none for a clip.
It depends on the embedding and falls with the number of embeddings: compare only rows of the same
clips and the same embedding.

Embeddings: "clap" (LAION's CLAP by transformers, pieces of 10 s every 5 s, for any audio) and
"wavlm" (WavLM Base+ by transformers, one embedding per 20 ms, for speech), with weights of a hub or
a folder; and "resemblyzer" (voices, pieces of 1.6 s every 0.4 s; tokgen contains the weights).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tokgen.audio.resampling import resample
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.metrics.backends import find_model
from tokgen.metrics.measured import Measured, failed
from tokgen.metrics.resemblyzer import EXCERPT, HOP, ResemblyzerNetwork
from tokgen.metrics.signals import mix, why_unusable
from tokgen.runs.progress import quiet_libraries

__all__ = [
    "CLAP",
    "FILES",
    "LEVEL",
    "WAVLM",
    "ClapEmbedder",
    "Embedder",
    "ResemblyzerEmbedder",
    "WavlmEmbedder",
    "embed_clips",
    "frechet_distance",
    "make_embedder",
]

CLAP = "laion/clap-htsat-unfused"
WAVLM = "microsoft/wavlm-base-plus"
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
LEVEL = -30  # dBFS, of clips for resemblyzer


class Embedder(Protocol):
    """Embeds audio. `backend` names library and weights, `rate` is in Hz."""

    backend: str
    rate: int

    def embed(self, audio: Tensor) -> Tensor:
        """Return embeddings [n, D] of audio [N] at `rate`."""
        ...


def embed_clips(
    embedder: Embedder, clips: Sequence[Tensor], sample_rate: int
) -> list[Tensor | str]:
    """Embed clips [N] or [C, N], mixed to one channel: float64 [n, D], or why there is none."""
    found: list[Tensor | str] = []
    for clip in clips:
        problem = why_unusable(clip)
        audio = clip.flatten() if problem else mix(clip.detach()).cpu()
        if problem := problem or ("" if audio.any() else "silent"):
            found.append(problem)
        else:
            audio = resample(audio, sample_rate, embedder.rate)
            found.append(embedder.embed(audio).double().cpu())
    return found


def frechet_distance(reference: Tensor, estimate: Tensor) -> Measured:
    """Return the Fréchet distance of two sets of embeddings [n, D] and [m, D].

    The trace of the root of the covariances' product is the sum of the singular values of the
    product of both sets, so no root of a singular matrix is needed.
    """
    if min(len(reference), len(estimate)) < 2:
        return failed("fewer than two embeddings")
    means = [x.double().mean(0) for x in (reference, estimate)]
    a, b = (
        (x.double() - mean) / math.sqrt(len(x) - 1)
        for x, mean in zip((reference, estimate), means, strict=True)
    )
    shift = (means[0] - means[1]).square().sum()
    cross = torch.linalg.svdvals(_narrow(a) @ _narrow(b).mT).sum()
    value = shift + a.square().sum() + b.square().sum() - 2 * cross
    return Measured(max(0.0, float(value)))


def _narrow(a: Tensor) -> Tensor:
    """Return a matrix of at most D rows with the same covariance as a [n, D]."""
    return a if len(a) <= a.shape[1] else torch.linalg.qr(a, mode="r").R


def make_embedder(name: str) -> Embedder:
    """Make an embedder: "clap", "wavlm" or "resemblyzer".

    "clap" and "wavlm" may be followed by ":<folder or hub id>".

    Raises:
        ValueError: unknown name.
        OSError: the weights are not in reach, or are no safetensors; the message names the fix.
    """
    kind, _, source = name.partition(":")
    if name == "resemblyzer":
        return ResemblyzerEmbedder()
    if kind == "clap":
        return ClapEmbedder(source or CLAP)
    if kind == "wavlm":
        return WavlmEmbedder(source or WAVLM)
    raise ValueError(f"embedding {name!r}: known are clap, wavlm, resemblyzer")


def _load(source: str, model: str, extractor: str) -> tuple[Any, Any, str]:
    """Load a model and its feature extractor; return them with the name of the weights."""
    import_torchaudio()  # before transformers imports it
    import transformers

    folder = Path(source)
    if not folder.is_dir():
        folder = find_model(source, FILES)
        source = f"{source}@{folder.name[:12]}"
    with quiet_libraries():
        loaded = getattr(transformers, model).from_pretrained(folder, use_safetensors=True).eval()
    return loaded, getattr(transformers, extractor).from_pretrained(folder), source


class ClapEmbedder:
    """LAION's CLAP (Wu et al. 2023), the projected audio embedding of pieces of 10 s."""

    def __init__(self, source: str = CLAP) -> None:
        model = _load(source, "ClapAudioModelWithProjection", "ClapFeatureExtractor")
        self._model, self._extractor, name = model
        self.rate = int(self._extractor.sampling_rate)
        self.backend = f"clap ({name}), pieces of 10 s every 5 s"

    @torch.inference_mode()
    def embed(self, audio: Tensor) -> Tensor:
        pieces = [piece.numpy() for piece in _pieces(audio, 10 * self.rate, 5 * self.rate)]
        inputs = self._extractor(pieces, sampling_rate=self.rate, return_tensors="pt")
        return self._model(**inputs).audio_embeds


class WavlmEmbedder:
    """WavLM (Chen et al. 2022), the last layer's frames."""

    rate = 16_000

    def __init__(self, source: str = WAVLM) -> None:
        self._model, self._extractor, name = _load(source, "WavLMModel", "Wav2Vec2FeatureExtractor")
        self.backend = f"wavlm ({name}), last layer, one embedding per frame"

    @torch.inference_mode()
    def embed(self, audio: Tensor) -> Tensor:
        audio = torch.nn.functional.pad(audio, (0, max(0, self.rate // 10 - len(audio))))
        inputs = self._extractor(audio.numpy(), sampling_rate=self.rate, return_tensors="pt")
        return self._model(inputs.input_values).last_hidden_state[0]


class ResemblyzerEmbedder:
    """Resemblyzer's voices of pieces of 1.6 s, as `tokgen.metrics.speaker` hears them."""

    rate = 16_000
    backend = f"resemblyzer (weights of 0.1.4, {LEVEL} dBFS), pieces of 1.6 s every 0.4 s"

    def __init__(self) -> None:
        self._model = ResemblyzerNetwork.pretrained()

    @torch.inference_mode()
    def embed(self, audio: Tensor) -> Tensor:
        gain = 10 ** (LEVEL / 20) / audio.double().square().mean().sqrt()
        least = EXCERPT * HOP
        audio = torch.nn.functional.pad(audio, (0, max(0, least - len(audio))))
        frames = self._model.spectrogram(audio * gain.float())  # [T, mels]
        return self._model(frames.unfold(0, EXCERPT, EXCERPT // 4).mT)


def _pieces(audio: Tensor, size: int, step: int) -> Iterator[Tensor]:
    """Yield pieces [size] of audio [N]; short audio is padded, and a last short piece left out."""
    if len(audio) <= size:
        yield torch.nn.functional.pad(audio, (0, size - len(audio)))
        return
    for start in range(0, len(audio) - size + 1, step):
        yield audio[start : start + size]
