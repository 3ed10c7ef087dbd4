"""The standard input and output of verbs, a standard output that is closed early, and signals."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import FrameType

__all__ = [
    "INPUT",
    "OUTPUT",
    "ClosedOutput",
    "Killed",
    "interrupted_by_kill",
    "output_errors",
    "output_file",
    "saved_input",
]

INPUT, OUTPUT = "standard input", "standard output"


class ClosedOutput(Exception):
    """Nobody reads the standard output any more, as after `| head`."""


class Killed(KeyboardInterrupt):
    """The command got SIGTERM."""


@contextmanager
def interrupted_by_kill() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C inside the `with` block, so that temporary files are deleted.

    Raises:
        Killed: in place of KeyboardInterrupt, after SIGTERM.
    """
    process, killed = os.getpid(), False

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal killed
        if os.getpid() == process:
            killed = True
            signal.raise_signal(signal.SIGINT)
        else:  # a forked worker
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        if killed:
            raise Killed from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def saved_input() -> Iterator[Path]:
    """Save the standard input as a temporary file, for the time of the `with` block."""
    with tempfile.TemporaryDirectory(prefix="tokgen-") as folder:
        path = Path(folder) / INPUT
        with path.open("xb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield path


@contextmanager
def output_file(suffix: str) -> Iterator[Path]:
    """Name a temporary file, and copy it to the standard output after the `with` block.

    Inside the block, whatever is printed goes to stderr.

    Raises:
        ClosedOutput: nobody reads the standard output.
        OSError: the standard output cannot be written to.
    """
    stdout = sys.stdout
    with tempfile.TemporaryDirectory(prefix="tokgen-") as folder:
        path = Path(folder) / f"output{suffix}"
        with redirect_stdout(sys.stderr):
            yield path
        with output_errors(), path.open("rb") as file:
            shutil.copyfileobj(file, stdout.buffer)


@contextmanager
def output_errors() -> Iterator[None]:
    """Flush the standard output after the `with` block, and explain why it cannot be written to.

    Raises:
        ClosedOutput: nobody reads it.
        OSError: another reason, such as a full disk.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        _drop_output()
        if isinstance(error, BrokenPipeError):
            raise ClosedOutput from error
        reason = error.strerror or str(error)
        raise OSError(f"the standard output cannot be written to: {reason}") from error


def _drop_output() -> None:
    """Let Python's flush at exit succeed."""
    with suppress(OSError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
