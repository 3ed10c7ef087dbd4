"""metadata.csv and metadata.jsonl."""

from __future__ import annotations

import json

import pytest

from makers.corpora import reasons, run, save
from tokgen.corpus.listed import open_corpus
from tokgen.corpus.splits import assign_split


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_metadata_gives_text_speaker_and_split(tmp_path, form):
    save(tmp_path / "a b.wav")
    save(tmp_path / "sub" / "ñ.wav")
    save(tmp_path / "bare.wav")
    rows = [
        {"file_name": "a b.wav", "text": 'He said: "yes, no"', "speaker": "s1", "split": "valid"},
        {"file_name": "sub/n\u0303.wav", "text": "zwei", "speaker": "s2", "split": "test"},
    ]
    if form == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows) + "\n\n"
        (tmp_path / "metadata.jsonl").write_text(text)
    else:
        mark = "," if form == "csv" else "\t"
        quoted = [['"' + v.replace('"', '""') + '"' for v in row.values()] for row in rows]
        lines = [mark.join(rows[0]), *(mark.join(q) for q in quoted)]
        (tmp_path / "metadata.csv").write_text("\ufeff" + "\r\n".join(lines))
    corpus = open_corpus(tmp_path)
    assert corpus.rejections == []
    found = {e.id: (e.text, e.speaker, e.split) for e in corpus.entries}
    assert found == {
        "a b": ('He said: "yes, no"', "s1", "validation"),
        "sub/ñ": ("zwei", "s2", "test"),
        "bare": (None, None, assign_split("bare")),
    }
    needy = open_corpus(tmp_path, require_text=True)
    assert len(needy) == 2
    assert reasons(needy.rejections) == {"bare.wav": "missing transcript, and one is required"}


def test_ljspeech(tmp_path):
    save(tmp_path / "wavs" / "LJ001-0001.wav")
    save(tmp_path / "wavs" / "LJ001-0002.wav")
    lines = [
        'LJ001-0001|Chapter "1|Chapter "one',
        "LJ001-0002|plain|",
        "LJ001-0003|gone|gone",
        "odd",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = open_corpus(tmp_path)
    assert [(e.id, e.text) for e in corpus.entries] == [
        ("LJ001-0001", 'Chapter "one'),
        ("LJ001-0002", "plain"),
    ]
    assert [(r.source, r.reason) for r in corpus.rejections] == [
        ("metadata.csv line 3: LJ001-0003", "missing file (or several files of that name)"),
        ("metadata.csv line 4", "1 fields: LJSpeech lines are id|text|normalized"),
    ]


def test_bad_metadata_lines(tmp_path):
    outside = save(tmp_path / "outside.wav")
    folder = tmp_path / "corpus"
    for name in ("a.wav", "b.wav", "c.wav"):
        save(folder / name)
    lines = [
        json.dumps({"file_name": "a.wav", "text": "first", "id": "x"}),
        json.dumps({"file_name": "a.wav", "text": "second"}),
        json.dumps({"file_name": "../outside.wav", "text": "stolen"}),
        json.dumps({"file_name": str(outside), "text": "stolen"}),
        json.dumps({"file_name": "gone.wav", "text": "t"}),
        json.dumps({"text": "of nothing"}),
        "{not json",
        "[1]",
        json.dumps({"file_name": "b.wav", "text": "  ", "id": "x"}),
        json.dumps({"file_name": str(folder / "c.wav"), "text": "inside"}),
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    corpus = open_corpus(folder)
    assert [(e.id, e.text) for e in corpus.entries] == [("x", "first"), ("c", "inside")]
    found = {r.source.split(":")[0]: r.reason for r in corpus.rejections}
    assert "duplicate" in found["metadata.jsonl line 2"]
    assert "leaves the corpus" in found["metadata.jsonl line 3"]
    assert "leaves the corpus" in found["metadata.jsonl line 4"]
    assert "missing file" in found["metadata.jsonl line 5"]
    assert "names no file" in found["metadata.jsonl line 6"]
    assert "not JSON" in found["metadata.jsonl line 7"]
    assert "not a JSON object" in found["metadata.jsonl line 8"]
    assert "duplicate id 'x'" in found[str(folder / "b.wav")]
    assert len(corpus.rejections) == 8


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.wav," + "x" * 200_000, "larger than field limit"),
        ('a.wav,"never closed', "a quote is not closed"),
        ("a.wav,two, three", "3 fields, but the header has 2"),
        ("a.wav", "no ',' in the line"),
        ("a.wav,\udcff", "not UTF-8"),
        ("\udcff.wav,x", "not UTF-8"),
        ("gone.wav,x", "missing file"),
        (",x", "names no file"),
    ],
)
def test_a_bad_line_costs_no_other_line(tmp_path, line, reason, ending):
    for name in ("a.wav", "b.wav", "c.wav"):
        save(tmp_path / name)
    lines = ["\ufefffile_name,text", line, "b.wav,bee", 'c.wav,"see\nsaw"', ""]
    data = ending.join(lines).encode("utf-8", "surrogateescape")
    (tmp_path / "metadata.csv").write_bytes(data)
    corpus = open_corpus(tmp_path)
    assert {e.id: e.text for e in corpus.entries} == {"a": None, "b": "bee", "c": "see\nsaw"}
    assert len(corpus.rejections) == 1
    assert corpus.rejections[0].source.startswith("metadata.csv line 2")
    assert reason in corpus.rejections[0].reason


