"""Starting, killing and reading recipes as subprocesses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from makers.paths import ROOT

TINY_MODEL = ["--model.dim", "32", "--model.depth", "1", "--model.heads", "2"]


def launch(
    recipe: str | Path, *flags: object, processes: int = 1, config: str | None = None
) -> subprocess.Popen:
    """Start a recipe on the CPU, one thread a process, without a hub.

    `config`, a file of recipes/accelerate, goes to `accelerate launch` and says how many processes.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    if config:
        file = ROOT / "recipes" / "accelerate" / config
        many = ["-m", "accelerate.commands.launch", "--config_file", str(file)]
        many += ["--main_process_port", "0"]  # a free one
    python = [sys.executable, *(many if processes > 1 or config else [])]
    command = [*python, str(ROOT / "recipes" / recipe), *map(str, flags)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(
    recipe: str | Path,
    *flags: object,
    code: int = 0,
    processes: int = 1,
    config: str | None = None,
) -> str:
    process = launch(recipe, *flags, processes=processes, config=config)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code, out
    return out


def kill_when(process: subprocess.Popen, ready, number: int = signal.SIGKILL) -> str:
    """Send a signal as soon as `ready()`; what the process printed."""
    deadline = time.monotonic() + 200
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=200)
    return out
