"""Run units on a Ray cluster, with Ray Data. Actors hold the codec and write shards.

The cluster is that of RAY_ADDRESS, or that of `ray start` on this machine, or a new one here.
Every machine needs tokgen with the extra "ray", the same codec, and access to the corpus and the
dataset on shared or object storage. If an actor dies, Ray restarts it and repeats its unit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tokgen.corpus.reading import Unit
from tokgen.tokens.engines.job import Job
from tokgen.tokens.engines.progress import Progress
from tokgen.tokens.shards import Shard

__all__ = ["RETRIES", "run"]

RETRIES = 3  # for a unit whose actor died


class _Actor:
    """Holds the codec. Each call runs one unit and returns its shard."""

    def __init__(self, sent_job: Any, device: str) -> None:
        if device == "cpu":
            torch.set_num_threads(1)
        job: Job = _import_ray().get(sent_job)
        job.load_codec(device)
        self.job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = self.job(Unit(int(row["index"]), int(row["start"]), int(row["stop"])))
        return {"shard": shard.to_json().decode()}


def run(
    job: Job, units: Sequence[Unit], workers: int | None, progress: Progress
) -> Iterator[Shard]:
    """Run units as `run_units` does.

    Args:
        workers: number of actors; None is one per GPU or CPU of the cluster, as the job needs.
    Raises:
        ValueError: the cluster has no device of the job's kind.
    """
    if not units:
        return
    ray = _import_ray()
    started = not ray.is_initialized()
    if started:
        _connect(ray, workers)
    try:
        kind = "GPU" if job.device == "cuda" else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if not there:
            raise ValueError(f"engine 'ray': the cluster has no {kind}; use another --device")
        actors = min(workers or there, len(units))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # `progress` shows a bar
        # With one row per block, any actor takes the next unit, and a death repeats one unit.
        rows = [{"index": u.index, "start": u.start, "stop": u.stop} for u in units]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=(ray.put(job), job.device),
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
            num_gpus=1 if kind == "GPU" else None,
            num_cpus=None if kind == "GPU" else 1,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
        for row in done.iter_rows():
            shard = Shard.from_json(row["shard"].encode())
            progress.add(shard.n_entries, shard.audio_seconds)
            yield shard
    except ray.exceptions.ActorDiedError as error:
        raise ChildProcessError(
            f"the actors of one unit died {RETRIES + 1} times (out of memory?): {error}. Finished "
            "units are kept: run the same command again with fewer or larger actors"
        ) from error
    finally:
        if started:
            ray.shutdown()


def _connect(ray: Any, workers: int | None) -> None:
    quiet = {"logging_level": "warning", "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:  # no cluster is running, so start one
        ray.init(num_cpus=workers, include_dashboard=False, **quiet)


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ModuleNotFoundError(
            "engine 'ray' needs Ray Data: pip install 'tokgen[ray]'", name="ray"
        ) from error
    return ray
