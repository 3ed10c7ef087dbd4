"""Two ways of doing one job, timed in turn, and how far each is from the machine's ceilings.

    ours = Contender("tokgen", lambda: tokenize(...))
    peer = Contender("a loop over files", lambda: loop(...))
    comparison = alternate(ours, peer, rounds=5, check=same_codes)
    print(comparison.table())

The scripts in `recipes/benchmarks` are built from this. Every figure is measured in the process
that prints it: contenders run alternately, in swapped order each round, so that a machine that
slows down or warms up meets both; ceilings are the best matrix product and the best copy found.
"""

from __future__ import annotations

import gc
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm import tqdm

from ceilings import Ceilings, count_flops, machine, measure_ceilings, roofline
from tokgen.runs.folder import write_json

__all__ = [
    "Ceilings",
    "Comparison",
    "Contender",
    "Peak",
    "alternate",
    "count_flops",
    "machine",
    "measure",
    "measure_ceilings",
    "roofline",
    "write_report",
]

_SAMPLE_SECONDS = 0.1  # between two looks at the memory
_CHILDREN_SECONDS = 0.25  # between two searches for child processes


@dataclass(frozen=True)
class Contender:
    """One way to do the whole job; what `run` returns is what `check` sees."""

    name: str
    run: Callable[[], Any]


@dataclass(frozen=True)
class Peak:
    """Memory of one run, bytes.

    Attributes:
        resident: largest sum of the proportional set sizes of this process and its children,
            sampled ten times a second: a page that n processes share counts 1/n for each.
            Elsewhere than on Linux resident sets, where it counts n times.
        grown: the same above the start of the run.
        device: largest memory of torch's allocator on a CUDA device, 0 without one.
    """

    resident: int
    grown: int
    device: int


@dataclass(frozen=True)
class Comparison:
    """Seconds and memory of two contenders.

    Attributes:
        ours, peer: names.
        seconds: wall time of each round, by name.
        peaks: the largest `Peak` over the rounds, by name.
        checked: what `check` said of the two results, "" without one.
        device: "cpu" or "cuda".
    """

    ours: str
    peer: str
    seconds: dict[str, list[float]]
    peaks: dict[str, Peak]
    checked: str = ""
    device: str = "cpu"

    @property
    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.seconds.items()}

    @property
    def ratios(self) -> list[float]:
        """Seconds of the peer for one of ours, round by round."""
        pairs = zip(self.seconds[self.peer], self.seconds[self.ours], strict=True)
        return [theirs / ours for theirs, ours in pairs]

    @property
    def ratio(self) -> float:
        """Median over the rounds: above 1, ours is faster."""
        return statistics.median(self.ratios)

    @property
    def ratio_low(self) -> float:
        return min(self.ratios)

    @property
    def ratio_high(self) -> float:
        return max(self.ratios)

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Memory of the device that did the work: the GPU's, or the resident set."""
        on_gpu = self.device.startswith("cuda")
        return {n: peak.device if on_gpu else peak.resident for n, peak in self.peaks.items()}

    def table(self) -> str:
        """Rows of contender, seconds and memory; then the ratio and what was checked."""
        width = max(len("contender"), *(len(name) for name in self.seconds))
        head = f"{'contender':<{width}}  {'median s':>9}  {'min-max':>17}"
        head += f"  {'peak MB':>8}  {'grown':>7}"
        lines = [head + ("  GPU MB" if self.device.startswith("cuda") else "")]
        for name, values in self.seconds.items():
            peak = self.peaks[name]
            spread = f"{min(values):.3f}-{max(values):.3f}"
            line = f"{name:<{width}}  {self.medians[name]:>9.3f}  {spread:>17}"
            line += f"  {peak.resident / 1e6:>8.0f}  {peak.grown / 1e6:>7.0f}"
            if self.device.startswith("cuda"):
                line += f"  {peak.device / 1e6:>6.0f}"
            lines.append(line)
        rounds = len(self.ratios)
        lines.append(
            f"{self.ours} is {self.ratio:.2f}x [{self.ratio_low:.2f}, {self.ratio_high:.2f}] as "
            f"fast as {self.peer} (median and range of {rounds} round{'s' * (rounds != 1)})"
        )
        return "\n".join([*lines, f"check: {self.checked}"] if self.checked else lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ours": self.ours,
            "peer": self.peer,
            "device": self.device,
            "seconds": self.seconds,
            "median_seconds": self.medians,
            "ratio": {"median": self.ratio, "low": self.ratio_low, "high": self.ratio_high},
            "peak_bytes": {name: vars(peak) for name, peak in self.peaks.items()},
            "checked": self.checked,
        }


