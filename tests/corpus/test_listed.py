from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.corpora import audio_bytes, reasons, run, save, table, tone
from makers.paths import ALLISON
from tokgen.audio.files import AudioError
from tokgen.corpus import tables as corpus_tables
from tokgen.corpus.listed import assign_split, open_corpus

# -- folders -------------------------------------------------------------------


def test_folder_of_audio(tmp_path):
    save(tmp_path / "b.wav")
    save(tmp_path / "a" / "one two ñ 音.flac", tone(1))
    save(tmp_path / "a" / "c.mp3")
    save(tmp_path / ".hidden" / "d.wav")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "b.txt").write_text("companion of b.wav")
    corpus = open_corpus(tmp_path)
    assert [e.id for e in corpus.entries] == ["b", "a/c", "a/one two ñ 音"]
    assert corpus.rejections == []
    assert corpus.name == tmp_path.name
    utterances, rejected = run(corpus, 24000)
    assert rejected == []
    assert [u.waveform.shape for u in utterances] == [(1, 12000), (1, 12000), (1, 24000)]
    assert {u.sample_rate for u in utterances} == {24000}
    assert [u.split for u in utterances] == [assign_split(u.id) for u in utterances]


def test_every_bad_file_is_reported_and_the_rest_goes_on(tmp_path):
    good = {
        "eight bits.wav": save(tmp_path / "eight bits.wav", subtype="PCM_U8"),
        "96k.wav": save(tmp_path / "96k.wav", tone(rate=96000), 96000),
        "six.wav": save(tmp_path / "six.wav", np.stack([tone()] * 6, 1)),
        "größe 音.wav": save(tmp_path / "größe 音.wav"),
    }
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("hello " * 99)
    whole = save(tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:9000])
    (tmp_path / "half.wav").write_bytes(whole[:9000])
    whole = save(tmp_path / "cut.flac", tone(2)).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "nan.wav", np.append(tone(), np.nan), subtype="FLOAT")
    save(tmp_path / "nothing.wav", tone()[:0])
    save(tmp_path / "silence.wav", np.zeros(8000))
    save(tmp_path / "hush.wav", tone() * 0.003)
    save(tmp_path / "two hours.flac", np.zeros(1000 * 7200, np.int16), 1000)
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "notes.docx").write_bytes(b"x")
    corpus = open_corpus(tmp_path)
    utterances, rejected = run(corpus)
    assert {u.id for u in utterances} == {Path(name).stem for name in good}
    assert all(u.waveform.shape == (1, 8000) for u in utterances)
    found = reasons(corpus.rejections + rejected)
    expected = {
        "empty.wav": "empty file",
        "text.mp3": "not audio",
        "half.wav": "truncated",
        "cut.flac": "truncated",
        "cut.wav": "duplicate id 'cut'",  # cut.flac comes first by name
        "nan.wav": "NaN",
        "nothing.wav": "no samples",
        "silence.wav": "under -60 dBFS",
        "hush.wav": "under -60 dBFS",
        "two hours.flac": "the limit is 3600 s",
        "dangling.wav": "not a regular file",
        "pipe.wav": "not a regular file",
        "notes.docx": "not audio by its name (.docx)",
    }
    assert set(found) == set(expected)
    for name, reason in expected.items():
        assert reason in found[name], (name, found[name])


def test_names_that_are_no_unicode(tmp_path):
    name = os.fsdecode(b"bad\xff.wav")
    save(tmp_path / "ok.wav").rename(tmp_path / name)
    corpus = open_corpus(tmp_path)
    assert corpus.entries[0].id == r"bad\xff"
    json.dumps(corpus.entries[0].source).encode()
    utterances, rejected = run(corpus)
    assert len(utterances) == 1 and not rejected


