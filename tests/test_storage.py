from __future__ import annotations

import os
import pickle
import uuid

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import tokgen.storage
from tokgen.storage import Storage, StoreError, find_filesystem, is_url, patiently


@pytest.fixture(params=["path", "file", "memory"])
def storage(request, tmp_path) -> Storage:
    locations = {
        "path": tmp_path / "out",
        "file": f"file://{tmp_path}/out",
        "memory": f"memory://{uuid.uuid4().hex}/out",
    }
    return Storage(locations[request.param])


def test_files_of_a_folder(storage):
    assert storage.names() == [] and not storage.exists()
    storage.write("b.bin", b"1")
    storage.write("shards/00001.bin", b"two")
    storage.write("shards/00000.bin", b"")
    storage.write("b.bin", b"one")
    assert storage.exists() and storage.exists("b.bin") and not storage.exists("shards")
    assert storage.names() == ["b.bin", "shards/00000.bin", "shards/00001.bin"]
    assert storage.names("shards/0") == ["shards/00000.bin", "shards/00001.bin"]
    assert storage.read("b.bin") == b"one"
    with storage.open("shards/00001.bin") as file:
        file.seek(1)
        assert file.read() == b"wo"
    with pytest.raises(FileNotFoundError):
        storage.read("c.bin")
    with pytest.raises(FileNotFoundError):
        storage.open("c.bin")


def test_delete_removes_one_file_and_ignores_missing_ones(storage):
    storage.write("shards/a", b"a")
    storage.write("c", b"c")
    storage.delete("c")
    storage.delete("c")
    assert storage.names() == ["shards/a"]


def test_pickled(storage):
    storage.write("a", b"x")
    again = pickle.loads(pickle.dumps(storage))
    assert (again.url, again.path) == (storage.url, storage.path)
    assert again.read("a") == b"x"


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "", ".", "a\\b"])
def test_names_stay_inside(storage, name):
    for use in (storage.read, storage.open, storage.delete):
        with pytest.raises(ValueError, match="not a path inside the folder"):
            use(name)
    with pytest.raises(ValueError, match="not a path inside the folder"):
        storage.write(name, b"")


def test_local_or_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for location in ("out", tmp_path / "out", f"file://{tmp_path}/out/"):
        assert Storage(location).path == tmp_path / "out"
        assert Storage(location).url == str(tmp_path / "out")
    assert Storage("memory://x").path is None
    assert [is_url(x) for x in ("s3://b", "a/b", tmp_path, "owner/name:config")] == [
        *(True, False, False, False)
    ]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    storage = Storage(tmp_path)
    storage.write("a", b"old")

    def fail(handle):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        storage.write("a", b"new")
    assert storage.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_partial_file_of_a_killed_writer_is_not_listed(tmp_path):
    (tmp_path / ".a.1234.partial").write_bytes(b"half")
    assert Storage(tmp_path).names() == []


def test_writing_to_a_read_only_store(tmp_path, monkeypatch):
    storage = Storage("memory://readonly")
    filesystem = find_filesystem(storage.url)[0]

    def refuse(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(type(filesystem), "pipe_file", refuse)
    with pytest.raises(ValueError, match="memory://readonly cannot be written to"):
        storage.write("a", b"")


def test_unknown_protocols_and_absent_drivers():
    with pytest.raises(ValueError, match="gopher://x: unknown protocol"):
        Storage("gopher://x")
    fsspec.register_implementation("lost", "lost_package.Lost", errtxt="Install lost_package")
    with pytest.raises(ModuleNotFoundError, match=r"lost:// needs a package.*lost_package"):
        Storage("lost://bucket/x")


@pytest.fixture
def no_pauses(monkeypatch):
    """Three attempts, without waiting in between."""
    monkeypatch.setattr(tokgen.storage, "PAUSES", (0.0, 0.0))


def test_a_failed_connection_is_tried_again(no_pauses):
    calls = []

    def fail_before(n: int):
        calls.append(n)
        if len(calls) < n:
            raise TimeoutError("slow")
        return "here"

    assert patiently(lambda: fail_before(3), "x") == "here" and len(calls) == 3
    calls.clear()
    with pytest.raises(StoreError, match=r"x: the store does not answer \(TimeoutError: slow\)"):
        patiently(lambda: fail_before(4), "x")
    assert len(calls) == 3


def test_the_pauses_grow(monkeypatch):
    slept = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    with pytest.raises(StoreError):
        patiently(lambda: {}["missing"], "x")
    assert slept == [1.0, 5.0, 20.0]


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (FileNotFoundError("gone"), FileNotFoundError, "gone"),
        (IsADirectoryError("folder"), IsADirectoryError, "folder"),
        (NotImplementedError("put"), NotImplementedError, "put"),
        (ModuleNotFoundError("s3fs"), ModuleNotFoundError, "s3fs"),
        (PermissionError("expired"), StoreError, r"x: the store denies access \(expired\)"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_errors_that_are_not_retried(no_pauses, error, raised, message):
    calls = []

    def fail():
        calls.append(1)
        raise error

    with pytest.raises(raised, match=message):
        patiently(fail, "x")
    assert len(calls) == 1


def test_writes_and_reads_are_retried(no_pauses, monkeypatch):
    pipe_file, calls = MemoryFileSystem.pipe_file, []

    def busy(self, path, value, **kwargs):
        calls.append(path)
        if len(calls) < 3:
            raise OSError("503 SlowDown")
        return pipe_file(self, path, value, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", busy)
    Storage("memory://bucket/x").write("a", b"1")
    assert Storage("memory://bucket/x").read("a") == b"1" and len(calls) == 3
    calls.clear()
    monkeypatch.setattr(tokgen.storage, "PAUSES", (0.0,))
    with pytest.raises(StoreError, match=r"does not answer .*503 SlowDown"):
        Storage("memory://bucket/x").write("a", b"2")
