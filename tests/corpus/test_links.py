"""Links that lead out of a folder, and files that are no regular files."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.corpora import audio_bytes, reasons, run, save, table
from tokgen.corpus.listed import open_corpus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one clip, beside a folder `elsewhere` with another."""
    save(tmp_path / "elsewhere" / "secret.wav")
    save(tmp_path / "elsewhere" / "deep" / "er.wav")
    save(tmp_path / "corpus" / "a.wav")
    return tmp_path / "corpus"


def ids(corpus) -> list[str]:
    return [u.id for u in run(corpus)[0]]


def test_links_out_of_the_folder_are_refused_by_name(folder):
    (folder / "link.wav").symlink_to("../elsewhere/secret.wav")
    (folder / "more").symlink_to(folder.parent / "elsewhere")
    (folder / "same.wav").symlink_to("a.wav")
    (folder / "metadata.csv").symlink_to("/etc/passwd")
    corpus = open_corpus(folder)
    assert ids(corpus) == ["a", "same"]
    found = reasons(corpus.rejections)
    assert set(found) == {"link.wav", "more", "metadata.csv"}
    assert "elsewhere/secret.wav): set follow_links" in found["link.wav"]
    followed = open_corpus(folder, follow_links=True)
    assert ids(followed) == ["a", "link", "same", "more/secret", "more/deep/er"]


def test_circles_of_links_end(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "out").symlink_to(folder.parent)
    (folder / "self.wav").symlink_to("self.wav")
    (folder / "gone.wav").symlink_to("nowhere.wav")
    corpus = open_corpus(folder)
    assert ids(corpus) == ["a"]
    found = reasons(corpus.rejections)
    assert "leads to itself" in found["self.wav"]
    assert "does not exist" in found["gone.wav"]
    assert set(found) == {"self.wav", "gone.wav", "out"}
    followed = ids(open_corpus(folder, follow_links=True))
    assert followed == ["a", "out/elsewhere/secret", "out/elsewhere/deep/er"]


def test_metadata_that_names_files_outside(folder):
    lines = [
        {"file_name": "../elsewhere/secret.wav", "text": "up"},
        {"file_name": str(folder.parent / "elsewhere" / "deep" / "er.wav"), "text": "absolute"},
        {"file_name": "../elsewhere/gone.wav", "text": "gone"},
        {"file_name": "a.wav", "text": "inside"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = open_corpus(folder)
    assert [(e.id, e.text) for e in corpus.entries] == [("a", "inside")]
    assert len(corpus.rejections) == 3
    assert "../elsewhere/secret.wav" in corpus.rejections[0].source
    assert all("leaves the corpus' folder: set follow_links" in r.reason for r in corpus.rejections)
    corpus = open_corpus(folder, follow_links=True)
    assert [(e.id, e.text) for e in corpus.entries] == [
        ("a", "inside"),
        ("elsewhere/secret", "up"),
        ("elsewhere/deep/er", "absolute"),
    ]
    assert len(run(corpus)[0]) == 3
    assert [r.reason for r in corpus.rejections] == ["missing file (or several files of that name)"]


def test_paths_in_audio_cells(folder):
    cells = [
        {"bytes": None, "path": "../elsewhere/secret.wav"},
        {"bytes": None, "path": str(folder.parent / "elsewhere" / "deep" / "er.wav")},
    ]
    (folder / "a.wav").unlink()
    pq.write_table(pa.table({"audio": cells}), folder / "x.parquet")
    _, rejected = run(open_corpus(folder))
    assert len(rejected) == 2
    assert all("leaves the corpus' folder: set follow_links" in r.reason for r in rejected)
    assert len(run(open_corpus(folder, follow_links=True))[0]) == 2


def test_files_that_are_no_regular_files(folder):
    os.mkfifo(folder / "pipe.wav")
    os.mkfifo(folder / "metadata.csv")
    os.mkfifo(folder / "x.parquet")
    (folder / "zeros.wav").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "s"))
        corpus = open_corpus(folder, follow_links=True)
    assert ids(corpus) == ["a"]
    assert reasons(corpus.rejections) == {
        "pipe.wav": "not a regular file (FIFO)",
        "metadata.csv": "not a regular file (FIFO)",
        "x.parquet": "not a regular file (FIFO)",
        "zeros.wav": "not a regular file (device)",
        "s": "not a regular file (socket)",
    }
    with pytest.raises(ValueError, match=r"x\.parquet: not a regular file \(FIFO\)"):
        open_corpus(folder / "x.parquet")


def test_a_fifo_among_tables_does_not_hang(tmp_path):
    pq.write_table(table(tmp_path, 2), tmp_path / "x.parquet")
    os.mkfifo(tmp_path / "y.parquet")
    for streaming in (False, True):
        corpus = open_corpus(tmp_path, streaming=streaming)
        assert reasons(corpus.rejections) == {"y.parquet": "not a regular file (FIFO)"}
        assert len(run(corpus)[0]) == 2


def test_an_unreadable_folder_is_reported(folder, monkeypatch):
    save(folder / "locked" / "b.wav")
    (folder / "locked").chmod(0)
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        corpus = open_corpus(".")
    finally:
        os.seteuid(user)
        (folder / "locked").chmod(0o700)
    assert [e.id for e in corpus.entries] == ["a"]
    assert reasons(corpus.rejections) == {
        "locked": "folder that cannot be read (Permission denied)"
    }


def test_a_folder_of_refused_links_says_so(tmp_path):
    save(tmp_path / "elsewhere.wav")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").symlink_to("../elsewhere.wav")
    with pytest.raises(ValueError, match=r"no audio files.*1 left out.*a\.wav: link.*follow_links"):
        open_corpus(tmp_path / "corpus")


def test_links_of_the_hub_cache_are_followed(tmp_path):
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blob = save(tmp_path / "datasets--a--b" / "blobs" / "x.wav").rename(snapshot / "../../blobs/x")
    (snapshot / "a.wav").symlink_to(blob)
    assert ids(open_corpus(snapshot)) == ["a"]


def test_odd_names_are_read(tmp_path):
    names = ["new\nline", "esc\x1b[31m", " ", "-", "|", '"q"', "tab\t", "%s{}"]
    for name in names:
        save(tmp_path / f"{name}.wav")
    (tmp_path / os.fsdecode(b"raw\xff.wav")).write_bytes(audio_bytes(tmp_path, 300))
    (tmp_path / "scratch.flac").unlink()
    (tmp_path / "bad\x1b[31m\n.wav").write_text("not audio")
    corpus = open_corpus(tmp_path)
    utterances, rejected = run(corpus)
    assert sorted(u.id for u in utterances) == sorted([*names, r"raw\xff"])
    assert len(rejected) == 1 and not corpus.rejections
    assert str(rejected[0]).startswith(rf"{tmp_path}/bad\x1b[31m\n.wav: not audio")
