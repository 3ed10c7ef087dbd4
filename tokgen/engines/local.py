"""Units on this machine.

On a CPU each worker process has the codec and one thread: reading, encoding and storing overlap,
and no thread waits for another. On a GPU this process has the codec, and worker processes decode
and resample ahead of it. A worker that is killed is replaced, and its units are done again.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tokgen.corpus import Unit
from tokgen.engines.job import Job, Piece, Unfinished
from tokgen.engines.progress import Counter, Progress
from tokgen.token_shards import Shard
from tokgen.workers import begin_worker, usable_cores

DEATHS = 3  # workers that may die, one after another, without a unit done in between
READERS = 8  # processes that decode ahead of a GPU, at most

_job: Job | None = None  # of a worker process


def run(
    job: Job, units: Sequence[Unit], workers: int | None, progress: Progress
) -> Iterator[Shard]:
    """
    Args:
        workers: processes; None takes one a core, and never more than there are units. 0 and 1
            do all in this process.
    Raises:
        RuntimeError: workers die again and again.
    """
    on_gpu = job.codec.device.type == "cuda"
    if workers is None:
        workers = min(READERS, usable_cores() - 1) if on_gpu else usable_cores()
    workers = min(workers, len(units))
    if workers < (1 if on_gpu else 2):
        job.tell = progress.add
        yield from map(job, units)
    elif on_gpu:
        yield from _read_ahead(job, units, workers, progress)
    else:
        yield from _pool(job, units, workers, progress)


# -- CPU: each worker does all -------------------------------------------------------------


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
            deaths = _count_death(deaths, left, error)


def _one_pool(job: Job, units: Sequence[Unit], workers: int, progress: Progress) -> Iterator[Shard]:
    """Until all is done or a worker dies."""
    context = multiprocessing.get_context("fork" if _may_fork(job) else "spawn")
    others = set(multiprocessing.active_children())
    shared = (job, progress.shared(context))
    # Forked workers inherit the job; spawned ones get it pickled.
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=shared)
    waiting = iter(units)
    running: dict[Future[Shard], Unit] = {}
    try:
        while True:
            while len(running) < 2 * workers and (unit := next(waiting, None)) is not None:
                running[pool.submit(_work, unit)] = unit
            if not running:
                break
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            progress.look()
            for future in done:
                yield future.result()
                del running[future]
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()  # shards are written whole or not at all
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        progress.look()


def _may_fork(job: Job) -> bool:
    """Forked workers start at once and share memory; connections do not survive a fork."""
    return job.store.storage.is_local and job.corpus.is_local


def _start(job: Job, counter: Counter) -> None:
    global _job
    begin_worker()
    job.load_codec("cpu")
    job.tell = counter.add
    _job = job


def _work(unit: Unit) -> Shard:
    assert _job is not None
    return _job(unit)


# -- GPU: workers read, this process encodes -------------------------------------------------


class _Reader(IterableDataset):
    """The pieces of units; of several workers, each reads every so many-th unit."""

    def __init__(self, job: Job, units: Sequence[Unit]) -> None:
        self.job, self.units = job, units

    def __iter__(self) -> Iterator[Piece]:
        info = get_worker_info()
        mine = self.units if info is None else self.units[info.id :: info.num_workers]
        for unit in mine:
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
            worker_init_fn=_start_reader,
            multiprocessing_context="fork" if _may_fork(job) else "spawn",
        )
        work: dict[int, Unfinished] = {}
        try:
            for piece in loader:
                index = piece.unit.index
                job.encode(work.setdefault(index, Unfinished(piece.unit)), piece)
                if piece.is_last:
                    yield job.keep(work.pop(index))
                    del left[index]
                    deaths = 0
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            deaths = _count_death(deaths, left, error)


def _start_reader(index: int) -> None:
    begin_worker()


def _count_death(deaths: int, left: dict[int, Unit], error: Exception) -> int:
    """One more death; too many of them are an error."""
    if deaths + 1 >= DEATHS:
        raise RuntimeError(
            f"workers died {DEATHS} times without a unit done in between (out of memory?): "
            f"{len(left)} units are left, the first of them {min(left)}. Finished ones are kept: "
            "run the same command again with fewer workers"
        ) from error
    return deaths + 1
