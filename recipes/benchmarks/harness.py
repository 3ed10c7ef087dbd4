"""Time two ways of doing the same job in turn, and measure their memory.

    ours = Contender("tokgen", lambda: tokenize(...))
    peer = Contender("a loop over files", lambda: loop(...))
    times = alternate(ours, peer, rounds=5, check=same_codes)
    print(times.table())

The contenders run alternately, and the first one changes each round. A machine that slows down or
warms up therefore affects both. `ceilings` measures the limits of the machine.
"""

from __future__ import annotations

import gc
import json
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

from ceilings import machine
from tokgen.runs.folder import check_run_folder, write_json
from tokgen.runs.progress import progress_bar

SAMPLE_SECONDS = 0.1  # between two samples of the memory
CHILDREN_SECONDS = 0.25  # between two searches for child processes


@dataclass(frozen=True)
class Contender:
    """One way of doing the job.

    Attributes:
        name: shown in tables.
        run: does the whole job. `check` gets what it returns.
    """

    name: str
    run: Callable[[], Any]


@dataclass(frozen=True)
class Peak:
    """Peak memory of one run, in bytes.

    Attributes:
        resident: largest memory of this process and its children together, sampled ten times a
            second. On Linux this is the proportional set size: a page shared by n processes counts
            once. On other systems it is the resident set size: the page counts n times.
        grown: `resident` minus the memory at the start of the run.
        device: largest memory of torch's allocator on a CUDA device; 0 on a CPU.
    """

    resident: int
    grown: int
    device: int


@dataclass(frozen=True)
class PairedTimes:
    """Seconds and memory of two contenders.

    Attributes:
        ours: name of the first contender.
        peer: name of the second contender.
        seconds: wall time of each round, by name.
        peaks: largest memory over the rounds, by name.
        checked: what `check` returned; "" without a check.
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
        """Seconds of the peer divided by ours, one value per round."""
        pairs = zip(self.seconds[self.peer], self.seconds[self.ours], strict=True)
        return [theirs / ours for theirs, ours in pairs]

    @property
    def ratio(self) -> float:
        """Median over the rounds. Ours is faster if it is above 1."""
        return statistics.median(self.ratios)

    def table(self) -> str:
        """Format the seconds and memory of each contender, the ratio, and what was checked."""
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
            f"{self.ours} is {self.ratio:.2f}x [{min(self.ratios):.2f}, {max(self.ratios):.2f}] as "
            f"fast as {self.peer} (median and range of {rounds} round{'s' * (rounds != 1)})"
        )
        return "\n".join([*lines, f"check: {self.checked}"] if self.checked else lines)

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        ratios = self.ratios
        return {
            "ours": self.ours,
            "peer": self.peer,
            "device": self.device,
            "seconds": self.seconds,
            "median_seconds": self.medians,
            "ratio": {"median": self.ratio, "low": min(ratios), "high": max(ratios)},
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
) -> PairedTimes:
    """Time two contenders in turn. The one that runs first changes each round.

    Args:
        ours: the first contender.
        peer: the second contender, of another name.
        rounds: number of rounds that are timed.
        warmup: number of rounds before them. Memory is measured in these, because measuring it
            takes time. Without them it is measured in all rounds.
        check: called with both results of the first round (ours, the peer's). It returns a text
            that says how they agree, or raises to stop the benchmark.
        device: on "cuda", the clock waits for the GPU, and its memory is measured too.
    Raises:
        ValueError: rounds is under 1, warmup is under 0, or the names are equal.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds = {rounds}, warmup = {warmup}: must be at least 1 and 0")
    if ours.name == peer.name:
        raise ValueError(f"both contenders are called {ours.name!r}: give them different names")
    seconds: dict[str, list[float]] = {ours.name: [], peer.name: []}
    peaks: dict[str, Peak] = {}
    checked = ""
    bar = progress_bar(f"{ours.name} / {peer.name}", range(warmup + rounds), unit="round")
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
    return PairedTimes(ours.name, peer.name, seconds, peaks, checked, torch.device(device).type)


def measure(
    run: Callable[[], Any], device: str | torch.device = "cpu", watched: bool = True
) -> tuple[float, Peak, Any]:
    """Run a job once, and measure its time and memory.

    Args:
        run: the job.
        device: on "cuda", the clock waits for the GPU, and its memory is measured too.
        watched: sample the memory, which slows the run a little. Without it, memory is 0.
    Returns:
        wall time in seconds, peak memory, and the result of the job.
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
    """Memory of this process and its children in bytes, at the start and at its peak."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.children: list[psutil.Process] = []
        self.searched = 0.0
        self.start = self.peak = 0
        self.start = self.peak = self.sample()

    def sample(self) -> int:
        now = time.monotonic()
        if now - self.searched > CHILDREN_SECONDS:
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
    """Return the memory of a process in bytes; see `Peak.resident`."""
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
        while not done.wait(SAMPLE_SECONDS):
            memory.sample()

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        memory.sample()
        done.set()
        thread.join()


def write_report(
    path: Path | None,
    name: str,
    times: Mapping[str, PairedTimes] | Sequence[PairedTimes],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Print a benchmark's results, and write them as JSON.

    Args:
        path: the .json file to write; None writes none.
        name: name of the benchmark.
        times: by title, or as a list, whose titles are then the names of the contenders.
        extra: other results that JSON can hold, such as rooflines and settings.
    """
    about = machine()
    if not isinstance(times, Mapping):
        times = {f"{t.ours} and {t.peer}": t for t in times}
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    for title, pair in times.items():
        print(f"\n{title}\n{pair.table()}")
    for key, value in (extra or {}).items():
        print(f"{key}: {value}")
    if path is not None:
        found = {title: pair.as_dict() for title, pair in times.items()}
        content = {"benchmark": name, "machine": about, "comparisons": found}
        write_json(path, content | {"extra": dict(extra or {})})


def check_own(run: Path, benchmark: str) -> None:
    """Raise ValueError if a folder holds something else than a run of this benchmark."""
    check_run_folder(run)
    if not (run / "settings.json").is_file():
        return
    try:
        known = json.loads((run / "settings.json").read_text("utf-8")).get("benchmark") == benchmark
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise ValueError(f"{run} is the folder of another recipe: choose another --name")
