"""Fréchet audio distance of rows of audio from the row that they are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tokgen.metrics.frechet import Embedder, embed_clips, frechet_distance
from tokgen.metrics.statistics import Estimate
from tokgen.runs.workers import one_thread

__all__ = ["RowDistances"]


class RowDistances:
    """Measures the distances of rows. References are embedded once for each sample rate.

    Args:
        embedder: embeds the clips.
    Attributes:
        sizes: embeddings behind the distances, and their width.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._references: dict[int, list[Tensor | str]] = {}
        self.sizes: set[tuple[int, int]] = set()

    def measure(
        self,
        clips: Sequence[Tensor],
        references: Sequence[Tensor],
        sample_rate: int,
        lost: Mapping[int, str],
    ) -> tuple[Estimate, dict[int, str]]:
        """Return the distance of a row, and why clips are not part of it, by number.

        A clip that cannot be embedded is left out on both sides. The distance has no interval.

        Args:
            clips, references: [1, N] or [C, N]; the references of all rows of one rate are equal.
            lost: clips without audio, with the reason.
        """
        with one_thread():
            if sample_rate not in self._references:
                found = embed_clips(self._embedder, references, sample_rate)
                self._references[sample_rate] = found
            theirs = self._references[sample_rate]
            ours = embed_clips(self._embedder, clips, sample_rate)
        why = dict(lost)
        why |= {
            i: one if isinstance(one, str) else f"the reference: {other}"
            for i, (one, other) in enumerate(zip(ours, theirs, strict=True))
            if i not in lost and (isinstance(one, str) or isinstance(other, str))
        }
        kept = [i for i in range(len(clips)) if i not in why]
        if not kept:
            return Estimate(math.nan, math.nan, math.nan, 0, len(why)), why
        a, b = (torch.cat([x for i in kept if isinstance(x := side[i], Tensor)])
                for side in (theirs, ours))  # fmt: skip
        distance = frechet_distance(a, b)
        if distance.reason:
            why |= dict.fromkeys(kept, distance.reason)
            return Estimate(math.nan, math.nan, math.nan, 0, len(why)), why
        self.sizes.add((len(b), b.shape[1]))
        return Estimate(distance.value, math.nan, math.nan, len(kept), len(why)), why

    def notes(self) -> list[str]:
        """Return how many embeddings the distances compare, and whether these are few."""
        notes = []
        for n, width in sorted(self.sizes):
            few = ", which are few: compare it only with rows of the same clips"
            notes.append(f"FAD of {n} embeddings of {width} numbers{few if n <= width else ''}")
        return notes
