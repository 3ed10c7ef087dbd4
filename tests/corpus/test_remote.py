from __future__ import annotations

import io
import pickle

import fsspec
import pytest

from tokgen import storage
from tokgen.audio.files import AudioError
from tokgen.corpus.remote import RemoteFile, read_audio_file, without_query
from tokgen.storage import StoreError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0))


@pytest.fixture
def file() -> RemoteFile:
    fsspec.filesystem("memory").pipe_file("/remote/a.bin", bytes(range(200)))
    return RemoteFile("memory://remote/a.bin", 200)


def test_reading_by_ranges(file):
    assert file.read() == bytes(range(200))
    assert file.read(10, 13) == b"\x0a\x0b\x0c"
    reader = pickle.loads(pickle.dumps(file)).open()
    assert reader.read(2) == b"\x00\x01" and reader.tell() == 2
    assert reader.seek(-3, io.SEEK_END) == 197
    assert reader.read(9) == bytes(range(197, 200)) and reader.read() == b""
    reader.seek(0)
    assert reader.read() == bytes(range(200))
    assert RemoteFile(file.url).open().size == 200


def test_a_file_that_changed_since_listing(file):
    fsspec.filesystem("memory").pipe_file("/remote/a.bin", b"short")
    with pytest.raises(StoreError, match="asked for 100 bytes, got 5"):
        file.read(0, 100)


def test_a_missing_or_too_large_file_is_an_audio_error(file):
    with pytest.raises(AudioError, match=r"memory://remote/gone.wav: cannot be fetched"):
        read_audio_file(RemoteFile("memory://remote/gone.wav"))
    with pytest.raises(AudioError, match="64 GB: the limit is 32 GB"):
        read_audio_file(RemoteFile(file.url, 64 << 30))


@pytest.mark.parametrize(
    ("info", "stamp"),
    [
        ({"size": 7, "ETag": '"ab"', "LastModified": "today"}, '7 bytes, ETag "ab"'),
        ({"size": 7, "mtime": 12.5}, "7 bytes, mtime 12.5"),
        ({"size": 7}, None),
    ],
)
def test_stamps(info, stamp):
    assert RemoteFile.of("s3://b/a.wav", info) == RemoteFile("s3://b/a.wav", 7, stamp)


def test_signatures_are_not_shown():
    file = RemoteFile("https://host/a/b.parquet?signature=secret")
    assert (str(file), file.name, file.stem) == ("https://host/a/b.parquet", "b.parquet", "b")
    assert without_query("s3://bucket/what?.wav") == "s3://bucket/what?.wav"
