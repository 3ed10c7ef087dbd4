"""Units on this machine.

On a CPU each worker process has the codec and one thread: reading, encoding and storing overlap,
and no thread waits for another; oneDNN's convolutions round otherwise with more of them, so one
process takes one thread too. On a GPU this process has the codec, and worker processes decode
and resample ahead of it. A worker that is killed is replaced, and its units are done again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tokgen.corpus.entries import Entry, Rejection
from tokgen.corpus.reading import Unit
from tokgen.runs.workers import begin_worker, one_thread, usable_cores
from tokgen.tokens.engines.job import Job, Piece, Unfinished
from tokgen.tokens.engines.progress import Counter, Progress
from tokgen.tokens.shards import Shard

DEATHS = 3  # workers that may die, one after another, without a unit done in between
READERS = 8  # processes that decode ahead of a GPU, at most
MOST_STORING = 4  # units that wait for a disk, or a store, before the GPU waits too

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
            deaths += 1
            if deaths == DEATHS:  # one of those under way does it, again and again
                for shard in _one_by_one(job, list(left.values())[: 2 * workers], error):
                    del left[shard.index]
                    yield shard
                deaths = 0


def _one_by_one(job: Job, units: Sequence[Unit], error: Exception) -> list[Shard]:
    """Each utterance in a process of its own; one that ends it is rejected by name.

    Raises:
        RuntimeError: all of them end it: it is no utterance's fault.
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
                    Rejection(entry.source, "its process died of it, by a crash or of memory")
                )
            else:
                work.rows += part.rows
                work.rejections += part.rejections
                n_good += 1
        found.append(work)
    if not n_good:
        raise RuntimeError(_all_die(len(units), units[0].index)) from error
    return [job.keep(work) for work in found]


def _one_pool(job: Job, units: Sequence[Unit], workers: int, progress: Progress) -> Iterator[Shard]:
    """Until all is done or a worker dies."""
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


def _new_pool(job: Job, workers: int, counter: Counter) -> ProcessPoolExecutor:
    """Forked workers inherit the job; spawned ones get it pickled."""
    context = multiprocessing.get_context("fork" if _may_fork(job) else "spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(job, counter))


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


def _work_alone(unit: Unit, entry: Entry) -> Unfinished:
    assert _job is not None
    work = Unfinished(unit)
    for piece in _job.pieces(unit, [entry]):
        _job.encode(work, piece)
    return work


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
        storing: deque[Future[Shard]] = deque()
        try:
            with ThreadPoolExecutor(1) as storer:  # while the GPU goes on
                for piece in loader:
                    index = piece.unit.index
                    job.encode(work.setdefault(index, Unfinished(piece.unit)), piece)
                    if piece.is_last:
                        storing.append(storer.submit(job.keep, work.pop(index)))
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


def _start_reader(index: int) -> None:
    begin_worker()


def _all_die(n_left: int, first: int) -> str:
    return (
        f"workers died {DEATHS} times without a unit done in between, whatever they did (out of "
        f"memory?): {n_left} units are left, the first of them {first}. Finished ones are kept: "
        "run the same command again with fewer workers"
    )
