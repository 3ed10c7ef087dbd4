"""Who does the units of a tokenizing run: this machine, processes of a launcher, or a cluster.

    local       processes on this machine's cores; on a GPU, processes that read ahead of it
    accelerate  the processes that `accelerate launch` started, one for each GPU
    ray         actors of a Ray cluster, fed by Ray Data (extra "ray")

An engine gets the job and the units that are left, has each done once or more, and says which are
done. Shards are equal however often a unit is done, so whoever dies is simply replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tokgen.corpus.reading import Unit
    from tokgen.tokens.engines.job import Job
    from tokgen.tokens.engines.progress import Progress
    from tokgen.tokens.shards import Shard

ENGINES = ("local", "accelerate", "ray")
LONGEST_HOURS = 24  # that processes of a launcher wait for each other

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """This process among those that do the same job, as `accelerate launch` started them.

    Attributes:
        rank: from 0.
        n_processes: in all.
        device: that is this process' own; None leaves the choice to the user.
    """

    rank: int = 0
    n_processes: int = 1
    device: str | None = None

    @classmethod
    def of(cls, engine: str) -> Place:
        if engine != "accelerate":
            return cls()
        import torch
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
        patient = timedelta(hours=LONGEST_HOURS)  # the first process may have much to clear up
        state = PartialState(cpu=on_cpu, timeout=patient)
        return cls(state.process_index, state.num_processes, str(state.device))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def does(self, unit: int) -> bool:
        """Whether a unit is this process' part: by its index alone, whatever is done already."""
        return unit % self.n_processes == self.rank

    def agree(self, choose: Callable[[], T]) -> T:
        """What the first process chooses, in all of them."""
        if self.n_processes == 1:
            return choose()
        from accelerate.utils import broadcast_object_list

        chosen: list = [choose() if self.is_first else None]
        return broadcast_object_list(chosen)[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.n_processes > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


def run_units(
    engine: str, job: Job, units: Sequence[Unit], workers: int | None, progress: Progress
) -> Iterator[Shard]:
    """Have units done, and give their shards as they come, in any order.

    Args:
        engine: of `ENGINES`.
        job: what to do with a unit.
        units: that are left.
        workers: processes or actors; None lets the engine choose.
        progress: is told of rows as they are encoded, where that can be known.
    Raises:
        ModuleNotFoundError: the engine's extra is missing.
        RuntimeError: workers die again and again.
    """
    if engine == "ray":
        from tokgen.tokens.engines import ray_data

        return ray_data.run(job, units, workers, progress)
    from tokgen.tokens.engines import local

    return local.run(job, units, workers, progress)
