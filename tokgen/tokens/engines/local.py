"""Run units on this machine.

On a CPU, each worker process has the codec and one thread, so that reading, encoding and storing
overlap. oneDNN's convolutions round differently with more threads, so a run without workers uses
one thread too. On a GPU, this process has the codec, and worker processes decode and resample
ahead of it. A killed worker is replaced, and its units are repeated.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing.context import BaseContext

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tokgen.corpus.entries import Entry, Rejection
from tokgen.corpus.reading import Unit
from tokgen.runs.workers import begin_worker, one_thread, usable_cores
from tokgen.tokens.engines.job import Job, Piece, Unfinished
from tokgen.tokens.engines.progress import Counter, Progress
from tokgen.tokens.shards import Shard

__all__ = ["DEATHS", "MOST_STORING", "READERS", "context_of", "run"]

DEATHS = 3  # workers may die this often without a unit completed in between
READERS = 8  # largest number of processes that read ahead of a GPU
MOST_STORING = 4  # units that may wait to be stored before the GPU waits too

_job: Job | None = None  # set in worker processes


def run(
    job: Job, units: Sequence[Unit], workers: int | None, progress: Progress
) -> Iterator[Shard]:
    """Run units as `run_units` does.

    Args:
        workers: number of processes, at most one per unit; None is one per core. 0 and 1 run all
            units in this process.
    """
    on_gpu = job.codec.device.type == "cuda"
    if workers is None:
        cores = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        workers = min(READERS, cores) if on_gpu else cores
    workers = min(workers, len(units))
    if workers < (1 if on_gpu else 2):
        job.tell = progress.add
        with one_thread() if not on_gpu else nullcontext():
            yield from map(job, units)
    elif on_gpu:
        yield from _read_ahead(job, units, workers, progress)
    else:
        yield from _pool(job, units, workers, progress)


# -- CPU: each worker reads, encodes and stores -----------------------------------------------


def _pool(job: Job, units: Sequence[Unit], workers: int, progress: Progress) -> Iterator[Shard]:
    left = {unit.index: unit for unit in units}
    deaths = 0
    while left:
        try:
            for shard in _one_pool(job, list(left.values()), workers, progress):
                del left[shard.index]
                deaths = 0
                yield shard
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == DEATHS:  # a unit that is running kills its worker every time
                for shard in _one_by_one(job, list(left.values())[: 2 * workers], error):
                    del left[shard.index]
                    yield shard
                deaths = 0


def _one_by_one(job: Job, units: Sequence[Unit], error: Exception) -> list[Shard]:
    """Run each utterance in its own process, and reject those whose process dies.

    Raises:
        RuntimeError: all processes die, so no single utterance is the cause.
    """
    found, n_good = [], 0
    for unit in units:
        work = Unfinished(unit)
        for entry in job.corpus.read_unit(unit):
            try:
                with _new_pool(job, 1, Counter()) as alone:
                    part = alone.submit(_work_alone, unit, entry).result()
            except BrokenProcessPool:
                work.rejections.append(
                    Rejection(entry.source, "its process died, by a crash or out of memory")
                )
            else:
                work.rows += part.rows
                work.rejections += part.rejections
                n_good += 1
        found.append(work)
    if not n_good:
        raise RuntimeError(_all_die(len(units), units[0].index)) from error
    return [job.save(work) for work in found]


def _one_pool(job: Job, units: Sequence[Unit], workers: int, progress: Progress) -> Iterator[Shard]:
    """Run units in one pool until all are complete or a worker dies."""
    others = set(multiprocessing.active_children())
    pool = _new_pool(job, workers, progress.shared())
    waiting = iter(units)
    running: dict[Future[Shard], Unit] = {}
    try:
        while True:
            while len(running) < 2 * workers and (unit := next(waiting, None)) is not None:
                running[pool.submit(_work, unit)] = unit
            if not running:
                break
            done, _ = wait(running, timeout=0.5, return_when="FIRST_COMPLETED")
            progress.refresh()
            for future in done:
                yield future.result()
                del running[future]
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()  # safe: shards are written completely or not at all
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        progress.refresh()


def _new_pool(job: Job, workers: int, counter: Counter) -> ProcessPoolExecutor:
    """Start workers. Forked ones inherit the job; spawned ones receive it pickled."""
    return ProcessPoolExecutor(workers, context_of(job), _start, (job, counter))


def context_of(job: Job) -> BaseContext:
    """Return how workers start: by a fork if all files are local, because connections break."""
    is_local = job.store.storage.is_local and job.corpus.is_local
    return multiprocessing.get_context("fork" if is_local else "spawn")


def _start(job: Job, counter: Counter) -> None:
    global _job
    begin_worker()
    job.load_codec("cpu")
    job.tell = counter.add
    _job = job


def _work(unit: Unit) -> Shard:
    assert _job is not None
    return _job(unit)


def _work_alone(unit: Unit, entry: Entry) -> Unfinished:
    assert _job is not None
    work = Unfinished(unit)
    for piece in _job.pieces(unit, [entry]):
        _job.encode(work, piece)
    return work


# -- GPU: workers read, this process encodes -------------------------------------------------


class _Reader(IterableDataset):
    """Yields the pieces of units. Worker i of n reads every n-th unit, from unit i on."""

    def __init__(self, job: Job, units: Sequence[Unit]) -> None:
        self.job, self.units = job, units

    def __iter__(self) -> Iterator[Piece]:
        info = get_worker_info()
        assert info is not None
        begin_worker()
        for unit in self.units[info.id :: info.num_workers]:
            yield from self.job.pieces(unit)


def _read_ahead(
    job: Job, units: Sequence[Unit], workers: int, progress: Progress
) -> Iterator[Shard]:
    job.tell = progress.add
    left, deaths = {unit.index: unit for unit in units}, 0
    while left:
        loader = DataLoader(
            _Reader(job, list(left.values())),
            batch_size=None,
            num_workers=min(workers, len(left)),
            prefetch_factor=2,
            multiprocessing_context=context_of(job),
        )
        work: dict[int, Unfinished] = {}
        storing: deque[Future[Shard]] = deque()
        try:
            with ThreadPoolExecutor(1) as storer:  # stores while the GPU encodes
                for piece in loader:
                    index = piece.unit.index
                    job.encode(work.setdefault(index, Unfinished(piece.unit)), piece)
                    if piece.is_last:
                        storing.append(storer.submit(job.save, work.pop(index)))
                    while storing and (storing[0].done() or len(storing) > MOST_STORING):
                        shard = storing.popleft().result()
                        del left[shard.index]
                        deaths = 0
                        yield shard
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
            deaths += 1
            if deaths == DEATHS:
                raise RuntimeError(_all_die(len(left), min(left))) from error
        for future in storing:
            shard = future.result()
            del left[shard.index]
            yield shard


def _all_die(n_left: int, first: int) -> str:
    return (
        f"workers died {DEATHS} times without a unit completed in between (out of memory?): "
        f"{n_left} units are left, the first of them {first}. Complete units are kept: run the "
        "same command again with fewer workers"
    )