def test_split_from_the_top_folder(tmp_path):
    for name in ("train/a.wav", "dev/b.wav", "test/speaker/c.wav"):
        save(tmp_path / name)
    corpus = open_corpus(tmp_path)
    assert {e.id: e.split for e in corpus.entries} == {
        "train/a": "train",
        "dev/b": "validation",
        "test/speaker/c": "test",
    }
    assert [e.id for e in open_corpus(tmp_path, split="test").entries] == ["test/speaker/c"]
    with pytest.raises(ValueError, match=r"no split 'tset'; it has 'validation', 'test', 'train'"):
        open_corpus(tmp_path, split="tset")


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


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"file_name,text\n\xff\xfe,x\n", "not UTF-8"), (b"some,thing\n1,2\n", "no header")],
)
def test_unreadable_metadata_is_reported(tmp_path, data, reason):
    save(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_bytes(data)
    corpus = open_corpus(tmp_path)
    assert len(corpus) == 1
    assert len(corpus.rejections) == 1 and reason in corpus.rejections[0].reason


# -- tables --------------------------------------------------------------------


def test_parquet_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_tables, "CACHE_BYTES", 1)  # one row at a time
    n = 6
    rows = table(
        tmp_path,
        n,
        id=[f"id{i}" for i in range(n)],
        sentence=[f"text {i}" for i in range(n - 1)] + [None],
        speaker_id=list(range(n)),
        split=["train", "train", "dev", "test", "test", None],
        duration=[0.5] * n,
    )
    pq.write_table(rows, tmp_path / "x.parquet", row_group_size=4)
    corpus = open_corpus(tmp_path / "x.parquet")
    assert corpus.name == "x"
    assert [e.id for e in corpus.entries] == [f"id{i}" for i in range(n)]
    assert [e.text for e in corpus.entries] == [f"text {i}" for i in range(5)] + [None]
    assert [e.speaker for e in corpus.entries] == list("012345")
    assert [e.split for e in corpus.entries[:5]] == ["train", "train", "validation", "test", "test"]
    assert {e.seconds for e in corpus.entries} == {0.5}
    for i in (5, 0, 3, 2, 4, 1, 1):
        waveform = corpus.load(corpus.entries[i], 16000).waveform[0].numpy()
        np.testing.assert_allclose(waveform, tone(hertz=200 + 50 * i), atol=1e-4)
    assert len(open_corpus(tmp_path, require_text=True, split="test")) == 2


def test_listing_reads_no_audio(tmp_path, monkeypatch):
    pq.write_table(table(tmp_path), tmp_path / "x.parquet")
    asked = []
    real = pq.ParquetFile.iter_batches

    def spy(self, *args, **kwargs):
        asked.append(kwargs["columns"])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    corpus = open_corpus(tmp_path)
    assert asked == [["audio.path"]]
    assert [e.id for e in corpus.entries] == [f"c{i}" for i in range(6)]
    corpus.load(corpus.entries[0], 16000)
    assert asked[1:] == [["audio"]]


def test_folder_of_parquet_files(tmp_path):
    rows = table(tmp_path, 4)
    (tmp_path / "data").mkdir()
    pq.write_table(rows.slice(0, 3), tmp_path / "data" / "train-00000-of-00001.parquet")
    pq.write_table(rows.slice(3), tmp_path / "data" / "test-00000-of-00001.parquet")
    (tmp_path / "data" / "train-bad.parquet").write_bytes(b"PAR1 no")
    corpus = open_corpus(tmp_path)
    assert corpus.splits == {"test": 1, "train": 3}
    assert [e.id for e in corpus.entries] == ["c3", "c0", "c1", "c2"]
    utterances, rejected = run(corpus)
    assert len(utterances) == 4 and not rejected
    np.testing.assert_allclose(utterances[0].waveform[0], tone(hertz=350), atol=1e-4)
    assert "not a Parquet file" in reasons(corpus.rejections)["train-bad.parquet"]


def test_files_that_share_ids_keep_all_their_rows(tmp_path):
    folder = tmp_path / "voices"
    folder.mkdir()
    for language, hertz in (("en", 300), ("es", 400)):
        cells = [{"bytes": audio_bytes(tmp_path, hertz), "path": None}] * 2
        rows = pa.table({"id": ["hello", f"only-{language}"], "audio": cells})
        pq.write_table(rows, folder / f"{language}.parquet")
    corpus = open_corpus(folder)
    assert [e.id for e in corpus.entries] == ["hello", "only-en", "es/hello", "only-es"]
    assert corpus.rejections == []
    first, _, second, _ = run(corpus)[0]
    assert not first.waveform.equal(second.waveform)


