"""Choose the engine that runs a tokenizing job.

    local       processes on this machine's cores; for a GPU, processes that read ahead of it
    accelerate  processes that `accelerate launch` started, one per GPU
    ray         actors of a Ray cluster, with Ray Data (extra "ray")

An engine runs every unit at least once and yields its shard. Repeating a unit writes the same
shard, so dead workers are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tokgen.corpus.reading import Unit
    from tokgen.tokens.engines.job import Job
    from tokgen.tokens.engines.progress import Progress
    from tokgen.tokens.shards import Shard

__all__ = ["ENGINES", "Place", "run_units"]

ENGINES = ("local", "accelerate", "ray")

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """The place of this process among those that `accelerate launch` started."""

    rank: int = 0
    n_processes: int = 1
    device: str | None = None  # None lets the user choose

    @classmethod
    def of(cls, engine: str) -> Place:
        """Return the place of this process; without the engine "accelerate" it is alone."""
        if engine != "accelerate":
            return cls()
        import torch
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        from tokgen.runs.accelerator import LONGEST_WAIT

        on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
        state = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
        return cls(state.process_index, state.num_processes, str(state.device))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def agree(self, choose: Callable[[], T]) -> T:
        """Return the first process' choice in all processes."""
        if self.n_processes == 1:
            return choose()
        from accelerate.utils import broadcast_object_list

        chosen: list = [choose() if self.is_first else None]
        return broadcast_object_list(chosen)[0]

    def wait(self) -> None:
        """Wait until all processes call this."""
        if self.n_processes > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


def run_units(
    engine: str, job: Job, units: Sequence[Unit], workers: int | None, progress: Progress
) -> Iterator[Shard]:
    """Run units and yield their shards as they are complete, in any order.

    Args:
        workers: number of processes or actors; None lets the engine choose.
        progress: counts rows.
    Raises:
        ModuleNotFoundError: the engine's extra is not installed.
        ChildProcessError: workers died repeatedly without completing a unit.
    """
    if engine == "ray":
        from tokgen.tokens.engines import ray_data

        return ray_data.run(job, units, workers, progress)
    from tokgen.tokens.engines import local

    return local.run(job, units, workers, progress)