def test_a_quote_that_a_later_line_closes_costs_one_line(tmp_path):
    for name in ("a.wav", "b.wav", "c.wav"):
        save(tmp_path / name)
    lines = ["file_name,text", 'a.wav,"open', "b.wav,bee", 'c.wav,"see"']
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    corpus = open_corpus(tmp_path)
    assert [e.text for e in corpus.entries] == [None, "bee", "see"]
    assert [r.source for r in corpus.rejections] == ["metadata.csv line 2"]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"file_name": "a.wav", "text": "\xff"}',
        b'{"file_name": ["a.wav"]}',
        b'{"file_name": "' + b"x/" * 9999 + b'", "text": "long"}',
        b"\0",
    ],
)
def test_a_bad_line_of_jsonl_costs_no_other_line(tmp_path, line):
    save(tmp_path / "a.wav")
    save(tmp_path / "b.wav")
    last = json.dumps({"file_name": "b.wav", "text": "bee\0", "duration": 10**400})
    (tmp_path / "metadata.jsonl").write_bytes(line + b"\n" + last.encode())
    corpus = open_corpus(tmp_path)
    assert {e.id: e.text for e in corpus.entries} == {"a": None, "b": "bee\0"}
    assert len(corpus.rejections) == 1 and "line 1" in corpus.rejections[0].source
    assert len(str(corpus.rejections[0])) < 800


def test_a_line_without_end_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("tokgen.corpus.metadata.LONGEST_LINE", 100)
    save(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\na.wav,{'x' * 999}\na.wav,short\n")
    corpus = open_corpus(tmp_path)
    assert corpus.entries[0].text == "short"
    assert [r.reason for r in corpus.rejections] == ["line of over 100 characters"]


@pytest.mark.parametrize("column", ["language", "lang", "locale"])
def test_languages(tmp_path, column):
    for name in ("a.wav", "b.wav"):
        save(tmp_path / name)
    (tmp_path / "metadata.csv").write_text(f"file_name,{column}\na.wav,es-MX\nb.wav,\n")
    corpus = open_corpus(tmp_path)
    assert [e.language for e in corpus.entries] == ["es-MX", None]
    corpus = open_corpus(tmp_path, language="en", max_seconds=9).select(n=2)
    assert [e.language for e in corpus.entries] == ["es-MX", "en"]
    assert [u.language for u in run(corpus)[0]] == ["es-MX", "en"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("file_name,text\na.wav,x\n".encode("utf-16"), "looks like UTF-16"),
        (b"file_name,text\n\xff\xfe,x\n", "not UTF-8"),
        (b"some,thing\n1,2\n", "no header"),
    ],
)
def test_unreadable_metadata_is_reported(tmp_path, data, reason):
    save(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_bytes(data)
    corpus = open_corpus(tmp_path)
    assert len(corpus) == 1
    assert len(corpus.rejections) == 1 and reason in corpus.rejections[0].reason
