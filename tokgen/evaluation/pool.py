"""Clips scored in several processes, with the same records in the same order as in one.

Processes are forked, so that they share the models' weights; each computes with one thread. What
a GPU computes stays in this process and comes in batches, while the others do the rest.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from tokgen.evaluation.scorer import Clip, Scorer
from tokgen.runs.workers import begin_worker, usable_cores

WINDOW = 64  # clips that are read ahead: a GPU's batches come from them


class ScoringPool:
    """Scores clips as `scorer` does, in processes that start with the first clip.

    A clip whose process dies (a crash in a metric's C code, no memory) is tried once more in a
    process of its own; if that dies too, all its metrics have failed. What a metric raises is
    raised here.

    Args:
        scorer: what scores.
        workers: processes; None for one a core that this process may use, 0 or 1 for none. A
            system that cannot fork has none.
    Raises:
        ValueError: workers under 0.
    """

    def __init__(self, scorer: Scorer, workers: int | None = None) -> None:
        if workers is not None and workers < 0:
            raise ValueError(f"workers = {workers}: must be at least 0, or None for one a core")
        self.scorer = scorer
        self.workers = usable_cores() if workers is None else workers
        if "fork" not in multiprocessing.get_all_start_methods():
            self.workers = 0
        self._pool: ProcessPoolExecutor | None = None

    @property
    def backends(self) -> dict[str, str]:
        """Metric -> who computes it."""
        return self.scorer.backends

    def score_all(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]:
        """The records of clips, in their order."""
        if self.workers < 2:
            yield from self.scorer.score_all(clips)
            return
        todo = iter(clips)
        while window := list(islice(todo, max(WINDOW, 4 * self.workers))):
            futures = [self._submit(clip) for clip in window]
            batch = self.scorer.score_batch(window)
            for clip, found, future in zip(window, batch, futures, strict=True):
                yield found | self._result(clip, future)

    def close(self) -> None:
        """End the processes; the next clip starts others."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(self, clip: Clip) -> Future[dict[str, Any]]:
        if self._pool is None:
            self._pool = self._start(self.workers)
        try:
            return self._pool.submit(_score, *_plain(clip))
        except BrokenProcessPool:
            self.close()
            return self._submit(clip)

    def _result(self, clip: Clip, future: Future[dict[str, Any]]) -> dict[str, Any]:
        try:
            return future.result()
        except BrokenProcessPool:  # by this clip, or by one that was scored beside it
            pass
        with self._start(1) as alone:
            try:
                return alone.submit(_score, *_plain(clip)).result()
            except BrokenProcessPool:
                warnings.warn(
                    f"scoring a clip of {clip.audio.shape[-1]} samples ended its process twice; "
                    "its metrics count as failed",
                    stacklevel=2,
                )
                return self.scorer.failed(clip.text)

    def _start(self, workers: int) -> ProcessPoolExecutor:
        fork = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(workers, fork, _begin, (self.scorer,))


_scorer: Scorer  # a worker's


def _begin(scorer: Scorer) -> None:
    """In a new worker."""
    global _scorer
    _scorer = scorer
    begin_worker()


def _plain(clip: Clip) -> tuple[np.ndarray, np.ndarray, str | None, int]:
    audio, reference = (w.detach().cpu().numpy() for w in (clip.audio, clip.reference))
    return audio, reference, clip.text, clip.sample_rate


def _score(
    audio: np.ndarray, reference: np.ndarray, text: str | None, sample_rate: int
) -> dict[str, Any]:
    waveforms = torch.from_numpy(audio), torch.from_numpy(reference)
    return _scorer.score(*waveforms, text, sample_rate, _scorer.rest)
