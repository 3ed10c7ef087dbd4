"""Start, kill and read recipes, each in a process of its own.

Most launches are forks of the server in `makers.processes`; `fresh=True` starts a new interpreter.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from makers.paths import ROOT
from makers.processes import ENVIRONMENT, fork_context

TINY_MODEL = ["--model.dim", "32", "--model.depth", "1", "--model.heads", "2"]


class Running(Protocol):
    """A recipe that was started."""

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def send_signal(self, number: int) -> None: ...

    def communicate(self, *, timeout: float) -> tuple[str, str | None]:
        """Wait for the end and return what was printed."""
        ...


class Forked:
    """A recipe in a process that was forked with its libraries already imported."""

    def __init__(self, script: Path, flags: list[str]) -> None:
        self._printed = Path(tempfile.mkstemp(suffix=".log")[1])
        self._process = fork_context().Process(
            target=_run_script, args=(str(script), flags, str(self._printed))
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def communicate(self, *, timeout: float) -> tuple[str, None]:
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"still running after {timeout} s"
        printed = self._printed.read_text(errors="replace")
        self._printed.unlink()
        return printed, None


def _run_script(script: str, flags: list[str], printed: str) -> None:
    """Run a script as `python script flags` would, with its output in a file."""
    file = os.open(printed, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(ROOT)
    os.environ.update(ENVIRONMENT)
    sys.argv = [script, *flags]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


def launch(
    recipe: str | Path,
    *flags: object,
    processes: int = 1,
    config: str | None = None,
    fresh: bool = False,
) -> Running:
    """Start a recipe on the CPU, with one thread in each process and no hub.

    Args:
        recipe: file name in recipes/.
        flags: its command line.
        processes: number of processes, started by torch's launcher if above 1.
        config: file in recipes/accelerate for `accelerate launch`, which then sets the number.
        fresh: start a new interpreter even for one process.
    """
    script, words = ROOT / "recipes" / recipe, list(map(str, flags))
    if processes == 1 and not config and not fresh:
        return Forked(script, words)
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    if config:
        file = ROOT / "recipes" / "accelerate" / config
        many = ["-m", "accelerate.commands.launch", "--config_file", str(file)]
        many += ["--main_process_port", "0"]  # a free one
    python = [sys.executable, *(many if processes > 1 or config else [])]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.Popen(
        [*python, str(script), *words], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(
    recipe: str | Path,
    *flags: object,
    code: int = 0,
    processes: int = 1,
    config: str | None = None,
    fresh: bool = False,
) -> str:
    """Run a recipe to its end; returns what it printed, after a check of its exit code."""
    process = launch(recipe, *flags, processes=processes, config=config, fresh=fresh)
    out, _ = process.communicate(timeout=900)
    assert process.returncode == code, out
    return out


def kill_when(process: Running, ready: Callable[[], bool], number: int = signal.SIGKILL) -> str:
    """Send a signal as soon as `ready()` is true; returns what the process printed."""
    deadline = time.monotonic() + 600
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=600)
    return out
