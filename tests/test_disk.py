"""Errors of full disks and deleted folders take one line, with the path and the fix."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tokgen.disk import disk_errors


def fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space is left on the disk; make room, then run the same"),
        (errno.EDQUOT, "the disk quota is used up; delete files or raise the quota, then run"),
        (errno.EFBIG, "the file would exceed the largest size allowed; raise the limit"),
    ],
)
def test_a_full_disk_names_the_path_and_the_fix(code, words, tmp_path):
    with pytest.raises(OSError, match=words) as found, disk_errors(tmp_path / "out.wav"):
        fail(code)
    assert str(found.value).startswith(f"{tmp_path / 'out.wav'}: ")
    assert found.value.errno == code


def test_the_innermost_path_is_named(tmp_path):
    with (
        pytest.raises(OSError, match=r"a.wav: no space") as found,
        disk_errors(tmp_path, "go on"),
        disk_errors(tmp_path / "a.wav", "go on"),
    ):
        fail(errno.ENOSPC)
    assert str(found.value).count("no space") == 1


@pytest.fixture
def small_files():
    """Let no file of this process grow beyond 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def write_bytes(path):
    path.write_bytes(b"x" * 200_000)


def write_safetensors(path):
    save_file({"a": np.zeros(200_000, np.uint8)}, path)


def write_torch(path):
    torch.save(torch.zeros(200_000), path)


@pytest.mark.parametrize("write", [write_bytes, write_safetensors, write_torch])
def test_writers_that_do_not_name_the_path(write, small_files, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OSError, match=r"out: .*; .*, then run the same"), disk_errors(out):
        write(out)


def test_a_deleted_folder_is_named(tmp_path):
    run = tmp_path / "run"
    (run / "clips").mkdir(parents=True)
    message = r"run/clips was deleted while it was in use: run the same command again to start over"
    with pytest.raises(FileNotFoundError, match=message), disk_errors(run):
        (run / "clips").rmdir()
        (run / "clips" / "a").write_text("x")
    with pytest.raises(FileNotFoundError, match="run was deleted while"), disk_errors(run):
        shutil.rmtree(run)
        (run / "clips" / "a").write_text("x")


def test_other_errors_pass(tmp_path):
    for error in (ValueError("os error 28"), RuntimeError("no"), FileNotFoundError(2, "x", "/y")):
        with pytest.raises(type(error)) as found, disk_errors(tmp_path):
            raise error
        assert found.value is error