def test_bad_rows(tmp_path):
    good = audio_bytes(tmp_path, 300)
    outside = save(tmp_path / "outside.wav")
    folder = tmp_path / "corpus"
    save(folder / "clips" / "inside.wav")
    (folder / "clips" / "inside.wav").rename(folder / "clips" / "inside.bin")
    cells = {
        "good": {"bytes": good, "path": None},
        "good again": {"bytes": good, "path": None},
        "inside": {"bytes": None, "path": "clips/inside.bin"},
        "outside": {"bytes": None, "path": "../outside.wav"},
        "absolute": {"bytes": None, "path": str(outside)},
        "none": None,
        "hollow": {"bytes": None, "path": None},
        "empty": {"bytes": b"", "path": "e.wav"},
        "junk": {"bytes": b"junk" * 99, "path": "j.wav"},
    }
    ids = list(cells)
    ids[1] = "good"
    pq.write_table(pa.table({"id": ids, "audio": list(cells.values())}), folder / "x.parquet")
    corpus = open_corpus(folder)
    utterances, rejected = run(corpus)
    assert [u.id for u in utterances] == ["good", "inside"]
    assert ["duplicate id 'good'" in r.reason for r in corpus.rejections] == [True]
    found = {r.source: r.reason for r in rejected}
    assert "leaves the corpus' folder" in found["x.parquet row 3 (outside)"]
    assert "leaves the corpus' folder" in found["x.parquet row 4 (absolute)"]
    assert "no audio" in found["x.parquet row 5 (none)"]
    assert "no audio" in found["x.parquet row 6 (hollow)"]
    assert "empty file" in found["x.parquet row 7 (empty)"]
    assert "not audio" in found["x.parquet row 8 (junk)"]
    assert len(corpus) == len(utterances) + len(rejected) == len(cells) - 1


