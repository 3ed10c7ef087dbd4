"""Parquet files as corpora."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.corpora import audio_bytes, reasons, run, save, table, tone
from tokgen.corpus import parquet
from tokgen.corpus.listed import open_corpus


def test_parquet_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "CACHE_BYTES", 1)  # one row at a time
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


def test_files_with_equal_ids_keep_all_their_rows(tmp_path):
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


def test_odd_values_cost_one_row(tmp_path):
    audio = table(tmp_path, 5)["audio"].to_pylist()
    audio[1] = {"bytes": None, "path": "x/" * 5000}
    text = pa.array([b"ok", b"ok", b"\xff", b"ok", b"ok"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 5, text.buffers())  # not UTF-8
    split = ["train", "train", "train", "s" * 400, "test\nx"]
    rows = pa.table({"audio": audio, "text": text, "split": split})
    pq.write_table(rows, tmp_path / "x.parquet")
    for streaming in (False, True):
        corpus = open_corpus(tmp_path / "x.parquet", streaming=streaming)
        utterances, rejected = run(corpus)
        assert [u.id for u in utterances] == ["c0", "c4"]
        found = {r.source[:15]: r.reason for r in [*corpus.rejections, *rejected]}
        assert found["x.parquet row 3"] == "split name of 400 bytes: the limit is 100"
        assert "text cannot be read: not UTF-8" in found["x.parquet row 2"]
        expected = "not followed" if streaming else "File name too long"
        assert expected in found["x.parquet row 1"]
        assert all(len(str(r)) < 800 for r in rejected)


@pytest.mark.parametrize("path", [7, [1], {"a": "b"}, b"\xff", 1.5])
def test_a_path_that_is_not_text(tmp_path, path):
    cells = [{"bytes": audio_bytes(tmp_path, 300), "path": path}, {"bytes": None, "path": path}]
    pq.write_table(pa.table({"audio": cells}), tmp_path / "x.parquet")
    for streaming in (False, True):
        utterances, rejected = run(open_corpus(tmp_path / "x.parquet", streaming=streaming))
        assert [u.id for u in utterances] == ["x.parquet-000000"]
        assert "path" in rejected[0].reason and "row 1" in rejected[0].source


def test_a_file_without_audio_among_others_is_rejected(tmp_path):
    pq.write_table(table(tmp_path, 2), tmp_path / "x.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "y.parquet")
    corpus = open_corpus(tmp_path)
    assert len(run(corpus)[0]) == 2
    assert "has no column 'audio'" in reasons(corpus.rejections)["y.parquet"]


def test_language_column(tmp_path):
    rows = table(tmp_path, 3, language=["en", None, " de "], text=["a", "b", "c"])
    pq.write_table(rows, tmp_path / "x.parquet")
    for streaming in (False, True):
        corpus = open_corpus(tmp_path, language="fr", streaming=streaming)
        assert [u.language for u in run(corpus)[0]] == ["en", "fr", "de"]
    pq.write_table(rows.drop_columns("language"), tmp_path / "x.parquet")
    assert open_corpus(tmp_path).fingerprint == open_corpus(tmp_path, language="en").fingerprint


def test_rows_on_damaged_pages_are_rejected(tmp_path):
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
