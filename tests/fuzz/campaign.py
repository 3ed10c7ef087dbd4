"""Open damaged files in child processes, and count how they end.

A child has a limit of memory. A child that dies or does nothing for `PATIENCE` seconds is replaced,
and the file that it had open is a fault.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tokgen.runs.progress import progress_bar

MEMORY = 2 << 30  # bytes that a child may allocate after its start
PATIENCE = 120.0  # seconds of the child's processor time or, asleep, of the clock


@dataclass
class Outcome:
    """How a campaign ended.

    Attributes:
        counts: files by kind and by end.
        faults: kind, seed of the file and what was said, of each fault.
        slowest: kind, seed and seconds of the file that took longest.
    """

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[tuple[str, int, str]] = field(default_factory=list)
    slowest: tuple[str, int, float] = ("", 0, 0.0)

    def table(self) -> str:
        ends = ("value", "rejected", "error", "FAULT")
        lines = [f"{'kind':<16}" + "".join(f"{end:>10}" for end in ends)]
        for kind, found in self.counts.items():
            lines.append(f"{kind:<16}" + "".join(f"{found[end]:>10}" for end in ends))
        kind, seed, seconds = self.slowest
        lines.append(f"slowest: {kind} {seed}, {seconds:.1f} s")
        lines += [f"FAULT {kind} {seed}: {said}" for kind, seed, said in self.faults]
        return "\n".join(lines)


def run_campaign(files: int, seed: int = 0, kinds: tuple[str, ...] = ()) -> Outcome:
    """Open `files` damaged files, shared among the kinds.

    Args:
        files: number of files.
        seed: of the first file of a kind; the others follow.
        kinds: kinds to open; all by default.
    """
    from fuzz.targets import TARGETS

    chosen = {kind: TARGETS[kind] for kind in kinds or TARGETS}
    total = sum(target.share for target in chosen.values())
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        for kind, target in chosen.items():
            n = max(1, round(files * target.share / total))
            _run_kind(kind, range(seed, seed + n), Path(folder) / kind.replace(" ", "_"), outcome)
    return outcome


def _run_kind(kind: str, seeds: range, folder: Path, outcome: Outcome) -> None:
    bar = progress_bar(kind, total=len(seeds), unit="file")
    while seeds:
        last, end, said = -1, "", ""
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        child = multiprocessing.get_context("spawn").Process(
            target=_work, args=(kind, seeds, folder, theirs)
        )
        child.start()
        theirs.close()
        try:
            while ours.poll(PATIENCE):
                last, end, said, seconds = ours.recv()
                if end == "open":
                    continue
                outcome.counts[kind][end] += 1
                if end == "FAULT":
                    outcome.faults.append((kind, last, said))
                if seconds > outcome.slowest[2]:
                    outcome.slowest = (kind, last, seconds)
                bar.update()
            child.kill()
            died = f"nothing for {PATIENCE:g} s"
        except EOFError:
            died = ""
        child.join()
        ours.close()
        if last < 0:
            raise RuntimeError(f"the child for {kind} could not start")
        if end == "open":
            outcome.counts[kind]["FAULT"] += 1
            outcome.faults.append((kind, last, died or f"the process died ({child.exitcode})"))
            bar.update()
        seeds = range(last + 1, seeds.stop)
    bar.close()


def _work(kind: str, seeds: range, folder: Path, pipe: Connection) -> None:
    """Open the files of `seeds`, and report the start and the end of each."""
    import torch

    from fuzz.targets import TARGETS, damaged_copy, open_damaged

    torch.set_num_threads(1)
    examples = folder / "examples"
    if not examples.exists():
        examples.mkdir(parents=True)
        TARGETS[kind].make(examples)
    healthy = sorted(examples.iterdir())
    for example in healthy:  # a healthy file must open; this also imports what opening needs
        scratch = folder / "healthy"
        scratch.mkdir()
        copy = scratch / example.name
        (shutil.copytree if example.is_dir() else shutil.copy)(example, copy)
        end, said = open_damaged(TARGETS[kind], copy, ())
        if end != "value":
            raise RuntimeError(f"healthy {example.name}: {end} {said}")
        shutil.rmtree(scratch)
    now = _allocated()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    for seed in seeds:
        pipe.send((seed, "open", "", 0.0))
        scratch = folder / f"s{seed}"
        scratch.mkdir()
        start = time.process_time()
        try:
            random = Random(f"{kind} {seed}")
            copy, damaged = damaged_copy(random.choice(healthy), scratch, random)
            end, said = open_damaged(TARGETS[kind], copy, (damaged, copy.name))
            said = said and f"{copy.name}/{damaged}: {said}"
        except Exception:
            end, said = "FAULT", f"in the campaign itself: {traceback.format_exc()}"
        pipe.send((seed, end, said, time.process_time() - start))
        shutil.rmtree(scratch, ignore_errors=True)


def _allocated() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