def alternate(
    ours: Contender,
    peer: Contender,
    *,
    rounds: int = 5,
    warmup: int = 1,
    check: Callable[[Any, Any], str] | None = None,
    device: str | torch.device = "cpu",
) -> Comparison:
    """Time two contenders in turn; the one that goes first changes each round.

    Args:
        ours, peer: of different names.
        rounds: that are timed.
        warmup: rounds before, that are not. Memory is watched in these, for watching takes time;
            in all where there are none.
        check: gets both results of the very first round (ours, the peer's) and tells in words
            how they agree. It may raise to stop everything. Later results are dropped at once.
        device: on "cuda", the clock waits for the GPU, and its memory counts as well.
    Raises:
        ValueError: rounds under 1, warmup under 0, or one name for both.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds = {rounds}, warmup = {warmup}: at least 1 and 0")
    if ours.name == peer.name:
        raise ValueError(f"both contenders are called {ours.name!r}: name them apart")
    seconds: dict[str, list[float]] = {ours.name: [], peer.name: []}
    peaks: dict[str, Peak] = {}
    checked = ""
    bar = tqdm(range(warmup + rounds), desc=f"{ours.name} / {peer.name}", unit="round")
    for number in bar:
        results = {}
        for contender in (ours, peer) if number % 2 == 0 else (peer, ours):
            watched = number < warmup or not warmup
            took, peak, result = measure(contender.run, device, watched)
            if number == 0 and check is not None:
                results[contender.name] = result
            del result
            if number >= warmup:
                seconds[contender.name].append(took)
            if watched:
                peaks[contender.name] = _larger(peaks.get(contender.name, peak), peak)
        if results and check is not None:
            checked = check(results[ours.name], results[peer.name])
    return Comparison(ours.name, peer.name, seconds, peaks, checked, torch.device(device).type)


def measure(
    run: Callable[[], Any], device: str | torch.device = "cpu", watched: bool = True
) -> tuple[float, Peak, Any]:
    """Wall seconds, memory and the result of one run.

    Args:
        watched: whether memory is sampled, which takes some time of the run; it is 0 otherwise.
    """
    on_gpu = torch.device(device).type == "cuda"
    gc.collect()
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with _watch_memory() if watched else nullcontext() as memory:
        start = time.perf_counter()
        result = run()
        if on_gpu:
            torch.cuda.synchronize(device)
        took = time.perf_counter() - start
    on_device = torch.cuda.max_memory_allocated(device) if on_gpu else 0
    if memory is None:
        return took, Peak(0, 0, on_device), result
    return took, Peak(memory.peak, memory.peak - memory.start, on_device), result


def _larger(a: Peak, b: Peak) -> Peak:
    return Peak(max(a.resident, b.resident), max(a.grown, b.grown), max(a.device, b.device))


class _Memory:
    """Resident set of this process and its children, at the start and at its largest, bytes."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.children: list[psutil.Process] = []
        self.searched = 0.0
        self.start = self.peak = 0
        self.start = self.peak = self.look()

    def look(self) -> int:
        now = time.monotonic()
        if now - self.searched > _CHILDREN_SECONDS:
            self.children = self.process.children(recursive=True)
            self.searched = now
        total = 0
        for process in (self.process, *self.children):
            try:
                total += _resident(process)
            except psutil.Error:  # it has ended
                continue
        self.peak = max(self.peak, total)
        return total


def _resident(process: psutil.Process) -> int:
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    try:
        found = re.search(r"^Pss: +(\d+) kB", rollup.read_text(), re.MULTILINE)
    except OSError:  # not Linux, or it has ended
        found = None
    return int(found[1]) << 10 if found else process.memory_info().rss


@contextmanager
def _watch_memory() -> Iterator[_Memory]:
    memory = _Memory()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            memory.look()

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        memory.look()
        done.set()
        thread.join()


def write_report(
    path: Path | None,
    name: str,
    comparisons: Mapping[str, Comparison] | Sequence[Comparison],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Print machine, tables and what else was found; write all of it as JSON to `path`, if any.

    Args:
        path: a .json file, or None.
        name: of the benchmark.
        comparisons: by title, or in a row, where the contenders' names are the titles.
        extra: rooflines, settings and other figures that JSON can hold.
    """
    about = machine()
    if not isinstance(comparisons, Mapping):
        comparisons = {f"{c.ours} and {c.peer}": c for c in comparisons}
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    for title, comparison in comparisons.items():
        print(f"\n{title}\n{comparison.table()}")
    for key, value in (extra or {}).items():
        print(f"{key}: {value}")
    if path is not None:
        found = {title: comparison.as_dict() for title, comparison in comparisons.items()}
        content = {"benchmark": name, "machine": about, "comparisons": found}
        write_json(path, content | {"extra": dict(extra or {})})
