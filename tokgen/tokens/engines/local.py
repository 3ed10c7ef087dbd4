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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tokgen.codec.depth import OutOfReach
from tokgen.corpus.entries import Entry, Rejection
from tokgen.corpus.reading import Unit
from tokgen.runs.workers import begin_worker, one_thread, usable_cores
from tokgen.tokens.engines.encoding import encode_items
from tokgen.tokens.engines.job import Job, Piece, Unfinished
from tokgen.tokens.engines.progress import Counter, Progress
from tokgen.tokens.shards import BEGUN, Shard

__all__ = ["DEATHS", "MOST_STORING", "READERS", "context_of", "reads_ahead", "run"]

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
    on_gpu = reads_ahead(job)
    if workers is None:
        cores = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        workers = min(READERS, cores) if on_gpu else cores
    workers = min(workers, len(units))
    if workers < (1 if on_gpu else 2):
        job.tell = progress.add
        with one_thread() if not on_gpu else nullcontext():
            for unit in units:
                yield _run_here(job, unit)
    elif on_gpu:
        yield from _read_ahead(job, units, workers, progress)
    else:
        yield from _pool(job, units, workers, progress)


def reads_ahead(job: Job) -> bool:
    """Return whether workers only read, and this process encodes: the codec is on a GPU."""
    return job.codec.device.type == "cuda"


def _run_here(job: Job, unit: Unit) -> Shard:
    """Run a unit in this process, or each of its utterances in another one.

    The latter happens if an earlier run ended without a word in this unit: its marker is there.
    """
    folder = job.store.storage.path
    if folder is None:
        return job(unit)
    marker = folder / f"{BEGUN}{unit.index:09d}"
    try:
        if marker.exists():
            return _one_by_one(job, [unit])[0]
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        return job(unit)
    finally:  # a process that crashes or is killed leaves the marker
        marker.unlink(missing_ok=True)


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
        except BrokenProcessPool:
            deaths += 1
            if deaths == DEATHS:  # a unit that is running kills its worker every time
                for shard in _one_by_one(job, list(left.values())[: 2 * workers]):
                    del left[shard.index]
                    yield shard
                deaths = 0


def _one_by_one(job: Job, units: Sequence[Unit]) -> list[Shard]:
    """Run each utterance in its own process, and reject those whose process dies.

    With a GPU, the process reads the utterance, and this process encodes it.

    Raises:
        ChildProcessError: all processes die, even one that codes noise, so no utterance is the
            cause.
    """
    on_gpu = reads_ahead(job)
    found, is_good = [], False
    for unit in units:
        work = Unfinished(unit)
        for entry in job.corpus.read_unit(unit):
            try:
                pieces = _alone(job, on_gpu, _read_alone if on_gpu else _work_alone, unit, entry)
            except BrokenProcessPool:
                reason = "its process died, by a crash or out of memory"
                work.rejections.append(Rejection(entry.source, reason))
                continue
            is_good = True
            if on_gpu:
                for piece in pieces:
                    job.encode(work, piece)
            else:
                work.rows += pieces.rows
                work.rejections += pieces.rejections
        found.append(work)
    if not is_good:
        try:
            _alone(job, on_gpu, _code_noise)
        except BrokenProcessPool as error:
            raise ChildProcessError(_all_die(len(units), units[0].index)) from error
    return [job.save(work) for work in found]


def _alone(job: Job, on_gpu: bool, function: Callable[..., Any], *arguments: object) -> Any:
    """Return a function's result from a process of its own.

    Raises:
        BrokenProcessPool: the process died.
    """
    begin = _start_reader if on_gpu else _start
    with ProcessPoolExecutor(1, context_of(job), begin, (job, Counter())) as pool:
        return pool.submit(function, *arguments).result()


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


def _start_reader(job: Job, counter: Counter) -> None:
    global _job
    begin_worker()
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


def _read_alone(unit: Unit, entry: Entry) -> list[Piece]:
    assert _job is not None
    return list(_job.pieces(unit, [entry]))


def _code_noise() -> None:
    """Encode a tenth of a second of noise, if the process has a codec."""
    assert _job is not None
    if not isinstance(_job.codec, tuple) and _job.codec.device.type == "cpu":
        noise = 0.1 * torch.randn(_job.rate // 10, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode(), suppress(OutOfReach):
            encode_items(_job.codec, [noise])


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
        for future in storing:
            shard = future.result()
            del left[shard.index]
            yield shard
        if deaths == DEATHS:  # a unit that is being read kills its worker every time
            for shard in _one_by_one(job, list(left.values())[:workers]):
                del left[shard.index]
                yield shard
            deaths = 0


def _all_die(n_left: int, first: int) -> str:
    return (
        f"workers died {DEATHS} times without a unit completed in between (out of memory?): "
        f"{n_left} units are left, the first of them {first}. Complete units are kept: run the "
        "same command again with fewer workers"
    )
