"""Units on a Ray cluster: Ray Data deals them to actors that hold the codec and write shards.

Connects to the cluster of RAY_ADDRESS, or of `ray start` on this machine, or starts one here.
Every machine needs tokgen with the extra "ray", the same codec, and corpus and dataset within
reach: on shared or object storage. Ray starts an actor that died anew and does its unit again.
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


class _Actor:
    """Holds the codec; a row is a unit, and comes back as what was done."""

    def __init__(self, sent: Any, device: str) -> None:
        if device == "cpu":
            torch.set_num_threads(1)
        job: Job = _import_ray().get(sent)
        job.load_codec(device)
        self.job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = self.job(Unit(int(row["index"]), int(row["start"]), int(row["stop"])))
        return {"shard": shard.to_json().decode()}


RETRIES = 3  # of a unit whose actor died


def run(
    job: Job, units: Sequence[Unit], workers: int | None, progress: Progress
) -> Iterator[Shard]:
    """
    Args:
        workers: actors; None takes one for each GPU of the cluster if the codec is on one, else
            one for each CPU.
    Raises:
        ModuleNotFoundError: ray is missing, naming the extra.
        ValueError: the cluster has no such device.
        RuntimeError: a unit's actor died again and again.
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
            raise ValueError(f"engine 'ray': the cluster has no {kind}; give another --device")
        actors = min(workers or there, len(units))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # there is one bar, of rows
        # A row a block, so that any actor takes the next unit, and little is done twice.
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
        raise RuntimeError(
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
    except ConnectionError:  # none is running: one of this machine's own
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
