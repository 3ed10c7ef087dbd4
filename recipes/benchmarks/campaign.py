"""Kill tokgen at random moments, fill its disk, and compare what it makes afterwards.

    python recipes/benchmarks/campaign.py --kills 20 --fills 3

Each job first runs undisturbed. Then it is killed by SIGKILL, SIGTERM or SIGINT and run again, up
to three times, until it completes. Its files must equal those of the undisturbed run. On a full
disk each job must end with one line that names the path, and must complete once there is room.

The full disk is a tmpfs if this process may mount one (as root on Linux). Otherwise a limit on the
size of files (RLIMIT_FSIZE) takes its place, and the output says so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.results import align
from tokgen.runs.folder import write_json

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLED = ("tokenize", "train")  # the other jobs are short
NEEDED_BY = {"encode": "decode", "train": "report"}  # whose input a job makes
KILLS_IN_A_ROW = 3
DISK_MB = 256
PATIENCE = 900  # seconds
UNSTEADY = ("seconds", "speed", "per_second", "written", "created")  # parts of names in JSON
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Job:
    """A command that writes to a folder.

    Attributes:
        name: shown in the table.
        command: makes the command for an output folder.
        results: patterns of the files to compare, below the folder.
    """

    name: str
    command: Callable[[Path], Sequence[object]]
    results: tuple[str, ...]


@dataclass
class Count:
    """Disturbances of a job, of one kind, and how they ended."""

    job: str
    disturbance: str
    n: int = 0
    completed: int = 0
    equal: int = 0
    tracebacks: int = 0
    faults: list[str] = field(default_factory=list)

    def row(self) -> list[str]:
        """Return the cells of the table."""
        numbers = (self.n, self.completed, self.equal, self.tracebacks, len(self.faults))
        return [self.job, self.disturbance, *map(str, numbers)]


HEADER = ["job", "disturbance", "disturbances", "results", "equal", "tracebacks", "faults"]


def tokgen(*words: object) -> list[object]:
    """Return a `tokgen` command."""
    return [sys.executable, "-m", "tokgen", *words]


def make_jobs(corpus: Path, codec: str, made: Path) -> list[Job]:
    """Return the jobs; `made` holds a codes file and a run that some of them read."""
    clip, codes = min(corpus.glob("*.wav")), made / "codes.safetensors"
    train = {
        "corpus": corpus, "codec": codec, "steps": 60, "batch_size": 2, "crop_seconds": 1,
        "checkpoint_every": 5, "validate_every": 20, "log_every": 5, "n_test": 2, "metrics": "pesq",
        "sampling.steps": "[2,1]", "model.dim": 32, "model.depth": 1, "model.heads": 2,
        "mixed_precision": "no", "name": "run",
    }  # fmt: skip
    flags = [word for name, value in train.items() for word in (f"--{name}", value)]
    few = ("--corpus", corpus, "--codec", codec)
    one = (*few, "--metrics", "pesq", "--split", "test", "--workers", 1)
    recipe = ROOT / "recipes" / "vocode_mfcc.py"
    return [
        Job("tokenize",
            lambda out: tokgen("tokenize", *few, "--out", out / "tokens", "--shard-rows", 2),
            ("tokens/**/*",)),
        Job("train", lambda out: [sys.executable, recipe, *flags, "--runs", out],
            ("run/model/model.safetensors", "run/history.jsonl", "run/metrics.json")),
        Job("encode", lambda out: tokgen("encode", clip, "--codec", codec, "--out",
            out / "codes.safetensors"), ("codes.safetensors",)),
        Job("decode", lambda out: tokgen("decode", codes, "--codec", codec, "--out",
            out / "decoded.wav"), ("decoded.wav",)),
        Job("score", lambda out: tokgen("score", *one, "--out", out / "score.json"),
            ("score.json",)),
        Job("report", lambda out: tokgen("report", made / "run", "--out", out / "page.html"),
            ("page.html",)),
    ]  # fmt: skip


def write_corpus(source: str, folder: Path, clips: int) -> None:
    """Write the first clips of a corpus as WAV files with a table, one in five for the test."""
    folder.mkdir()
    opened = open_corpus(source)
    lines = ["file_name,split"]
    for i, entry in enumerate(opened.entries[:clips]):
        write_audio(folder / f"{i:03d}.wav", opened.load(entry, 16000).waveform, 16000)
        lines.append(f"{i:03d}.wav,{'test' if i % 5 == 0 else 'train'}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Ended:
    """How a command ended, what it printed to stderr, and after how many seconds."""

    code: int
    errors: str
    seconds: float


def run(
    command: Sequence[object],
    *,
    kill: tuple[float, int] | None = None,
    file_limit: int | None = None,
) -> Ended:
    """Run a command to its end.

    Args:
        kill: seconds after which to send a signal, and the signal.
        file_limit: largest size of a file in bytes.
    """

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the back ignores it

    began = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | ENVIRONMENT,
        text=True, preexec_fn=limit, start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=kill[0] if kill else PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(kill[1] if kill else signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, errors, time.monotonic() - began)


def differences(job: Job, ours: Path, theirs: Path) -> list[str]:
    """Return the names of result files that are missing or differ."""
    found = []
    names = {
        path.relative_to(folder).as_posix()
        for folder in (ours, theirs)
        for pattern in job.results
        for path in folder.glob(pattern)
        if path.is_file()
    }
    for name in sorted(names):
        a, b = ours / name, theirs / name
        if not (a.is_file() and b.is_file() and equal_files(a, b)):
            found.append(name)
    return found or ([] if names else ["no results"])


def equal_files(a: Path, b: Path) -> bool:
    """Compare files: weights by value, JSON without times, others byte by byte."""
    if a.read_bytes() == b.read_bytes():
        return True
    if a.suffix == ".safetensors":
        x, y = load_file(a), load_file(b)
        return x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x)
    if a.suffix == ".json":
        return _steady(json.loads(a.read_text())) == _steady(json.loads(b.read_text()))
    return False


def _steady(value: object) -> object:
    """Return JSON without times and speeds."""
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if not any(u in k for u in UNSTEADY)}
    return [_steady(v) for v in value] if isinstance(value, list) else value


def kill_job(job: Job, whole: Path, seconds: float, kills: int, seed: int, work: Path) -> Count:
    """Kill a job `kills` times, and compare each result with the undisturbed one in `whole`."""
    count, draw = Count(job.name, "kill"), random.Random(f"{seed} {job.name}")
    while count.n < kills:
        out = work / "killed"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        in_a_row = 0
        while in_a_row < min(KILLS_IN_A_ROW, kills - count.n):
            number = draw.choice(SIGNALS)
            ended = run(job.command(out), kill=(seconds * draw.uniform(0.2, 1.0), number))
            if ended.code == 0:
                seconds = min(seconds, ended.seconds)  # the machine became faster
                break
            in_a_row += 1
            count.tracebacks += "Traceback" in ended.errors
        if in_a_row:
            count.n += in_a_row
            _finish(count, job, out, whole)
        print(f"{job.name}: {count.n} of {kills} kills, {count.equal} results equal", flush=True)
    return count


def _finish(count: Count, job: Job, out: Path, whole: Path) -> None:
    """Run a job to its end after a disturbance, and compare its files."""
    ended = run(job.command(out))
    count.completed += ended.code == 0
    if ended.code:
        count.faults.append(f"{job.name} does not complete: {ended.errors[-300:]}")
    elif changed := differences(job, out, whole):
        count.faults.append(f"{job.name}: {', '.join(changed)} differ")
    else:
        count.equal += 1


class Disk:
    """A disk that can be filled: a tmpfs at `folder`, or a limit on the size of files."""

    def __init__(self, folder: Path, is_mounted: bool) -> None:
        self.folder, self.is_mounted = folder, is_mounted

    @contextmanager
    def with_room(self, size: int) -> Iterator[None]:
        """Leave `size` bytes free inside the `with` block."""
        if not self.is_mounted:
            yield
            return
        filler = self.folder / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.folder).free - size)
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def small_disk(work: Path) -> Iterator[Disk]:
    """Mount a tmpfs below a folder if this process may."""
    folder = work / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    can = sys.platform == "linux" and shutil.which("mount") is not None and os.geteuid() == 0
    mounted = can and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(job: Job, whole: Path, disk: Disk, fills: int, seed: int) -> Count:
    """Run a job on a disk without enough room, then with room, `fills` times."""
    count = Count(job.name, "full disk" if disk.is_mounted else "file limit")
    draw, out = random.Random(f"{seed} {job.name}"), disk.folder / "out"
    sizes = [p.stat().st_size for p in whole.rglob("*") if p.is_file()]
    page = os.sysconf("SC_PAGESIZE")
    for i in range(fills):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        share = draw.uniform(0, 0.9) if i else 0.0
        room = int(share * sum(sizes)) // page * page
        limit = None if disk.is_mounted else max(1, int(share * max(sizes)))
        with disk.with_room(room):
            ended = run(job.command(out), file_limit=limit)
        if ended.code:
            count.n += 1
            lines = [x for x in ended.errors.splitlines() if x.startswith("error: ")]
            count.tracebacks += "Traceback" in ended.errors
            if len(lines) != 1 or str(disk.folder) not in lines[0]:
                count.faults.append(f"{job.name} at {room} bytes: {ended.errors[-400:]}")
        _finish(count, job, out, whole)
        print(f"{job.name}: {i + 1} of {fills} full disks, {count.equal} results equal", flush=True)
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign. Returns 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10, help="of tokenizing and of training each")
    parser.add_argument("--fills", type=int, default=3, help="full disks for each job")
    parser.add_argument("--clips", type=int, default=40, help="clips of the corpus")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    parser.add_argument("--corpus", default=str(ROOT / "recipes/data/allison"))
    parser.add_argument("--codec", default="speech-16k")
    parser.add_argument("--jobs", nargs="+", help="only these jobs")
    parser.add_argument("--out", type=Path, help=".json file for the counts")
    args = parser.parse_args(argv)
    counts: list[Count] = []
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name)) as disk:
        work, made = Path(name), Path(name) / "made"
        print("full disk:", "a tmpfs" if disk.is_mounted else "no tmpfs; RLIMIT_FSIZE", flush=True)
        write_corpus(args.corpus, work / "corpus", args.clips)
        jobs = make_jobs(work / "corpus", args.codec, made)
        chosen = set(args.jobs or [job.name for job in jobs])
        for job in jobs:
            if job.name not in chosen and NEEDED_BY.get(job.name) not in chosen:
                continue
            whole = work / f"whole-{job.name}"
            whole.mkdir()
            ended = run(job.command(whole))
            if ended.code:
                raise SystemExit(f"error: {job.name} fails undisturbed: {ended.errors[-500:]}")
            if job.name in NEEDED_BY:
                shutil.copytree(whole, made, dirs_exist_ok=True)
            if job.name not in chosen:
                continue
            if args.kills and job.name in KILLED:
                counts.append(kill_job(job, whole, ended.seconds, args.kills, args.seed, work))
            if args.fills:
                counts.append(fill_disk(job, whole, disk, args.fills, args.seed))
    print("\n" + align([HEADER, *(count.row() for count in counts)]))
    faults = [fault for count in counts for fault in count.faults]
    for fault in faults:
        print(f"fault: {fault}")
    if args.out:
        write_json(args.out, [vars(count) for count in counts])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
