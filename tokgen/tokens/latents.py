"""Latent datasets: token datasets with the latents of a continuous codec in place of codes.

A latent dataset has the rows of a token dataset (`tokgen.tokens.dataset`), with the column
`latents` [T, D] float16 in place of `codes`. `tokenize_corpus` makes it from a corpus.

    latents = load_latents("latents")        # a folder, a URL, or an id on the Hugging Face hub
    latents.splits["train"][0]["latents"]    # [T, D]
    latents.latents("train", 0)              # [1, D, T], as `ContinuousCodec.encode` returns them
    latents.decode(codec, "train", 0)        # [1, 1, N]
    latents.sample_frames("train", 100_000)  # [n, D], to fit a quantizer
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tokgen.codec.continuous import ContinuousCodec
from tokgen.tokens.columns import latents_of
from tokgen.tokens.opening import CodedDataset, check_same_weights, open_rows

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["ROWS_PER_PIECE", "LatentDataset", "draw_frames", "load_latents"]

ROWS_PER_PIECE = 64  # rows that are in memory at once while frames are read


@dataclass(frozen=True, repr=False)
class LatentDataset(CodedDataset):
    """An open latent dataset.

    Attributes:
        splits: rows by split, such as `splits["train"][0]["latents"]` [T, D].
        provenance: codec, corpus and settings behind the rows.
        source: folder, URL or hub id that it was loaded from; None for one made in memory.
    """

    def latents(self, split: str, index: int) -> Tensor:
        """Return latents float32 [1, D, T] of one row, as `ContinuousCodec.encode` returns them.

        They are rounded to float16.

        Raises:
            ValueError: there is no such split.
        """
        return latents_of(self._row(split, index))[0][None]

    def decode(self, codec: ContinuousCodec, split: str, index: int) -> Tensor:
        """Return the waveform [1, 1, N] of one row.

        Raises:
            TypeError: the codec is not continuous.
            ValueError: another codec made the latents, or there is no such split.
        """
        if not isinstance(codec, ContinuousCodec):
            raise TypeError(
                f"{codec!r} decodes codes, not latents: load {self.provenance.codec['name']!r} "
                "with load_continuous"
            )
        check_same_weights(self.provenance, codec.spec)
        row = self._row(split, index)
        return codec.decode(latents_of(row)[0][None], row["n_samples"][0])

    def n_frames(self, split: str) -> int:
        """Return the number of frames of a split, without reading them."""
        return int(self._lengths(split).sum())

    def frames(self, split: str) -> Tensor:
        """Return all frames of a split, float32 [n, D], in order."""
        return torch.cat(list(self.iter_frames(split)))

    def iter_frames(self, split: str) -> Iterator[Tensor]:
        """Yield the frames of a split, float32 [n, D], of `ROWS_PER_PIECE` rows at a time."""
        rows = self._rows(split)
        for first in range(0, len(rows), ROWS_PER_PIECE):
            yield _frames(rows, first)

    def sample_frames(self, split: str, n: int, *, seed: int = 0) -> Tensor:
        """Return random frames of a split, float32 [n, D], in random order.

        Each frame is drawn at most once; if the split has no more than `n`, all are returned. The
        draw depends on the rows and the seed only. Memory holds the result, the lengths of all rows
        and `ROWS_PER_PIECE` rows, and up to 8 bytes for each frame of the split.

        Args:
            split: see above.
            n: number of frames.
            seed: of the draw.
        Raises:
            ValueError: there is no such split, or `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"n = {n}: must be at least 1 frame")
        rows, lengths = self._rows(split), self._lengths(split)
        starts = np.cumsum([0, *lengths])
        total = int(starts[-1])
        drawn = np.random.default_rng(seed).choice(total, min(n, total), replace=False)
        order = np.argsort(drawn)
        place = drawn[order]
        out = torch.empty(len(drawn), self.provenance.latent_dim)
        for first in range(0, len(rows), ROWS_PER_PIECE):
            low, high = starts[first], starts[min(first + ROWS_PER_PIECE, len(rows))]
            some = slice(*np.searchsorted(place, (low, high)))
            if some.start < some.stop:
                piece = _frames(rows, first)
                out[torch.from_numpy(order[some])] = piece[torch.from_numpy(place[some] - low)]
        return out

    def _lengths(self, split: str) -> np.ndarray:
        """Return the frames of each row."""
        n_frames = self.provenance.codec_spec.n_frames
        return np.array([n_frames(n) for n in self._rows(split)["n_samples"][:]], dtype=np.int64)


def _frames(rows: Dataset, first: int) -> Tensor:
    """Return the frames [n, D] of `ROWS_PER_PIECE` rows from row `first` on."""
    some = rows.select(range(first, min(first + ROWS_PER_PIECE, len(rows))))
    return torch.cat([latents.mT for latents in latents_of(some)])


def draw_frames(
    datasets: Sequence[LatentDataset], n: int, *, split: str = "train", seed: int = 0
) -> Tensor:
    """Return about n random frames [n, D] of one split of several datasets, in proportion to each.

    If there are no more than `n`, all are returned. Datasets without the split are passed over.

    Raises:
        ValueError: no dataset has frames in this split.
    """
    totals = [each.n_frames(split) if split in each.splits else 0 for each in datasets]
    share = min(1.0, n / max(1, sum(totals)))
    parts = [
        each.sample_frames(split, max(1, round(share * total)), seed=seed)
        for each, total in zip(datasets, totals, strict=True)
        if total
    ]
    if not parts:
        raise ValueError(
            f"no dataset has a split {split!r} with frames: give a corpus that has one"
        )
    return torch.cat(parts)


def load_latents(
    source: str | Path | Dataset | DatasetDict,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    follow_links: bool = False,
) -> LatentDataset:
    """Open a latent dataset in Arrow or Parquet format, as `load_tokens` opens a token dataset.

    Args:
        source, revision, token, cache_dir, follow_links: as for `load_tokens`.
    Raises:
        FileNotFoundError, ValueError: as for `load_tokens`; or it is a token dataset.
    """
    return LatentDataset(
        *open_rows(
            source,
            "latents",
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            follow_links=follow_links,
        )
    )
