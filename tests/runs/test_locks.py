"""Two runs never write to one folder; a lock ends with its process."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from makers.paths import ROOT
from tokgen.runs.folder import check_run_folder
from tokgen.runs.locks import lock_folder

HOLD = """
import sys, time
from tokgen.runs.locks import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
TRY = """
import sys
from tokgen.runs.locks import lock_folder
try:
    with lock_folder(sys.argv[1]):
        print("free")
except BlockingIOError as error:
    print(error)
"""


def start(script: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | environment
    )


def tried(folder: Path, **environment: str) -> str:
    return start(TRY, folder, **environment).communicate(timeout=60)[0].strip()


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def hold(folder: Path) -> subprocess.Popen[str]:
        process = start(HOLD, folder)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_another_process_is_refused_and_named(hold, tmp_path):
    process = hold(tmp_path / "run")
    owner = f"in use by process {process.pid} on {socket.gethostname()}: wait until it ends"
    with pytest.raises(BlockingIOError, match=owner), lock_folder(tmp_path / "run"):
        pass
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "run")
    with pytest.raises(BlockingIOError, match=owner), lock_folder(link):
        pass


def test_a_killed_process_leaves_no_lock(hold, tmp_path):
    process = hold(tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "run" / ".lock").exists()
    with lock_folder(tmp_path / "run"):
        assert "in use by process" in tried(tmp_path / "run")


def test_workers_do_not_keep_the_lock(tmp_path):
    ready = multiprocessing.get_context("fork").Event()
    with lock_folder(tmp_path):
        worker = multiprocessing.get_context("fork").Process(target=ready.wait)
        worker.start()
    assert tried(tmp_path) == "free"
    ready.set()
    worker.join()


def test_a_lock_leaves_nothing_behind(tmp_path):
    with lock_folder(tmp_path / "a"), lock_folder(tmp_path / "a"):
        check_run_folder(tmp_path / "a")
        assert (tmp_path / "a" / ".lock").is_file()
    assert not (tmp_path / "a").exists()
    with lock_folder(tmp_path / "a"):
        (tmp_path / "a" / "settings.json").write_text("{}")
    assert os.listdir(tmp_path / "a") == ["settings.json"]


def test_processes_of_one_launcher_share_the_lock(hold, tmp_path):
    hold(tmp_path)
    assert tried(tmp_path, RANK="1") == "free"
    assert "in use by process" in tried(tmp_path, RANK="0")


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    message = r"cannot be locked \(No locks available\): make sure"
    with pytest.warns(UserWarning, match=message), lock_folder(tmp_path):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.undo()
        with lock_folder(tmp_path):
            pass


def test_a_deleted_folder_gives_one_line(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="run was deleted while"), lock_folder(run):
        (run / ".lock").unlink()
        run.rmdir()
        (run / "a").write_text("x")
