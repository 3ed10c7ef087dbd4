"""Score clips in several processes, with the same records in the same order as in one.

Processes are forked so that they share the weights of models. Each uses one thread. Metrics that a
GPU computes stay in this process, in batches, while the others compute the rest.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from typing import Any, Self

import numpy as np
import torch

from tokgen.evaluation.reasons import DIED, join
from tokgen.evaluation.scorer import Clip, Scorer
from tokgen.runs.workers import begin_worker, usable_cores

__all__ = ["WINDOW", "ScoringPool", "check_workers"]

WINDOW = 64  # clips to read ahead and batch for a GPU


def check_workers(workers: int | None) -> None:
    """Raise ValueError for a negative number of workers."""
    if workers is not None and workers < 0:
        raise ValueError(f"workers = {workers}: must be at least 0, or None for one per core")


class ScoringPool:
    """Scores clips with a scorer in several processes, which start with the first clip.

    If a process dies (a crash in the C code of a metric, out of memory), its clip is tried again in
    a process of its own. If that process dies too, all metrics of the clip have failed. Exceptions
    of metrics are raised here.

    Args:
        scorer: scores the clips.
        workers: number of processes. None for one per usable core; 0 or 1 to score in this process.
            Systems that cannot fork always score in this process.
    Raises:
        ValueError: negative workers.
    """

    def __init__(self, scorer: Scorer, workers: int | None = None) -> None:
        check_workers(workers)
        self.scorer = scorer
        self.workers = usable_cores() if workers is None else workers
        if "fork" not in multiprocessing.get_all_start_methods():
            self.workers = 0
        self._pool: ProcessPoolExecutor | None = None

    @property
    def backends(self) -> dict[str, str]:
        """Metric to backend."""
        return self.scorer.backends

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the scorer's recogniser."""
        return self.scorer.languages

    def failed(
        self, text: str | None, reason: str = DIED, metrics: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return the record of a clip on which metrics failed, as `Scorer.failed`."""
        return self.scorer.failed(text, reason, metrics)

    def score_all(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]:
        """Yield the records of clips, in order."""
        if self.workers < 2:
            yield from self.scorer.score_all(clips)
            return
        todo = iter(clips)
        while window := list(islice(todo, max(WINDOW, 4 * self.workers))):
            futures = [self._submit(clip) for clip in window]
            batch = self.scorer.score_batch(window)
            for clip, found, future in zip(window, batch, futures, strict=True):
                yield join(found, self._result(clip, future))

    def close(self) -> None:
        """End the processes. The next clip starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _submit(self, clip: Clip) -> Future[dict[str, Any]]:
        if self._pool is None:
            self._pool = self._start(self.workers)
        try:
            return self._pool.submit(_score, *_to_numpy(clip))
        except BrokenProcessPool:
            self.close()
            return self._submit(clip)

    def _result(self, clip: Clip, future: Future[dict[str, Any]]) -> dict[str, Any]:
        with suppress(BrokenProcessPool):  # killed by this clip, or by another clip of the pool
            return future.result()
        with suppress(BrokenProcessPool), self._start(1) as alone:
            return alone.submit(_score, *_to_numpy(clip)).result()
        warnings.warn(
            f"scoring a clip of {clip.audio.shape[-1]} samples ended its process twice; "
            "its metrics count as failed",
            stacklevel=2,
        )
        return self.scorer.failed(clip.text)

    def _start(self, workers: int) -> ProcessPoolExecutor:
        fork = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(workers, fork, _begin, (self.scorer,))


_scorer: Scorer  # the scorer of this worker


def _begin(scorer: Scorer) -> None:
    """Set up a worker."""
    global _scorer
    _scorer = scorer
    begin_worker()


def _to_numpy(clip: Clip) -> tuple[np.ndarray, np.ndarray, str | None, int, str | None]:
    audio, reference = (w.detach().cpu().numpy() for w in (clip.audio, clip.reference))
    return audio, reference, clip.text, clip.sample_rate, clip.language


def _score(
    audio: np.ndarray,
    reference: np.ndarray,
    text: str | None,
    sample_rate: int,
    language: str | None,
) -> dict[str, Any]:
    waveforms = torch.from_numpy(audio), torch.from_numpy(reference)
    return _scorer.score(*waveforms, text, sample_rate, _scorer.rest, language)
