"""Random crops of corpora for codec training, read from a memory-mapped file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.resampling import resample
from tokgen.codec_training.settings import SharedSettings
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.disk import disk_errors, flush
from tokgen.runs.progress import progress_bar

__all__ = ["AudioCrops", "open_crops", "open_validation", "to_int16"]


class AudioCrops:
    """The concatenated utterances of some corpora, as int16 in a file.

    Args:
        corpora: corpora to read.
        sample_rate: Hz.
        cache: folder of the file, which is reused for corpora of the same content.
        channels: channels of the crops. 1 mixes those of a file; C keeps C of them, copies a mono
            file to all, and rejects others.
    Attributes:
        fingerprint: SHA-256 of the corpora's content and the sample rate.
        rejections: clips that cannot be read; empty if the file was reused.
    """

    def __init__(
        self, corpora: Sequence[Corpus], sample_rate: int, cache: Path, channels: int = 1
    ) -> None:
        content = "".join(c.fingerprint for c in corpora) + str(sample_rate)
        content += f" {channels} channels" if channels > 1 else ""
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self.sample_rate, self.channels = sample_rate, channels
        self.rejections: list[Rejection] = []
        path = cache / f"audio-{self.fingerprint[:16]}.i16"
        if not path.exists():
            self._write(corpora, path)
        self._audio = np.memmap(path, dtype=np.int16, mode="r").reshape(-1, channels)

    def _write(self, corpora: Sequence[Corpus], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        total = sum(len(c) for c in corpora)
        bar = progress_bar("audio", total=total, unit="clip")
        try:
            with disk_errors(path), partial.open("wb") as file, bar:
                for corpus in corpora:
                    self.rejections += corpus.rejections
                    for utterance in corpus.utterances(
                        self.sample_rate, rejected=self.rejections, channels=self.channels
                    ):
                        audio = utterance.waveform.expand(self.channels, -1)
                        file.write(to_int16(audio.T).tobytes())
                        bar.update()
            if partial.stat().st_size == 0:
                raise ValueError("the corpora have no readable audio to train on")
            flush(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def summary(self) -> str:
        """Describe the hours of audio and the rejected clips, to print."""
        lines = [f"{self.seconds / 3600:.2f} h of audio, {len(self.rejections)} clips rejected"]
        return "\n".join([*lines, *(f"  rejected {rejection}" for rejection in self.rejections)])

    @property
    def seconds(self) -> float:
        """Length of all audio in seconds."""
        return len(self._audio) / self.sample_rate

    def batch(
        self, step: int, *, seed: int, batch_size: int, n_samples: int, speed: float = 0.0
    ) -> Tensor:
        """Draw crops; the result depends on the arguments alone.

        Args:
            step, seed: seed of the draw.
            speed: play each crop at a factor of U(1 - speed, 1 + speed), which changes pitch and
                formants as another speaker would (Ko et al. 2015, "Audio augmentation").
        Returns:
            waveform [B, C, n_samples].
        Raises:
            ValueError: the corpora are shorter than one crop.
        """
        longest = math.ceil(n_samples * (1 + speed)) + 1 if speed else n_samples
        if longest > len(self._audio):
            raise ValueError(
                f"crops have {longest} samples, but the corpora have {len(self._audio)} in all: "
                "shorten the crops"
            )
        rng = np.random.default_rng((seed, step))
        starts = rng.integers(0, len(self._audio) - longest + 1, batch_size)
        crops = np.stack([self._audio[s : s + longest] for s in starts])
        audio = torch.from_numpy(crops.astype(np.float32) / 32768).mT.contiguous()
        if not speed:
            return audio
        rates = [round(self.sample_rate * f) for f in rng.uniform(1 - speed, 1 + speed, batch_size)]
        played = [resample(a, r, self.sample_rate) for a, r in zip(audio, rates, strict=True)]
        return torch.stack([a[..., :n_samples] for a in played])


def to_int16(waveform: Tensor) -> np.ndarray:
    """Convert float samples in [-1, 1] to int16, with clipping."""
    return (waveform.flatten() * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy()


def open_crops(
    settings: SharedSettings, sample_rate: int, folder: Path, channels: int = 1
) -> AudioCrops:
    """Open the training audio of a run, cached in its folder."""
    corpora = [open_corpus(name, split="train") for name in settings.corpora]
    return AudioCrops(corpora, sample_rate, folder / "cache", channels)


def open_validation(settings: SharedSettings) -> Corpus:
    """Open the validation corpus of a run."""
    return open_corpus(
        settings.validation or settings.corpora[0],
        split=settings.validation_split,
        min_seconds=settings.validation_min_seconds,
    )
