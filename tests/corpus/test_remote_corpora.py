"""Corpora behind a URL have the utterances of the same corpora on this machine."""

from __future__ import annotations

import http.server
import json
import pickle
import re
import threading
import uuid

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.corpora import reasons, run, save, table, tone, upload
from tokgen import storage
from tokgen.audio.files import AudioError
from tokgen.corpus import folders
from tokgen.corpus.listed import open_corpus
from tokgen.corpus.remote import RemoteFile
from tokgen.storage import StoreError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(storage, "PAUSES", (0.0,))


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/corpus"


@pytest.fixture
def folder(tmp_path):
    """Audio files with metadata, and files that are not audio."""
    folder = tmp_path / "corpus"
    for name in ("train/a.wav", "train/ñ.flac", "dev/b.wav", ".hidden/c.wav"):
        save(folder / name, tone(0.3))
    (folder / "bad.wav").write_text("bad")
    (folder / "notes.docx").write_bytes(b"x")
    (folder / "README.md").write_text("about")
    lines = [
        {"file_name": "train/a.wav", "text": "one", "duration": 0.3},
        {"file_name": "../outside.wav", "text": "stolen"},
        {"file_name": "/etc/passwd", "text": "stolen"},
        {"file_name": "memory://elsewhere/x.wav", "text": "stolen"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_a_remote_folder_has_the_utterances_of_a_local_one(folder, url):
    upload(folder, url)
    here, there = open_corpus(folder), open_corpus(url + "/")
    assert there.name == here.name == "corpus"
    assert (here.is_local, there.is_local) == (True, False)

    def about(corpus):
        return [(e.id, e.text, e.speaker, e.split) for e in corpus.entries]

    assert about(there) == about(here)
    assert [e.seconds for e in there.entries] == [None, None, 0.3, None]
    assert there.entries[-1].source == f"{url}/train/ñ.flac"
    found = {r.source.partition(": ")[2] or r.source: r.reason for r in there.rejections}
    assert found == {
        "../outside.wav": "path leaves the corpus' folder; it is not followed",
        "/etc/passwd": "path leaves the corpus' folder; it is not followed",
        "memory://elsewhere/x.wav": "path leaves the corpus' folder; it is not followed",
        f"{url}/notes.docx": "not audio by its name (.docx)",
    }
    (ours, bad), (theirs, also_bad) = run(here), run(pickle.loads(pickle.dumps(there)))
    assert len(ours) == 3
    for a, b in zip(ours, theirs, strict=True):
        assert a.waveform.equal(b.waveform)
    assert reasons(bad) == reasons(also_bad) and "not audio" in reasons(bad)["bad.wav"]


def test_a_file_url_is_a_path(folder):
    here, there = open_corpus(folder), open_corpus(f"file://{folder}")
    assert there.entries == here.entries and there.fingerprint == here.fingerprint


def test_listing_fetches_no_audio_and_reading_fetches_each_file_once(folder, url, monkeypatch):
    upload(folder, url)
    fetched = []
    real = RemoteFile.read

    def spy(self, *limits):
        fetched.append(self.name)
        return real(self, *limits)

    monkeypatch.setattr(RemoteFile, "read", spy)
    corpus = open_corpus(url)
    corpus.fingerprint  # noqa: B018
    assert fetched == ["metadata.jsonl"]
    run(corpus)
    assert sorted(fetched[1:]) == ["a.wav", "b.wav", "bad.wav", "ñ.flac"]


def test_large_files_are_downloaded_to_the_disk(folder, url, monkeypatch):
    monkeypatch.setattr(folders, "HELD_BYTES", 1000)
    corpus = open_corpus(upload(folder, url))
    entry = next(e for e in corpus.entries if e.id == "train/a")
    with corpus.store.borrow(entry.key) as (path, name):
        assert path.read_bytes() == (folder / "train/a.wav").read_bytes()
        assert name == f"{url}/train/a.wav"
    assert not path.exists()
    with corpus.open(entry, 16000) as blocks:
        assert sum(block.shape[-1] for block in blocks) == 4800


def test_durations_are_measured_for_a_filter(tmp_path, url):
    for i, seconds in enumerate((0.2, 0.5, 1.0)):
        save(tmp_path / "c" / f"{i}.wav", tone(seconds))
    corpus = open_corpus(upload(tmp_path / "c", url), min_seconds=0.3)
    assert [(e.id, e.seconds) for e in corpus.entries] == [("1", 0.5), ("2", 1.0)]


def test_the_fingerprint_follows_the_store(folder, url):
    upload(folder, url)
    before = open_corpus(url).fingerprint
    assert open_corpus(url).fingerprint == before
    fsspec.filesystem("memory").pipe_file(
        f"{url.removeprefix('memory:/')}/train/a.wav", (folder / "dev/b.wav").read_bytes()
    )
    assert open_corpus(url).fingerprint != before


def test_missing_files_are_reported(folder, url):
    corpus = open_corpus(upload(folder, url))
    fsspec.filesystem("memory").rm_file(f"{url.removeprefix('memory:/')}/dev/b.wav")
    utterances, rejected = run(corpus)
    assert len(utterances) == 2
    assert "cannot be fetched" in reasons(rejected)["b.wav"]


def test_no_answer_stops_the_run(folder, url, monkeypatch):
    corpus = open_corpus(upload(folder, url))

    def fail(*args, **kwargs):
        raise TimeoutError("no answer")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    with pytest.raises(StoreError, match="does not answer"):
        run(corpus)


# -- tables --------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path):
    folder = tmp_path / "tables"
    save(folder / "scratch.wav").rename(folder / "inside.bin")
    rows = table(tmp_path, 6, text=list("abcdef"))
    pq.write_table(rows.slice(0, 4), folder / "train-0.parquet", row_group_size=2)
    cells = [
        *rows.column("audio").to_pylist()[4:],
        {"bytes": None, "path": "sub/../inside.bin"},
        {"bytes": None, "path": "../outside.wav"},
        {"bytes": None, "path": "memory://elsewhere/x.wav"},
    ]
    rows = pa.table({"id": list("vwxyz"), "audio": cells})
    pq.write_table(rows, folder / "test-0.parquet")
    (folder / "test-1.parquet").write_bytes(b"PAR1 no")
    return folder


def test_remote_parquet_has_the_utterances_of_local_parquet(tables, url):
    upload(tables, url)
    here, there = open_corpus(tables), open_corpus(url)
    assert not there.is_local
    assert there.entries == here.entries
    (ours, bad), (theirs, also_bad) = run(here), run(pickle.loads(pickle.dumps(there)))
    assert len(ours) == 7
    for a, b in zip(ours, theirs, strict=True):
        assert a.id == b.id and a.waveform.equal(b.waveform)
    assert [r.source for r in also_bad] == [r.source for r in bad]
    assert len(bad) == 2 and all("leaves the corpus" in r.reason for r in also_bad)
    assert "not a Parquet file" in reasons(there.rejections)["test-1.parquet"]
    one = open_corpus(f"{url}/train-0.parquet")
    assert one.name == "train-0" and len(one) == 4


def test_parquet_is_read_by_ranges(tmp_path, url, monkeypatch):
    folder = tmp_path / "tables"
    folder.mkdir()
    rows = table(tmp_path, 40, text=["word"] * 40)
    pq.write_table(rows, folder / "x.parquet", row_group_size=10)
    size = (folder / "x.parquet").stat().st_size
    upload(folder, url)
    asked = []
    real = RemoteFile.read

    def spy(self, start=None, stop=None):
        asked.append(stop - start)
        return real(self, start, stop)

    monkeypatch.setattr(RemoteFile, "read", spy)
    corpus = open_corpus(url)
    corpus.fingerprint  # noqa: B018
    footer = asked[0]
    assert sum(asked[1:]) < size / 20
    asked.clear()
    corpus.load(corpus.entries[22], 16000)
    assert footer <= sum(asked) < footer + size / 3


def test_no_answer_is_not_a_damaged_table(tables, url, monkeypatch):
    corpus = open_corpus(upload(tables, url))

    def fail(*args, **kwargs):
        raise TimeoutError("no answer")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    with pytest.raises(StoreError, match="does not answer"):
        corpus.load(corpus.entries[0], 16000)
    with pytest.raises(StoreError, match="does not answer"):
        open_corpus(url)


def test_a_saved_dataset(tmp_path, url):
    rows = table(tmp_path, 3)
    datasets.Dataset(rows).save_to_disk(str(tmp_path / "saved"))
    corpus = open_corpus(upload(tmp_path / "saved", url))
    utterances, rejected = run(corpus)
    assert [u.id for u in utterances] == ["c0", "c1", "c2"] and not rejected


# -- https ---------------------------------------------------------------------


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            return super().do_GET()
        start, stop = int(wanted[1]), int(wanted[2]) + 1
        with open(self.translate_path(self.path), "rb") as file:
            data = file.read()[start:stop]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tables):
    def handler(*args):
        return RangeHandler(*args, directory=str(tables))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_parquet_over_http(server, tables):
    pytest.importorskip("aiohttp")
    there = open_corpus(f"{server}/train-0.parquet?signature=secret")
    here = open_corpus(tables / "train-0.parquet")
    assert there.entries == here.entries
    for a, b in zip(run(there)[0], run(here)[0], strict=True):
        assert a.waveform.equal(b.waveform)
    paths = open_corpus(f"{server}/test-0.parquet")
    for entry in paths.entries[2:]:
        with pytest.raises(AudioError, match="leaves the corpus"):
            paths.load(entry, 16000)


def test_urls_that_cannot_be_opened(tmp_path, url, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no files there"):
        open_corpus(url)
    fsspec.filesystem("memory").pipe_file(f"{url.removeprefix('memory:/')}/a.txt", b"x")
    with pytest.raises(ValueError, match=r"holds no audio files, no \.parquet files"):
        open_corpus(url)
    with pytest.raises(ValueError, match="unknown protocol"):
        open_corpus("gopher://host/corpus")
    with pytest.raises(ValueError, match=r"over HTTP, only one \.parquet file"):
        open_corpus("https://host/folder")
    fsspec.register_implementation("lost", "lost_package.Lost", errtxt="Install lost_package")
    with pytest.raises(ModuleNotFoundError, match="lost_package"):
        open_corpus("lost://bucket/corpus")
