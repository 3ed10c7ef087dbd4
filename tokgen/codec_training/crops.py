"""Random crops of whole corpora for codec training, from a memory map: constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tokgen.corpus.listed import Corpus, Rejection


class AudioCrops:
    """All utterances of some corpora behind one another, int16, on disk.

    `batch(step, …)` depends on the seed and the step alone, so a resumed run sees the same audio.

    Args:
        corpora: what to read; unreadable clips are in `rejections`.
        sample_rate: Hz.
        cache: folder for the memory map; reused where the corpora's content is the same.
    """

    def __init__(self, corpora: Sequence[Corpus], sample_rate: int, cache: Path) -> None:
        content = "".join(c.fingerprint for c in corpora) + str(sample_rate)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self.sample_rate = sample_rate
        self.rejections: list[Rejection] = []
        path = cache / f"audio-{self.fingerprint[:16]}.i16"
        if not path.exists():
            self._write(corpora, path)
        self._audio = np.memmap(path, dtype=np.int16, mode="r")

    def _write(self, corpora: Sequence[Corpus], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        total = sum(len(c) for c in corpora)
        with partial.open("wb") as file, tqdm(total=total, unit="clip", desc="audio") as bar:
            for corpus in corpora:
                for utterance in corpus.utterances(self.sample_rate, rejected=self.rejections):
                    file.write(to_int16(utterance.waveform).tobytes())
                    bar.update()
        if partial.stat().st_size == 0:
            raise ValueError("no usable audio in the corpora: nothing to train on")
        partial.replace(path)

    @property
    def seconds(self) -> float:
        return len(self._audio) / self.sample_rate

    def batch(self, step: int, *, seed: int, batch_size: int, n_samples: int) -> Tensor:
        """waveform [B, 1, n_samples] of crops drawn for (seed, step)."""
        if n_samples > len(self._audio):
            raise ValueError(
                f"crops of {n_samples} samples from {len(self._audio)} in all: shorten the crops"
            )
        rng = np.random.default_rng((seed, step))
        starts = rng.integers(0, len(self._audio) - n_samples + 1, batch_size)
        crops = np.stack([self._audio[s : s + n_samples] for s in starts])
        return torch.from_numpy(crops.astype(np.float32) / 32768)[:, None]


def to_int16(waveform: Tensor) -> np.ndarray:
    """float [-1, 1] -> int16, clipped."""
    return (waveform.flatten() * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy()