def test_damaged_pages_are_rejections(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(table(tmp_path), path, compression="gzip", row_group_size=3)
    data = bytearray(path.read_bytes())
    data[200:6000] = bytes(5800)
    path.write_bytes(data)
    corpus = open_corpus(path)
    utterances, rejected = run(corpus)
    assert rejected
    assert all("damaged" in r.reason for r in rejected)
    assert len(utterances) + len(rejected) == len(corpus)


@pytest.mark.parametrize("form", ["dict", "single"])
def test_saved_dataset(tmp_path, form):
    rows = table(tmp_path, 4, text=["a", "b", "c", "d"])
    plain = datasets.Dataset(rows).cast_column("audio", datasets.Audio(decode=True))
    where = tmp_path / "saved"
    if form == "dict":
        parts = {"train": plain.select([0, 1, 2]), "test": plain.select([3])}
        datasets.DatasetDict(parts).save_to_disk(where)
    else:
        plain.select([2, 0]).save_to_disk(where)
    corpus = open_corpus(where)
    utterances, rejected = run(corpus)
    assert rejected == []
    if form == "dict":
        assert corpus.splits == {"train": 3, "test": 1}
        assert [(u.id, u.text) for u in utterances] == [
            ("c0", "a"),
            ("c1", "b"),
            ("c2", "c"),
            ("c3", "d"),
        ]
        np.testing.assert_allclose(utterances[3].waveform[0], tone(hertz=350), atol=1e-4)
    else:
        assert [(u.id, u.split) for u in utterances] == [
            ("c2", assign_split("c2")),
            ("c0", assign_split("c0")),
        ]
        np.testing.assert_allclose(utterances[0].waveform[0], tone(hertz=300), atol=1e-4)


def test_broken_saved_dataset(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be opened"):
        open_corpus(tmp_path)


def test_hub_dataset_by_name(tmp_path, monkeypatch):
    asked = []

    def load_dataset(*args):
        asked.append(args)
        if args[0] != "someone/speech":
            raise datasets.exceptions.DatasetNotFoundError("no such dataset")
        return datasets.DatasetDict({"train.clean": datasets.Dataset(table(tmp_path, 2))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = open_corpus("someone/speech:clean")
    assert asked == [("someone/speech", "clean")]
    assert corpus.splits == {"train.clean": 2}
    assert len(run(corpus)[0]) == 2
    with pytest.raises(FileNotFoundError, match="no hub dataset of that name in reach"):
        open_corpus("someone/else")
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        open_corpus(tmp_path / "gone")
    assert len(asked) == 2


@pytest.mark.network
def test_hub_dataset_for_real():
    corpus = open_corpus("hf-internal-testing/librispeech_asr_dummy:clean")
    assert len(corpus.load(corpus.entries[0], 16000).waveform[0]) > 16000


def test_what_is_no_corpus(tmp_path):
    with pytest.raises(ValueError, match="holds no audio files"):
        open_corpus(tmp_path)
    pq.write_table(pa.table({"codes": [[1, 2]], "id": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"no column 'audio'.*its columns are codes, id"):
        open_corpus(tmp_path)
    with pytest.raises(ValueError, match=r"not \.parquet"):
        open_corpus(save(tmp_path / "a.wav"))


# -- the corpus itself -----------------------------------------------------------


def test_select(tmp_path):
    for i, seconds in enumerate((0.2, 0.5, 1.0, 2.0)):
        save(tmp_path / f"{i}.wav", tone(seconds))
    (tmp_path / "bad.wav").write_text("bad")
    corpus = open_corpus(tmp_path)
    assert [e.seconds for e in corpus.entries] == [0.2, 0.5, 1.0, 2.0, None]
    middle = corpus.select(min_seconds=0.5, max_seconds=1)
    assert [e.id for e in middle.entries] == ["1", "2", "bad"]
    assert [e.id for e in corpus.select(n=2).entries] == ["0", "1"]
    assert len(open_corpus(tmp_path, min_seconds=1.5)) == 2
    with pytest.raises(ValueError, match="n = 0"):
        corpus.select(n=0)
    with pytest.raises(AudioError, match="not audio"):
        corpus.load(middle.entries[-1], 16000)


def test_select_measures_rows_without_duration(tmp_path):
    clips = [save(tmp_path / "t.flac", tone(s)).read_bytes() for s in (0.3, 0.6, 0.9)]
    cells = [{"bytes": data, "path": None} for data in clips]
    pq.write_table(pa.table({"audio": cells}), tmp_path / "x.parquet")
    corpus = open_corpus(tmp_path / "x.parquet")
    assert [e.seconds for e in corpus.entries] == [None] * 3
    assert [e.id for e in corpus.entries] == [f"x.parquet-{i:06d}" for i in range(3)]
    assert [e.seconds for e in corpus.select(min_seconds=0.5).entries] == [0.6, 0.9]


def test_longest_seconds_is_a_setting(tmp_path):
    save(tmp_path / "a.wav", tone(2))
    corpus = open_corpus(tmp_path)
    corpus.longest_seconds = 1.5
    utterances, rejected = run(corpus)
    assert utterances == []
    assert "2.0 s long: the limit is 1.5 s" in rejected[0].reason


def test_fingerprint_follows_content(tmp_path):
    def build(name: str, hertz: float = 300, text: str = "hello", id: str = "a") -> str:
        save(tmp_path / name / f"{id}.wav", tone(hertz=hertz))
        (tmp_path / name / "metadata.csv").write_text(f"file_name,text\n{id}.wav,{text}\n")
        return open_corpus(tmp_path / name).fingerprint

    base = build("one")
    others = {build("three", hertz=301), build("four", text="bye"), build("five", id="b")}
    assert len(base) == 64
    assert build("two") == base
    assert len(others | {base}) == 4


def test_fingerprint_of_tables(tmp_path):
    rows = table(tmp_path, 3)
    pq.write_table(rows, tmp_path / "x.parquet")
    pq.write_table(rows, tmp_path / "y.parquet", row_group_size=1, compression="gzip")
    corpus = open_corpus(tmp_path / "x.parquet")
    assert corpus.fingerprint == open_corpus(tmp_path / "y.parquet").fingerprint
    assert corpus.fingerprint != corpus.select(n=2).fingerprint


def test_assign_split_is_stable_and_90_5_5():
    assert [assign_split(i) for i in ("a", "clip-1", "größe")] == [
        assign_split(i) for i in ("a", "clip-1", "größe")
    ]
    counts = Counter(assign_split(f"clip-{i}") for i in range(10_000))
    assert counts["train"] == pytest.approx(9000, abs=150)
    assert counts["validation"] == pytest.approx(500, abs=100)
    assert counts["test"] == pytest.approx(500, abs=100)


def test_the_embedded_corpus():
    corpus = open_corpus(ALLISON, require_text=True)
    assert corpus.splits == {"test": 18, "train": 163, "validation": 9}
    assert corpus.rejections == []
    # runs of earlier versions go on only where it stays
    assert corpus.fingerprint[:16] == "fa838ddf2627ae16"
    assert sum(e.seconds or 0 for e in corpus.entries) / 60 == pytest.approx(12.53, abs=0.01)
    assert all(2 <= (e.seconds or 0) <= 15 for e in corpus.entries)
    assert pq.ParquetFile(ALLISON / "allison.parquet").num_row_groups == 6
    assert pq.read_schema(ALLISON / "allison.parquet").names == [
        *("id", "audio", "text", "duration", "split", "speaker", "language", "license")
    ]
    utterances, rejected = run(corpus.select("test"))
    assert (len(utterances), rejected) == (18, [])
    assert {u.speaker for u in utterances} == {"Allison Smith"}
    for utterance, entry in zip(utterances, corpus.select("test").entries, strict=True):
        assert utterance.waveform.shape[-1] / 16000 == pytest.approx(entry.seconds, abs=1e-3)
