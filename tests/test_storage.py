from __future__ import annotations

import os
import pickle
import uuid

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import tokgen.storage
from tokgen.storage import Storage, find_filesystem, is_url


@pytest.fixture(params=["path", "file", "memory"])
def storage(request, tmp_path) -> Storage:
    where = {
        "path": tmp_path / "out",
        "file": f"file://{tmp_path}/out",
        "memory": f"memory://{uuid.uuid4().hex}/out",
    }
    return Storage(where[request.param])


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


def test_child_and_deleting(storage):
    child = storage.child("shards")
    child.write("a", b"a")
    storage.write("shards-of-another", b"b")
    storage.write("c", b"c")
    assert child.names() == ["a"] and child.name == "shards"
    storage.delete("c")
    storage.delete("c")
    assert storage.names() == ["shards-of-another", "shards/a"]
    child.delete_all()
    child.delete_all()
    assert storage.names() == ["shards-of-another"]
    storage.delete_all()
    assert not storage.exists()


def test_pickled(storage):
    storage.write("a", b"x")
    again = pickle.loads(pickle.dumps(storage))
    assert again == storage and again.is_local == storage.is_local
    assert again.read("a") == b"x"


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "", ".", "a\\b"])
def test_names_stay_inside(storage, name):
    for use in (storage.read, storage.open, storage.delete, storage.child):
        with pytest.raises(ValueError, match="no path inside the folder"):
            use(name)
    with pytest.raises(ValueError, match="no path inside the folder"):
        storage.write(name, b"")


def test_local_or_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Storage("out") == Storage(tmp_path / "out") == Storage(f"file://{tmp_path}/out/")
    assert Storage("out").path == tmp_path / "out"
    assert Storage("memory://x").path is None
    assert [is_url(w) for w in ("s3://b", "a/b", tmp_path, "owner/name:config")] == [
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


def test_what_a_killed_writer_left_is_no_file(tmp_path):
    (tmp_path / ".a.1234.partial").write_bytes(b"half")
    storage = Storage(tmp_path)
    assert storage.names() == []
    storage.delete_all()
    assert not tmp_path.exists()


def test_a_store_for_reading_only(tmp_path, monkeypatch):
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


def test_a_store_that_is_busy_is_asked_again(monkeypatch) -> None:
    monkeypatch.setattr(tokgen.storage, "PAUSES", (0.0, 0.0))
    pipe_file, calls = MemoryFileSystem.pipe_file, []

    def busy(self, path, value, **more):
        calls.append(path)
        if len(calls) < 3:
            raise OSError("503 SlowDown")
        return pipe_file(self, path, value, **more)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", busy)
    Storage("memory://bucket/x").write("a", b"1")
    assert Storage("memory://bucket/x").read("a") == b"1" and len(calls) == 3
    calls.clear()
    monkeypatch.setattr(tokgen.storage, "PAUSES", (0.0,))
    with pytest.raises(tokgen.storage.StoreError, match=r"does not answer .*503 SlowDown"):
        Storage("memory://bucket/x").write("a", b"2")
